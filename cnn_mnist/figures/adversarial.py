"""Figures of attacks: images, perturbations, predictions, and accuracy against epsilon."""

from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist import published
from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.attacks.robustness import RobustAccuracy
from cnn_mnist.attacks.transfer import Transfer
from cnn_mnist.figures.canvas import DARK, INK, RIGHT, WRONG, Colours, Mosaic, cost_curves, mosaic
from cnn_mnist.figures.class_names import name


def fooling_images(result: AttackResult) -> Figure:
    """Images made from noise, each under its target and the network's probability of it."""
    grid = mosaic(INK.of(result.images[:, 0]), min(10, len(result.images)), above=15, top=9)
    answers = _rows(result.target, result.confidence, result.success)
    for place, (target, p, ok) in zip(grid.captions, answers, strict=True):
        _write(grid, place, f"as {name(target)}\np {p:.3f}", ok)
    grid.title("Noise climbed until the network is sure of a class")
    return grid.figure


def grid_of_targets(
    images: Tensor, labels: Tensor, result: AttackResult, source: Tensor, *, num_classes: int = 10
) -> Figure:
    """Images that look like one class and are classified as another: a row per image, a column per class.

    Args:
        images: The images attacked, (R, 1, 28, 28).
        labels: Their classes, int64 (R,).
        result: The N attacks on them.
        source: The row of each attack, int64 (N,).
        num_classes: Number of columns.
    """
    tiles = INK.of(images[:, 0].repeat_interleave(num_classes, 0))
    captions = [""] * len(tiles)
    failed = [True] * len(tiles)
    drawn = INK.of(result.images[:, 0])
    for k, (row, target, p, ok) in enumerate(_rows(source, result.target, result.confidence, result.success)):
        place = row * num_classes + target
        tiles[place], captions[place], failed[place] = drawn[k], f"as {name(target)}, p {p:.2f}", not ok
    for row, label in enumerate(labels.tolist()):
        captions[row * num_classes + label] = f"the {name(label)} itself"
    grid = mosaic(tiles, num_classes, gap=8, above=8, top=9)
    for k, (place, text) in enumerate(zip(grid.captions, captions, strict=True)):
        own = k % num_classes == int(labels[k // num_classes])
        grid.axes.text(
            *place,
            text or "not attacked",
            ha="center",
            va="bottom",
            fontsize=7,
            color="black" if own else "grey" if not text else WRONG if failed[k] else RIGHT,
            fontweight="bold" if own else "normal",
        )
    mse = result.perturbation.square().mean((1, 2, 3))[result.success]
    median = f"median MSE of the successes {mse.median():.4f}" if len(mse) else "no success"
    grid.title(f"A row looks like one class, a column is classified as one; {median}")
    return grid.figure


def mean_costs(result: AttackResult) -> Figure:
    """The report's cost against iteration, averaged over the attacks towards each target."""
    aims = result.target.unique()
    means = torch.stack([result.trace[:, result.target == aim].nanmean(1) for aim in aims], 1)
    return cost_curves(means, [f"as {name(aim)}" for aim in aims.tolist()], "logit - beta * MSE, mean over the images")


def sums(images: Tensor, labels: Tensor, result: AttackResult, title: str) -> Figure:
    """Image, noise and their sum, a column for each; images (N, 1, 28, 28), labels their classes, int64 (N,)."""
    limit = max(result.perturbation.abs().max().item(), 1e-6)
    colours = Colours("RdBu_r", -limit, limit, "added grey value")
    tiles = [INK.of(images[:, 0]), colours.of(result.perturbation[:, 0]), INK.of(result.images[:, 0])]
    grid = mosaic(np.concatenate(tiles), len(images), gap=10, above=10, top=9, right=36)
    n = len(images)
    for place, label in zip(grid.captions[:n], labels.tolist(), strict=True):
        _write(grid, place, name(label), None)
    for place in grid.captions[n : 2 * n]:
        _write(grid, place, "+", None)
    seen = _rows(result.predicted, result.target, result.confidence, result.success)
    for place, (predicted, target, p, ok) in zip(grid.captions[2 * n :], seen, strict=True):
        other = f"p {p:.3f}" if target in (-1, predicted) else f"not {name(target)}"
        text = f"= {name(predicted)}, {other}"
        _write(grid, place, text, ok)
    grid.title(title)
    grid.bar(colours)
    return grid.figure


def noises(values: Tensor, names: list[str]) -> Figure:
    """Noise matrices (T, 1, 28, 28), each under its name."""
    limit = max(values.abs().max().item(), 1e-6)
    colours = Colours("RdBu_r", -limit, limit, "added grey value")
    grid = mosaic(colours.of(values[:, 0]), len(names), gap=10, top=9, right=36)
    grid.caption(names)
    grid.title("One noise for all images")
    grid.bar(colours)
    return grid.figure


def transfer_grid(images: Tensor, labels: Tensor, noises: Tensor, target: Tensor, predicted: Tensor) -> Figure:
    """The report's figure 11: every noise (row) added to every example (column), with the predicted class.

    Args:
        images: (N, 1, 28, 28) in [0, 1].
        labels: Their classes, int64 (N,).
        noises: (T, 1, 28, 28).
        target: The target of each noise, int64 (T,).
        predicted: int64 (T, N).
    """
    tiles = INK.of((images[:, 0] + noises).clamp(0, 1).flatten(0, 1))
    grid = mosaic(tiles, len(images), gap=8, above=8, top=9, right=44)
    for k, place in enumerate(grid.captions):
        row, column = divmod(k, len(images))
        label, seen, aim = int(labels[column]), int(predicted[row, column]), int(target[row])
        grid.axes.text(
            *place,
            f"{name(label)}: seen as {name(seen)}",
            ha="center",
            va="bottom",
            fontsize=7,
            color="black" if seen == label else WRONG if seen == aim else DARK,
            fontweight="bold" if seen == aim != label else "normal",
        )
    for row, aim in enumerate(target.tolist()):
        x, y = grid.corners[(row + 1) * len(images) - 1]
        grid.axes.text(x + 34, y + 14, f"noise made\nfor the {name(aim)}", ha="left", va="center", fontsize=8)
    grid.title("Noise added to other images than its own, too; orange: seen as the noise's class, blue: as a third one")
    return grid.figure


def transfer_rates(found: Transfer, target: Tensor, learnt: str) -> Figure:
    """The share of images that each noise fools, beside random noise of the same norm."""
    figure = Figure(figsize=(9, 3.8), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    place = np.arange(len(target))
    for k, (values, label, colour) in enumerate(
        (
            (found.fooling_rate, f"another class: noise {learnt}", DARK),
            (found.success_rate, f"the noise's class: noise {learnt}", WRONG),
            (found.random_fooling_rate, "another class: random noise of the same norm", "#a9c6da"),
            (found.random_success_rate, "the noise's class: random noise of the same norm", "#edb89f"),
        )
    ):
        axes.bar(place + (k - 1.5) * 0.2, values.cpu().numpy(), 0.2, label=label, color=colour)
    axes.set_xticks(place, [name(t) for t in target.tolist()])
    axes.set_xlabel("class that the noise was made for")
    axes.set_ylabel(f"share of {len(found.clean):,} images")
    axes.set_ylim(0, 1.35 * max(0.1, found.fooling_rate.max().item(), found.random_fooling_rate.max().item()))
    axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper left")
    axes.set_title("Predicted with the noise added", fontsize=10)
    return figure


def robustness(found: RobustAccuracy, *, attack: str, norm: str, num_images: int, dataset: str) -> Figure:
    """Accuracy under attack against epsilon, with published numbers of the same attack, and for each class."""
    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    epsilon = found.epsilon.numpy()
    left.plot(epsilon, found.accuracy.numpy(), "o-", color=DARK, label=f"this network, {attack}")
    if norm == "linf" and dataset == "mnist":
        same = [one for one in published.ROBUST if one.attack.lower().startswith(attack)]
        for one, marker in zip(same, "D^", strict=False):
            source = f"{one.source}, {one.attack}"
            left.plot(published.EPSILON, one.robust, marker, color=WRONG, markersize=6, fillstyle="none", label=source)
    left.axhline(1 / found.by_class.shape[1], color="black", linestyle=":", linewidth=1, label="chance")
    left.set_ylim(-0.03, 1.03)
    unit = "largest change of a pixel" if norm == "linf" else "L2 norm of the change"
    left.set_xlabel(f"epsilon: {unit}")
    left.set_ylabel(f"accuracy under attack, {num_images:,} images")
    left.grid(alpha=0.3)
    left.legend(fontsize=7, frameon=False, loc="best")
    shades = colormaps["viridis"](np.linspace(0, 0.92, found.by_class.shape[1]))
    for label, curve in enumerate(found.by_class.T.numpy()):
        marker = "os^vD<>phX"[label % 10]
        right.plot(epsilon, curve, color=shades[label], marker=marker, markersize=4, label=name(label))
    right.set_ylim(-0.03, 1.03)
    right.set_xlabel(f"epsilon: {unit}")
    right.set_title("of each class", fontsize=10)
    right.grid(alpha=0.3)
    right.legend(fontsize=7, ncols=2, frameon=False)
    return figure


def _rows(*columns: Tensor) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _write(grid: Mosaic, place: tuple[float, float], text: str, is_success: bool | None) -> None:
    """A caption, black where there is no right or wrong."""
    colour = "black" if is_success is None else RIGHT if is_success else WRONG
    grid.axes.text(*place, text, ha="center", va="bottom", fontsize=8, color=colour)
