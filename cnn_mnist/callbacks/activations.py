"""What the channels make of a digit: the figures of the report's section 3.2.2."""

import pytorch_lightning as pl

from cnn_mnist.callbacks.tensorboard import PictureCallback, is_due, show
from cnn_mnist.data import NUM_CLASSES
from cnn_mnist.figures.anatomy import activations


class Activations(PictureCallback):
    """Every channel of both convolutions for a test image of each class, every so many epochs and after the last."""

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look with the network as validation left it, in eval mode without gradients, and draw."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, _ = test[test.of_each_class(NUM_CLASSES)]
            features = pl_module.network.features(images.to(pl_module.device, pl_module.dtype))  # type: ignore[operator, union-attr]
            for layer in ("conv1", "conv2"):
                show(
                    trainer, f"activations/{layer}/overview", activations(images, getattr(features, layer).cpu(), layer)
                )
