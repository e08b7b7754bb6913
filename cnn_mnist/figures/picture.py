"""The figures of pictures of the user's own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cnn_mnist.figures.canvas import DARK, DIVERGING, Colours, per_cent, plot, reduced
from cnn_mnist.figures.class_names import name
from cnn_mnist.figures.tiles import Pixels, Tile, Tiles, boxed, each, of_images

SIDE = 336  # pixels of the longer side of a picture: as wide as a phone
LARGE = 8  # scale of what the network sees of it
LONGEST = 18  # letters of a file's name on a contact sheet


def reading(given: NDArray[np.float32], box: tuple[int, int, int, int], image: Tensor) -> Tiles:
    """The picture with the box that was used, and what the network sees of it.

    Args:
        given: The picture, RGB (H, W, 3) in [0, 1].
        box: Top, left, bottom, right of its ink.
        image: (1, 1, 28, 28) in [0, 1].
    """
    small = reduced(given, SIDE)
    down, across = (small.shape[side] / given.shape[side] for side in (0, 1))
    top, left, bottom, right = (round(ratio * place) for ratio, place in zip((down, across) * 2, box, strict=True))
    scale = max(1, SIDE // max(small.shape[:2]))
    picture = Tile(boxed(_as_bytes(small), (top, left, bottom, right)), "the picture, and its ink", scale=scale)
    seen = of_images(image[:, 0], ["what the network sees"], scale=LARGE)
    return Tiles([[picture, *seen]], "How the picture is read")


def probabilities(probability: Tensor) -> Figure:
    """The probability of each class, (C,)."""
    best = int(probability.argmax())
    names = [name(label) for label in range(len(probability))]
    figure, axes = plot(height=max(3.0, 0.6 + 0.22 * len(names)))
    shades = [DARK if label == best else "#a9c6da" for label in range(len(names))]
    axes.barh(range(len(names)), probability.numpy(), color=shades)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    per_cent(axes.xaxis)
    axes.set_ylabel("class")
    axes.set_xlabel("probability")
    return figure


def change(image: Tensor, perturbation: Tensor) -> Tiles:
    """An image, a change and their sum, each (1, 1, 28, 28)."""
    most = max(perturbation.abs().max().item(), 1e-6)
    colours = Colours(DIVERGING, -most, most, "change of the grey value")
    before = of_images(image[:, 0], ["what the network sees"], scale=4)
    added = of_images(perturbation[:, 0], ["the change"], scale=4, colours=colours)
    after = of_images((image + perturbation)[:, 0], ["the sum"], scale=4)
    return Tiles([[*before, *added, *after]], "The change, and what it makes of the picture", bar=colours)


def nearest(images: Tensor, labels: Tensor, distance: Tensor) -> Tiles:
    """Training images (N, 1, 28, 28) with their classes and distances, (N,)."""
    captions = [f"{name(label)}, {far:.1f}" for label, far in zip(labels.tolist(), distance.tolist(), strict=True)]
    return Tiles(each(of_images(images[:, 0], captions)), "The nearest training images")


class Entry(NamedTuple):
    """A picture on a contact sheet: its name, RGB (H, W, 3) in [0, 1], and whether it may have been read wrongly."""

    name: str
    given: NDArray[np.float32]
    is_doubtful: bool


def contact_sheet(pictures: Sequence[Entry], images: Tensor, probability: Tensor) -> Tiles:
    """Pictures, each beside what the network sees of it, (N, 1, 28, 28), and its answer, (N, C)."""
    groups = []
    for one, image, answer in zip(pictures, images, probability, strict=True):
        short = one.name if len(one.name) <= LONGEST else f"{one.name[: LONGEST - 3]}..."
        best = int(answer.argmax())
        tone = "wrong" if one.is_doubtful else "strong"
        seen = of_images(image, [f"{name(best)}\n{answer[best]:.1%}"], [tone], scale=4)
        groups.append([Tile(_as_bytes(one.given), short, scale=1), *seen])
    return Tiles(groups, "The pictures, and what the network sees of each")


def _as_bytes(picture: NDArray[np.float32]) -> Pixels:
    """RGB in [0, 1] as uint8."""
    return (255 * picture).round().clip(0, 255).astype(np.uint8)
