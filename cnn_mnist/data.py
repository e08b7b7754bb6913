"""Images of handwritten digits, and of two harder look-alikes, as float32 (B, 1, 28, 28) in [0, 1].

Everything is held in memory as uint8, a batch is one gather, and there are no worker processes: an epoch of
60,000 images takes 0.3 s of the 9 s that training on them takes.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from cnn_mnist import sources

NUM_CLASSES = 10
EVAL_BATCH_SIZE = 250


class Batch(NamedTuple):
    """`images` float32 (B, 1, 28, 28) in [0, 1] and `labels` int64 (B,)."""

    images: Tensor
    labels: Tensor


class Images(Dataset[Batch]):
    """Images uint8 (N, 1, 28, 28) with labels int64 (N,), handed out many at once."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert images.dtype == torch.uint8
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return Batch(self.images[index].float().div_(255), self.labels[index])

    def of_each_class(self, num_images: int) -> Tensor:
        """Indices int64 of the first image of every class, then the second of every class, and so on."""
        places = torch.cat([(self.labels == label).nonzero() for label in range(NUM_CLASSES)])[:, 0]
        turn = torch.cat([torch.arange(n) for n in self.labels.bincount(minlength=NUM_CLASSES).tolist()])
        return places[turn.argsort(stable=True)][:num_images]

    def spread(self, num_images: int) -> Tensor:
        """Indices int64 of so many images at even distances from the first to the last; of all where there are fewer.

        MNIST's first 5,000 test images are easier than its last.
        """
        return torch.linspace(0, len(self) - 1, min(num_images, len(self))).round().long()

    def subset(self, index: Tensor) -> "Images":
        """The images at the given indices, int64 (M,)."""
        return Images(self.images[index], self.labels[index])


class Shuffled(Sampler[Tensor]):
    """Index tensors of `batch_size`, every image once, in an order that (seed, epoch) alone decides.

    Args:
        num_images: Number of images.
        batch_size: Images in a batch of all processes together.
        seed: Decides the order.
        rank: Which process this is: of each batch it takes every `num_processes`-th image.
        num_processes: Number of processes.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, num_processes: int = 1) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: the order is drawn with the first batch, since Lightning asks for the iterator of a resumed
        # run before it knows the epoch. SeedSequence mixes: seed 0 in epoch 1 is unlike seed 1 in epoch 0.
        mixed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0])
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(mixed))
        for batch in torch.split(order, self.batch_size):
            yield batch[self.rank :: self.num_processes]


def share(num_items: int, rank: int, num_processes: int) -> slice:
    """Which of so many items in a row fall to one of several processes; all have as many, or one more."""
    return slice(num_items * rank // num_processes, num_items * (rank + 1) // num_processes)


class InOrder(SequentialSampler):
    """Slices that cover the images from the first to the last, or a process's share of them in a row."""

    def __init__(
        self, num_images: int, rank: int = 0, num_processes: int = 1, batch_size: int = EVAL_BATCH_SIZE
    ) -> None:
        own = share(num_images, rank, num_processes)
        self.bounds = (int(own.start), int(own.stop))
        self.batch_size = batch_size

    def __len__(self) -> int:
        first, end = self.bounds
        return math.ceil((end - first) / self.batch_size)

    def __iter__(self) -> Iterator[slice]:  # type: ignore[override]
        first, end = self.bounds
        return (slice(k, min(k + self.batch_size, end)) for k in range(first, end, self.batch_size))


class FallbackWarning(UserWarning):
    """Another data set than the one asked for is used."""


class DataModule(pl.LightningDataModule):
    """One of four data sets of ten classes.

    Args:
        dataset: `mnist`, `fashion_mnist`, `kmnist`, or `digits` (the 1,797 of scikit-learn, framed like MNIST).
        root: Folder of the files, in torchvision's layout: `root/MNIST/raw/*.gz`. Absent ones are downloaded.
        batch_size: Training images in a batch.
        val_size: Training images held out for validation, in equal shares of each class and the same for
            every seed. With 0 the test set stands in: its curve is drawn, and nothing may be chosen by it.
        fallback: `digits`, to be used when the files can be neither found nor downloaded, or None.
        seed: Decides the order of the training images, together with the epoch.

    Attributes:
        dataset: The data set really used.
        train, val, test: The three sets after `setup`; `val` is `test` when nothing is held out.
        val_name: `val`, or `test` when nothing is held out: the prefix of what is measured on `val`.
    """

    train: Images
    val: Images
    test: Images

    def __init__(
        self,
        dataset: str = "mnist",
        root: str = "data",
        batch_size: int = 100,
        val_size: int = 0,
        fallback: str | None = "digits",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.val_size = val_size
        self.fallback = fallback
        self.seed = seed
        self.val_name = "val" if val_size else "test"

    def ready(self) -> "DataModule":
        """Have the files there, read them and split them; returns this very data module.

        Raises:
            ConnectionError, ValueError: See `prepare_data` and `setup`.
        """
        self.prepare_data()
        self.setup()
        return self

    def prepare_data(self) -> None:
        """Download the files that are absent, or fall back.

        Raises:
            ConnectionError: A file is neither there nor to be had, and there is no fallback.
        """
        if self.dataset == "digits":
            return
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
            ValueError: A file is damaged, or `val_size` leaves too little on either side.
        """
        if hasattr(self, "test"):  # Lightning asks again before fit and before test
            return
        if self.dataset == "digits":
            train, test = sources.digits()
        else:
            train, test = (sources.read(self.dataset, self.root, part) for part in ("train", "t10k"))
        self.train, self.test = Images(*train), Images(*test)
        self.val = self.test
        if self.val_size:
            room = len(self.train) - NUM_CLASSES
            if not NUM_CLASSES <= self.val_size <= room:
                raise ValueError(
                    f"data.val_size must be 0 or from {NUM_CLASSES} to {room:,} of the {len(self.train):,} training "
                    f"images of {self.dataset}, got {self.val_size:,}: set data.val_size=..."
                )
            kept, held_out = train_test_split(
                np.arange(len(self.train)),
                test_size=self.val_size,
                stratify=self.train.labels,
                random_state=0,
            )
            self.val = self.train.subset(torch.from_numpy(np.sort(held_out)))
            self.train = self.train.subset(torch.from_numpy(np.sort(kept)))
        kept_on_record = ("dataset", "batch_size", "val_size", "seed")
        self.save_hyperparameters({name: getattr(self, name) for name in kept_on_record})

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
