"""Precision and recall of each class."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torchmetrics.classification import MulticlassPrecisionRecallCurve

from cnn_mnist.data.batches import Batch
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers

NUM_THRESHOLDS = 101


class PRCurves(PictureCallback):
    """A precision-recall curve for each class after every epoch, from the logits that validation computes anyway."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Count the classes of the data."""
        num_classes = trainer.datamodule.num_classes  # type: ignore[attr-defined]
        self.counts = MulticlassPrecisionRecallCurve(num_classes, thresholds=NUM_THRESHOLDS, validate_args=False)

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
        self.counts.to(pl_module.device).update(outputs.float().softmax(1), batch[1])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the curves and reset the counts."""
        with self.counts.sync_context():  # over all processes
            counts: Tensor = self.counts.confmat.cpu()  # (thresholds, classes, true, predicted)
        self.counts.reset()
        names = getattr(trainer.datamodule, "classes", ()) or range(counts.shape[1])  # type: ignore[attr-defined]
        for writer in writers(trainer):
            for label, name in enumerate(names):
                of_class = counts[:, label]
                right, wrong = of_class[:, 1, 1], of_class[:, 0, 1]  # of those that are predicted
                writer.add_pr_curve_raw(
                    f"pr_curves/{name}",
                    true_positive_counts=right,
                    false_positive_counts=wrong,
                    true_negative_counts=of_class[:, 0, 0],
                    false_negative_counts=of_class[:, 1, 0],
                    precision=right / (right + wrong).clamp_min(1),
                    recall=right / of_class[:, 1].sum(1).clamp_min(1),
                    global_step=trainer.global_step,
                    num_thresholds=NUM_THRESHOLDS,
                )
