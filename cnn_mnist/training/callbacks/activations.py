"""Activations during training (lab report, section 3.2.2)."""

import pytorch_lightning as pl
from torch import nn

from cnn_mnist.analysis import layers
from cnn_mnist.figures import activations as draw
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Activations(PictureCallback):
    """The channels of the convolutions, every `every_n_epochs` epochs and after the last.

    The strongest for an image of each class, and all of them for one image. Of a network without convolutions, the
    units of its hidden linear layers.
    """

    def __init__(self, every_n_epochs: Count = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the activations; validation has left the network in eval mode without gradients."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, labels = test[test.of_each_class(test.num_classes)]
            network: nn.Module = pl_module.network  # type: ignore[assignment]
            seen = images.to(pl_module.device, pl_module.dtype)
            for layer, output in layers.outputs(network, seen, layers.main_layers(network)).items():
                tag, maps = f"activations/{layers.key_of(layer)}", output.after.cpu()
                show(trainer, f"{tag}/overview", draw.overview(images, labels, maps, layer))
                if maps.ndim == 4:
                    show(trainer, f"{tag}/channels", draw.channels(images[0], maps[0], layer))
