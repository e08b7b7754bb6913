"""Predictions during training (lab report, section 3.1)."""

import pytorch_lightning as pl
import torch

from cnn_mnist.figures.training import predictions
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, show

NUM_IMAGES = 24


class Predictions(PictureCallback):
    """Random test images, the same ones every epoch, with true and predicted class and its probability."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the predictions; validation has left the network in eval mode without gradients."""
        if trainer.is_global_zero:
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:NUM_IMAGES]
            images, labels = test[chosen]
            probability = pl_module(images.to(pl_module.device, pl_module.dtype)).softmax(1).cpu()
            show(trainer, "predictions", predictions(images, labels, probability))
