"""Activations during training (lab report, section 3.2.2)."""

import pytorch_lightning as pl

from cnn_mnist.data.batches import NUM_CLASSES
from cnn_mnist.figures.anatomy import activations
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Activations(PictureCallback):
    """All channels of both convolutions for an image of each class, every `every_n_epochs` and after the last."""

    def __init__(self, every_n_epochs: Count = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the activations; validation has left the network in eval mode without gradients."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, _ = test[test.of_each_class(NUM_CLASSES)]
            features = pl_module.network.features(images.to(pl_module.device, pl_module.dtype))  # type: ignore[operator, union-attr]
            for layer in ("conv1", "conv2"):
                show(
                    trainer, f"activations/{layer}/overview", activations(images, getattr(features, layer).cpu(), layer)
                )
