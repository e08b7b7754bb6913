"""What callbacks that draw share: when they are due, and where pictures are logged."""

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from cnn_mnist.figures.canvas import to_pixels


class PictureCallback(Callback):
    """A callback that only draws: if it fails, training continues (see `plotting_failures`)."""


def show(trainer: pl.Trainer, tag: str, figure: Figure) -> None:
    """Add a figure to the run's TensorBoard images, at the current step; does nothing without TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, to_pixels(figure), trainer.global_step, dataformats="HWC")


def is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether this process should draw after this epoch: every `every_n_epochs` epochs, and after the last."""
    epoch = trainer.current_epoch + 1
    return trainer.is_global_zero and (epoch % every_n_epochs == 0 or epoch == trainer.max_epochs)
