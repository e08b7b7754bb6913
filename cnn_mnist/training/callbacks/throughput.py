"""Training time and throughput."""

import time
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class Timing(NamedTuple):
    """Seconds of `fit`, with validation and pictures, and images per second of training batches alone."""

    fit_seconds: float
    train_images_per_second: float


class Throughput(Callback):
    """Seconds of `fit` and images per second of training batches alone; both continue in a resumed run.

    Attributes:
        fit_seconds: Everything between the start and the end of training, with validation and pictures.
        train_seconds: From the first batch of each epoch to its last.
        num_images: Images trained on in that time.
    """

    def __init__(self) -> None:
        self.fit_seconds = 0.0
        self.train_seconds = 0.0
        self.num_images = 0
        self._epoch_start: float | None = None

    def timing(self) -> Timing:
        """The measurements so far."""
        return Timing(self.fit_seconds, self.num_images / self.train_seconds)

    def state_dict(self) -> dict[str, Any]:
        """The state to store in a checkpoint."""
        seconds = self.fit_seconds + time.perf_counter() - self._fit_start
        return {"fit_seconds": seconds, "train_seconds": self.train_seconds, "num_images": self.num_images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        vars(self).update(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of `fit`."""
        self._fit_start = time.perf_counter()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of `fit`."""
        self.fit_seconds += time.perf_counter() - self._fit_start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; stop the epoch's clock at its last one, before validation."""
        self.num_images += len(batch[0]) * trainer.world_size
        if trainer.is_last_batch:
            self._stop(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of an epoch that ended before its last batch."""
        self._stop(pl_module)

    def _stop(self, pl_module: pl.LightningModule) -> None:
        if self._epoch_start is not None:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self.train_seconds += time.perf_counter() - self._epoch_start
            self._epoch_start = None
