"""Shared by all figures: colours, axes, and line charts, of one network or of two on the same axes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from cnn_mnist.figures.class_names import colour

DARK, LIGHT = "#1b4f72", "#7fb3d5"
DIVERGING = "RdBu_r"  # a colour map with zero in its middle
RIGHT, WRONG = "#1b6ca8", "#c1440e"  # told apart by colour-blind readers, and in grey
MARKERS = "os^vD<>phX"
WIDTH = 4.6  # inches of a chart: two fit side by side on a desktop, and nine points can be read on a phone
DPI = 110
ITSELF = "this network"  # in a label: replaced by the network's name where there are two


def plot(*, width: float = WIDTH, height: float = 3.4) -> tuple[Figure, Axes]:
    """An empty chart, in inches. Nothing in it is written smaller than nine points."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    return figure, figure.add_subplot()


def whole_numbers(axis: Axis) -> None:
    """Put ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def per_cent(axis: Axis, decimals: int | None = None) -> None:
    """Write an axis of fractions in per cent, and end it at 0 and 100 %."""
    low, high = axis.get_view_interval()
    axis.set_view_interval(max(low, 0), min(high, 1), ignore=True)
    axis.set_major_formatter(PercentFormatter(1, decimals))


class Colours(NamedTuple):
    """A colour map between two limits, and the label of its colour bar."""

    name: str
    low: float
    high: float
    label: str = ""

    def of(self, values: Tensor) -> NDArray[np.uint8]:
        """Values (...) as RGB, (..., 3); NaN is white."""
        normal = Normalize(self.low, self.high, clip=True)(np.ma.masked_invalid(values.detach().float().cpu().numpy()))
        colours: NDArray[np.uint8] = colormaps[self.name].with_extremes(bad="white")(normal, bytes=True)
        return colours[..., :3]


INK = Colours("gray_r", 0, 1)  # dark on light paper, as it was written


def reduced(picture: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """A picture (H, W, 3) whose longer side has at most `longest` pixels, each the mean of a square: thin ink stays."""
    side = -(-max(picture.shape[:2]) // longest)
    height, width = (max(1, length // side) for length in picture.shape[:2])
    whole = picture[: height * side, : width * side]
    rows, columns = -(-whole.shape[0] // height), -(-whole.shape[1] // width)
    means: NDArray[np.float32] = whole.reshape(height, rows, width, columns, 3).mean((1, 3))
    return means


def enlarged(values: Tensor, factor: int) -> Tensor:
    """Values (..., H, W) with every pixel `factor` times as high and wide."""
    return values.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def class_curves(curves: Tensor, names: list[str], *, x: Tensor | None = None, x_label: str, y_label: str) -> Figure:
    """A curve for each class or name, in colours and with marks that differ.

    Args:
        curves: (points, curves); NaN where a curve has ended.
        names: One for each curve.
        x: Places, (points,); None: 0, 1, 2...
        x_label: Of the axis.
        y_label: Of the axis.
    """
    curves = curves.detach().cpu()
    places = torch.arange(len(curves)) if x is None else x.cpu()
    num_columns = 2 if max(map(len, names)) > 8 else 5
    figure, axes = plot(height=3.1 + 0.2 * -(-len(names) // num_columns))
    every = max(1, len(curves) // 8)
    for k, (curve, name) in enumerate(zip(curves.T.numpy(), names, strict=True)):
        marker = MARKERS[k % len(MARKERS)]
        axes.plot(places.numpy(), curve, color=colour(k), label=name, marker=marker, markevery=every, markersize=4.5)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if x is None:
        whole_numbers(axes.xaxis)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, ncols=num_columns, frameon=False, columnspacing=1)
    return figure


def cost_curves(cost: Tensor, names: list[str], label: str) -> Figure:
    """Cost against iteration, a curve for each name; cost (steps + 1, B), NaN where a curve has ended."""
    return class_curves(cost[cost.isfinite().any(1)], names, x_label="iteration", y_label=label)


class Line(NamedTuple):
    """A line or a row of marks.

    Attributes:
        label: What it is.
        x: Places.
        y: Values; NaN leaves a gap.
        colour: Its colour.
        style: Marker and line, as matplotlib writes them.
        is_hollow: Whether the marks are empty.
        is_reference: It does not belong to the network, and is drawn once for two of them.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    style: str = "o-"
    is_hollow: bool = False
    is_reference: bool = False


class Lines(NamedTuple):
    """A line chart: the labels of its axes, the range of y, and whether x is in whole numbers and y in per cent."""

    x_label: str
    y_label: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    has_whole_x: bool = False
    in_percent: bool = False


def overlaid(charts: Sequence[Lines], names: Sequence[str]) -> Lines:
    """Networks' charts on the same axes, each line named after its network; of all but the first they are dashed."""
    found = []
    for k, (chart, name) in enumerate(zip(charts, names, strict=True)):
        for line in chart.lines:
            if line.is_reference:
                continue
            label = line.label.replace(ITSELF, name) if ITSELF in line.label else f"{name}: {line.label}"
            found.append(line._replace(label=label))
            if k:
                found[-1] = found[-1]._replace(style=f"{line.style.rstrip('-:')}--")
    return charts[0]._replace(lines=[*found, *(line for line in charts[0].lines if line.is_reference)])


def draw_lines(chart: Lines) -> Figure:
    """A chart in matplotlib, its legend below the axes."""
    figure, axes = plot(height=2.9 + 0.2 * len(chart.lines))
    for line in chart.lines:
        axes.plot(
            line.x,
            line.y,
            line.style,
            color=line.colour,
            label=line.label,
            fillstyle="none" if line.is_hollow else "full",
            markersize=5,
        )
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    if chart.has_whole_x:
        whole_numbers(axes.xaxis)
    if chart.in_percent:
        per_cent(axes.yaxis)
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure
