"""Figures of attacks: images, perturbations, predictions, and accuracy against epsilon."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.attacks.robustness import RobustAccuracy
from cnn_mnist.attacks.transfer import Transfer
from cnn_mnist.figures.canvas import (
    DARK,
    DIVERGING,
    ITSELF,
    WRONG,
    Colours,
    Line,
    Lines,
    class_curves,
    cost_curves,
    plot,
)
from cnn_mnist.figures.class_names import name
from cnn_mnist.figures.tiles import Tiles, each, of_images
from cnn_mnist.published import EPSILON, Robust


def fooling_images(result: AttackResult) -> Tiles:
    """Images made from noise, each over its target and the network's probability of it."""
    answers = _rows(result.target, result.confidence, result.success)
    captions = [f"as {name(target)}\np {p:.3f}" for target, p, _ in answers]
    tiles = of_images(result.images[:, 0], captions, _tones(result.success))
    return Tiles(each(tiles), "Noise climbed until the network is sure of a class")


def grid_of_targets(
    images: Tensor, labels: Tensor, result: AttackResult, source: Tensor, *, num_classes: int = 10
) -> Tiles:
    """Images that look like one class and are classified as another: a row per image, a column per class.

    Args:
        images: The images attacked, (R, 1, 28, 28).
        labels: Their classes, int64 (R,).
        result: The N attacks on them.
        source: The row of each attack, int64 (N,).
        num_classes: Number of columns.
    """
    rows = []
    for image, label in zip(images, labels.tolist(), strict=True):
        itself = [f"the {name(label)} itself" if aim == label else "not attacked" for aim in range(num_classes)]
        tones = ["strong" if aim == label else "faint" for aim in range(num_classes)]
        rows.append(of_images(image.expand(num_classes, -1, -1), itself, tones))
    drawn = of_images(result.images[:, 0], tones=_tones(result.success))
    for tile, row, target, p in zip(drawn, *_columns(source, result.target, result.confidence), strict=True):
        rows[row][target] = tile._replace(caption=f"as {name(target)}\np {p:.2f}")
    mse = result.perturbation.square().mean((1, 2, 3))[result.success]
    median = f"median MSE of the successes {mse.median():.4f}" if len(mse) else "no success"
    return Tiles(rows, f"A row looks like one class, a column is classified as one; {median}", is_row=True)


def mean_costs(result: AttackResult) -> Figure:
    """The lab report's cost against iteration, averaged over the attacks towards each target."""
    aims = result.target.unique()
    means = torch.stack([result.trace[:, result.target == aim].nanmean(1) for aim in aims], 1)
    return cost_curves(means, [f"as {name(aim)}" for aim in aims.tolist()], "logit - beta * MSE (mean)")


def sums(images: Tensor, labels: Tensor, result: AttackResult, title: str) -> Tiles:
    """Image, noise and their sum, a column for each; images (N, 1, 28, 28), labels their classes, int64 (N,)."""
    colours = _both_signs(result.perturbation)
    captions = []
    for predicted, target, p in _rows(result.predicted, result.target, result.confidence):
        other = f"p {p:.3f}" if target in (-1, predicted) else f"not {name(target)}"
        captions.append(f"= {name(predicted)}\n{other}")
    before = of_images(images[:, 0], [name(label) for label in labels.tolist()])
    added = of_images(result.perturbation[:, 0], ["+"] * len(images), colours=colours)
    after = of_images(result.images[:, 0], captions, _tones(result.success))
    return Tiles(list(zip(before, added, after, strict=True)), title, is_stacked=True, bar=colours)


def noises(values: Tensor, names: list[str]) -> Tiles:
    """Noise matrices (T, 1, 28, 28), each over its name."""
    colours = _both_signs(values)
    return Tiles(each(of_images(values[:, 0], names, colours=colours)), "One noise for all images", bar=colours)


