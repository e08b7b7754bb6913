"""The numbers in pictures, against scikit-learn and a plain forward pass."""

import inspect
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgb
from sklearn.metrics import confusion_matrix

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.figures import class_names
from cnn_mnist.figures.occlusion import STILL_RIGHT
from cnn_mnist.training.callbacks import activations as activations_callback
from cnn_mnist.training.callbacks import confusion_matrix as confusion_matrix_callback
from cnn_mnist.training.callbacks import filters as filters_callback
from cnn_mnist.training.callbacks import occlusion as occlusion_callback
from cnn_mnist.training.callbacks import predictions as predictions_callback
from cnn_mnist.training.callbacks.picture_callback import PictureCallback
from cnn_mnist.training.callbacks.plotting_failures import PlottingFailures
from cnn_mnist.training.module import Classifier


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
def test_the_pictures_are_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, list[Any]] = {}
    looks = (
        confusion_matrix_callback.ConfusionMatrix(),
        predictions_callback.Predictions(),
        filters_callback.Filters(),
        activations_callback.Activations(),
        occlusion_callback.Occlusion(window=9, stride=5, fill=0.25),
    )
    for module in map(inspect.getmodule, looks):
        monkeypatch.setattr(module, "show", lambda _, tag, figure: shown.setdefault(tag, []).append(figure))
    data = DataModule("digits", val_size=300)
    torch.manual_seed(0)
    model = Classifier()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=list(looks),
    )
    for _ in range(2):  # a second look does not add to the first
        trainer.validate(model, data, verbose=False)

    model.eval()
    with torch.no_grad():
        images, labels = data.val[torch.arange(300)]
        counts = confusion_matrix(labels, model(images).argmax(1), labels=range(10))
        chosen = torch.randperm(297, generator=torch.Generator().manual_seed(0))[: predictions_callback.NUM_IMAGES]
        images, labels = data.test[chosen]
        confidence, predicted = model(images).softmax(1).max(1)
    for figure in shown["confusion_matrix"]:
        assert figure.axes[0].get_title().startswith(f"300 validation images: {counts.trace()} right")
        assert [text.get_text() for text in figure.axes[0].texts] == [str(count) for count in counts.flat]
    for figure in shown["predictions"]:
        for (tile,), label, guess, p in zip(figure.groups, labels, predicted, confidence, strict=True):
            assert tile.caption == f"true {label}\npredicted {guess}\n{p:.1%}"

    first = torch.stack([(data.test.labels == label).nonzero()[0, 0] for label in range(10)])
    images, labels = data.test[first]
    with torch.no_grad():
        features = model.network.features(images)
        clean = model(images).softmax(1).diag()
        images[:, :, 5:14, 10:19] = 0.25
        hidden = model(images).softmax(1)
    for figure in shown["occlusion/probability"]:
        words = [tile.caption for (tile,) in figure.groups]
        assert words[:10] == [f"{label}, p {p:.2f}" for label, p in zip(labels, clean, strict=True)]
    for layer in ("conv1", "conv2"):
        for figure in shown[f"activations/{layer}/overview"]:
            assert figure.bar.high == pytest.approx(getattr(features, layer).max().item())
        assert len(shown[f"filters/{layer}"]) == 2
    limit = model.network.conv1.weight.abs().max().item()
    assert shown["filters/conv1"][0].bar[1:3] == pytest.approx((-limit, limit))
    for figure in shown["occlusion/predicted"]:
        for (tile,), label, answer in zip(figure.groups[:10], labels, hidden.argmax(1), strict=True):
            # position (1, 2) of stride 5: its cell of 20 quarter pixels around the patch's middle at 9.5, 14.5 pixels
            cell = tile.pixels[38 - 10 : 38 + 10, 58 - 10 : 58 + 10].reshape(-1, 3) / 255
            colour = np.median(cell, axis=0)  # not the ink's outline
            grey = 0.85 * np.array(to_rgb(STILL_RIGHT if answer == label else class_names.colour(answer))) + 0.15
            dark = 0.85 * np.array(to_rgb(STILL_RIGHT if answer == label else class_names.colour(answer))) + 0.15 * 0.4
            assert (colour <= grey + 3e-3).all()
            assert (colour >= dark - 3e-3).all()


@pytest.mark.parametrize(("num_processes", "num_calls"), [(1, 1), (2, 3)])
def test_a_callback_that_fails_is_called_again_where_other_processes_wait_for_it(
    num_processes: int, num_calls: int
) -> None:
    class Broken(PictureCallback):
        calls = 0

        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.calls += 1
            raise RuntimeError(f"call {self.calls}")

    broken = Broken()
    wrapped = PlottingFailures({"broken": broken})
    trainer = SimpleNamespace(world_size=num_processes, datamodule=None)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(3):
            wrapped.callbacks[0].on_validation_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert [str(one.message) for one in warned] == [
        "callbacks.broken has failed, and training continues without it (RuntimeError: call 1)"
    ]
    assert broken.calls == num_calls
    with pytest.raises(ValueError, match=r"not all of its pictures: broken \(RuntimeError: call 1\)"):
        wrapped.check()
