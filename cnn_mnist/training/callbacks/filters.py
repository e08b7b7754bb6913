"""Filters during training (lab report, section 3.2.1)."""

import pytorch_lightning as pl

from cnn_mnist.analysis.filters import edge_likeness
from cnn_mnist.figures.anatomy import first_filters, second_filters
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Filters(PictureCallback):
    """All filters of both convolutions, every `every_n_epochs` epochs and after the last."""

    def __init__(self, every_n_epochs: Count = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them."""
        if is_due(trainer, self.every_n_epochs):
            conv1, conv2 = (getattr(pl_module.network, name).weight.detach().cpu() for name in ("conv1", "conv2"))
            show(trainer, "filters/conv1", first_filters(conv1, edge_likeness(conv1)))
            show(trainer, "filters/conv2", second_filters(conv2))
