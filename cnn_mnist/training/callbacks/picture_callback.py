"""What callbacks that draw share: when they are due, and where pictures are logged."""

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from cnn_mnist.figures.canvas import to_pixels


class PictureCallback(Callback):
    """A callback that only draws: if it fails, training continues (see `plotting_failures`)."""


def show(trainer: pl.Trainer, tag: str, figure: Figure) -> None:
    """Add a figure at the current step to TensorBoard, and to every other logger that has `log_image`."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, to_pixels(figure), trainer.global_step, dataformats="HWC")
        elif hasattr(logger, "log_image"):  # as Lightning's WandbLogger
            logger.log_image(tag, [to_pixels(figure)], step=trainer.global_step)


def is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether this process should draw after this epoch: every `every_n_epochs` epochs, and after the last."""
    epoch = trainer.current_epoch + 1
    return trainer.is_global_zero and (epoch % every_n_epochs == 0 or epoch == trainer.max_epochs)
