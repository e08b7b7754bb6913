"""Figures made of small images: tiles with captions, in groups that stay together however wide the page is."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cnn_mnist.figures.canvas import INK, RIGHT, WRONG, Colours

Pixels = NDArray[np.uint8]  # RGB (H, W, 3)

TONES = {"": "#1d2329", "right": RIGHT, "wrong": WRONG, "strong": "#1d2329", "faint": "#6b7280"}
WIDE, CARD = 936, 376  # pixels: the page on a desktop, and a card of TensorBoard
GAP, MARGIN, LINE = 8, 8, 14
NARROWEST = 56  # pixels of a caption
BAR = (160, 10)


class Tile(NamedTuple):
    """A small image with its caption.

    Attributes:
        pixels: RGB uint8 (H, W, 3).
        caption: Text below it.
        tone: `right`, `wrong`, `strong`, `faint` or empty: the look of the caption.
        scale: Pixels of the screen, across and down, for each of the image's: a whole number, so that edges are sharp.
        narrow: The same on a narrow page, where the tile would be too wide; 0: as `scale`.
    """

    pixels: Pixels
    caption: str = ""
    tone: str = ""
    scale: int = 3
    narrow: int = 0


class Tiles(NamedTuple):
    """A figure of tiles.

    Attributes:
        groups: Tiles that stay together.
        title: A line above, in the file; the page has its own words.
        note: A remark in brackets, such as how many are left out.
        headings: A line above each group, or none.
        is_stacked: The tiles of a group stand one below another.
        is_row: Each group begins a new row.
        bar: The colours, for a colour bar.
        legend: Names of colours, RGB in [0, 1].
    """

    groups: Sequence[Sequence[Tile]]
    title: str
    headings: Sequence[str] = ()
    is_stacked: bool = False
    is_row: bool = False
    bar: Colours | None = None
    legend: Sequence[tuple[str, tuple[float, float, float]]] = ()
    note: str = ""


def of_images(
    images: Tensor, captions: Sequence[str] = (), tones: Sequence[str] = (), *, scale: int = 3, colours: Colours = INK
) -> list[Tile]:
    """A tile for each of the images or maps (N, H, W), with its caption and tone where they are given."""
    texts, looks = (list(given) or [""] * len(images) for given in (captions, tones))
    return [Tile(*one, scale=scale) for one in zip(colours.of(images), texts, looks, strict=True)]


def each(tiles: Sequence[Tile]) -> list[list[Tile]]:
    """Every tile a group of its own."""
    return [[tile] for tile in tiles]


def draw(figure: Tiles, width: int = WIDE) -> Pixels:
    """A figure as RGB uint8 (H, W, 3), as many tiles to a row as fit into `width` pixels."""
    headings = list(figure.headings) or [""] * len(figure.groups)
    inner = width - 2 * MARGIN
    blocks = [
        _block(group, text, inner, figure.is_stacked) for group, text in zip(figure.groups, headings, strict=True)
    ]
    title = _wrapped(f"{figure.title} {figure.note}".strip(), inner, bold=True)
    rows = list(_rows([block.width for block in blocks], inner, GAP, one_each=figure.is_row))
    across = max(sum(blocks[k].width + GAP for k in row) - GAP for row in rows)
    used = min(inner, max(across, *(round(_length(line, bold=True)) for line in title), BAR[0] + 120))
    down = MARGIN + LINE * len(title) + sum(max(blocks[k].height for k in row) + GAP for row in rows)
    legend = list(_rows([30 + round(_length(text)) for text, _ in figure.legend], used, GAP))
    down += 2 * LINE * (figure.bar is not None) + (LINE + 6) * len(legend)
    paper = Image.new("RGB", (used + 2 * MARGIN, down + MARGIN), "white")
    pen = ImageDraw.Draw(paper)
    y = MARGIN
    for line in title:
        pen.text((MARGIN, y), line, "black", _font(bold=True))
        y += LINE
    for row in rows:
        x = MARGIN
        for k in row:
            blocks[k].put(paper, pen, x, y)
            x += blocks[k].width + GAP
        y += max(blocks[k].height for k in row) + GAP
    for line_of in legend:
        x = MARGIN
        for k in line_of:
            text, colour = figure.legend[k]
            pen.rectangle((x, y, x + 12, y + 12), tuple(round(255 * part) for part in colour), "#999999")
            pen.text((x + 18, y), text, "black", _font())
            x += 30 + round(_length(text)) + GAP
        y += LINE + 6
    if figure.bar is not None:
        _put_bar(paper, pen, figure.bar, y)
    return np.asarray(paper)


def ramp(colours: Colours, width: int = 64) -> Pixels:
    """A colour bar of one pixel in height, RGB uint8 (1, width, 3)."""
    import torch

    return colours.of(torch.linspace(colours.low, colours.high, width)[None])


def boxed(picture: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """A picture with a frame of two pixels around a box, (top, left, bottom, right)."""
    top, left, bottom, right = box
    paper = Image.fromarray(picture)
    ImageDraw.Draw(paper).rectangle((left, top, right - 1, bottom - 1), outline=WRONG, width=2)
    return np.asarray(paper)


def written(tile: Pixels, text: str, x: float, y: float, colour: str) -> Pixels:
    """A tile with a text written into it, centred at (x, y)."""
    paper = Image.fromarray(tile)
    ImageDraw.Draw(paper).text((x, y), text, colour, _font(), anchor="mm")
    return np.asarray(paper)


class _Block(NamedTuple):
    """A group that has been laid out: each tile with its place and the lines of its caption."""

    width: int
    height: int
    heading: list[str]
    places: list[tuple[Tile, int, int, list[str]]]

    def put(self, paper: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw it."""
        for k, line in enumerate(self.heading):
            pen.text((left, top + LINE * k), line, "black", _font(bold=True))
        for tile, x, y, lines in self.places:
            height, width = (tile.scale * length for length in tile.pixels.shape[:2])
            big = Image.fromarray(tile.pixels).resize((width, height), Image.Resampling.NEAREST)
            paper.paste(big, (left + x, top + y))
            pen.rectangle((left + x - 1, top + y - 1, left + x + width, top + y + height), outline="#c9c9c9")
            for k, line in enumerate(lines):
                pen.text(
                    (left + x, top + y + height + 3 + LINE * k),
                    line,
                    TONES[tile.tone],
                    _font(bold=tile.tone in ("strong", "wrong")),
                )


