"""The logits of images that change in one square at a time."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.changed_maps import Area
from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.attacks.autoattack.partial_network import PartialNetwork
from cnn_mnist.checks import Logits

SMALL = 3 / 7  # of an image's side: squares up to this size are evaluated in part
USUAL = 3  # side of a square, in pixels, in most of a long search
WORTHWHILE = 0.9  # share of the operations, for such a square
TOLERANCE = 1e-3  # share of the largest logit


class Window(NamedTuple):
    """A square of the image: its first row and column, and its side, in pixels."""

    row: int
    column: int
    side: int

    @property
    def area(self) -> Area:
        """Its rows and columns."""
        return Area(slice(self.row, self.row + self.side), slice(self.column, self.column + self.side))


class Evaluation:
    """A model's logits, in part as soon as squares are small, where that is worthwhile; otherwise as a whole.

    In the report's network, a square of 4x4 pixels costs about a fifth of the full forward pass.

    Args:
        model: In eval mode; images to logits.
    """

    def __init__(self, model: Logits) -> None:
        self.model = model
        self.partial: PartialNetwork | None = None
        self.is_whole = self.has_started = False

    @torch.no_grad()
    def logits(self, kept: Tensor, images: Tensor, window: Window | None) -> Tensor:
        """Logits (B, C).

        Args:
            kept: The last images that were kept, (B, C, H, W).
            images: What is to be evaluated, (B, C, H, W).
            window: Where they differ from those that were kept; None: anywhere.
        """
        dtype = self.model.dtype or images.dtype
        if window is None or window.side > SMALL * min(images.shape[2:]):
            self.has_started = False
        elif not (self.has_started or self.is_whole):
            self.has_started = self._start(kept.to(dtype), images.to(dtype), window)
            self.is_whole = not self.has_started
        if window and self.partial and self.has_started:
            return self.partial.logits(images.to(dtype), window.area).to(images.dtype)
        return self.model(images)  # type: ignore[no-any-return]

    def _start(self, kept: Tensor, images: Tensor, window: Window) -> bool:
        """Whether the network can be evaluated in part from now on, and takes less time."""
        try:
            if self.partial:
                self.partial.start(kept)
                return True
            network: nn.Module = without_idle_units(self.model, images) or self.model.model
            self.partial = PartialNetwork(network, images)
            self.partial.start(kept)
            return images.dtype in (torch.float32, torch.float64) and self._is_worthwhile(self.partial, images, window)
        except Exception:  # whatever the user's own code can raise
            return False

    def _is_worthwhile(self, partial: PartialNetwork, images: Tensor, window: Window) -> bool:
        """Whether a part gives the same logits, with fewer operations."""
        from torch.utils.flop_counter import FlopCounterMode  # takes long

        with FlopCounterMode(display=False) as in_part:
            partial.logits(images, window._replace(side=min(window.side, USUAL)).area)
        with FlopCounterMode(display=False) as as_a_whole:
            expected = self.model(images)
        found = partial.logits(images, window.area)
        is_equal = bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
        return is_equal and in_part.get_total_flops() < WORTHWHILE * as_a_whole.get_total_flops()

    def keep(self, is_kept: Tensor) -> None:
        """Keep some of the last images, bool (B,)."""
        if self.partial and self.has_started and is_kept.any():
            self.partial.keep(is_kept)

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""
        if self.partial and self.has_started:
            self.partial.select(is_left)
