"""What the network learns from: the report's figure 1."""

import pytorch_lightning as pl

from cnn_mnist.callbacks.tensorboard import PictureCallback, show
from cnn_mnist.figures.training import sample_grid


class Samples(PictureCallback):
    """The first training images, with their labels, before the first step."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them, unless a resumed run did so before."""
        if trainer.is_global_zero and trainer.global_step == 0:
            images, labels = trainer.datamodule.train[:60]  # type: ignore[attr-defined]
            show(trainer, "samples", sample_grid(images, labels))
