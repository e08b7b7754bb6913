"""The data module: MNIST and its relatives, scikit-learn's digits, or the user's own images."""

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cnn_mnist.data import sources
from cnn_mnist.data.batches import Batch, Images, InOrder, Shuffled
from cnn_mnist.option_types import Seed, number


class FallbackWarning(UserWarning):
    """The data set asked for is missing, and another one is used."""


class DataModule(pl.LightningDataModule):
    """One of eight data sets, or the user's own images, with any number of classes.

    Args:
        dataset: `mnist`, `fashion_mnist`, `kmnist`, `digits` (the 1,797 of scikit-learn, framed like MNIST), one of
            `torchvision_sets.SETS`, or `npz` and `image_folder`, see `own_images.read`.
        root: Folder of the files, in torchvision's layout: `root/MNIST/raw/*.gz`. Missing files are downloaded. Of
            one's own images, the file or folder.
        batch_size: Training images in a batch.
        val_size: Training images held out for validation, the same for every seed. With 0 the curve is that of the test
            set, which must not choose anything.
        held_out: Which: `random`, in equal shares of each class; or `last`, the end of the training file,
            in MNIST apparently by other writers (docs/data.md).
        fallback: `digits`, to be used when the files can be neither found nor downloaded, or None.
        seed: Decides the order of the training images, together with the epoch.

    Attributes:
        dataset: The data set that is used.
        classes: Their names after `setup`.
        train, val, test: The three sets after `setup`; `val` is `test` when nothing is held out.
        val_name: `val`, or `test` when nothing is held out: the prefix of what is measured on `val`.
    """

    classes: tuple[str, ...]
    train: Images
    val: Images
    test: Images

    def __init__(
        self,
        dataset: Literal[
            "mnist",
            "fashion_mnist",
            "kmnist",
            "digits",
            "emnist_letters",
            "emnist_balanced",
            "qmnist",
            "usps",
            "npz",
            "image_folder",
        ] = "mnist",
        root: str = "data",
        batch_size: Annotated[int, number(int, 1, 1_000_000)] = 100,
        val_size: Annotated[int, number(int, 0)] = 0,
        fallback: Literal["digits", None] = "digits",
        seed: Seed = 0,
        held_out: Literal["random", "last"] = "random",
    ) -> None:
        super().__init__()
        self.dataset: str = dataset
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.val_size = val_size
        self.held_out = held_out
        self.fallback = fallback
        self.seed = seed
        self.val_name = "val" if val_size else "test"

    def ready(self) -> "DataModule":
        """Download, read and split the data; returns this data module.

        Raises:
            ConnectionError, ValueError: See `prepare_data` and `setup`.
        """
        self.prepare_data()
        self.setup()
        return self

    def prepare_data(self) -> None:
        """Download missing files, or fall back.

        Raises:
            ConnectionError: A file is missing and cannot be downloaded, and there is no fallback.
        """
        try:
            sources.download(self.dataset, self.root)
        except ConnectionError as error:
            if self.fallback is None:
                raise
            message = (
                f"{error}\n\nThis run uses the {self.fallback} data set instead: 1,797 small scanned digits that come "
                f"with scikit-learn. Its numbers do NOT compare with those of {self.dataset}.\n"
                "data.fallback=null makes this an error."
            )
            warnings.warn(message, FallbackWarning, stacklevel=2)
            self.dataset = self.fallback

    def setup(self, stage: str | None = None) -> None:
        """Read and verify the files and split them.

        Raises:
            ValueError: A file is damaged, `val_size` leaves too few images to train or validate on, or the last are not
                of every class.
        """
        if hasattr(self, "test"):  # Lightning asks again before fit and before test
            return
        self.classes = sources.classes(self.dataset, self.root)
        self.train, self.test = (
            Images(*sources.read(self.dataset, self.root, split), len(self.classes)) for split in sources.PARTS
        )
        self.val = self.test
        if self.val_size:
            room = len(self.train) - self.num_classes
            if not self.num_classes <= self.val_size <= room:
                raise ValueError(
                    f"data.val_size must be 0 or from {self.num_classes} to {room:,} of the {len(self.train):,} "
                    f"training images of {self.dataset}, got {self.val_size:,}: set data.val_size=..."
                )
            kept, held_out = self._parts()
            self.val, self.train = self.train.subset(held_out), self.train.subset(kept)
        self._keep_on_record()

    def _parts(self) -> tuple[Tensor, Tensor]:
        """The indices of the training images that are kept, and of those held out, each in order."""
        everything = torch.arange(len(self.train))
        if self.held_out == "last":
            kept, held_out = everything[: -self.val_size], everything[-self.val_size :]
            if any(len(self.train.labels[part].unique()) < self.num_classes for part in (kept, held_out)):
                raise ValueError(
                    f"the last {self.val_size:,} training images, or those before, are not of every class: set "
                    "data.held_out=random"
                )
            return kept, held_out
        from sklearn.model_selection import train_test_split  # takes a second to import

        parts = train_test_split(
            everything.numpy(), test_size=self.val_size, stratify=self.train.labels, random_state=0
        )
        return torch.from_numpy(np.sort(parts[0])), torch.from_numpy(np.sort(parts[1]))

    def _keep_on_record(self) -> None:
        """Store in checkpoints what an analysis needs to know."""
        kept_on_record = ("dataset", "batch_size", "val_size", "seed")
        has_names = self.classes != tuple(map(str, range(len(self.classes))))
        own = {"classes": list(self.classes)} if has_names else {}
        self.save_hyperparameters({name: getattr(self, name) for name in kept_on_record} | own)

    @property
    def num_classes(self) -> int:
        """Number of classes, once the data are read."""
        return len(self.classes)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of `batch_size` in the order of (seed, epoch); with trainer.overfit_batches always the same ones."""
        if self.trainer and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return _loader(self.train, InOrder(len(self.train), *self._place, self.batch_size))
        return _loader(self.train, Shuffled(len(self.train), self.batch_size, self.seed, *self._place))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out images in order, or the test images when nothing is held out."""
        return _loader(self.val, InOrder(len(self.val), *self._place))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images in order."""
        return _loader(self.test, InOrder(len(self.test), *self._place))

    @property
    def _place(self) -> tuple[int, int]:
        """Which process this is, and of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _loader(images: Images, batches: Sampler[Any]) -> DataLoader[Batch]:
    return DataLoader(images, sampler=batches, batch_size=None, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch
