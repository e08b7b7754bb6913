"""The pictures' numbers against scikit-learn's and a plain forward pass."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from cnn_mnist.callbacks import confusion_matrix as confusion_matrix_callback
from cnn_mnist.callbacks import predictions as predictions_callback
from cnn_mnist.data import DataModule
from cnn_mnist.module import Classifier


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
def test_the_confusion_matrix_and_the_predictions_are_the_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[Figure]] = {}
    for module in (confusion_matrix_callback, predictions_callback):
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
        callbacks=[confusion_matrix_callback.ConfusionMatrix(), predictions_callback.Predictions()],
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
        for text, label, guess, p in zip(figure.axes[0].texts, labels, predicted, confidence, strict=True):
            assert text.get_text() == f"true {label}\npredicted {guess} ({p:.1%})"
