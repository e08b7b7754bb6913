"""Training images (lab report, figure 1)."""

import pytorch_lightning as pl

from cnn_mnist.figures.training import sample_grid
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, show


class Samples(PictureCallback):
    """The first training images, with their labels, before the first step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them, unless the run is resumed."""
        if trainer.is_global_zero and trainer.global_step == 0:
            images, labels = trainer.datamodule.train[:60]  # type: ignore[attr-defined]
            show(trainer, "samples", sample_grid(images, labels))
