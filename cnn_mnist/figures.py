"""Results to matplotlib figures; touches no model, and no global state of matplotlib."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

RIGHT, WRONG = "#1b6ca8", "#c1440e"  # told apart by colour-blind readers, and in grey


def to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as RGB uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def sample_grid(images: Tensor, labels: Tensor, *, num_columns: int = 12) -> Figure:
    """Images (B, 1, H, W) in [0, 1] in a grid, each under its label, int64 (B,)."""
    figure, axis, places = _mosaic(images, num_columns, num_lines=1)
    for (x, y), label in zip(places, labels.tolist(), strict=True):
        axis.text(x, y, str(label), ha="center", va="bottom", fontsize=9)
    return figure


def predictions(images: Tensor, labels: Tensor, probability: Tensor, *, num_columns: int = 8) -> Figure:
    """Images in a grid, each under its true class and the one predicted with its probability, wrong ones marked.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        probability: (B, 10) in [0, 1].
        num_columns: Images in a row.
    """
    figure, axis, places = _mosaic(images, num_columns, num_lines=2)
    confidence, predicted = probability.max(1)
    for place, label, guess, p in zip(places, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True):
        is_right = guess == label
        text = axis.text(
            *place, f"true {label}\npredicted {guess} ({_percent(p)})", ha="center", va="bottom", fontsize=8
        )
        text.set(color=RIGHT if is_right else WRONG, fontweight="normal" if is_right else "bold")
    return figure


def confusion_matrix(counts: Tensor, title: str) -> Figure:
    """Counts, int64 (C, C), of true class (rows) against predicted class (columns).

    Coloured by the mistakes alone: on one scale with the right answers they would all look like zero.
    """
    num_classes = len(counts)
    right = counts.trace().item()
    mistakes = counts.clone().fill_diagonal_(0).numpy()
    figure = Figure(figsize=(7, 6), layout="constrained", dpi=110)
    axis = figure.add_subplot()
    picture = axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1, int(mistakes.max())))
    for i in range(num_classes):
        for j in range(num_classes):
            count = int(counts[i, j])
            dark = i != j and count > 0.6 * mistakes.max()
            axis.text(
                j,
                i,
                str(count),
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else RIGHT if i == j else "black" if count else "#bbbbbb",
                fontweight="bold" if i == j else "normal",
            )
    axis.set_xticks(range(num_classes))
    axis.set_yticks(range(num_classes))
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    total = int(counts.sum())
    axis.set_title(f"{title}: {right:,} right ({right / total:.2%}), {total - right:,} wrong", fontsize=11)
    figure.colorbar(picture, ax=axis, label="mistakes", shrink=0.8)
    return figure


def _mosaic(images: Tensor, num_columns: int, *, num_lines: int) -> tuple[Figure, Axes, list[tuple[float, float]]]:
    """Images (B, 1, H, W) in [0, 1] in one picture, ink dark on light paper, room for a caption above each.

    One set of axes instead of B: a tenth of the time. Also returns where each caption's foot stands.
    """
    height, width = images.shape[2:]
    caption = 3 + 6 * num_lines
    gap = 12
    num_rows = -(-len(images) // num_columns)
    rows, columns = num_rows * (height + caption) + gap, num_columns * (width + gap) + gap
    paper = np.zeros((rows, columns), np.float32)
    places = []
    for k, image in enumerate(images[:, 0].numpy()):
        top, left = (k // num_columns) * (height + caption) + caption, (k % num_columns) * (width + gap) + gap
        paper[top : top + height, left : left + width] = image
        places.append((left + width / 2 - 0.5, top - 1.5))
    figure = Figure(figsize=(columns / 30, rows / 30), dpi=110)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.imshow(paper, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    return figure, axis, places


def _percent(p: float) -> str:
    """A probability in per cent that never rounds up to certainty."""
    return f"{min(p, 0.999):.1%}" if p < 0.9995 else ">99.9%"
