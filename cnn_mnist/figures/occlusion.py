"""Figures of occlusion: heat maps, predicted classes, and statistics of a test set."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance
from cnn_mnist.figures.canvas import DARK, INK, WRONG, Colours, enlarged, plot
from cnn_mnist.figures.class_names import colour, name
from cnn_mnist.figures.tiles import Pixels, Tile, Tiles, each, written

PROBABILITY = Colours("viridis", 0, 1, "probability")
FINE = 4  # quarter pixels: the centre of an even window lies between two pixels
STILL_RIGHT = "#e8e8e8"
HEAT = 0.85  # share of the map's colour; the rest is the image, which shines through
PAPER = 0.5  # grey value at which the ink's outline is drawn


def probability_maps(images: Tensor, labels: Tensor, maps: OcclusionMap, *, of: str = "true") -> Tiles:
    """Heat maps over the image with fixed limits 0..1; the patch beside them, to scale.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        labels: True classes, int64 (B,).
        maps: The maps of these images.
        of: What the labels are: the true classes, or those predicted without a patch.
    """
    captions = [f"{name(label)}, p {p:.2f}" for label, p in zip(labels.tolist(), maps.clean.tolist(), strict=True)]
    tiles = _over_images(images, PROBABILITY.of(maps.probability), maps)
    shown = [Tile(tile, text, scale=1) for tile, text in zip(tiles, captions, strict=True)]
    title = f"Probability of the {of} class with a patch centred here ({_patch(maps)}); below: without it"
    return Tiles(each([*shown, _patch_tile(maps)]), title, bar=PROBABILITY)


def predicted_maps(images: Tensor, labels: Tensor, maps: OcclusionMap, *, of: str = "true") -> Tiles:
    """The class predicted with the patch at each position: grey where it is still the true one."""
    predictions = maps.predicted.cpu().numpy()
    palette = np.array([colour(label) for label in range(predictions.max() + 1)], np.float32)
    colours = palette[predictions]
    is_right = (maps.predicted == labels[:, None, None]).cpu().numpy()
    colours[is_right] = to_rgb(STILL_RIGHT)
    tiles = _over_images(images, (255 * colours).round().astype(np.uint8), maps)
    shown = []
    for tile, predicted, right, label in zip(tiles, predictions, is_right, labels.tolist(), strict=True):
        for number in np.unique(predicted[~right]):
            tile = _with_names(tile, (predicted == number) & ~right, int(number), maps)
        shown.append(Tile(tile, f"{name(label)}: never changes" if right.all() else name(label), scale=1))
    legend = [(f"the {of} class", to_rgb(STILL_RIGHT))]
    legend += [(name(number), colour(number)) for number in np.unique(predictions[~is_right]).tolist()]
    title = f"Class predicted with a patch centred here ({_patch(maps)})"
    return Tiles(each([*shown, _patch_tile(maps)]), title, legend=legend)


def becomes(found: Resistance) -> Figure:
    """The predicted class of an occluded image, as shares of the positions at which it is misclassified."""
    changed = found.confusion.double().fill_diagonal_(0)  # a copy: double() makes one
    share = (changed / changed.sum(1, keepdim=True).clamp_min(1)).numpy()
    wrong = (changed.sum(1) / found.confusion.sum(1).clamp_min(1)).tolist()
    num_classes = len(share)
    figure, axes = plot(height=4.9)
    picture = axes.pcolormesh(share, cmap="viridis", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(share) if num_classes <= 12 else ():
        if value >= 0.005:
            text_colour = "white" if value < 0.6 else "black"
            axes.text(j + 0.5, i + 0.5, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color=text_colour)
    every = -(-num_classes // 16)
    middle = np.arange(0, num_classes, every) + 0.5
    names = [name(label) for label in range(num_classes)]
    turn = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(middle, names[::every], rotation=turn, fontsize=9)
    has_images = found.confusion.sum(1) > 0
    rows = [f"{text} ({part:.1%})" * bool(has) for text, part, has in zip(names, wrong, has_images, strict=True)]
    axes.set_yticks(middle, rows[::every], fontsize=9)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (positions that are misclassified)")
    axes.set_title("Predicted class where a patch makes it wrong, %", fontsize=10)
    figure.colorbar(picture, ax=axes, label="share", location="bottom", shrink=0.7, aspect=30)
    return figure


def resistance(found: Resistance) -> Figure:
    """The share of each class's images that no position of the patch makes wrong."""
    shares = (found.num_resistant / found.num_images).tolist()  # NaN for a class without images: no bar
    figure, axes = plot(height=3.6)
    axes.bar(range(len(shares)), shares, color=DARK)
    for n, value in enumerate(shares) if len(shares) <= 12 else ():
        if math.isnan(value):
            continue
        axes.text(n, value + 0.01, f"{value:.0%}", ha="center", va="bottom", fontsize=9)
    axes.set_ylim(0, 1.08)
    names = [name(label) for label in range(len(shares))]
    axes.set_xticks(range(len(shares)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_xlabel("class")
    axes.set_ylabel("share that resists")
    axes.set_title(f"{int(found.num_images.sum()):,} images, share that no patch makes wrong", fontsize=10)
    return figure


def _over_images(images: Tensor, colours: NDArray[np.uint8], maps: OcclusionMap) -> list[Pixels]:
    """Maps (B, G, G, 3) as RGB over the images, which shine through, with the ink's outline."""
    tiles = INK.of(enlarged(0.6 * images[:, 0].cpu(), FINE)).astype(np.float32)
    cell = maps.stride * FINE
    first = (maps.window - maps.stride) * FINE // 2  # the centre of a cell is the centre of its patch
    grown = colours.repeat(cell, 1).repeat(cell, 2)[:, max(0, -first) :, max(0, -first) :]
    start = max(0, first)
    height, width = (min(side, size - start) for side, size in zip(grown.shape[1:3], tiles.shape[1:3], strict=True))
    under = tiles[:, start : start + height, start : start + width]
    under[:] = (1 - HEAT) * under + HEAT * grown[:, :height, :width]
    smooth = F.interpolate(images.cpu().float(), scale_factor=FINE, mode="bilinear")[:, 0].numpy()
    for tile, ink in zip(tiles, smooth > PAPER, strict=True):
        tile[ndimage.binary_dilation(ink, iterations=1) & ~ink] = 255
        tile[ink & ~ndimage.binary_erosion(ink)] = 0
    return list(tiles.round().astype(np.uint8))


def _with_names(tile: Pixels, region: NDArray[np.bool_], number: int, maps: OcclusionMap) -> Pixels:
    """A tile with the class written into each connected region of a map (G, G) that has room for it."""
    labelled, count = ndimage.label(region)
    for part in range(1, count + 1):
        if (labelled == part).sum() * maps.stride**2 < 6:
            continue
        depth = ndimage.distance_transform_edt(np.pad(labelled == part, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)  # the point farthest from its border
        x, y = (FINE * (float(place) * maps.stride + maps.window / 2) for place in (column, row))
        luminance = float(np.dot(colour(number), (0.299, 0.587, 0.114)))
        tile = written(tile, name(number), x, y, "black" if luminance > 0.5 else "white")
    return tile


def _patch_tile(maps: OcclusionMap) -> Tile:
    """The patch in the middle of empty paper, to scale."""
    side = 28 * FINE
    paper = INK.of(torch.zeros(side, side)).copy()
    start, end = (side - FINE * maps.window) // 2, (side + FINE * maps.window) // 2
    paper[start:end, start:end] = [round(255 * part) for part in to_rgb(WRONG)]
    paper[start + 1 : end - 1, start + 1 : end - 1] = INK.of(torch.tensor([maps.fill]))
    return Tile(paper, "the patch, to scale", "faint", scale=1)


def _patch(maps: OcclusionMap) -> str:
    return f"{maps.window} x {maps.window} pixels, grey {maps.fill:g}"
