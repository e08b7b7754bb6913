"""Figures of training and predictions: samples, predictions, confusion matrix, curves."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.figures.canvas import DARK, RIGHT, WRONG, Line, Lines, plot
from cnn_mnist.figures.class_names import name
from cnn_mnist.figures.tiles import Tiles, each, of_images

MOST_COUNTED = 12  # classes of a confusion matrix with room for its counts
LOOKS = {"train": ("o-", DARK), "test": ("s-", WRONG), "val": ("^:", "#555555")}
ATTACK_MARKS = {"robust_acc": "D", "fgsm_acc": "v", "certified_acc": "s"}
ATTACKS = {"robust_acc": ", under attack", "fgsm_acc": ", under one step", "certified_acc": ", proven"}


def sample_grid(images: Tensor, labels: Tensor) -> Tiles:
    """Images (B, 1, H, W) in [0, 1], each over its label, int64 (B,)."""
    names = [name(label) for label in labels.tolist()]
    return Tiles(each(of_images(images[:, 0], names, scale=2)), "Training images")


def predictions(images: Tensor, labels: Tensor, probability: Tensor, title: str = "Predictions") -> Tiles:
    """Images, each over its true class and the one predicted with its probability, wrong ones marked.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        probability: (B, C) in [0, 1].
        title: The figure's title.
    """
    confidence, predicted = probability.max(1)
    answers = list(zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True))
    captions = [f"true {name(label)}\npredicted {name(guess)}\n{_percent(p)}" for label, guess, p in answers]
    tones = ["right" if label == guess else "wrong" for label, guess, _ in answers]
    return Tiles(each(of_images(images[:, 0], captions, tones)), title)


def differences(images: Tensor, labels: Tensor, first: Tensor, second: Tensor) -> Tiles:
    """Images on which two networks differ, with the true class and both predictions.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        first: The first network's probabilities, (B, C).
        second: The second's.
    """
    answers = list(zip(labels.tolist(), first.argmax(1).tolist(), second.argmax(1).tolist(), strict=True))
    captions = [f"true {name(label)}\nfirst: {name(one)}\nsecond: {name(other)}" for label, one, other in answers]
    tones = ["right" if label == other else "wrong" for label, _, other in answers]
    return Tiles(each(of_images(images[:, 0], captions, tones)), "Test images on which the two networks differ")


def confusion_matrix(counts: Tensor, title: str) -> Figure:
    """Counts, int64 (C, C), of true class (rows) against predicted class (columns).

    Only the mistakes are coloured: on one scale with the correct predictions they would all look like zero.
    """
    num_classes = len(counts)
    right = counts.trace().item()
    mistakes = counts.clone().fill_diagonal_(0).numpy()
    figure, axes = plot(height=4.6)
    picture = axes.pcolormesh(mistakes, cmap="Oranges", vmin=0, vmax=max(1, int(mistakes.max())))
    _class_axes(figure, num_classes)
    for i, j in np.ndindex(*counts.shape) if num_classes <= MOST_COUNTED else ():
        count = int(counts[i, j])
        is_dark = i != j and count > 0.6 * mistakes.max()
        colour = "white" if is_dark else RIGHT if i == j else "black" if count else "#767676"
        weight = "bold" if i == j and num_classes <= 5 else "normal"
        axes.text(j + 0.5, i + 0.5, str(count), ha="center", va="center", fontsize=9, color=colour, fontweight=weight)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    total = int(counts.sum())
    axes.set_title(f"{title}: {right:,} right ({right / total:.2%}),\n{total - right:,} wrong", fontsize=10)
    figure.colorbar(picture, ax=axes, label="mistakes", location="bottom", shrink=0.7, aspect=30)
    return figure


def _class_axes(figure: Figure, num_classes: int) -> None:
    """Ticks in the middle of the cells of a table of classes, whose first row is on top."""
    axes = figure.axes[0]
    names = [name(label) for label in range(num_classes)]
    every = -(-num_classes // 16)
    middle = np.arange(0, num_classes, every) + 0.5
    turn = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(middle, names[::every], rotation=turn, fontsize=9)
    axes.set_yticks(middle, names[::every], fontsize=9)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")


def curves(values: dict[str, list[float | int | None]]) -> dict[str, Lines]:
    """Loss and accuracy after each epoch, a chart for each: values by metric, and `epoch`."""
    charts = {}
    for metric, label in {"loss": "cross-entropy", "acc": "accuracy"}.items():
        lines = []
        for metric_name, curve in values.items():
            data, _, rest = metric_name.partition("/")
            if data not in LOOKS or not rest.endswith(metric):
                continue
            style, colour = LOOKS[data]
            lines.append(
                Line(
                    data + ATTACKS.get(rest, ""),
                    [float(epoch or 0) for epoch in values["epoch"]],
                    [float("nan") if value is None else value for value in curve],
                    colour,
                    style if rest == metric else f"{ATTACK_MARKS.get(rest, 'P')}{style[1:]}",
                    is_hollow=rest != metric,
                )
            )
        key = {"loss": "loss", "acc": "accuracy"}[metric]
        charts[key] = Lines("epoch", label, lines, has_whole_x=True, in_percent=metric == "acc")
    return charts


def _percent(p: float) -> str:
    """A probability in per cent that never rounds up to certainty."""
    return f"{min(p, 0.999):.1%}" if p < 0.9995 else ">99.9%"
