"""The confusion matrix during training."""

from typing import Any

import pytorch_lightning as pl
from torchmetrics.classification import MulticlassConfusionMatrix

from cnn_mnist.data.batches import Batch
from cnn_mnist.figures.training import confusion_matrix
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, show


class ConfusionMatrix(PictureCallback):
    """Counts of true against predicted class, from the logits that validation computes anyway."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Count the classes of the data."""
        num_classes = trainer.datamodule.num_classes  # type: ignore[attr-defined]
        self.counts = MulticlassConfusionMatrix(num_classes, validate_args=False)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self.counts.to(pl_module.device).update(outputs, batch[1])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the matrix and reset it."""
        counts = self.counts.compute().cpu()
        self.counts.reset()
        if trainer.is_global_zero:
            name = {"val": "validation", "test": "test"}[trainer.datamodule.val_name]  # type: ignore[attr-defined]
            show(trainer, "confusion_matrix", confusion_matrix(counts, f"{counts.sum():,} {name} images"))
