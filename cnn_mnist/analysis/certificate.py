"""What is proven of a network: for which images no change within a distance alters the class, by interval arithmetic.

Source: Gowal et al. 2019, "Scalable verified training for provably robust image classification".
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import batch_size
from cnn_mnist.attacks.result import check_number
from cnn_mnist.checks import examined
from cnn_mnist.intervals import ball, furthest_ahead

NUM_HALVINGS = 15  # of the range of grey values: the precision of a radius is about 0.00003


class Certificate(NamedTuple):
    """What is proven of N images.

    Attributes:
        is_proven: bool (N,): classified correctly, and so is every image within epsilon.
        radius: The epsilon, in grey values, up to which that is proven, (N,); 0 for a misclassified image.
    """

    is_proven: Tensor
    radius: Tensor


@torch.no_grad()
def certificate(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Certificate:
    """Prove that no change of up to `epsilon` in every pixel changes an image's class, where bounds can show it.

    Proven of the network in double precision; in float32 its logits differ from that in the seventh digit. That an
    image is not proven does not mean that an attack would succeed.

    Args:
        model: Images to logits, of layers for which there are bounds: convolutions, linear layers, batch normalisation,
            pools, sums, and non-decreasing activation functions. Unchanged afterwards.
        images: (N, C, H, W) in [0, 1].
        labels: True classes, int64 (N,).
        epsilon: Largest change of a pixel.

    Raises:
        ValueError: As `checks.examined`; there are no bounds for something that the model computes.
    """
    check_number("epsilon", epsilon, 0, 1)
    with examined(model, images, labels) as (logits_of, images, labels):
        exact, images = copy.deepcopy(logits_of.model).double(), images.double()
        low, high = images.new_zeros(len(images)), images.new_ones(len(images))
        for _ in range(NUM_HALVINGS):
            middle = (low + high) / 2
            holds = _within(exact, images, labels, middle)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return Certificate(_within(exact, images, labels, torch.full_like(low, epsilon)), low)


@torch.no_grad()
def is_proven(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
    """Whether each image is proven within `epsilon`, bool (N,); arguments and errors as those of `certificate`."""
    check_number("epsilon", epsilon, 0, 1)
    with examined(model, images, labels) as (logits_of, images, labels):
        exact, images = copy.deepcopy(logits_of.model).double(), images.double()
        return _within(exact, images, labels, images.new_full((len(images),), epsilon))


def _within(model: nn.Module, images: Tensor, labels: Tensor, epsilon: Tensor) -> Tensor:
    """Whether each image is proven within its own epsilon (N,), bool (N,)."""
    size = batch_size(images.device)
    found = []
    for some, label, radius in zip(images.split(size), labels.split(size), epsilon.split(size), strict=True):
        ahead = furthest_ahead(model(ball(some, radius.view(-1, 1, 1, 1))), label)
        found.append((ahead.scatter(1, label[:, None], -torch.inf) < 0).all(1))
    return torch.cat(found)
