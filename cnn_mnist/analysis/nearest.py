"""Does an image look like a digit? It does if it is as near to a training image as test digits are."""

from typing import NamedTuple

import torch
from torch import Tensor

AT_ONCE = 256  # images whose distances to all others are held in memory together
QUANTILE = 0.99  # of real digits


class Likeness(NamedTuple):
    """How near B images are to real digits.

    Attributes:
        distance: L2 distance to the nearest training image, (B,).
        label: The class of that training image, int64 (B,).
        typical: The median distance of real digits.
        limit: The 99th percentile of that distance.
    """

    distance: Tensor
    label: Tensor
    typical: float
    limit: float

    @property
    def is_digit(self) -> Tensor:
        """Whether an image is as near as 99 % of test digits, bool (B,)."""
        return self.distance <= self.limit


def likeness(images: Tensor, train: Tensor, labels: Tensor, usual: Tensor) -> Likeness:
    """Measure images by their nearest neighbours among the training images.

    Args:
        images: (B, 1, H, W) in [0, 1].
        train: The training images, (N, 1, H, W) in [0, 1].
        labels: Their classes, int64 (N,).
        usual: Distance of test digits to their nearest training images, (M,).

    Source: the nearest-neighbour rule (Cover and Hart 1967), which needs no network.
    """
    distance, place = nearest(images, train)
    return Likeness(distance, labels[place], usual.median().item(), usual.quantile(QUANTILE).item())


def neighbours(images: Tensor, train: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest training images of each image.

    Args:
        images: (B, 1, H, W).
        train: (N, 1, H, W).
        count: How many; at most N are found.

    Returns:
        Their L2 distances, (B, K) and increasing, and their indices in `train`, int64 (B, K); K = min(count, N).
    """
    flat = train.flatten(1)
    squares = flat.square().sum(1)
    count = min(count, len(train))
    found = []
    for part in images.flatten(1).split(AT_ONCE):
        ranked = squares - 2 * part @ flat.T
        found.append(ranked.argmin(1, keepdim=True) if count == 1 else ranked.topk(count, largest=False).indices)
    place = torch.cat(found)
    return (images.flatten(1)[:, None] - flat[place]).norm(dim=2), place


def nearest(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """The L2 distance of each image (B, 1, H, W) to the nearest of `train`, (B,), and its index, int64 (B,)."""
    distance, place = neighbours(images, train, 1)
    return distance[:, 0], place[:, 0]
