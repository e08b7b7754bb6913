"""Activations during training (lab report, section 3.2.2)."""

import pytorch_lightning as pl
from torch import nn

from cnn_mnist.analysis import layers
from cnn_mnist.figures.anatomy import activations
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Activations(PictureCallback):
    """The channels of the convolutions for an image of each class, every `every_n_epochs` and after the last.

    Of a network without convolutions, the units of its hidden linear layers.
    """

    def __init__(self, every_n_epochs: Count = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the activations; validation has left the network in eval mode without gradients."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, _ = test[test.of_each_class(test.num_classes)]
            network: nn.Module = pl_module.network  # type: ignore[assignment]
            seen = images.to(pl_module.device, pl_module.dtype)
            for layer, output in layers.outputs(network, seen, layers.to_look_at(network)).items():
                tag = f"activations/{layers.key_of(layer)}/overview"
                show(trainer, tag, activations(images, output.after.cpu(), layer))