def _block(group: Sequence[Tile], heading: str, width: int, is_stacked: bool) -> _Block:
    """Lay a group out: one below another, or side by side in as many rows as are needed."""
    group = [_fitting(tile, width) for tile in group]
    sides = [max(tile.scale * tile.pixels.shape[1], NARROWEST) for tile in group]
    rows = [[k] for k in range(len(group))] if is_stacked else list(_rows(sides, width, GAP))
    title = _wrapped(heading, width, bold=True) if heading else []
    places, y, across = [], LINE * len(title) + 4 * bool(title), 0
    for row in rows:
        x, tall = 0, 0
        for k in row:
            lines = _wrapped(group[k].caption, sides[k], bold=group[k].tone in ("strong", "wrong"))
            places.append((group[k], x, y, lines))
            x += sides[k] + GAP
            tall = max(tall, group[k].scale * group[k].pixels.shape[0] + LINE * len(lines) + 4 * bool(lines))
        across = max(across, x - GAP)
        y += tall + GAP
    return _Block(across, y - GAP, title, places)


def _fitting(tile: Tile, width: int) -> Tile:
    """The tile, at its narrow scale where it would be too wide."""
    is_wide = tile.scale * tile.pixels.shape[1] > width and tile.narrow
    return tile._replace(scale=tile.narrow) if is_wide else tile


def _rows(sides: Sequence[int], width: int, gap: int, *, one_each: bool = False) -> Iterator[list[int]]:
    """Indices in rows that fit into a width."""
    row: list[int] = []
    used = 0
    for k, side in enumerate(sides):
        if row and (one_each or used + side > width):
            yield row
            row, used = [], 0
        row.append(k)
        used += side + gap
    if row:
        yield row


def _put_bar(paper: Image.Image, pen: ImageDraw.ImageDraw, colours: Colours, y: int) -> None:
    low, high = (f"{end:.3g}" for end in (colours.low, colours.high))
    x = MARGIN + round(_length(low)) + 6
    paper.paste(Image.fromarray(ramp(colours, BAR[0])).resize(BAR, Image.Resampling.NEAREST), (x, y + 3))
    pen.rectangle((x - 1, y + 2, x + BAR[0], y + 3 + BAR[1]), outline="#999999")
    pen.text((MARGIN, y), low, "black", _font())
    pen.text((x + BAR[0] + 6, y), high, "black", _font())
    pen.text((MARGIN, y + LINE), colours.label, "black", _font())


def _wrapped(text: str, width: int, *, bold: bool = False) -> list[str]:
    """A text in lines that fit into a width where its words do."""
    lines: list[str] = []
    for paragraph in text.split("\n") if text else []:
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and _length(longer, bold=bold) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _length(text: str, *, bold: bool = False) -> float:
    return float(_font(bold=bold).getlength(text))


@cache
def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), 11)
