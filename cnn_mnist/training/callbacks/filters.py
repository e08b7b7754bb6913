"""Filters during training (lab report, section 3.2.1)."""

import pytorch_lightning as pl

from cnn_mnist.analysis import layers
from cnn_mnist.analysis.filters import can_detect_edges, edge_likeness
from cnn_mnist.figures.anatomy import filters as draw
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Filters(PictureCallback):
    """The filters of the convolutions, every `every_n_epochs` epochs and after the last."""

    def __init__(self, every_n_epochs: Count = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them."""
        if is_due(trainer, self.every_n_epochs):
            for layer, weight in layers.filters(pl_module.network).items():  # type: ignore[arg-type]
                weight = weight.detach().float().cpu()
                edges = edge_likeness(weight) if weight.shape[1] == 1 and can_detect_edges(weight) else None
                show(trainer, f"filters/{layers.key_of(layer)}", draw(weight, layer, edges))
