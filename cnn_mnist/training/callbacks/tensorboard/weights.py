"""Histograms of the weights."""

import pytorch_lightning as pl

from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers


class Weights(PictureCallback):
    """A histogram of each weight and bias after every epoch."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the histograms."""
        for writer in writers(trainer):
            for name, parameter in pl_module.network.named_parameters():  # type: ignore[union-attr]
                writer.add_histogram(f"weights/{name}", parameter.detach().float(), trainer.global_step, bins="auto")
