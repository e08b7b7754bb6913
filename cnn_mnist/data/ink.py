"""Finds the ink of a digit in a picture: what differs from the paper around it in brightness or colour.

Paper need not be evenly lit, so it is estimated around each point; rules, frames, dark edges and specks are taken away.
The thresholds were chosen by looking at MNIST's digits on pages such as those of tests/data/paper.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, measure, transform
from skimage.measure._regionprops import RegionProperties

from cnn_mnist.data.rules import Array, Mask, without_rules

RASTER = 40  # pixels of the longer side up to which a picture is taken as drawn, not photographed
WORKING = 480  # pixels of the longer side, at most, in which ink is looked for
STROKE = 0.4  # widest stroke as a share of the shorter side; what is wider belongs to the paper
FAINTEST = 0.05  # difference of ink and paper, as a share of that of black and white
SMALLEST = 0.035  # longer side of a digit, as a share of the picture's
LIKELY = 0.14  # of a digit that is not fat and does not touch an edge, 1
GRAIN = 5.0  # standard deviations of the paper's grain above which a point can be ink
SPECK = 0.03  # largest share of the digit's area that is dirt
FATTEST = 0.27  # half a stroke's width, as a share of the digit's longer side: no digit; from 0.17 on it is unlikely
ALONG = 0.75  # share of a side that a dark edge covers
NEAR = 0.45  # gap between parts of one digit, as a share of its longer side
ANOTHER = 0.3  # area of a far part, as a share of the digit's, from which it may be another digit

Box = tuple[int, int, int, int]  # top, left, bottom, right


class Blank(ValueError):
    """There is no ink."""


class Found(NamedTuple):
    """What was found.

    Attributes:
        ink: The digit alone, (H, W), 0 on paper and 1 in full ink.
        box: Where in the picture it is.
        notes: What was done.
        doubts: Why it may be wrong.
    """

    ink: Array
    box: Box
    notes: list[str]
    doubts: list[str]


def find(picture: Array) -> Found:
    """The ink of a digit in a picture (H, W, 3), RGB in [0, 1].

    Raises:
        Blank: Nothing differs from the paper.
    """
    found = _look(picture)
    top, left, bottom, right = found.box
    long, side = max(bottom - top, right - left), max(picture.shape[:2])
    if side > WORKING and long < 0.4 * side:  # small on its page: look again, closer
        margin = long // 2 + 8
        above, before = max(0, top - margin), max(0, left - margin)
        closer = picture[above : bottom + margin, before : right + margin]
        try:
            again = _look(closer)
        except Blank:
            return found
        box = (again.box[0] + above, again.box[1] + before, again.box[2] + above, again.box[3] + before)
        return Found(again.ink, box, again.notes, found.doubts)
    return found


def _look(picture: Array) -> Found:
    if max(picture.shape[:2]) <= RASTER:
        return _plain(picture)
    scale = min(1.0, WORKING / max(picture.shape[:2]))
    small = picture
    if scale < 1:
        size = [max(1, round(length * scale)) for length in picture.shape[:2]]
        small = transform.resize(picture, size, order=1, anti_aliasing=True).astype(np.float32)
    tone, is_colour = _tone(small)
    looks = [look for is_dark in (True, False) if (look := _as_ink(tone if is_dark else -tone, is_dark)) is not None]
    if not looks:
        raise Blank
    look = max(looks, key=lambda one: one.weight)
    kept, contrast = look.kept, look.contrast
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    ink = np.where(ndimage.binary_dilation(kept), (contrast / look.level).clip(0, 1), 0)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = tuple(round(place / scale) for place in (top, left, bottom, right))
    how = "in colour" if is_colour else "by being darker" if look.is_dark else "by being lighter"
    return Found(
        ink[top:bottom, left:right].astype(np.float32), box, [f"its ink differs from its paper {how}"], look.doubts
    )


class _Look(NamedTuple):
    """What is found if ink is taken to be the darker, or the lighter: contrast, the digit's points, its level."""

    contrast: Array
    kept: Mask
    level: float
    weight: float
    doubts: list[str]
    is_dark: bool


