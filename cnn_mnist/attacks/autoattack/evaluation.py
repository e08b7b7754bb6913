"""The logits of images that change in one square at a time.

Of the report's network only what the square can reach is computed again: a few rows and columns of each pooled layer,
and of the hidden linear layer the part that comes from them. A square of 4x4 pixels, the usual size in a long search,
costs about a fifth of the full forward pass. Any other model is evaluated as a whole.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.checks import Logits
from cnn_mnist.network import CNN, folded, is_report_network

PIXELS, POOL1 = 28, 14  # rows and columns
WORTHWHILE = 12  # side of a square, in pixels, up to which its part alone is faster than the whole
REFRESH = 200  # evaluations after which everything is computed again, so that rounding does not add up


class Window(Protocol):
    """A square of the image."""

    @property
    def area(self) -> tuple[slice, slice]: ...  # noqa: D102

    @property
    def side(self) -> int: ...  # noqa: D102


def evaluation(model: nn.Module, images: Tensor) -> "Whole | Partial":
    """The fastest exact way to evaluate a model on images (B, C, H, W) that change in squares."""
    inner = model.model if isinstance(model, Logits) else model
    return Partial(inner, images) if is_report_network(inner, images) else Whole(model)


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
        """Go on with some of the images, bool (B,)."""


class Partial:
    """Evaluates the part of the report's network that a square reaches.

    Args:
        network: In eval mode.
        images: The first ones, float32 (B, 1, 28, 28).
    """

    def __init__(self, network: CNN, images: Tensor) -> None:
        self.network, self.pad = network, network.kernel_size // 2
        self.conv1, self.bias1 = folded(network.conv1, network.norm1)
        self.conv2, self.bias2 = folded(network.conv2, network.norm2)
        fc1, self.bias3 = folded(network.fc1, network.norm3)
        self.fc1 = fc1.view(len(fc1), self.conv2.shape[0], PIXELS // 4, PIXELS // 4)
        self.last: list[tuple[Sequence[slice], Tensor]] = []  # what the last images would change
        self.images, self.pool1, self.pool2, self.hidden = self._all(images)
        self.num_parts = 0

    def _all(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and `pool1` with a margin of zeros, `pool2`, and FC1 before its ReLU."""
        padded = F.pad(images, (self.pad,) * 4)
        pool1 = F.pad(self._pooled(padded, self.conv1, self.bias1), (self.pad,) * 4)
        pool2 = self._pooled(pool1, self.conv2, self.bias2)
        return padded, pool1, pool2, F.linear(pool2.flatten(1), self.fc1.flatten(1), self.bias3)

    @staticmethod
    def _pooled(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps = maps.to(memory_format=torch.channels_last)  # not contiguous(), which leaves one channel as it is
        return F.relu_(F.max_pool2d(F.conv2d(maps, weight, bias), 2))

    @torch.no_grad()
    def logits(self, images: Tensor, window: Window | None) -> Tensor:
        """Logits (B, C); `window`: where the images differ from the last ones that were kept, None: anywhere."""
        if window is None or window.side > WORTHWHILE or self.num_parts >= REFRESH:
            everything = self._all(images)
            self.last = [((), value) for value in everything]
            self.num_parts = 0
            return self._from_hidden(everything[-1])
        self.num_parts += 1
        pad = self.pad
        first = [self._reach(where, PIXELS) for where in window.area]  # rows and columns of pool1
        second = [self._reach(where, POOL1) for where in first]  # of pool2
        seen = [slice(2 * where.start, 2 * where.stop + 2 * pad) for where in first]
        pixels = [slice(where.start + pad, where.stop + pad) for where in window.area]
        part = self.images[:, :, *seen].clone()
        inner = [
            slice(there.start - around.start, there.stop - around.start)
            for there, around in zip(pixels, seen, strict=True)
        ]
        new_pixels = images[:, :, *window.area]
        part[:, :, *inner] = new_pixels
        new_pool1 = self._pooled(part, self.conv1, self.bias1)
        seen = [slice(2 * where.start, 2 * where.stop + 2 * pad) for where in second]
        margin = [slice(where.start + pad, where.stop + pad) for where in first]
        part = self.pool1[:, :, *seen].clone()
        inner = [
            slice(there.start - around.start, there.stop - around.start)
            for there, around in zip(margin, seen, strict=True)
        ]
        part[:, :, *inner] = new_pool1
        new_pool2 = self._pooled(part, self.conv2, self.bias2)
        change = new_pool2 - self.pool2[:, :, *second]
        hidden = self.hidden + F.linear(change.flatten(1), self.fc1[:, :, *second].flatten(1))
        self.last = [(pixels, new_pixels), (margin, new_pool1), (second, new_pool2), ((), hidden)]
        return self._from_hidden(hidden)

    def _from_hidden(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.network.fc2(F.relu(hidden))
        return logits

    def _reach(self, where: slice, size: int) -> slice:
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
        """Go on with some of the images, bool (B,)."""
        self.images, self.pool1, self.pool2, self.hidden = (
            value[is_left] for value in (self.images, self.pool1, self.pool2, self.hidden)
        )
