"""Figures of filters, activations, saliency and class images."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.analysis.activations import Activations, ChannelStatistics
from cnn_mnist.analysis.class_image import ClassImages
from cnn_mnist.analysis.filters import EdgeLikeness, Similarity
from cnn_mnist.analysis.saliency import Saliency
from cnn_mnist.figures import class_names
from cnn_mnist.figures.canvas import DARK, INK, Colours, enlarged, mosaic

DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
LIGHT, ACCENT = "#7fb3d5", "#c1440e"
MOST_FILTERS, MOST_KERNELS, MOST_UNITS = 64, 32, 64  # of a layer that are drawn


def filters(weight: Tensor, layer: str, edges: EdgeLikeness | None) -> Figure:
    """A layer's filters, of one channel (C, 1, K, K) or of several (C, C', K, K)."""
    return _single_filters(weight, layer, edges) if weight.shape[1] == 1 else _kernels(weight, layer)


def _single_filters(weight: Tensor, layer: str, edges: EdgeLikeness | None) -> Figure:
    """Filters of one channel, numbered, each with its largest cosine with an edge filter if that is known."""
    num_filters, weight = len(weight), weight[:MOST_FILTERS]
    limit = weight.abs().max().item()
    colours = Colours(DIVERGING, -limit, limit, "weight")
    factor = max(1, 30 // weight.shape[-1])
    grid = mosaic(colours.of(enlarged(weight[:, 0], factor)), 8, right=32, top=8)
    title = f"Filters of {layer}{_of(num_filters, MOST_FILTERS)}"
    if edges is None:
        grid.caption([str(number) for number in range(len(weight))], size=7)
    else:
        grid.caption([f"{number}: {score:.2f}" for number, score in enumerate(edges.score.tolist())], size=7)
        title += f"; how much of each is an edge, 0 to 1 (chance {edges.chance:.2f})"
    grid.title(title)
    grid.bar(colours)
    return grid.figure


def _of(number: int, most: int) -> str:
    """What a title says where not all are shown."""
    return f" (the first {most} of {number})" if number > most else ""


def _kernels(weight: Tensor, layer: str) -> Figure:
    """All kernels of a layer: a filter per row, a channel of its input per column; weight (C, C', K, K)."""
    all_filters, all_channels = weight.shape[:2]
    weight = weight[:MOST_KERNELS, :MOST_KERNELS]
    num_filters, num_channels = weight.shape[:2]
    largest = weight.abs().max().item()
    limit = weight.abs().quantile(0.995).item()  # a few outliers would leave the rest pale
    colours = Colours(DIVERGING, -limit, limit, f"weight (largest: {largest:.2f})")
    factor = max(1, 6 // weight.shape[-1])
    tiles = colours.of(enlarged(weight.flatten(0, 1), factor))
    grid = mosaic(tiles, num_channels, above=2, gap=2, top=18, right=36)
    side = tiles.shape[1]
    for channel in range(0, num_channels, 4):
        x, y = grid.corners[channel]
        grid.axes.text(x + side / 2, y - 2, str(channel), ha="center", va="bottom", fontsize=6)
    for row in range(0, num_filters, 4):
        x, y = grid.corners[(row + 1) * num_channels - 1]
        grid.axes.text(x + side + 1, y + side / 2, str(row), ha="left", va="center", fontsize=6)
    rows, columns = _of(all_filters, MOST_KERNELS), _of(all_channels, MOST_KERNELS)
    grid.title(f"Filters of {layer}: one per row{rows}, a column per channel of its input{columns}")
    grid.bar(colours)
    return grid.figure


def filter_statistics(similar: dict[str, Similarity], edges: dict[str, EdgeLikeness]) -> Figure:
    """Cosines between filters, and a histogram of edge likeness, for each layer."""
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(similar) + 1, width_ratios=[1] * len(similar) + [1.25])
    for axes, (layer, found) in zip(panels, similar.items(), strict=False):
        picture = axes.imshow(found.cosine.numpy(), cmap=DIVERGING, vmin=-1, vmax=1)
        i, j = found.closest
        axes.plot([j, i], [i, j], "s", fillstyle="none", color="black", markersize=8)
        axes.set_title(f"{layer}: closest {i} and {j}, {found.largest:.2f}\n(chance {found.chance:.2f})", fontsize=9)
        axes.set_xlabel("filter", fontsize=8)
        axes.tick_params(labelsize=7)
        figure.colorbar(picture, ax=axes, shrink=0.75, label="cosine")
    bins = np.linspace(0, 1, 21).tolist()
    for (layer, found_edges), colour in zip(edges.items(), (ACCENT, LIGHT, DARK, "#8a8a8a"), strict=False):
        score = found_edges.score.numpy()
        label = f"{layer} ({len(score):,} kernels)"
        panels[-1].hist(score, bins, weights=np.full(len(score), 1 / len(score)), alpha=0.7, label=label, color=colour)
    if len({one.chance for one in edges.values()}) == 1:  # filters of one size
        chance = next(iter(edges.values()))
        panels[-1].axvline(chance.chance, color="black", linestyle="--", linewidth=1, label="random: mean")
        panels[-1].axvline(chance.chance_95, color="black", linestyle=":", linewidth=1, label="random: 95 of 100 below")
    panels[-1].set_title("How much of a kernel is an edge", fontsize=9)
    panels[-1].set_xlabel("largest cosine with a first-derivative filter", fontsize=8)
    panels[-1].set_ylabel("share of kernels", fontsize=8)
    panels[-1].set_ylim(0, 1.45 * panels[-1].get_ylim()[1])
    panels[-1].legend(fontsize=7, frameon=False, loc="upper left")
    return figure


def activations(images: Tensor, maps: Tensor, layer: str) -> Figure:
    """What a layer makes of several images: an image per row, on one scale.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        maps: (B, C, H, W), or (B, ...) of a linear layer; after the activation function.
        layer: Its name.
    """
    if maps.ndim != 4:
        return _units(images, maps.flatten(1), layer)
    all_channels, maps = maps.shape[1], maps[:, :MOST_KERNELS]
    num_channels = maps.shape[1]
    colours = _colours_of(maps)
    values = colours.of(_as_tiles(maps))
    tiles = np.concatenate([INK.of(images[:, 0])[:, None], values], 1).reshape(-1, 28, 28, 3)
    grid = mosaic(tiles, num_channels + 1, above=3, gap=3, top=24, right=64, inches=1 / 55)
    dead = (maps == 0).all((0, 2, 3))
    grid.caption(["image", *(f"({n})" if dead[n] else str(n) for n in range(num_channels))], size=6)
    which = _of(all_channels, MOST_KERNELS)
    grid.title(
        f"Channels of {layer}{which} after its activation function, on one scale; in brackets: zero for all of these "
        "images"
    )
    grid.bar(colours)
    return grid.figure


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


def _units(images: Tensor, values: Tensor, layer: str) -> Figure:
    """The units of a linear layer, row by row in a block for each image; values (B, C)."""
    num_units, values = values.shape[1], values[:, : 28 * 28]
    side = math.ceil(math.sqrt(values.shape[1]))
    padded = torch.nn.functional.pad(values, (0, side * side - values.shape[1])).view(-1, side, side)
    colours = _colours_of(values)
    units = colours.of(_as_tiles(padded))
    units[:, _as_tiles(torch.arange(side * side).view(side, side) >= values.shape[1]).numpy()] = 1  # white: no unit
    grid = mosaic(
        np.stack([INK.of(images[:, 0]), units], 1).reshape(-1, 28, 28, 3),
        10,
        gap=6,
        top=8,
        right=36,
    )
    grid.caption(["image", ""] * len(images), size=6)
    grid.title(f"The {num_units} units of {layer}{_of(num_units, 28 * 28)} after its activation function, row by row")
    grid.bar(colours)
    return grid.figure


def channels(image: Tensor, maps: Tensor, layer: str) -> Figure:
    """Every channel's map of one image, large.

    Args:
        image: (1, 28, 28) in [0, 1].
        maps: (C, H, W), or of a linear layer (C,) or (tokens, C); after the activation function.
        layer: Its name.
    """
    if maps.ndim != 3:
        return _units(image[None], maps.flatten()[None], layer)
    all_channels, maps = len(maps), maps[:MOST_UNITS]
    colours = _colours_of(maps)
    tiles = np.concatenate([colours.of(_as_tiles(maps)), INK.of(image)])
    grid = mosaic(tiles, 8, gap=6, top=8, right=36)
    is_zero = (maps == 0).all((1, 2)).tolist()
    grid.caption([*(f"{n}: zero" if zero else f"{n}" for n, zero in enumerate(is_zero)), "the image"], size=7)
    which = _of(all_channels, MOST_UNITS)
    grid.title(f"Channels of {layer}{which} after its activation function, on one scale")
    grid.bar(colours)
    return grid.figure


def activation_statistics(found: Activations) -> Figure:
    """Statistics of each channel of every layer over a data set."""
    layers = found.layers
    figure = Figure(figsize=(11, 2.75 * len(layers)), layout="constrained", dpi=110)
    for axes, (layer, channels) in zip(
        figure.subplots(len(layers), 1, squeeze=False)[:, 0], layers.items(), strict=True
    ):
        _channel_bars(axes, channels)
        mean = channels.correlation.abs().mean().item()
        axes.set_title(
            f"{layer}: mean size of correlation {mean:.2f}, {channels.zero_share.mean().item():.0%} of values zero, "
            f"{int(channels.dead.sum())} of {len(channels.dead)} channels dead",
            fontsize=10,
            loc="left",
        )
    axes.set_xlabel(f"channel (over {found.num_images:,} images)")
    return figure


def _channel_bars(axes: Axes, channels: ChannelStatistics) -> None:
    """A bar per channel: correlation with the image, dark where with the sharp one, light where with a blurred one."""
    correlation, blur = channels.correlation.cpu().numpy(), channels.blur.cpu().numpy()
    number = np.arange(len(correlation))
    for is_sharp, colour, label in (
        (True, DARK, "the image (blur up to 0.5 px)"),
        (False, LIGHT, "the image, blurred"),
    ):
        chosen = (blur <= 0.5) == is_sharp
        axes.bar(number[chosen], correlation[chosen], color=colour, label=f"correlation with {label}")
    background = (channels.background / channels.largest.clamp_min(1e-12)).cpu().numpy()
    axes.plot(
        number, background, "_", color=ACCENT, markersize=9, markeredgewidth=2, label="background / largest value"
    )
    for n in np.flatnonzero(channels.dead.cpu().numpy()).tolist():
        axes.text(n, 0.03, "dead", rotation=90, ha="center", va="bottom", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-1.02, 1.02)
    axes.set_xticks(number[:: -(-len(number) // 64)])
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="lower right")


def saliency(images: Tensor, drop: Tensor, found: Saliency, labels: Tensor) -> Figure:
    """Two or three explanations of each image side by side, an image per row.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        drop: Occlusion's mean drop per pixel (B, 28, 28); NaN where no patch reached.
        found: Integrated gradients and, where there are convolutions, Grad-CAM.
        labels: The explained classes, int64 (B,).
    """
    columns = [("occlusion: mean drop", drop), ("integrated gradients", found.integrated_gradients)]
    if found.grad_cam is not None:
        columns.append(("Grad-CAM", found.grad_cam))
    parts = [INK.of(images[:, 0])]
    for _, values in columns:  # each image on its own scale: only the places compare between methods
        limit = values.nan_to_num().abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1)
        parts.append(Colours(DIVERGING, -1, 1).of(values.cpu() / limit.cpu()))
    grid = mosaic(np.stack(parts, 1).reshape(-1, 28, 28, 3), 2 * len(parts), gap=6, top=8, right=36)
    captions = []
    for k, label in enumerate(labels.tolist()):
        is_zero = [bool((values[k].nan_to_num() == 0).all()) for _, values in columns]
        captions += [
            f"class {class_names.name(label)}",
            *(f"{name}{': none' * zero}" for (name, _), zero in zip(columns, is_zero, strict=True)),
        ]
    grid.caption(captions, size=6)
    grid.title("What speaks for the class (red) or against it (blue), each map on its own scale")
    grid.bar(Colours(DIVERGING, -1, 1, "share of the map's largest value"))
    return grid.figure


def class_images(found: ClassImages, names: list[str], title: str, probability: Tensor | None = None) -> Figure:
    """Class images, each under its name and, where given, its probability (B,).

    Without probabilities each image is on its own scale, because those of channels may be faint.
    """
    num_columns = 10 if len(names) > 8 else len(names)
    images = found.images[:, 0].cpu()
    if probability is None:
        images = images / images.amax((1, 2), keepdim=True).clamp_min(1e-12)
        title += ", each image on its own scale"
    grid = mosaic(INK.of(images), num_columns, above=9 if probability is None else 15, top=9)
    grid.title(title)
    scores = [""] * len(names) if probability is None else [f"\np {p:.2f}" for p in probability.tolist()]
    grid.caption([name + score for name, score in zip(names, scores, strict=True)], size=8)
    return grid.figure
