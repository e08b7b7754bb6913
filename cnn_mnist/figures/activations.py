"""Figures of activations: a few channels of several images, all channels, and their statistics."""

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.analysis.activations import ChannelStatistics
from cnn_mnist.figures.anatomy import left_out, sheet
from cnn_mnist.figures.canvas import DARK, DIVERGING, LIGHT, WRONG, Colours, enlarged, plot
from cnn_mnist.figures.class_names import name
from cnn_mnist.figures.tiles import Tile, Tiles, each, of_images

SEQUENTIAL = "viridis"
MOST_CHANNELS, MOST_UNITS = 64, 28 * 28  # of a layer that are drawn
NUM_STRONGEST = 3  # channels beside each image, which fit beside it on a phone
SHEET_COLUMNS = 8


def overview(images: Tensor, labels: Tensor, maps: Tensor, layer: str, channels: dict[int, str] | None = None) -> Tiles:
    """What a layer makes of several images: a few of its channels for each, on one scale.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        labels: Their classes, int64 (B,).
        maps: (B, C, H, W), or (B, ...) of a linear layer; after the activation function.
        layer: Its name.
        channels: The channels to show, each with a remark; None: the strongest.
    """
    if maps.ndim != 4:
        return units(images, maps.flatten(1), layer)
    chosen = strongest(maps) if channels is None else channels
    colours = _colours_of(maps)
    columns = [of_images(images[:, 0], [name(label) for label in labels.tolist()])]
    columns += [
        of_images(_as_tiles(maps[:, number]), [f"{number}: {words}"] * len(images), colours=colours)
        for number, words in chosen.items()
    ]
    title = f"{len(chosen)} of the {maps.shape[1]} channels of {layer}, after its activation function, on one scale"
    return Tiles(list(zip(*columns, strict=True)), title, bar=colours, is_row=True)


def strongest(maps: Tensor, number: int = NUM_STRONGEST) -> dict[int, str]:
    """The channels (B, C, H, W) with the largest mean activation, each with a remark."""
    order = maps.mean((0, 2, 3)).argsort(descending=True, stable=True)
    return dict.fromkeys(order[:number].tolist(), "strong")


def all_channels(images: Tensor, labels: Tensor, maps: Tensor, layer: str) -> Tiles:
    """All channels of a layer for each of several images, in rows of eight, on one scale; as `overview`."""
    number, maps = maps.shape[1], _as_tiles(maps[:, :MOST_CHANNELS])
    num_rows = -(-maps.shape[1] // SHEET_COLUMNS)
    colours = _colours_of(maps)
    blank = torch.full((len(maps), num_rows * SHEET_COLUMNS - maps.shape[1], 28, 28), math.nan)
    padded = torch.cat([maps.float(), blank], 1).view(len(maps), num_rows, SHEET_COLUMNS, 28, 28)
    groups = [
        [*of_images(image, [name(label)]), Tile(sheet(colours.of(one), 2), scale=2, narrow=1)]
        for image, label, one in zip(images, labels.tolist(), padded, strict=True)
    ]
    title = f"The channels of {layer}, numbered row by row from 0, on one scale"
    return Tiles(groups, title, bar=colours, is_row=True, note=left_out(number, MOST_CHANNELS))


def channels(image: Tensor, maps: Tensor, layer: str) -> Tiles:
    """Every channel's map of one image, large.

    Args:
        image: (1, 28, 28) in [0, 1].
        maps: (C, H, W), or of a linear layer (C,) or (tokens, C); after the activation function.
        layer: Its name.
    """
    if maps.ndim != 3:
        return units(image[None], maps.flatten()[None], layer)
    number, maps = len(maps), maps[:MOST_CHANNELS]
    colours = _colours_of(maps)
    is_zero = (maps == 0).all((1, 2)).tolist()
    captions = [f"{n}: zero" if zero else f"{n}" for n, zero in enumerate(is_zero)]
    tiles = [*of_images(image, ["the image"]), *of_images(_as_tiles(maps), captions, colours=colours)]
    title = f"Channels of {layer} after its activation function, on one scale"
    return Tiles(each(tiles), title, bar=colours, note=left_out(number, MOST_CHANNELS))


def units(images: Tensor, values: Tensor, layer: str) -> Tiles:
    """The units of a linear layer, row by row in a block for each image; values (B, C)."""
    number, values = values.shape[1], values[:, :MOST_UNITS].float()
    side = math.ceil(math.sqrt(values.shape[1]))
    padded = torch.nn.functional.pad(values, (0, side * side - values.shape[1]), value=math.nan).view(-1, side, side)
    colours = _colours_of(values)
    blocks = of_images(_as_tiles(padded), ["units"] * len(images), colours=colours)  # white: no unit
    shown = of_images(images[:, 0], ["image"] * len(images))
    title = f"The {number} units of {layer} after its activation function, row by row"
    return Tiles(list(zip(shown, blocks, strict=True)), title, bar=colours, note=left_out(number, MOST_UNITS))


def statistics(channels: ChannelStatistics, layer: str, num_images: int) -> Figure:
    """A bar per channel: correlation with the image, dark where with the sharp one, light where with a blurred one."""
    figure, axes = plot(height=4.2)
    correlation, blur = channels.correlation.cpu().numpy(), channels.blur.cpu().numpy()
    number = np.arange(len(correlation))
    for is_sharp, colour, label in (
        (True, DARK, "correlation with the image (blur up to 0.5 px)"),
        (False, LIGHT, "correlation with the image, blurred"),
    ):
        chosen = (blur <= 0.5) == is_sharp
        axes.bar(number[chosen], correlation[chosen], color=colour, label=label)
    background = (channels.background / channels.largest.clamp_min(1e-12)).cpu().numpy()
    axes.plot(number, background, "_", color=WRONG, markersize=6, markeredgewidth=2, label="background / largest value")
    dead = channels.dead.cpu().numpy()
    if dead.any():
        axes.plot(number[dead], np.zeros(dead.sum()), "x", color="black", markersize=6, label="dead channel")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-1.02, 1.02)
    axes.set_xlabel(f"channel (over {num_images:,} images)")
    zero = f"{channels.zero_share.mean().item():.0%} of values zero"
    axes.set_title(f"{layer}: {zero}, {int(dead.sum())} of {len(dead)} channels dead", fontsize=10)
    figure.legend(loc="outside lower left", fontsize=9, frameon=False)
    return figure


def _colours_of(maps: Tensor) -> Colours:
    """From zero up, or to both sides of it where an activation function such as tanh gives both signs."""
    low, high = maps.min().item(), maps.max().item()
    if low < -0.2 * high:  # GELU and the like stay close to zero
        return Colours(DIVERGING, -max(high, -low), max(high, -low), "activation")
    return Colours(SEQUENTIAL, 0, max(high, 1e-6), "activation")


def _as_tiles(maps: Tensor) -> Tensor:
    """Maps (..., H, W) as tiles (..., 28, 28): every value a square of whole pixels, or the nearest where none fits."""
    height, width = maps.shape[-2:]
    if height == width and 28 % height == 0:
        return enlarged(maps, 28 // height)
    rows, columns = (torch.arange(28) * side // 28 for side in (height, width))
    return maps[..., rows, :][..., columns]
