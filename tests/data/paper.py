"""Digits as people photograph, scan and draw them: a picture of a kind, at one of three strengths."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage.morphology import dilation, disk, skeletonize

Array = NDArray[np.float64]
Random = np.random.Generator
PAPER, PEN = np.array([0.93, 0.92, 0.89]), np.array([0.12, 0.12, 0.16])


def drawn(digit: Array, random: Random, *, factor: int = 10, page: int = 460) -> Array:
    """How much ink lies on each point of a page, 0 to 1: the digit enlarged, somewhere near the middle."""
    side = digit.shape[0] * factor
    large = Image.fromarray((digit * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    smooth = np.asarray(large.filter(ImageFilter.GaussianBlur(factor * 0.35)), float) / 255
    ink = np.zeros((page, page))
    room = (page - side) // 2
    top, left = (room + int(random.integers(-room // 2, room // 2 + 1)) for _ in range(2))
    ink[top : top + side, left : left + side] = ((smooth - 0.35) / 0.3).clip(0, 1)
    return ink


def written(ink: Array, paper: Array = PAPER, pen: Array = PEN) -> Array:
    """The page as RGB (H, W, 3)."""
    return paper + ink[..., None] * (pen - paper)


def light(shape: tuple[int, int], random: Random, low: float) -> Array:
    """A slope of brightness from 1 down to `low`, in some direction."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    slope: Array = low + (1 - low) * (along + 1) / 2
    return slope


def clean(digit: Array, strength: int, random: Random) -> Array:
    return written(drawn(digit, random, factor=(10, 6, 16)[strength]))


