"""Occlusion: how the prediction changes as a patch is slid over the image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.analysis import incremental_occlusion
from cnn_mnist.checks import checked_images, examined
from cnn_mnist.network import is_report_network

OCCLUDED_AT_ONCE = 200  # occluded images, on the plain path: more of them would not stay in cache


class OcclusionMap(NamedTuple):
    """A model's predictions with a patch at each position.

    `probability` (B, G, G) in [0, 1], of the true class: low means the patch hid what mattered; `predicted` (B, G, G)
    int64; `clean` (B,) in [0, 1], the probability of the true class without a patch. The patch of `window` x `window`
    pixels at grid position (i, j) has its upper left corner at pixel (i * stride, j * stride) and the grey `fill`.
    """

    probability: Tensor
    predicted: Tensor
    clean: Tensor
    window: int
    stride: int
    fill: float

    def cpu(self) -> "OcclusionMap":
        """The same on the CPU."""
        return self._replace(probability=self.probability.cpu(), predicted=self.predicted.cpu(), clean=self.clean.cpu())


class Resistance(NamedTuple):
    """Statistics of the maps of a set of images; images that are misclassified without a patch are left out.

    Attributes:
        num_images: Images classified correctly without a patch, for each class, int64 (C,).
        num_resistant: Those of them classified correctly at every patch position, int64 (C,).
        confusion: Number of (image, position) pairs of each true class (rows) and predicted class (columns), int64 (C,
            C).
        drop_on_ink: Mean drop of the true class's probability where the patch touches ink.
        drop_on_paper: The same where it covers only empty paper.
        same_digit: Mean absolute difference of probability between two images' maps, same class.
        other_digit: The same between images of different classes.
    """

    num_images: Tensor
    num_resistant: Tensor
    confusion: Tensor
    drop_on_ink: float
    drop_on_paper: float
    same_digit: float
    other_digit: float


def occlusion_map(
    model: nn.Module, images: Tensor, labels: Tensor, *, window: int = 8, stride: int = 1, fill: float = 0.5
) -> OcclusionMap:
    """Probability of the true class with a patch at each position; low means the patch hid what mattered.

    For the lab report's network with unmodified layers, only what the patch can reach is recomputed, which gives the
    same numbers to 1e-5 several times as fast. Any other model evaluates every occluded image, 200 at a time.

    Args:
        model: Images (B, 1, H, W) to logits (B, C); unchanged afterwards.
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        window: Height and width of the patch in pixels.
        stride: Pixels from one position to the next.
        fill: The patch's grey value in [0, 1]: 0 is MNIST's background and only erases ink, 0.5 also adds some.

    Returns:
        Maps over a grid of G = (H - window) // stride + 1 positions along each axis.

    Raises:
        ValueError: The window does not fit, the stride is below 1, or the fill is outside [0, 1]; or as
            `checks.examined` raises for model, images and labels.

    Source: lab report 2.4 and 3.2.3; Zeiler and Fergus 2014.
    """
    side = min(checked_images(images).shape[2:])
    if not 1 <= window <= side:
        raise ValueError(f"window must be 1..{side} pixels, got {window}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1 pixel, got {stride}")
    if not 0 <= fill <= 1:
        raise ValueError(f"fill must be from 0 to 1, got {fill}")
    with torch.no_grad(), examined(model, images, labels) as (logits_of, images, labels):
        if is_report_network(model, images):
            occluded = incremental_occlusion.class_probabilities(model, images, window=window, stride=stride, fill=fill)
        else:
            occluded = class_probabilities(logits_of, images, window=window, stride=stride, fill=fill)
        clean = torch.cat([logits_of(part).softmax(1) for part in images.split(OCCLUDED_AT_ONCE)])
    index = labels.view(-1, 1, 1, 1).expand(*occluded.shape[:3], 1)
    return OcclusionMap(
        probability=occluded.gather(3, index)[..., 0],
        predicted=occluded.argmax(3),
        clean=clean.gather(1, labels[:, None])[:, 0],
        window=window,
        stride=stride,
        fill=fill,
    )


def class_probabilities(model: nn.Module, images: Tensor, *, window: int, stride: int, fill: float) -> Tensor:
    """Every class's probability (B, G, G', C) with the patch at each position, each from a full forward pass."""
    rows, columns = (range(0, side - window + 1, stride) for side in images.shape[2:])
    places = [(row, column) for row in rows for column in columns]

    def look(part: Tensor, at: list[tuple[int, int]]) -> Tensor:
        occluded = part.repeat(len(at), 1, 1, 1, 1)  # (places, images, 1, H, W)
        for copy, (row, column) in zip(occluded, at, strict=True):
            copy[..., row : row + window, column : column + window] = fill
        logits: Tensor = model(occluded.flatten(0, 1))
        return logits.softmax(1).view(len(at), len(part), -1)

    found = []
    for part in images.split(OCCLUDED_AT_ONCE):
        step = max(1, OCCLUDED_AT_ONCE // len(part))
        found.append(torch.cat([look(part, places[k : k + step]) for k in range(0, len(places), step)]))
    return torch.cat(found, 1).transpose(0, 1).reshape(len(images), len(rows), len(columns), -1)


def mean_drop(maps: OcclusionMap, size: int | tuple[int, int] = 28) -> Tensor:
    """The drop of the true class's probability at each pixel, averaged over the patches that cover it.

    High means important. A pixel that no patch covers is NaN. Where the last patch ends at the edge of the image,
    `(size - window) % stride == 0`, this equals captum's occlusion attribution. Otherwise captum adds a last patch
    that hangs over the edge; these maps have none, so the pixels that it would cover differ or are NaN.

    Args:
        maps: The maps of B images.
        size: Height and width of the images in pixels; one number for square ones.

    Returns:
        (B, height, width) in [-1, 1].

    Raises:
        ValueError: The maps are not of images of that size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    grid = tuple((side - maps.window) // maps.stride + 1 for side in (height, width))
    if grid != maps.probability.shape[1:]:
        positions = " x ".join(map(str, maps.probability.shape[1:]))
        raise ValueError(f"maps of {positions} positions are not of images of {height} x {width} pixels: set size=")
    drop = (maps.clean[:, None, None] - maps.probability)[:, None]
    patch = torch.ones(1, 1, maps.window, maps.window, dtype=drop.dtype, device=drop.device)
    total = F.conv_transpose2d(drop, patch, stride=maps.stride)
    count = F.conv_transpose2d(torch.ones_like(drop[:1]), patch, stride=maps.stride)
    margins = (0, width - total.shape[3], 0, height - total.shape[2])
    return F.pad(total / count, margins, value=torch.nan)[:, 0]  # 0 / 0 between far-apart patches


def resistance(
    maps: OcclusionMap, images: Tensor, labels: Tensor, without: Tensor, num_classes: int = 10
) -> Resistance:
    """Statistics of the maps of a set of images.

    Args:
        maps: The maps of N images.
        images: (N, 1, H, W) in [0, 1]; pixels above 0 are ink.
        labels: True classes, int64 (N,).
        without: Predicted classes without a patch, int64 (N,).
        num_classes: C.

    Raises:
        ValueError: No image is classified correctly without a patch.

    Source: lab report 3.2.3.
    """
    is_right = without == labels
    if not is_right.any():
        raise ValueError("every image is misclassified without a patch already")
    labels, images = labels[is_right], images[is_right]
    probability, predicted = maps.probability[is_right], maps.predicted[is_right]
    is_resistant = (predicted == labels[:, None, None]).flatten(1).all(1)
    pairs = labels[:, None, None] * num_classes + predicted
    drop = maps.clean[is_right][:, None, None] - probability
    on_ink = F.max_pool2d((images > 0).float(), maps.window, maps.stride)[:, 0] > 0  # (N, G, G)
    same, other = _differences(probability.flatten(1), labels)
    return Resistance(
        num_images=torch.bincount(labels, minlength=num_classes),
        num_resistant=torch.bincount(labels[is_resistant], minlength=num_classes),
        confusion=torch.bincount(pairs.flatten(), minlength=num_classes**2).view(num_classes, num_classes),
        drop_on_ink=drop[on_ink].double().mean().item(),
        drop_on_paper=drop[~on_ink].double().mean().item(),
        same_digit=same,
        other_digit=other,
    )


def _differences(values: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean |a - b| over all pairs of rows of one class, and of different classes; values (N, M).

    The sum over all pairs of a sorted column is a weighted sum of its values, so no pairs are formed.
    """

    def of_pairs(x: Tensor) -> tuple[float, int]:
        n = len(x)
        weights = 2 * torch.arange(n, dtype=torch.float64, device=x.device) - n + 1
        return (x.sort(0).values.double() * weights[:, None]).sum().item() / values.shape[1], n * (n - 1) // 2

    every, num_every = of_pairs(values)
    parts = [of_pairs(values[labels == label]) for label in set(labels.tolist())]
    same, num_same = (sum(column) for column in zip(*parts, strict=True))
    num_other = num_every - num_same
    return (
        same / num_same if num_same else float("nan"),
        (every - same) / num_other if num_other else float("nan"),
    )