def _as_ink(tone: Array, is_dark: bool) -> _Look | None:
    """The ink where it is lower in tone than the paper; None where there is none."""
    contrast, grain = _contrast(tone)
    peak = float(_top(contrast).mean())
    if peak < max(FAINTEST, GRAIN * grain):
        return None
    mask = contrast > max(FAINTEST / 2, GRAIN * grain, 0.15 * peak)
    mask = without_rules(mask, contrast)
    if not mask.any():
        return None
    digit = _choose(mask, contrast)
    level = float(np.quantile(contrast[digit.main], 0.8))
    apart = float(
        np.median(tone) - np.median(tone[digit.main & (contrast > 0.5 * level)])
    )  # ink is not of the paper's tone
    distinct = float(np.clip(apart / (0.6 * level), 0.05, 1))
    if not _is_plausible(digit.main, digit.likely * distinct, level):
        return None
    doubts = [*digit.doubts]
    if level < 2 * FAINTEST:
        doubts.append(f"its ink differs little from its paper, by {level:.0%}")
    strong = ndimage.binary_dilation(digit.parts, iterations=2) & (contrast > 0.3 * level)
    labels, _ = ndimage.label(strong, np.ones((3, 3)))
    kept = np.isin(labels, np.unique(labels[digit.parts & strong])) & (labels > 0)
    if not kept.any():
        return None
    sides = {"top": kept[0], "bottom": kept[-1], "left": kept[:, 0], "right": kept[:, -1]}
    if cut := [name for name, side in sides.items() if side.any()]:
        doubts.append(f"its ink reaches the edge of the picture ({', '.join(cut)}): part of it may be cut off")
    return _Look(contrast, kept, level, digit.weight * distinct, doubts, is_dark)


def _is_plausible(main: Mask, likely: float, level: float) -> bool:
    """Whether a region may be a digit, and not a shadow's end, a dark corner, uneven light or a grain."""
    rows, columns = np.asarray(main.any(1)), np.asarray(main.any(0))
    size, picture = max(rows.sum(), columns.sum()), max(main.shape)
    spans = (rows[0] and rows[-1]) or (columns[0] and columns[-1])
    at_an_edge = rows[0] or rows[-1] or columns[0] or columns[-1]
    return bool(
        size >= SMALLEST * picture
        and (not at_an_edge or min(rows.sum(), columns.sum()) >= SMALLEST / 2 * picture)  # else the rest of a rule
        and not (spans and level < 3 * FAINTEST)
        and (likely >= LIKELY or (likely >= 0.05 and size > 0.04 * picture))
    )


def _plain(picture: Array) -> Found:
    """The ink of a picture of few pixels, which is drawn and not photographed: its paper is even."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    ink = np.abs(picture - np.median(border, 0)).mean(2)
    if ink.max() < FAINTEST:
        raise Blank
    ink = ink / ink.max()
    is_ink = ink >= 0.02
    rows, columns = np.flatnonzero(is_ink.any(1)), np.flatnonzero(is_ink.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Found(ink[box[0] : box[2], box[1] : box[3]].astype(np.float32), box, [], [])


def _tone(picture: Array) -> tuple[Array, bool]:
    """What tells ink from paper: the direction in CIELAB in which neighbouring points differ most.

    Returns:
        Each point's place along it, (H, W), and whether it is rather a colour than brightness.
    """
    lab = color.rgb2lab(picture).astype(np.float32) / 100
    if min(picture.shape[:2]) > 60:
        lab = ndimage.gaussian_filter(lab, (0.6, 0.6, 0))
    side = int(0.2 * min(picture.shape[:2])) | 1
    around = ndimage.uniform_filter(ndimage.uniform_filter(lab, (side, side, 1)), (side, side, 1))
    differences = (lab - around).reshape(-1, 3)
    axis = np.linalg.eigh(differences.T @ differences)[1][:, -1]
    tone: Array = lab @ (axis * (1 if axis[0] >= 0 else -1)).astype(np.float32)
    return tone, bool(abs(axis[0]) < 0.5)


def _contrast(tone: Array) -> tuple[Array, float]:
    """How much lower in tone than the paper around it each point is, and the grain's standard deviation."""
    side = int(STROKE * min(tone.shape)) | 1
    calm = ndimage.gaussian_filter(tone, 2)  # grain would lift the envelope
    paper = ndimage.grey_closing(calm, (side, side))
    contrast = paper - tone
    contrast -= np.median(contrast)
    if (usual := float(np.median(paper))) > 0:  # in a shadow ink differs less from its paper
        contrast *= np.clip(usual / paper.clip(1e-3), 1, 3)
    below = contrast[contrast < 0]
    grain = float(np.sqrt((below**2).mean())) if below.size else 0.0
    return contrast.clip(0).astype(np.float32), grain


