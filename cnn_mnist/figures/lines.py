"""Line charts as data, so that those of two networks can be drawn on the same axes."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from cnn_mnist.figures.canvas import per_cent, plot, whole_numbers

ITSELF = "this network"  # in a label: replaced by the network's name where there are two


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
                found[-1] = found[-1]._replace(style=f"{line.style[0]}--", is_hollow=True)
    return charts[0]._replace(lines=[*found, *(line for line in charts[0].lines if line.is_reference)])


def draw(chart: Lines) -> Figure:
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
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.has_whole_x:
        whole_numbers(axes.xaxis)
    if chart.in_percent:
        per_cent(axes.yaxis)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure
