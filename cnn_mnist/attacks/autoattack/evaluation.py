"""The logits of images that change in one square at a time.

Only what the square can reach is computed again: a few rows and columns of each layer, and of a linear layer the part
that comes from them. In the report's network, a square of 4x4 pixels, the usual size in a long search, costs about a
fifth of the full forward pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.changed_maps import Maps, Memory
from cnn_mnist.attacks.autoattack.idle_units import without_idle_units

WORTHWHILE = 3 / 7  # of an image's side: squares up to this size are faster in part than as a whole
NUM_COMPARED = 32  # images on which the first part is compared with the whole
TOLERANCE = 1e-3  # share of the largest logit


class Window(NamedTuple):
    """A square of the image: its first row and column, and its side, in pixels."""

    row: int
    column: int
    side: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.row, self.row + self.side), slice(self.column, self.column + self.side)


class Evaluation:
    """A model's logits, in part where it is made of layers of which a part can be computed, otherwise as a whole.

    Args:
        model: In eval mode; images to logits.
        images: The first ones, (B, C, H, W).
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.whole = model
        self.model = without_idle_units(model, images) or model
        self.is_partial, self.is_compared = True, False
        self.memory = Memory()
        self.logits(images, None)
        self.memory.kept = [value.clone() for _, value in self.memory.last]

    @torch.no_grad()
    def logits(self, images: Tensor, window: Window | None) -> Tensor:
        """Logits (B, C); `window`: where the images differ from the last ones that were kept, None: anywhere."""
        if self.is_partial and (logits := self._partial(images, window)) is not None:
            return logits
        self.is_partial, self.memory = False, Memory()
        found: Tensor = self.whole(images)
        return found

    def _partial(self, images: Tensor, window: Window | None) -> Tensor | None:
        """None: the model cannot be evaluated in part."""
        extent = images.shape[-2], images.shape[-1]
        is_small = window is not None and window.side <= WORTHWHILE * min(extent)
        area = window.area if window and is_small else (slice(0, extent[0]), slice(0, extent[1]))
        self.memory.begin()
        try:
            found = self.model(Maps(self.memory, images[:, :, *area], area, extent))
        except Exception:  # whatever the user's own code can raise
            return None
        if is_small and not self.is_compared:
            expected = self.whole(images[:NUM_COMPARED])
            if (found[:NUM_COMPARED] - expected).abs().max() > TOLERANCE * expected.abs().max():
                return None
            self.is_compared = True
        return found  # type: ignore[no-any-return]

    def keep(self, is_kept: Tensor) -> None:
        """Keep the last images, bool (B,): later ones differ from them in a square."""
        if not is_kept.any():
            return
        index = is_kept.nonzero()[:, 0]
        for kept, (area, values) in zip(self.memory.kept, self.memory.last, strict=True):
            part = kept[:, :, *area] if area else kept
            part.index_copy_(0, index, values.index_select(0, index))

    def select(self, is_left: Tensor) -> None:
        """Drop all images but some, bool (B,)."""
        self.memory.kept = [kept[is_left] for kept in self.memory.kept]
