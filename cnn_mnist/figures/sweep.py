"""Figures of a sweep: runs of each configuration, time and curves."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from cnn_mnist.analysis.statistics import Configuration
from cnn_mnist.figures.canvas import MARKERS, Line, Lines, per_cent, plot, whole_numbers

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito 2008
NAME = 24  # letters of a configuration's name in a line


def configurations(groups: Sequence[Configuration], metric: str, *, in_percent: bool) -> Figure:
    """Each run as a dot, beside it the mean with its interval; a row for each configuration."""
    figure, axes = plot(height=1.3 + 0.75 * len(groups))
    for row, group in enumerate(groups):
        colour = _colour(row)
        axes.plot(group.values, np.full(len(group.values), row - 0.14), "o", color=colour, alpha=0.6, markersize=5)
        margins = None if np.isnan(group.low) else [[group.mean - group.low], [group.high - group.mean]]
        axes.errorbar(group.mean, row + 0.14, xerr=margins, fmt="D", color=colour, capsize=4, markersize=6)
    axes.set_yticks(range(len(groups)), [textwrap.fill(group.name, NAME) for group in groups], fontsize=9)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    _label(axes, metric, "x", in_percent)
    axes.grid(alpha=0.3, axis="x")
    return figure


def against_time(groups: Sequence[Configuration], metric: str, *, in_percent: bool) -> Figure:
    """The metric against the time of training: small marks are runs, a large one is their mean."""
    figure, axes = plot(height=3.2 + 0.2 * len(groups))
    for row, group in enumerate(groups):
        colour, marker = _colour(row), MARKERS[row % len(MARKERS)]
        axes.plot(group.seconds, group.values, marker, color=colour, alpha=0.4, markersize=4)
        axes.plot(np.mean(group.seconds), group.mean, marker, color=colour, markersize=10, label=group.name)
    axes.set_xlabel("seconds of training")
    axes.set_xlim(left=0)
    _label(axes, metric, "y", in_percent)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure


def curves(groups: Sequence[Configuration], metric: str, *, in_percent: bool) -> Figure:
    """The metric after each epoch: the mean of the runs, in a band from the lowest to the highest."""
    figure, axes = plot(height=3.2 + 0.2 * len(groups))
    for row, group in enumerate(groups):
        known = np.isfinite(group.curves).any(axis=0)
        if not known.any():
            continue
        epochs = np.arange(1, group.curves.shape[1] + 1)[known]
        seen = group.curves[:, known]
        axes.fill_between(epochs, np.nanmin(seen, axis=0), np.nanmax(seen, axis=0), color=_colour(row), alpha=0.2, lw=0)
        marker = MARKERS[row % len(MARKERS)]
        axes.plot(epochs, np.nanmean(seen, axis=0), f"{marker}-", color=_colour(row), label=group.name, markersize=4)
    axes.set_xlabel("epoch")
    whole_numbers(axes.xaxis)
    _label(axes, metric, "y", in_percent)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure


def by_number(growth: Sequence[Tensor]) -> Figure:
    """The accuracy of committees of 1, 2... networks: the mean of several, in a band from the lowest to the highest."""
    figure, axes = plot()
    numbers = np.arange(1, len(growth) + 1)
    lowest, highest = ([float(limit(row)) for row in growth] for limit in (min, max))
    axes.fill_between(numbers, lowest, highest, color=COLOURS[0], alpha=0.2, lw=0)
    axes.plot(numbers, [float(row.mean()) for row in growth], "o-", color=COLOURS[0], markersize=4)
    axes.set_xlabel("number of networks")
    whole_numbers(axes.xaxis)
    _label(axes, "accuracy", "y", True)
    axes.grid(alpha=0.3)
    return figure


def history(
    numbers: Sequence[int], values: Sequence[float], best: Sequence[float], metric: str, *, in_percent: bool
) -> Lines:
    """The metric of each trial of a search, by number, and the best so far."""
    lines = [
        Line("a trial", numbers, values, COLOURS[0], "o"),
        Line("the best so far", numbers, best, COLOURS[1], "-"),
    ]
    return Lines("trial", metric, lines, has_whole_x=True, in_percent=in_percent)


def against_option(
    key: str, tried: Sequence[Any], values: Sequence[float], metric: str, *, in_percent: bool, is_log: bool
) -> Figure:
    """The metric of each trial of a search against the value of an option."""
    figure, axes = plot()
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)
    axes.plot(tried if is_number else [str(value) for value in tried], values, "o", color=COLOURS[0], alpha=0.7)
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15)
    axes.set_xlabel(key)
    _label(axes, metric, "y", in_percent)
    axes.grid(alpha=0.3)
    return figure


def shares(rows: Sequence[dict[str, Any]], label: str = "share of the variance between runs") -> Figure:
    """How much of the variance between runs each option explains; rows have `key` and `share` in 0..1."""
    figure, axes = plot(height=1.2 + 0.4 * len(rows))
    axes.barh([row["key"] for row in rows], [row["share"] for row in rows], color=COLOURS[0])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _label(axes, label, "x", True, decimals=0)
    axes.grid(alpha=0.3, axis="x")
    return figure


def _label(axes: Axes, text: str, which: str, in_percent: bool, decimals: int | None = None) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(text)
    if in_percent:
        per_cent(axis, decimals)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
