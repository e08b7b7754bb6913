"""What TensorBoard shows beside pictures, against scikit-learn and a plain forward and backward pass."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.metrics import precision_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
from tensorboard.util.tensor_util import make_ndarray
from torch import nn

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.training.callbacks.tensorboard import (
    graph,
    layout,
    optimisation,
    pr_curves,
    projector,
    text,
    weights,
)
from cnn_mnist.training.module import Classifier

NUM_IMAGES = 50
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning"
)


class Gradient(Callback):
    """Keeps the norm of the gradient at the last step of an epoch, computed plainly."""

    norm = 0.0

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.norm = float(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]).norm())


def train(folder: Path, model: Classifier) -> tuple[DataModule, Gradient, EventAccumulator]:
    """An epoch on the digits."""
    data, gradient = DataModule("digits", val_size=300), Gradient()
    callbacks = [
        layout.Layout(),
        text.Text(),
        graph.Graph(),
        optimisation.Optimisation(),
        weights.Weights(),
        pr_curves.PRCurves(),
        projector.Projector(NUM_IMAGES),
        gradient,
    ]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=TensorBoardLogger(str(folder), name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        log_every_n_steps=5,
        callbacks=callbacks,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises on workers
        trainer.fit(model, data)
    found = EventAccumulator(str(folder), {"tensors": 0})
    found.Reload()
    return data, gradient, found


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Classifier, DataModule, Gradient, EventAccumulator]:
    folder = tmp_path_factory.mktemp("logged")
    torch.manual_seed(0)
    model = Classifier(lr=0.002)
    return folder, model, *train(folder, model)


Trained = tuple[Path, Classifier, DataModule, Gradient, EventAccumulator]


def test_the_learning_rate_and_the_gradient_are_those_of_the_step(trained: Trained) -> None:
    _, _, _, gradient, found = trained
    assert found.Scalars("optimisation/learning_rate")[-1].value == pytest.approx(0.002)
    last = found.Scalars("optimisation/gradient_norm")[-1]
    assert (last.step, last.value) == (12, pytest.approx(gradient.norm, rel=1e-3))  # 1,200 images, 100 at a time


def test_precision_and_recall_are_scikit_learns(trained: Trained) -> None:
    _, model, data, _, found = trained
    images, labels = data.val[torch.arange(300)]
    with torch.no_grad():
        probability = model.eval()(images).softmax(1).numpy()
    for label in (3, 8):
        (event,) = found.Tensors(f"pr_curves/{label}")
        counts = make_ndarray(event.tensor_proto)  # rows: TP, FP, TN, FN, precision, recall
        for k in (10, 50, 90):
            is_predicted = probability[:, label] >= k / (pr_curves.NUM_THRESHOLDS - 1)
            is_true = labels.numpy() == label
            expected = [score(is_true, is_predicted, zero_division=0) for score in (precision_score, recall_score)]
            assert counts[4:, k] == pytest.approx(expected, abs=1e-6)
            assert counts[:4, k].sum() == 300
    meta = PrCurvePluginData.FromString(found.SummaryMetadata("pr_curves/3").plugin_data.content)
    assert meta.num_thresholds == pr_curves.NUM_THRESHOLDS


def test_the_projector_has_what_the_last_layer_sees_and_the_images(trained: Trained) -> None:
    folder, model, data, _, _ = trained
    images, labels = data.test[data.test.evenly_spaced(NUM_IMAGES)]
    with torch.no_grad():
        fc1 = F.relu(model.network.fc1(F.max_pool2d(model.network.features(images).conv2, 2).flatten(1)))  # type: ignore[operator]
    place = folder / "00000" / "before_the_last_layer"
    np.testing.assert_allclose(np.loadtxt(place / "tensors.tsv"), fc1, atol=6e-4)
    assert (place / "metadata.tsv").read_text().split() == [str(label) for label in labels.tolist()]
    with Image.open(place / "sprite.png") as sprite:
        assert sprite.size == (8 * 28, 8 * 28)
        pixels = np.asarray(sprite.convert("L"))[:28, :28]
    np.testing.assert_allclose(pixels, 255 * (1 - images[0, 0].numpy()), atol=1.01)


def test_graph_texts_histograms_and_charts_are_there(trained: Trained) -> None:
    _, model, _, _, found = trained
    assert {"Conv2d", "Linear"} <= {node.op.rpartition("::")[2] or node.op for node in found.Graph().node} | {
        node.name.rpartition("/")[0].rpartition("/")[2].partition("[")[0] for node in found.Graph().node
    }
    (table,) = found.Tensors("architecture/text_summary")[0].tensor_proto.string_val
    assert "| Conv1 | 1 x 28 x 28 | 32 x 28 x 28 | 320 | 25,088 |" in table.decode()
    (event,) = found.Histograms("weights/conv1.weight")
    value = event.histogram_value
    weight = model.network.conv1.weight
    assert (value.num, value.min) == (weight.numel(), pytest.approx(weight.min().item()))  # type: ignore[operator, union-attr]
    assert "custom_scalars__config__" in found.Tags()["tensors"]


def test_a_network_without_a_linear_layer_has_no_embedding() -> None:
    network = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    assert projector._before_the_last(network, torch.rand(2, 1, 28, 28)) is None


def test_a_linear_layer_may_be_called_by_the_name_of_its_input() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(784, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(input=images.flatten(1))  # type: ignore[no-any-return]

    images = torch.rand(2, 1, 28, 28)
    found = projector._before_the_last(Named(), images)
    assert found is not None
    assert torch.equal(found, images.flatten(1))