def transfer_grid(images: Tensor, labels: Tensor, noises: Tensor, target: Tensor, predicted: Tensor) -> Tiles:
    """The lab report's figure 11: every noise (row) added to every example (column), with the predicted class.

    Args:
        images: (N, 1, 28, 28) in [0, 1].
        labels: Their classes, int64 (N,).
        noises: (T, 1, 28, 28).
        target: The target of each noise, int64 (T,).
        predicted: int64 (T, N).
    """
    rows = []
    for noise, aim, answers in zip(noises, target.tolist(), predicted.tolist(), strict=True):
        seen = list(zip(labels.tolist(), answers, strict=True))
        captions = [f"{name(label)} seen as {name(answer)}" for label, answer in seen]
        tones = ["" if answer == label else "wrong" if answer == aim else "right" for label, answer in seen]
        rows.append(of_images((images[:, 0] + noise).clamp(0, 1), captions, tones))
    headings = [f"Noise made for the class {name(aim)}" for aim in target.tolist()]
    title = "Noise added to other images than its own, too; orange: seen as the noise's class, blue: as a third one"
    return Tiles(rows, title, headings, is_row=True)


def transfer_rates(found: Transfer, target: Tensor, learnt: str) -> Figure:
    """The share of images that each noise fools, beside random noise of the same norm."""
    figure, axes = plot(height=4.2)
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
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    axes.set_title("Predicted with the noise added", fontsize=10)
    return figure


def robustness(found: RobustAccuracy, beside: Sequence[Robust], *, attack: str, norm: str, num_images: int) -> Lines:
    """Accuracy under attack against epsilon, with published numbers `beside` it."""
    epsilon = found.epsilon.tolist()
    lines = [Line(f"{ITSELF}, {attack}", epsilon, found.accuracy.tolist(), DARK)]
    lines += [
        Line(f"{one.source}, {one.attack}", [EPSILON], [one.robust], WRONG, marker, True, True)
        for one, marker in zip(beside, "D^sv", strict=False)
    ]
    chance = 1 / found.by_class.shape[1]
    lines.append(Line("chance", [epsilon[0], epsilon[-1]], [chance, chance], "black", ":", is_reference=True))
    y_label = f"accuracy on {num_images:,} images"
    return Lines(_epsilon(norm), y_label, lines, y_range=(-0.03, 1.03), in_percent=True)


def certified(radius: Tensor, num_images: int, epsilon: float) -> Lines:
    """The share of all images that are proven, against epsilon, from the radii (R,) of those classified correctly."""
    limits = torch.linspace(0, max(1.2 * epsilon, radius.max().item() if len(radius) else 0.0), 61).double()
    share = (radius >= limits[:, None]).double().sum(1) / num_images
    line = Line(f"{ITSELF}, proven", limits.tolist(), share.tolist(), DARK, "-")
    return Lines(_epsilon("linf"), f"share of {num_images:,} images", [line], y_range=(-0.03, 1.03), in_percent=True)


def radii(*rows: tuple[Tensor, Tensor, Tensor]) -> Tiles:
    """Rows of images (B, 1, H, W), each over its class, int64 (B,), and its radius, (B,)."""
    drawn = [
        of_images(images[:, 0], [f"{name(label)}\n{far:.4f}" for label, far in _rows(labels, radius)])
        for images, labels, radius in rows
    ]
    return Tiles(drawn, "Up to which change it is proven", ["The least", "The furthest"], is_row=True)


def robustness_by_class(found: RobustAccuracy, *, norm: str) -> Figure:
    """Accuracy under attack against epsilon, for each class."""
    names = [name(label) for label in range(found.by_class.shape[1])]
    labels = {"x_label": _epsilon(norm), "y_label": "accuracy of each class"}
    figure = class_curves(found.by_class, names, x=found.epsilon, **labels)
    figure.axes[0].set_ylim(-0.03, 1.03)
    return figure


def _epsilon(norm: str) -> str:
    return f"epsilon: {'largest change of a pixel' if norm == 'linf' else 'L2 norm of the change'}"


def _both_signs(values: Tensor) -> Colours:
    limit = max(values.abs().max().item(), 1e-6)
    return Colours(DIVERGING, -limit, limit, "added grey value")


def _rows(*columns: Tensor) -> list[tuple[Any, ...]]:
    return list(zip(*_columns(*columns), strict=True))


def _columns(*columns: Tensor) -> list[list[Any]]:
    return [column.tolist() for column in columns]


def _tones(success: Tensor) -> list[str]:
    return ["right" if ok else "wrong" for ok in success.tolist()]
