"""Where pictures go."""

from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams as summaries

from cnn_mnist.figures.canvas import to_pixels


class PictureCallback(Callback):
    """A callback that draws and measures nothing: where it fails, training goes on (see `spared`)."""


def show(trainer: pl.Trainer, tag: str, figure: Figure) -> None:
    """Add a figure to the run's TensorBoard images, at the number of steps taken; nowhere without TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, to_pixels(figure), trainer.global_step, dataformats="HWC")


def is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether this process should look after this epoch: every so many epochs, and after the last."""
    epoch = trainer.current_epoch + 1
    return trainer.is_global_zero and (epoch % every_n_epochs == 0 or epoch == trainer.max_epochs)


@rank_zero_only
def fill_hparams(trainer: pl.Trainer, cfg: DictConfig, record: dict[str, Any]) -> None:
    """Give the run its row in TensorBoard's HParams tab: what was set, and the final test figures.

    Lightning's way would log every figure as a point of its curve once more.
    """
    scalars = [cfg.data, cfg.model, {"max_epochs": cfg.trainer.max_epochs}]
    skipped = ("_target_", "root", "fallback")  # of no influence on the figures
    hparams = {k: v for part in scalars for k, v in part.items() if k not in skipped and v is not None}
    metrics = {name: record[name] for name in ("test/acc", "test/loss") if name in record}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            for summary in summaries(hparams, metrics):
                writer.add_summary(summary)
            logger.experiment.flush()
