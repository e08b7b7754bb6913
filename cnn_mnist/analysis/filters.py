"""Are a layer's filters different from one another, and do they look like edge detectors?"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUM_DRAWS, FEW_DRAWS = 200, 20
MOST_VALUES = 4_000_000  # drawn at once


class Similarity(NamedTuple):
    """How similar the filters of a layer are.

    `cosine` (N, N) in [-1, 1]; `closest`, the two filters with the largest cosine off the diagonal; `chance`, the
    largest cosine among N random filters of the same size (median of 200 draws, of 20 where they are large), as a
    baseline for `closest`.
    """

    cosine: Tensor
    closest: tuple[int, int]
    chance: float

    @property
    def largest(self) -> float:
        """The cosine of the closest pair."""
        return self.cosine[self.closest].item()


class EdgeLikeness(NamedTuple):
    """How much of each filter is an oriented edge.

    `score` (N,) in [0, 1]: the largest cosine between the filter and a first-derivative filter of any orientation,
    ignoring the sign; `angle` (N,) in radians, the direction in which the filter's best edge rises (0: to the right,
    pi/2: downwards). A random filter has a `score` of `chance` on average and stays below `chance_95` in 95 of 100
    cases.
    """

    score: Tensor
    angle: Tensor
    chance: float
    chance_95: float


def similarity(filters: Tensor) -> Similarity:
    """The cosine of every pair of filters.

    Args:
        filters: (N, ...), N of at least 2, each of any shape.

    Source: lab report 3.2.1, "all the filters seem to be different from one another".
    """
    vectors = filters.detach().flatten(1).double().cpu()
    cosine = _cosines(vectors)
    pair = _off_diagonal(cosine).argmax().item()
    generator = torch.Generator().manual_seed(0)
    at_once = max(1, min(NUM_DRAWS, MOST_VALUES // vectors.numel()))
    closest = [
        _off_diagonal(_cosines(torch.randn(at_once, *vectors.shape, dtype=torch.float64, generator=generator)))
        .flatten(1)
        .amax(1)
        for _ in range(NUM_DRAWS if at_once == NUM_DRAWS else FEW_DRAWS)[::at_once]
    ]
    chance = torch.cat(closest).median().item()
    return Similarity(cosine, divmod(int(pair), len(vectors)), chance)


def can_detect_edges(filters: Tensor) -> bool:
    """Whether filters (..., K, K) are square, of at least 3x3 pixels, and smaller than the 28x28 image."""
    height, width = filters.shape[-2:]
    return 3 <= height == width < 28


def edge_likeness(filters: Tensor) -> EdgeLikeness:
    """How much of each filter is an oriented edge: its part in the plane of first-derivative filters.

    A first derivative of a Gaussian in any direction is a linear combination of the two along the axes, so the best
    orientation needs no search: it is the direction of the filter's projection onto those two.

    Args:
        filters: (..., K, K), K at least 3; all but the last two dimensions are taken together.

    Raises:
        ValueError: The filters are smaller than 3x3.

    Source: lab report 3.2.1; Freeman and Adelson 1991 for steerable filters.
    """
    size = filters.shape[-1]
    if size < 3:
        raise ValueError(f"an edge needs filters of at least 3x3, got {size}x{size}")
    vectors = filters.detach().double().cpu().reshape(-1, size * size)
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    gauss = torch.exp(-(x**2) / (2 * (size / 4) ** 2))
    along_x = (gauss[:, None] * (x * gauss)[None]).flatten()
    along_x /= along_x.norm()
    along_y = along_x.view(size, size).T.flatten()
    right, down = vectors @ along_x, vectors @ along_y
    score = torch.hypot(right, down) / vectors.norm(dim=1).clamp_min(1e-12)
    # The squared share of a random direction of d dimensions in a plane follows Beta(1, (d - 2) / 2).
    d = size * size
    chance = math.exp(math.lgamma(1.5) + math.lgamma(d / 2) - math.lgamma((d + 1) / 2))
    return EdgeLikeness(score, torch.atan2(down, right), chance, math.sqrt(1 - 0.05 ** (2 / (d - 2))))


def _cosines(vectors: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return unit @ unit.mT


def _off_diagonal(cosine: Tensor) -> Tensor:
    return cosine.masked_fill(torch.eye(cosine.shape[-1], dtype=torch.bool), -torch.inf)
