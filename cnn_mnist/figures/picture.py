"""The figure of a picture of the user's own."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from cnn_mnist.figures.canvas import DARK, WRONG, per_cent
from cnn_mnist.figures.class_names import name


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
    every = max(1, max(given.shape[:2]) // 1000)
    height, width = given.shape[:2]
    left.imshow(given[::every, ::every], extent=(0, width, height, 0))
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
