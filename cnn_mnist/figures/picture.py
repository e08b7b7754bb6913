"""The figures of pictures of the user's own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from cnn_mnist.figures.canvas import DARK, INK, WRONG, mosaic, per_cent, reduced
from cnn_mnist.figures.class_names import name

SHEET_COLUMNS = 4  # pairs of a picture and its image: as many as can be told apart on a page


def reading(given: NDArray[np.float32], box: tuple[int, int, int, int], image: Tensor, probability: Tensor) -> Figure:
    """The picture with the box that was used, what the network sees of it, and its answer.

    Args:
        given: The picture, RGB (H, W, 3) in [0, 1].
        box: Top, left, bottom, right of its ink.
        image: (1, 1, 28, 28) in [0, 1].
        probability: Of each class, (C,).
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained", dpi=110)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.2, 1, 1.3])
    height, width = given.shape[:2]
    left.imshow(reduced(given, 1000), extent=(0, width, height, 0))
    top, start, bottom, end = box
    left.add_patch(Rectangle((start, top), end - start, bottom - top, fill=False, edgecolor=WRONG, linewidth=2))
    left.set_title("the picture, and its ink", fontsize=10)
    middle.imshow(image[0, 0].numpy(), cmap="gray_r", vmin=0, vmax=1)
    middle.set_title("what the network sees", fontsize=10)
    for axes in (left, middle):
        axes.set_xticks([])
        axes.set_yticks([])
    best = int(probability.argmax())
    names = [name(label) for label in range(len(probability))]
    right.barh(
        range(len(names)),
        probability.numpy(),
        color=[DARK if label == best else "#a9c6da" for label in range(len(names))],
    )
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    per_cent(right.xaxis)
    right.set_title("probability of each class", fontsize=10)
    return figure


def change(image: Tensor, perturbation: Tensor) -> Figure:
    """An image, a change and their sum, each (1, 1, 28, 28)."""
    figure = Figure(figsize=(8, 3.1), layout="constrained", dpi=110)
    most = perturbation.abs().max().item()
    shown = (
        ("what the network sees", image, "gray_r", 0, 1),
        ("the change", perturbation, "RdBu_r", -most, most),
        ("the sum", image + perturbation, "gray_r", 0, 1),
    )
    for axes, (title, values, colours, low, high) in zip(figure.subplots(1, 3), shown, strict=True):
        drawn = axes.imshow(values[0, 0].numpy(), cmap=colours, vmin=low, vmax=high)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        if colours == "RdBu_r":
            figure.colorbar(drawn, ax=axes, shrink=0.8).ax.tick_params(labelsize=8)
    return figure


def nearest(images: Tensor, labels: Tensor, distance: Tensor) -> Figure:
    """Training images (N, 1, 28, 28) with their classes and distances, (N,)."""
    grid = mosaic(INK.of(images[:, 0]), 4)
    grid.caption([f"{name(label)}, {far:.1f}" for label, far in zip(labels.tolist(), distance.tolist(), strict=True)])
    return grid.figure


class Entry(NamedTuple):
    """A picture on a contact sheet: its name, RGB (H, W, 3) in [0, 1], and whether it may have been read wrongly."""

    name: str
    given: NDArray[np.float32]
    is_doubtful: bool


def contact_sheet(pictures: Sequence[Entry], images: Tensor, probability: Tensor) -> Figure:
    """Pictures, each beside what the network sees of it, (N, 1, 28, 28), and its answer, (N, C)."""
    num_rows = -(-len(pictures) // SHEET_COLUMNS)
    num_columns = min(len(pictures), SHEET_COLUMNS)
    figure = Figure(figsize=(2.7 * num_columns, 1.75 * num_rows), layout="constrained", dpi=110)
    cells = figure.subplots(num_rows, 2 * num_columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    for k, (one, image, answer) in enumerate(zip(pictures, images, probability, strict=True)):
        row, column = divmod(k, SHEET_COLUMNS)
        left, right = cells[row, 2 * column : 2 * column + 2]
        left.imshow(one.given)
        right.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        short = one.name if len(one.name) <= 18 else f"{one.name[:15]}..."
        left.set_title(short, fontsize=7, loc="left", parse_math=False)
        best = int(answer.argmax())
        colour = WRONG if one.is_doubtful else "black"
        says = f"{name(best)}  {answer[best]:.1%}"
        right.set_title(says, fontsize=9, fontweight="bold", loc="left", color=colour, parse_math=False)
    return figure
