"""Takes the lines of ruled and squared paper out of a mask of ink."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

THICKEST = 0.03  # as a share of the height
ALONG = 0.75  # share of the width that a line runs along, unless a stroke hides the rest

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def without_rules(mask: Mask, contrast: Array) -> Mask:
    """The mask without lines from edge to edge; where strokes cross them they are mended."""
    for axis in (0, 1):
        turned, values = (mask, contrast) if axis == 0 else (mask.T, contrast.T)
        rules = _rules(turned)
        if not rules.any():
            continue
        strength = float(np.median(values[rules]))
        rest = turned & ~rules
        if rest.sum() < 30 and _count(rules) == 1:  # a one, from edge to edge
            continue
        darker = turned & (values > 1.5 * strength)
        thickness = int(np.ceil(rules.sum() / max(1, rules.any(0).sum()) / max(1, _count(rules))))
        bridged = ~_opened(~(rest | darker), (2 * thickness + 5, 1))
        rest = rest | darker | (bridged & rules)
        mask = rest if axis == 0 else rest.T
    return mask


def _count(rules: Mask) -> int:
    """How many rules there are."""
    return int(ndimage.label(rules, np.ones((3, 3)))[1])


def _opened(mask: Mask, size: tuple[int, int]) -> Mask:
    """The opening of a mask by a rectangle, in a time that does not depend on its size."""
    opened: Mask = ndimage.grey_opening(mask.astype(np.uint8), size).astype(bool)
    return opened


def _rules(mask: Mask) -> Mask:
    """Nearly horizontal lines from edge to edge."""
    height, width = mask.shape
    long = max(9, int(0.1 * width))
    runs = _opened(ndimage.maximum_filter(mask, (3, 1)), (1, long)) & mask
    runs &= ~_opened(runs, (max(3, int(THICKEST * height)) + 1, 1))
    labels, _ = ndimage.label(ndimage.maximum_filter(runs, (3, int(0.2 * width) | 1)), np.ones((3, 3)))
    labels = labels * runs
    flat = [part for part in measure.regionprops(labels) if part.bbox[2] - part.bbox[0] <= 0.12 * height]
    whole = [part for part in flat if part.bbox[3] - part.bbox[1] >= ALONG * width]
    if not whole:
        return np.zeros_like(mask)
    at_a_side = [part for part in flat if part.bbox[1] == 0 or part.bbox[3] == width]  # a stroke hides the rest
    return np.isin(labels, [part.label for part in (*whole, *at_a_side)]) & runs
