"""Shared by all figures: mosaics of small images, colours, axes, conversion to pixels."""

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

DARK = "#1b4f72"
RIGHT, WRONG = "#1b6ca8", "#c1440e"  # told apart by colour-blind readers, and in grey


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

    def of(self, values: Tensor) -> NDArray[np.float32]:
        """Values (...) as RGB in [0, 1], (..., 3); NaN is white."""
        normal = Normalize(self.low, self.high, clip=True)(np.ma.masked_invalid(values.float().numpy()))
        colours: NDArray[np.float64] = colormaps[self.name].with_extremes(bad="white")(normal)
        return colours[..., :3].astype(np.float32)


INK = Colours("gray_r", 0, 1)  # dark on light paper, as it was written


class Mosaic(NamedTuple):
    """A figure of tiles on one set of axes, in units of tile pixels.

    `captions`: the bottom centre of each tile's caption, (x, y). `corners`: the centre of each tile's upper left
    pixel. `margin`: the upper left pixel of the margin at the right. One set of axes instead of N: a tenth of the time.
    """

    figure: Figure
    axes: Axes
    captions: list[tuple[float, float]]
    corners: list[tuple[int, int]]
    margin: tuple[int, int]

    def caption(self, texts: list[str], *, size: float = 8) -> None:
        """Write a text above each tile, until either ends; an empty one is left out."""
        for (x, y), text in zip(self.captions, texts, strict=False):
            if text:
                self.axes.text(x, y, text, ha="center", va="bottom", fontsize=size, parse_math=False)

    def title(self, text: str) -> None:
        """Write a line into the margin at the top, or more where the figure is narrow."""
        text = textwrap.fill(text, int(13 * self.figure.get_figwidth()))
        self.figure.text(0.06 / self.figure.get_figwidth(), 1 - 0.06 / self.figure.get_figheight(), text, va="top")
        self.figure.texts[-1].set(fontsize=9, fontweight="bold")

    def bar(self, colours: Colours) -> None:
        """Draw a colour bar into the margin at the right."""
        width, height = self.figure.get_size_inches()
        tall = min(height * 0.6, 3.5)
        axes = self.figure.add_axes(((width - 0.8) / width, 0.5 - tall / height / 2, 0.13 / width, tall / height))
        mappable = ScalarMappable(Normalize(colours.low, colours.high), colours.name)
        bar = self.figure.colorbar(mappable, cax=axes)
        bar.ax.tick_params(labelsize=7)
        bar.set_label(colours.label, fontsize=8, labelpad=5)


def mosaic(
    tiles: NDArray[np.float32],
    num_columns: int,
    *,
    above: int = 9,
    gap: int = 12,
    top: int = 0,
    right: int = 0,
    inches: float = 1 / 30,
) -> Mosaic:
    """Tiles (N, H, W, 3), RGB in [0, 1], in one picture.

    Args:
        tiles: The tiles, row by row.
        num_columns: Tiles in a row.
        above: Pixels above each row of tiles, for captions.
        gap: Pixels between columns.
        top: Pixels of margin for a title.
        right: Pixels of margin for a colour bar.
        inches: Height and width of a pixel.
    """
    height, width = tiles.shape[1:3]
    num_rows = -(-len(tiles) // num_columns)
    rows, columns = num_rows * (height + above) + top + gap, num_columns * (width + gap) + gap + right
    paper = np.ones((rows, columns, 3), np.float32)
    captions, corners = [], []
    for k, tile in enumerate(tiles):
        y, x = (k // num_columns) * (height + above) + above + top, (k % num_columns) * (width + gap) + gap
        paper[y : y + height, x : x + width] = tile
        captions.append((x + width / 2 - 0.5, y - 1.5))
        corners.append((x, y))
    figure = Figure(figsize=(columns * inches, rows * inches), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(paper, interpolation="nearest", aspect="auto")
    return Mosaic(figure, axes, captions, corners, (columns - right, top + above))


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


def to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as RGB uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def cost_curves(cost: Tensor, names: list[str], label: str) -> Figure:
    """Cost against iteration, a curve for each name; cost (steps + 1, B), NaN where a curve has ended."""
    cost = cost[cost.isfinite().any(1)]
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    shades = colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    markers = "os^vD<>phX"
    every = max(1, len(cost) // 8)
    for k, (curve, name) in enumerate(zip(cost.T.cpu().numpy(), names, strict=True)):
        axes.plot(curve, color=shades[k], label=name, marker=markers[k % 10], markevery=every, markersize=4)
    axes.set_xlabel("iteration")
    whole_numbers(axes.xaxis)
    axes.set_ylabel(label)
    axes.legend(fontsize=8, ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    return figure
