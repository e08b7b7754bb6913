"""Where a patch hides a digit: the figures of the report's section 3.2.3."""

import pytorch_lightning as pl

from cnn_mnist.analysis.occlusion import occlusion_map
from cnn_mnist.callbacks.tensorboard import PictureCallback, is_due, show
from cnn_mnist.data import NUM_CLASSES
from cnn_mnist.figures.occlusion import predicted_maps, probability_maps


class Occlusion(PictureCallback):
    """Occlusion maps of a test image of each class, every so many epochs and after the last."""

    def __init__(self, every_n_epochs: int = 1, window: int = 8, stride: int = 1, fill: float = 0.5) -> None:
        self.every_n_epochs = every_n_epochs
        self.window = window
        self.stride = stride
        self.fill = fill

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look and draw."""
        if is_due(trainer, self.every_n_epochs):
            test = trainer.datamodule.test  # type: ignore[attr-defined]
            images, labels = test[test.of_each_class(NUM_CLASSES)]
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