def _top(values: Array) -> Array:
    """The largest values: those of a thousandth of the points, and of thirty at least."""
    num = min(values.size, max(30, values.size // 1000))
    return np.partition(values.ravel(), -num)[-num:]


class _Digit(NamedTuple):
    """The digit in a mask.

    Attributes:
        main: Its main part.
        parts: All its parts.
        likely: How likely its shape and place are those of a digit, 0 to 1.
        weight: That times its area, contrast and nearness to the middle.
        doubts: Why it may be wrong.
    """

    main: Mask
    parts: Mask
    likely: float
    weight: float
    doubts: list[str]


def _choose(mask: Mask, contrast: Array) -> _Digit:
    """The connected part of a mask that is most likely a digit, with the parts near it."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    parts = measure.regionprops(labels, intensity_image=contrast)
    candidates = [part for part in parts if not _is_edge(part, labels) and not _is_frame(part, parts)] or parts
    main = max(candidates, key=lambda part: _weight(part, mask))
    size = max(main.bbox[2] - main.bbox[0], main.bbox[3] - main.bbox[1])
    distance = ndimage.distance_transform_edt(labels != main.label)
    chosen, doubts = [main.label], []
    for part in candidates:
        if part.label == main.label or part.area < SPECK * main.area:
            continue
        if _num_edges(part, mask) and not _num_edges(main, mask):  # a shadow's end, a corner
            continue
        gap = float(distance[labels == part.label].min())
        beside = min(part.bbox[3], main.bbox[3]) - max(part.bbox[1], main.bbox[1])
        is_as_tall = part.bbox[2] - part.bbox[0] >= 0.6 * (main.bbox[2] - main.bbox[0])
        is_next = is_as_tall and beside < 0.2 * (part.bbox[3] - part.bbox[1]) and gap > 0.1 * size  # as in 42
        if (
            gap <= NEAR * size
            and not is_next
            and part.intensity_mean > 0.4 * main.intensity_mean
            and part.area >= 0.06 * main.area
        ):
            chosen.append(part.label)
        elif part.area >= ANOTHER * main.area and part.intensity_mean > 0.5 * main.intensity_mean:
            doubts = ["there is ink in several places: it may show several digits"]
    return _Digit(labels == main.label, np.isin(labels, chosen), _likely(main, mask), _weight(main, mask), doubts)


def _weight(part: RegionProperties, mask: Mask) -> float:
    """How much speaks for a part: its area, contrast, nearness to the middle, and its shape and place."""
    y, x = (place / side - 0.5 for place, side in zip(part.centroid, mask.shape, strict=True))
    return float(part.area * part.intensity_mean * (1 - 0.5 * np.hypot(y, x)) * _likely(part, mask))


def _likely(part: RegionProperties, mask: Mask) -> float:
    """How likely a part is a digit, 0 to 1: it is made of strokes, and touches no edge of the picture."""
    top, left, bottom, right = part.bbox
    touches = ((top == 0, bottom == mask.shape[0]), (left == 0, right == mask.shape[1]))
    onward = np.pad(part.image, [[int(not side) for side in pair] for pair in touches])  # it goes on beyond an edge
    fatness = ndimage.distance_transform_edt(onward).max() / max(bottom - top, right - left)
    at_edges = (1.0, 0.3, 0.15)[min(2, _num_edges(part, mask))]
    return float(at_edges * np.clip((FATTEST - fatness) / 0.1, 0.05, 1))


def _num_edges(part: RegionProperties, mask: Mask) -> int:
    """How many edges of the picture a part touches."""
    top, left, bottom, right = part.bbox
    return sum((top == 0, left == 0, bottom == mask.shape[0], right == mask.shape[1]))


def _is_edge(part: RegionProperties, labels: NDArray[np.int64]) -> bool:
    """Whether a part lies along an edge of the picture, as a scanner's dark border does."""
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    covered = [float((side == part.label).mean()) for side in sides]
    top, left, bottom, right = part.bbox
    deep = min(bottom - top, right - left) / min(labels.shape)
    return max(covered) >= ALONG or (sum(share > 0.03 for share in covered) >= 2 and part.solidity > 0.8 and deep < 0.4)


def _is_frame(part: RegionProperties, parts: list[RegionProperties]) -> bool:
    """Whether a part encloses another one that is no dirt."""
    top, left, bottom, right = part.bbox
    return part.extent < 0.4 and any(
        other.area > 0.05 * part.area
        and top < other.bbox[0]
        and left < other.bbox[1]
        and bottom > other.bbox[2]
        and right > other.bbox[3]
        for other in parts
        if other.label != part.label
    )
