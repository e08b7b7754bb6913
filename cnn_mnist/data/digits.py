"""The digits of scikit-learn, and small digits framed as MNIST frames its own."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NUM_TEST = 297  # of the 1,797: leaves 1,500 for training


@cache
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """The 1,797 digits of scikit-learn: 1,500 for `train`, 297 for `test`, each images and labels.

    The split has equal shares of each class and never changes.
    """
    from sklearn.datasets import load_digits  # takes a second to import: only where it is needed
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images, labels = framed(torch.from_numpy(bunch.images).float()[:, None] / 16), torch.from_numpy(bunch.target).long()
    train, test = train_test_split(np.arange(len(images)), test_size=NUM_TEST, stratify=bunch.target, random_state=0)
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


def framed(small: Tensor) -> Tensor:
    """Digits scaled to 20x20 and placed with their centre of mass in the middle of 28x28.

    Args:
        small: (N, 1, H, W) in [0, 1], bright on a ground of 0.

    Returns:
        uint8 (N, 1, 28, 28).
    """
    large = F.interpolate(small, size=20, mode="bicubic", align_corners=False).clamp_(0, 1)
    mass = large.sum((1, 2, 3))
    centre = torch.arange(20.0) + 0.5
    top = (14 - (large.sum((1, 3)) @ centre) / mass).round().long().clamp_(0, 8)
    left = (14 - (large.sum((1, 2)) @ centre) / mass).round().long().clamp_(0, 8)
    images = torch.zeros(len(large), 1, 28, 28)
    for image, digit, i, j in zip(images, large, top.tolist(), left.tolist(), strict=True):
        image[:, i : i + 20, j : j + 20] = digit
    return images.mul_(255).round_().to(torch.uint8)
