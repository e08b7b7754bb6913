"""What callbacks that draw share: when they are due, and where they write."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from cnn_mnist.figures.render import Picture, to_pixels
from cnn_mnist.figures.tiles import CARD


class PictureCallback(Callback):
    """A callback that only draws: if it fails, training continues (see `plotting_failures`)."""


def show(trainer: pl.Trainer, tag: str, figure: Picture) -> None:
    """Add a figure, as wide as a card of TensorBoard, to TensorBoard and to every logger that has `log_image`."""
    pixels = to_pixels(figure, CARD)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")
        elif hasattr(logger, "log_image"):  # as Lightning's WandbLogger
            logger.log_image(tag, [pixels], step=trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    """The writers of TensorBoard's loggers, in the process that writes; none in the others."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]


def is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether this process should draw after this epoch: every `every_n_epochs` epochs, and after the last."""
    epoch = trainer.current_epoch + 1
    return trainer.is_global_zero and (epoch % every_n_epochs == 0 or epoch == trainer.max_epochs)
