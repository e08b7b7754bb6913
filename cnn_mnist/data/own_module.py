"""Data of the user's own: any LightningDataModule that yields images and labels."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import Tensor

from cnn_mnist import nodes
from cnn_mnist.data.batches import Batch, Images
from cnn_mnist.data.datamodule import DataModule

LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}


def make(node: Mapping[str, Any], seed: int = 0) -> DataModule:
    """The data module that a node describes; one of the user's own gets the seed of the run.

    Raises:
        CannotMake: It cannot be imported, or is no LightningDataModule.
        Exception: Whatever its class raises.
    """
    nodes.imported("data", node)
    module = instantiate(node, _convert_="all")
    if isinstance(module, DataModule):
        return module
    if not isinstance(module, pl.LightningDataModule):
        raise nodes.CannotMake(f"data {node[nodes.TARGET]} must be a LightningDataModule, got {type(module).__name__}")
    return OwnData(module, str(node[nodes.TARGET]), seed)


class OwnData(DataModule):
    """A LightningDataModule of the user's own, with what callbacks and analyses need.

    Training takes the batches of its own `train_dataloader`, with whatever order and transforms that has. All its
    images are read once, in memory, for evaluation, pictures and analyses. Without a `val_dataloader` the test set is
    evaluated after each epoch; without a `test_dataloader` the hold-out is tested, too.

    Args:
        module: Yields images, uint8 or float32 in [0, 1], (B, 1, 28, 28), with labels int64 (B,). Its attribute
            `classes` names the classes, or else `num_classes` counts them, or else the largest label does.
        name: The name of the data set.
        seed: Of what the training draws beside the batches, such as dropout.
    """

    def __init__(self, module: pl.LightningDataModule, name: str, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.module = module
        self.dataset = name
        self.fallback = None
        kind = type(module)
        self.has = {
            part: getattr(kind, loader) is not getattr(pl.LightningDataModule, loader)
            for part, loader in LOADERS.items()
        }
        if not self.has["train"] or not (self.has["val"] or self.has["test"]):
            raise nodes.CannotMake(f"data {name} needs a train_dataloader, and a val_dataloader or a test_dataloader")
        self.val_name = "val" if self.has["val"] else "test"

    def prepare_data(self) -> None:
        """Prepare its files."""
        self.module.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set it up and read all its images.

        Raises:
            ValueError: It yields something else than images and labels, or its training batches have no number.
        """
        if hasattr(self, "test"):  # Lightning asks again before fit and before test
            return
        for part in ("fit", "test"):
            self.module.setup(part)
        loaders = {part: getattr(self.module, loader)() for part, loader in LOADERS.items() if self.has[part]}
        try:
            len(loaders["train"])
        except TypeError as error:
            raise ValueError(f"{self.dataset}: {LOADERS['train']} must have a length: {error}") from error
        with torch.random.fork_rng(devices=[]):  # the same order and transforms every time
            torch.manual_seed(0)
            found = {part: self._read(part, loader) for part, loader in loaders.items()}
        self.batch_size = int(getattr(loaders["train"], "batch_size", None) or len(next(iter(loaders["train"]))[1]))
        labels = torch.cat([part[1] for part in found.values()])
        names = getattr(self.module, "classes", None) or range(getattr(self.module, "num_classes", labels.max() + 1))
        self.classes = tuple(map(str, names))
        if not len(self.classes) >= 2 or not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise ValueError(
                f"{self.dataset}: labels must be from 0 to the number of classes - 1, and there must be two classes at "
                f"least, got labels from {labels.min()} to {labels.max()} for {len(self.classes)} classes"
            )
        sets = {part: Images(*arrays, num_classes=self.num_classes) for part, arrays in found.items()}
        self.train, self.test = sets["train"], sets.get("test") or sets["val"]
        self.val = sets.get("val") or self.test
        self.val_size = len(self.val) if self.has["val"] else 0
        self._keep_on_record()

    def _read(self, part: str, loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
        batches = [self._checked(part, batch) for batch in loader]
        if not batches:
            raise ValueError(f"{self.dataset}: {LOADERS[part]} yields nothing")
        images, labels = map(torch.cat, zip(*batches, strict=True))
        if images.dtype == torch.uint8 and images.max() == 1:
            raise ValueError(
                f"{self.dataset}: uint8 images are grey values of 0..255, got no more than 1: multiply them by 255"
            )
        return images, labels

    def _checked(self, part: str, batch: Any) -> tuple[Tensor, Tensor]:
        images, labels = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
            raise ValueError(f"{self.dataset}: {LOADERS[part]} must yield (images, labels), got {type(batch).__name__}")
        is_float = images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        if images.shape[1:] != (1, 28, 28) or not (is_float or images.dtype == torch.uint8):
            raise ValueError(
                f"{self.dataset}: {LOADERS[part]} must yield images of the shape (B, 1, 28, 28), uint8 or float32 in "
                f"[0, 1], got {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)} from "
                f"{images.min():g} to {images.max():g}"
            )
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise ValueError(f"{self.dataset}: {LOADERS[part]} must yield whole numbers as labels, one an image")
        return images, labels.long()

    def train_dataloader(self) -> Any:
        """Its own batches.

        Raises:
            ValueError: There are several processes, which would all train on the same batches.
        """
        if self.trainer and self.trainer.world_size > 1:
            raise ValueError(f"{self.dataset} is data of your own, and trains in one process: leave out trainer=ddp")
        self.module.trainer = self.trainer
        return self.module.train_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Images as float32 in [0, 1], labels as int64."""
        images, labels = batch
        return Batch(images.float() / 255 if images.dtype == torch.uint8 else images, labels.long())
