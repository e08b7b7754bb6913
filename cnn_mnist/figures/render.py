"""Figures as pixels, for files and TensorBoard, and as vector graphics, for the page."""

import io
import re

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cnn_mnist.figures import tiles
from cnn_mnist.figures.canvas import Lines, draw_lines
from cnn_mnist.figures.tiles import WIDE, Tiles

FONTS = ["DejaVu Sans", "Verdana"]
Picture = Figure | Tiles | Lines


def to_pixels(picture: Picture, width: int = WIDE) -> NDArray[np.uint8]:
    """A figure as RGB uint8 (H, W, 3); one of tiles in as many pixels of width as are given."""
    if isinstance(picture, Tiles):
        return tiles.draw(picture, width)
    canvas = FigureCanvasAgg(draw_lines(picture) if isinstance(picture, Lines) else picture)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def to_svg(picture: Figure | Lines) -> bytes:
    """A chart as an SVG file without a date; texts stay texts, in DejaVu Sans or else Verdana, which is as wide."""
    figure = draw_lines(picture) if isinstance(picture, Lines) else picture
    file = io.BytesIO()
    looks = {"font.sans-serif": FONTS, "svg.fonttype": "none", "svg.hashsalt": "cnn_mnist", "text.parse_math": False}
    with rc_context(looks):  # type: ignore[arg-type]
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(rb"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", b"", file.getvalue(), flags=re.DOTALL)
    return re.sub(rb' (?:d|x|y)="[^"]*"', _rounded, svg)


def _rounded(attribute: re.Match[bytes]) -> bytes:
    """Coordinates to hundredths of a point, which are enough."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", attribute[0])
