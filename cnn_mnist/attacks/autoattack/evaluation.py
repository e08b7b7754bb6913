"""The logits of images that change in one square at a time.

Of the report's network only what the square can reach is computed again: a few rows and columns of each pooled layer,
and of the hidden linear layer the part that comes from them. A square of 4x4 pixels, the usual size in a long search,
costs about a fifth of the full forward pass. Any other model is evaluated as a whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.network import CNN

PIXELS, POOL1 = 28, 14  # rows and columns
WORTHWHILE = 12  # side of a square, in pixels, up to which its part alone is faster than the whole


class Window(NamedTuple):
    """A square of the image: its first row and column, and its side, in pixels."""

    row: int
    column: int
    side: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.row, self.row + self.side), slice(self.column, self.column + self.side)


def evaluation(model: nn.Module, images: Tensor) -> "Whole | Partial":
    """The fastest exact way to evaluate a model on images (B, C, H, W) that change in squares."""
    network = without_idle_units(model, images)
    return Partial(network, images) if network else Whole(model)


class Whole:
    """Evaluates the whole model each time."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def logits(self, images: Tensor, window: Window | None) -> Tensor:
        """Logits (B, C); `window`: where the images differ from the last ones that were kept, None: anywhere."""
        return self.model(images)  # type: ignore[no-any-return]

    def keep(self, is_kept: Tensor) -> None:
        """Keep the last images, bool (B,): later ones differ from them in a square."""

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""


class Partial:
    """Evaluates the part of the report's network that a square reaches.

    Args:
        network: Without normalisation, in eval mode.
        images: The first ones, float32 (B, 1, 28, 28).
    """

    def __init__(self, network: CNN, images: Tensor) -> None:
        self.network, self.pad = network, network.kernel_size // 2
        self.fc1 = network.fc1.weight.unflatten(1, (-1, PIXELS // 4, PIXELS // 4))
        self.last: list[tuple[Sequence[slice], Tensor]] = []  # what the last images would change
        self.images, self.pool1, self.pool2, self.hidden = self._all(images)

    def _all(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and `pool1` with a margin of zeros, `pool2`, and FC1 before its ReLU."""
        padded = F.pad(images, (self.pad,) * 4)
        pool1 = F.pad(self._pooled(padded, self.network.conv1), (self.pad,) * 4)
        pool2 = self._pooled(pool1, self.network.conv2)
        return padded, pool1, pool2, self.network.fc1(pool2.flatten(1))

    @staticmethod
    def _pooled(maps: Tensor, conv: nn.Conv2d) -> Tensor:
        maps = maps.to(memory_format=torch.channels_last)  # not contiguous(), which leaves one channel as it is
        return F.relu_(F.max_pool2d(F.conv2d(maps, conv.weight, conv.bias), 2))

    @torch.no_grad()
    def logits(self, images: Tensor, window: Window | None) -> Tensor:
        """Logits (B, C); `window`: where the images differ from the last ones that were kept, None: anywhere."""
        if window is None or window.side > WORTHWHILE:
            everything = self._all(images)
            self.last = [((), value) for value in everything]
            return self._from_hidden(everything[-1])
        self.last = []
        changed, values = window.area, images[:, :, *window.area]
        for maps, size, conv in (
            (self.images, PIXELS, self.network.conv1),
            (self.pool1, POOL1, self.network.conv2),
        ):
            place = [slice(where.start + self.pad, where.stop + self.pad) for where in changed]
            self.last.append((place, values))
            reached = self._reached(changed[0], size), self._reached(changed[1], size)
            seen = [slice(2 * where.start, 2 * where.stop + 2 * self.pad) for where in reached]
            part = maps[:, :, *seen].clone()
            inner = [
                slice(one.start - all_.start, one.stop - all_.start) for one, all_ in zip(place, seen, strict=True)
            ]
            part[:, :, *inner] = values
            changed, values = reached, self._pooled(part, conv)
        change = (values - self.pool2[:, :, *changed]).flatten(1)
        hidden = self.hidden + F.linear(change, self.fc1[:, :, *changed].flatten(1))
        self.last += [(changed, values), ((), hidden)]
        return self._from_hidden(hidden)

    def _from_hidden(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.network.fc2(F.relu(hidden))
        return logits

    def _reached(self, where: slice, size: int) -> slice:
        """The rows of the pooled layer that depend on some rows of the layer before it, of `size` rows."""
        return slice(max(where.start - self.pad, 0) // 2, (min(where.stop + self.pad, size) + 1) // 2)

    def keep(self, is_kept: Tensor) -> None:
        """Keep the last images, bool (B,): later ones differ from them in a square."""
        if not is_kept.any():
            return
        index = is_kept.nonzero()[:, 0]
        for state, (where, value) in zip((self.images, self.pool1, self.pool2, self.hidden), self.last, strict=True):
            if where:
                state[:, :, *where].index_copy_(0, index, value.index_select(0, index))
            else:
                state.index_copy_(0, index, value.index_select(0, index))

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""
        self.images, self.pool1, self.pool2, self.hidden = (
            value[is_left] for value in (self.images, self.pool1, self.pool2, self.hidden)
        )
