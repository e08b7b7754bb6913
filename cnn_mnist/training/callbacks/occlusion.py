"""Occlusion maps during training (lab report, section 3.2.3)."""

import pytorch_lightning as pl

from cnn_mnist.analysis.occlusion import occlusion_map
from cnn_mnist.figures.occlusion import predicted_maps, probability_maps
from cnn_mnist.option_types import Count, Fraction, Pixels
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, is_due, show


class Occlusion(PictureCallback):
    """Occlusion maps of a test image of each class, every `every_n_epochs` epochs and after the last."""

    def __init__(self, every_n_epochs: Count = 1, window: Pixels = 8, stride: Pixels = 1, fill: Fraction = 0.5) -> None:
        self.every_n_epochs = every_n_epochs
        self.window = window
        self.stride = stride
        self.fill = fill

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and draw the maps."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, labels = test[test.of_each_class(test.num_classes)]
            maps = occlusion_map(
                pl_module.network,  # type: ignore[arg-type]
                images.to(pl_module.device),
                labels.to(pl_module.device),
                window=self.window,
                stride=self.stride,
                fill=self.fill,
            )
            show(trainer, "occlusion/probability", probability_maps(images, labels, maps.cpu()))
            show(trainer, "occlusion/predicted", predicted_maps(images, labels, maps.cpu()))
