"""Charts of TensorBoard's Custom Scalars tab."""

import pytorch_lightning as pl

from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers

CHARTS = {
    "Training": {
        "accuracy": ["Multiline", [r"^(train|val|test)/(acc|robust_acc|fgsm_acc|certified_acc)$"]],
        "loss": ["Multiline", [r"^(train|val|test)/loss$"]],
    },
    "Optimisation": {
        "learning rate": ["Multiline", ["^optimisation/learning_rate$"]],
        "gradient norm": ["Multiline", ["^optimisation/gradient_norm$"]],
    },
}


class Layout(PictureCallback):
    """Accuracy and loss in a chart each, of the training and the test images together."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Describe the charts."""
        for writer in writers(trainer):
            writer.add_custom_scalars(CHARTS)
