"""What the network makes of test images before its last layer, for TensorBoard's embedding projector."""

import shutil
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cnn_mnist.checks import untouched
from cnn_mnist.option_types import Count
from cnn_mnist.training.callbacks.picture_callback import PictureCallback, writers

FOLDER = "00000"  # where torch writes embeddings


class Projector(PictureCallback):
    """The input of the last linear layer for `num_images` test images, with the images, at the end of training."""

    def __init__(self, num_images: Count = 1000) -> None:
        self.num_images = num_images

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write them; a network without a linear layer has none."""
        if not writers(trainer):
            return
        test = trainer.datamodule.test  # type: ignore[attr-defined]
        images, labels = test[test.evenly_spaced(self.num_images)]
        found = _before_the_last(pl_module.network, images.to(pl_module.device, pl_module.dtype))  # type: ignore[arg-type]
        if found is None:
            return
        names = getattr(trainer.datamodule, "classes", ()) or range(test.num_classes)  # type: ignore[attr-defined]
        for writer in writers(trainer):
            shutil.rmtree(Path(writer.log_dir, FOLDER), ignore_errors=True)  # of the same run, before more epochs
            writer.add_embedding(
                found.cpu().double().mul(1000).round() / 1000,  # three digits: half the file
                metadata=[names[label] for label in labels.tolist()],
                label_img=1 - images,
                tag="before_the_last_layer",
            )


def _before_the_last(network: nn.Module, images: Tensor) -> Tensor | None:
    """The input (B, D) of the linear layer that is called last; None where there is none."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, named: seen.append(inputs[0] if inputs else named["input"]), with_kwargs=True
        )
        for module in network.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad(), untouched(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen[-1].flatten(1) if seen else None
