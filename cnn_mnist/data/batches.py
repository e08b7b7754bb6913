"""Images in memory, and the order in which they are handed out: float32 (B, 1, 28, 28) in [0, 1].

Everything is held in memory as uint8, a batch is one gather, and there are no worker processes: an epoch of
60,000 images takes 0.3 s, a small part of the training.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler

EVAL_BATCH_SIZE = 250


class Batch(NamedTuple):
    """`images` float32 (B, 1, 28, 28) in [0, 1] and `labels` int64 (B,)."""

    images: Tensor
    labels: Tensor


class Images(Dataset[Batch]):
    """Images (N, 1, 28, 28) with labels int64 (N,) in 0..num_classes-1, handed out many at once.

    Args:
        images: uint8, or float32 in [0, 1].
        labels: The classes.
        num_classes: How many there are.
    """

    def __init__(self, images: Tensor, labels: Tensor, num_classes: int = 10) -> None:
        assert images.dtype in (torch.uint8, torch.float32)
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        images = self.images[index]
        return Batch(images.float().div_(255) if images.dtype == torch.uint8 else images.clone(), self.labels[index])

    def of_each_class(self, num_images: int) -> Tensor:
        """Indices int64 of the first image of every class, then the second of every class, and so on."""
        places = torch.cat([(self.labels == label).nonzero() for label in range(self.num_classes)])[:, 0]
        turn = torch.cat([torch.arange(n) for n in self.labels.bincount(minlength=self.num_classes).tolist()])
        return places[turn.argsort(stable=True)][:num_images]

    def evenly_spaced(self, num_images: int) -> Tensor:
        """Indices int64 of `num_images` images, evenly spaced from the first to the last; of all if there are fewer.

        MNIST's first 5,000 test images are easier than its last.
        """
        return torch.linspace(0, len(self) - 1, min(num_images, len(self))).round().long()

    def subset(self, index: Tensor) -> "Images":
        """The images at the given indices, int64 (M,)."""
        return Images(self.images[index], self.labels[index], self.num_classes)


class Shuffled(Sampler[Tensor]):
    """Index tensors of `batch_size`, every image once, in an order that depends on (seed, epoch) alone.

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
    """The slice of `num_items` that belongs to one of several processes; slices differ in length by one at most."""
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
