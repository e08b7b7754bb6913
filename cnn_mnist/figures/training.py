"""Figures of training and predictions: samples, predictions, confusion matrix, curves."""

from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.figures.canvas import DARK, INK, RIGHT, WRONG, mosaic, per_cent, whole_numbers
from cnn_mnist.figures.class_names import name


def sample_grid(images: Tensor, labels: Tensor, *, num_columns: int = 12) -> Figure:
    """Images (B, 1, H, W) in [0, 1] in a grid, each under its label, int64 (B,)."""
    grid = mosaic(INK.of(images[:, 0]), num_columns, inches=1 / 45)
    grid.caption([name(label) for label in labels.tolist()], size=9)
    return grid.figure


def predictions(images: Tensor, labels: Tensor, probability: Tensor, *, num_columns: int = 8) -> Figure:
    """Images in a grid, each under its true class and the one predicted with its probability, wrong ones marked.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        probability: (B, 10) in [0, 1].
        num_columns: Images in a row.
    """
    grid = mosaic(INK.of(images[:, 0]), num_columns, above=15)
    confidence, predicted = probability.max(1)
    for place, label, guess, p in zip(
        grid.captions, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True
    ):
        is_right = guess == label
        text = grid.axes.text(
            *place, f"true {name(label)}\npredicted {name(guess)} ({_percent(p)})", ha="center", va="bottom", fontsize=8
        )
        text.set(color=RIGHT if is_right else WRONG, fontweight="normal" if is_right else "bold")
    return grid.figure


def differences(images: Tensor, labels: Tensor, first: Tensor, second: Tensor, *, num_columns: int = 8) -> Figure:
    """Images on which two networks differ, with the true class and both predictions.

    Args:
        images: (B, 1, H, W) in [0, 1].
        labels: True classes, int64 (B,).
        first: The first network's probabilities, (B, 10).
        second: The second's.
        num_columns: Images in a row.
    """
    grid = mosaic(INK.of(images[:, 0]), num_columns, above=15)
    for place, label, one, other in zip(
        grid.captions, labels.tolist(), first.argmax(1).tolist(), second.argmax(1).tolist(), strict=True
    ):
        text = grid.axes.text(
            *place, f"true {name(label)}\n{name(one)}, then {name(other)}", ha="center", va="bottom", fontsize=8
        )
        text.set(color=RIGHT if other == label else WRONG)
    return grid.figure


def confusion_matrix(counts: Tensor, title: str) -> Figure:
    """Counts, int64 (C, C), of true class (rows) against predicted class (columns).

    Only the mistakes are coloured: on one scale with the correct predictions they would all look like zero.
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
                fontsize=9 if num_classes <= 12 else 5,
                color="white" if dark else RIGHT if i == j else "black" if count else "#bbbbbb",
                fontweight="bold" if i == j else "normal",
            )
    names = [name(label) for label in range(num_classes)]
    turn = 45 if max(map(len, names)) > 2 else 0
    axis.set_xticks(range(num_classes), names, rotation=turn, ha="right" if turn else "center")
    axis.set_yticks(range(num_classes), names)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    total = int(counts.sum())
    axis.set_title(f"{title}: {right:,} right ({right / total:.2%}), {total - right:,} wrong", fontsize=11)
    figure.colorbar(picture, ax=axis, label="mistakes", shrink=0.8)
    return figure


def curves(values: dict[str, list[float | int | None]]) -> Figure:
    """Loss and accuracy after each epoch: values by metric, and `epoch`."""
    figure = Figure(figsize=(10, 3.8), layout="constrained", dpi=110)
    looks = {"train": ("o-", DARK), "test": ("s--", WRONG), "val": ("^:", "#555555")}
    for axes, (metric, words) in zip(
        figure.subplots(1, 2), {"loss": "cross-entropy", "acc": "accuracy"}.items(), strict=True
    ):
        for metric_name, curve in values.items():
            data, _, rest = metric_name.partition("/")
            if data not in looks or not rest.endswith(metric):
                continue
            style, colour = looks[data]
            is_robust = rest != metric
            attack = {"robust_acc": ", under attack", "fgsm_acc": ", under one step"}.get(rest, "")
            axes.plot(
                [float(epoch or 0) for epoch in values["epoch"]],
                [float("nan") if value is None else value for value in curve],
                style,
                color=colour,
                fillstyle="none" if is_robust else "full",
                label=data + attack,
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(words)
        whole_numbers(axes.xaxis)
        if metric == "acc":
            per_cent(axes.yaxis)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _percent(p: float) -> str:
    """A probability in per cent that never rounds up to certainty."""
    return f"{min(p, 0.999):.1%}" if p < 0.9995 else ">99.9%"
