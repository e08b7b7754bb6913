"""The logits of images that change in one square at a time."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.changed_maps import Area
from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.attacks.autoattack.partial_network import PartialNetwork
from cnn_mnist.checks import Logits

SMALL = 3 / 7  # of an image's side: most images of an undefended network are broken before squares are as small
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

    In the lab report's network, a square of 4x4 pixels takes about a quarter of the time of a full forward pass.

    Args:
        model: In eval mode; images to logits.

    Attributes:
        is_in_part: Whether the last images were evaluated in part, so that some of them can be kept.
        was_refused: Whether this model is evaluated as a whole from now on.
    """

    def __init__(self, model: Logits) -> None:
        self.model = model
        self.partial: PartialNetwork | None = None
        self.is_in_part = self.was_refused = False

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
            self.is_in_part = False
        elif not (self.is_in_part or self.was_refused):
            self._start(kept.to(dtype), images.to(dtype), window)
        if window and self.partial and self.is_in_part:
            return self.partial.logits(images.to(dtype), window.area).to(images.dtype)
        return self.model(images)  # type: ignore[no-any-return]

    def _start(self, kept: Tensor, images: Tensor, window: Window) -> None:
        """Evaluate in part from now on; never, if that fails or would save too little."""
        try:
            with warnings.catch_warnings(action="ignore"):
                if self.partial is None:
                    network: nn.Module = without_idle_units(self.model, images) or self.model.model
                    self.partial = PartialNetwork(network, images)
                    self._compare(self.partial, kept[:1], images[:1], window)
                    self._compare(self.partial, kept, images, window)
                self.partial.start(kept)
            self.is_in_part = True
        except Exception:  # whatever the user's own code can raise
            self.partial, self.was_refused = None, True

    def _compare(self, partial: PartialNetwork, kept: Tensor, images: Tensor, window: Window) -> None:
        """Raise ValueError unless a part gives the same logits, with fewer operations."""
        from torch.utils.flop_counter import FlopCounterMode  # takes long

        partial.start(kept)
        with FlopCounterMode(display=False) as in_part:
            partial.logits(images, window._replace(side=min(window.side, USUAL)).area)
        with FlopCounterMode(display=False) as as_a_whole:
            expected = self.model(images)
        found = partial.logits(images, window.area)
        if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE * expected.abs().max():
            raise ValueError("the graph computes something else")
        if in_part.get_total_flops() >= WORTHWHILE * as_a_whole.get_total_flops():
            raise ValueError("a part takes hardly fewer operations")

    def keep(self, is_kept: Tensor) -> None:
        """Keep some of the last images, bool (B,)."""
        if self.partial and self.is_in_part and is_kept.any():
            self.partial.keep(is_kept)

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""
        if self.partial and self.is_in_part:
            self.partial.select(is_left)