def uneven(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    return written(ink) * light(ink.shape, random, (0.7, 0.5, 0.3)[strength])[..., None]


def shadow(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    depth, soft = (0.75, 0.6, 0.45)[strength], (20, 10, 4)[strength]
    slope = light(ink.shape, random, 0)
    edge = 1 / (1 + np.exp(-(slope - random.uniform(0.35, 0.65)) * ink.shape[0] / soft))
    page: Array = written(ink) * (depth + (1 - depth) * edge)[..., None]
    return page


def vignette(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    y, x = np.mgrid[-1 : 1 : ink.shape[0] * 1j, -1 : 1 : ink.shape[1] * 1j]
    page: Array = written(ink) * (1 - (0.3, 0.5, 0.7)[strength] * ((x**2 + y**2) / 2) ** 1.5)[..., None]
    return page


def grain(digit: Array, strength: int, random: Random) -> Array:
    page = written(drawn(digit, random), pen=np.array([0.25, 0.25, 0.3]))
    fine = random.normal(0, (0.03, 0.07, 0.12)[strength], page.shape[:2])
    coarse = ndimage.gaussian_filter(random.normal(0, 1, page.shape[:2]), 4)
    page += (fine + (0.01, 0.02, 0.03)[strength] * coarse / coarse.std())[..., None]
    return page


def jpeg(digit: Array, strength: int, random: Random) -> Array:
    page = written(drawn(digit, random), pen=np.array([0.2, 0.25, 0.5]))
    file = io.BytesIO()
    Image.fromarray((page.clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=(50, 20, 8)[strength])
    return np.asarray(Image.open(file), float) / 255


def ruled(digit: Array, strength: int, random: Random, *, squared: bool = False, colour: Array | None = None) -> Array:
    ink = drawn(digit, random)
    page = written(ink)
    rule = np.array([0.65, 0.68, 0.75]) if colour is None else colour
    rule = PAPER + (rule - PAPER) * (0.5, 0.8, 1.0)[strength]
    distance, width = (60, 45, 36)[strength], (1, 2, 3)[strength]
    lines = np.zeros_like(ink)
    for start in range(int(random.integers(distance)), ink.shape[0], distance):
        lines[start : start + width] = 1
        if squared:
            lines[:, start : start + width] = 1
    lines = ndimage.rotate(np.pad(lines, 60, mode="wrap"), (0, 1, 2)[strength], reshape=False, order=1)[60:-60, 60:-60]
    return np.minimum(page, written(lines, PAPER, rule))


def squared(digit: Array, strength: int, random: Random) -> Array:
    return ruled(digit, strength, random, squared=True)


def blue_rules(digit: Array, strength: int, random: Random) -> Array:
    return ruled(digit, strength, random, colour=np.array([0.45, 0.6, 0.9]))


def frame(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random, factor=(10, 9, 8)[strength], page=400)
    margin, width = (8, 16, 26)[strength], (3, 6, 10)[strength]
    box = np.zeros_like(ink)
    box[margin:-margin, margin:-margin] = 1
    box[margin + width : -margin - width, margin + width : -margin - width] = 0
    return written(np.maximum(ink, box))


def dark_edge(digit: Array, strength: int, random: Random) -> Array:
    page = written(drawn(digit, random))
    width = (8, 20, 45)[strength]
    sides = random.permutation(4)[: strength + 1]
    for side in sides:
        np.rot90(page, side)[:width] = (0.3, 0.15, 0.05)[strength]
    return page


def corner(digit: Array, strength: int, random: Random) -> Array:
    page = written(drawn(digit, random))
    size = (40, 80, 120)[strength]
    turned = np.rot90(page, int(random.integers(4)))
    y, x = np.mgrid[: turned.shape[0], : turned.shape[1]]
    turned[x + y < size] = 0.2
    return page


def specks(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    for _ in range((8, 25, 60)[strength]):
        cy, cx, radius = (
            random.uniform(0, ink.shape[0]),
            random.uniform(0, ink.shape[1]),
            random.uniform(1, (2, 3, 4)[strength]),
        )
        ink = np.maximum(ink, (y - cy) ** 2 + (x - cx) ** 2 < radius**2)
    return written(ink)


def thin(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    width = (5, 3, 2)[strength]
    return written(ndimage.gaussian_filter(dilation(skeletonize(ink > 0.5), disk(width)).astype(float), 0.7))


def thick(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    return written(ndimage.gaussian_filter(ndimage.grey_dilation(ink, (2 * (3, 6, 9)[strength] + 1,) * 2), 2))


def pencil(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    texture = ndimage.gaussian_filter(random.uniform(0, 1, ink.shape), 1)
    texture = ((texture - texture.mean()) / texture.std() * 0.2 + 0.8).clip(0.2, 1)
    page = written(ink * texture, pen=PAPER - (0.45, 0.3, 0.2)[strength])
    return page + random.normal(0, 0.012, page.shape[:2])[..., None]


def coloured(digit: Array, strength: int, random: Random) -> Array:
    """Ink of the paper's brightness, or near it: only the colour differs."""
    ink = drawn(digit, random)
    paper, pen = [
        (np.array([0.95, 0.9, 0.5]), np.array([0.3, 0.3, 0.9])),
        (np.array([0.75, 0.85, 0.75]), np.array([0.95, 0.65, 0.8])),
        (np.array([0.55, 0.75, 0.6]), np.array([0.85, 0.6, 0.65])),
    ][strength]
    page = written(ink, paper, pen)
    return page + random.normal(0, 0.01, page.shape)


def small(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random, factor=(6, 4, 3)[strength], page=(500, 700, 900)[strength])
    return written(ink)


def at_the_edge(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    rows, columns = np.flatnonzero((ink > 0.5).any(1)), np.flatnonzero((ink > 0.5).any(0))
    keep = (6, 2, 0)[strength]
    top, left = max(rows[0] - keep, 0), max(columns[0] - keep, 0)
    cut = ink[top:, left:] if random.random() < 0.5 else ink[: rows[-1] + 1 + keep, : columns[-1] + 1 + keep]
    return written(cut)


def moved(digit: Array, strength: int, random: Random) -> Array:
    """A drawing of 28x28 that is not centred: white on black."""
    most = (2, 3, 4)[strength]
    rows, columns = np.flatnonzero((digit > 0).any(1)), np.flatnonzero((digit > 0).any(0))
    up = (max(-most, -int(rows[0])), min(most, 27 - int(rows[-1])))
    side = (max(-most, -int(columns[0])), min(most, 27 - int(columns[-1])))
    shift = (up[int(random.integers(2))], side[int(random.integers(2))])
    return np.repeat(np.roll(digit, shift, (0, 1))[..., None], 3, 2)


def blackboard(digit: Array, strength: int, random: Random) -> Array:
    ink = drawn(digit, random)
    page = written(ink, np.array([0.12, 0.2, 0.15]), np.array([0.9, 0.9, 0.88]))
    return page * light(ink.shape, random, (1, 0.8, 0.6)[strength])[..., None] + random.normal(0, 0.01, page.shape)


KINDS: dict[str, Callable[[Array, int, Random], Array]] = {
    kind.__name__: kind
    for kind in (
        clean, uneven, shadow, vignette, grain, jpeg, ruled, squared, blue_rules, frame, dark_edge, corner, specks,
        thin, thick, pencil, coloured, small, at_the_edge, moved, blackboard,
    )
}  # fmt: skip


def picture(kind: str, digit: Array, strength: int, seed: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of a digit (28, 28) in [0, 1]."""
    page = KINDS[kind](digit, strength, np.random.default_rng(seed))
    return (page.clip(0, 1) * 255).round().astype(np.uint8)
