"""Figures of occlusion: heat maps, predicted classes, and statistics of a test set."""

import numpy as np
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance
from cnn_mnist.figures.canvas import DARK, INK, Colours, Mosaic, enlarged, mosaic
from cnn_mnist.figures.class_names import colour, name

PROBABILITY = Colours("viridis", 0, 1, "probability")
FINE = 2  # half pixels: the centre of an even window lies between two pixels
STILL_RIGHT = "#e8e8e8"


def probability_maps(images: Tensor, labels: Tensor, maps: OcclusionMap, *, of: str = "true") -> Figure:
    """Heat maps over the grey image with fixed limits 0..1; the patch beside the first, to scale.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        labels: True classes, int64 (B,).
        maps: The maps of these images.
        of: What the labels are: the true classes, or those predicted without a patch.
    """
    heat = PROBABILITY.of(maps.probability)
    captions = [
        f"class {name(label)}, p {p:.2f}" for label, p in zip(labels.tolist(), maps.clean.tolist(), strict=True)
    ]
    grid = _over_images(images, heat, maps, captions)
    grid.title(f"Probability of the {of} class with a patch centred here ({_patch(maps)}); above: without it")
    grid.bar(PROBABILITY)
    return grid.figure


def predicted_maps(images: Tensor, labels: Tensor, maps: OcclusionMap, *, of: str = "true") -> Figure:
    """The class predicted with the patch at each position: grey where it is still the true one."""
    predictions = maps.predicted.cpu().numpy()
    palette = np.array([colour(label) for label in range(predictions.max() + 1)], np.float32)
    colours = palette[predictions]
    is_right = (maps.predicted == labels[:, None, None]).cpu().numpy()
    colours[is_right] = to_rgb(STILL_RIGHT)
    captions = [
        name(label) if not right.all() else f"{name(label)}: never changes"
        for label, right in zip(labels.tolist(), is_right, strict=True)
    ]
    grid = _over_images(images, colours, maps, captions)
    for (left, top), predicted, right in zip(grid.corners, predictions, is_right, strict=True):
        for number in np.unique(predicted[~right]):
            _name_regions(grid, (predicted == number) & ~right, int(number), left, top, maps)
    grid.title(f"Class predicted with a patch centred here, grey where it is the {of} one ({_patch(maps)})")
    return grid.figure


def resistance(found: Resistance) -> Figure:
    """Predicted classes of occluded images, and the share of resistant images."""
    figure = Figure(figsize=(11, 4.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    changed = found.confusion.double().fill_diagonal_(0)  # a copy: double() makes one
    share = changed / changed.sum(1, keepdim=True).clamp_min(1)
    total = found.confusion.sum(1)
    picture = left.imshow(share.numpy(), cmap="viridis", vmin=0, vmax=1)
    for i, row in enumerate(share.tolist()):
        for j, value in enumerate(row):
            if value >= 0.005:
                left.text(
                    j,
                    i,
                    f"{value:.0%}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if value < 0.6 else "black",
                )
    wrong = (changed.sum(1) / total.clamp_min(1)).tolist()
    left.set_yticks(range(len(share)), [f"{name(n)} ({w:.1%} wrong)" for n, w in enumerate(wrong)], fontsize=8)
    names = [name(n) for n in range(len(share))]
    left.set_xticks(range(len(share)), names)
    left.set_xlabel("predicted class, of the positions with a wrong one")
    left.set_title("Predicted class of an occluded image", fontsize=10)
    figure.colorbar(picture, ax=left, shrink=0.8)
    shares = (found.num_resistant / found.num_images.clamp_min(1)).tolist()
    right.bar(range(len(shares)), shares, color=DARK)
    for n, value in enumerate(shares):
        right.text(n, value + 0.01, f"{value:.0%}", ha="center", va="bottom", fontsize=8)
    right.set_ylim(0, 1.08)
    right.set_xticks(range(len(shares)), names)
    right.set_xlabel("class")
    right.set_title(f"Share of {int(found.num_images.sum()):,} images that no patch position makes wrong", fontsize=10)
    return figure


def _over_images(images: Tensor, colours: NDArray[np.float32], maps: OcclusionMap, captions: list[str]) -> Mosaic:
    """Maps (B, G, G, 3) as RGB over the images, which shine through, with their outlines and the patch to scale."""
    tiles = INK.of(enlarged(0.6 * images[:, 0].cpu(), FINE))
    cell = maps.stride * FINE
    first = (maps.window - maps.stride) * FINE // 2  # the centre of a cell is the centre of its patch
    spread = np.full_like(tiles, np.nan)
    grown = colours.repeat(cell, 1).repeat(cell, 2)[:, max(0, -first) :, max(0, -first) :]
    start = max(0, first)
    height, width = (min(side, size - start) for side, size in zip(grown.shape[1:3], tiles.shape[1:3], strict=True))
    spread[:, start : start + height, start : start + width] = grown[:, :height, :width]
    tiles = np.where(np.isnan(spread), tiles, 0.15 * tiles + 0.85 * spread)
    num_columns = min(5, len(tiles)) if len(tiles) <= 20 else 10
    inches = 1 / 46 if num_columns == 10 else 1 / 36
    right = max(FINE * maps.window, int(0.75 / inches)) + int(0.95 / inches)  # the patch, and the bar
    grid = mosaic(tiles, num_columns, above=18, gap=12, top=12, right=right, inches=inches)
    grid.caption(captions, size=7)
    ink = np.zeros(grid.axes.images[0].get_size(), np.float32)
    side = tiles.shape[1]
    smooth = F.interpolate(images.cpu(), scale_factor=FINE, mode="bilinear")[:, 0].numpy()
    for (x, y), image in zip(grid.corners, smooth, strict=True):
        ink[y : y + side, x : x + side] = image
        grid.axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, color="#999999", linewidth=0.5))
    if (ink > 0.5).any():
        grid.axes.contour(ink, levels=[0.5], colors="white", linewidths=2.2)
        grid.axes.contour(ink, levels=[0.5], colors="black", linewidths=0.9)
    x, y = grid.margin
    grid.axes.text(x, y - 3, "patch, to scale", ha="left", va="bottom", fontsize=8)
    patch = Rectangle((x, y), FINE * maps.window, FINE * maps.window, facecolor=str(1 - maps.fill), edgecolor="#c1440e")
    grid.axes.add_patch(patch)
    return grid


def _name_regions(
    grid: Mosaic, region: NDArray[np.bool_], number: int, left: int, top: int, maps: OcclusionMap
) -> None:
    """Write the class into each connected region of a map (G, G) that has room for it."""
    labelled, count = ndimage.label(region)
    for part in range(1, count + 1):
        if (labelled == part).sum() * maps.stride**2 < 6:
            continue
        depth = ndimage.distance_transform_edt(np.pad(labelled == part, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)  # the point farthest from its border
        x, y = (
            corner + FINE * (place * maps.stride + maps.window / 2) - 0.5
            for corner, place in ((left, float(column)), (top, float(row)))
        )
        luminance = float(np.dot(colour(number), (0.299, 0.587, 0.114)))
        grid.axes.text(
            x, y, name(number), ha="center", va="center", fontsize=8, color="black" if luminance > 0.5 else "white"
        )


def _patch(maps: OcclusionMap) -> str:
    return f"{maps.window} x {maps.window} pixels, grey {maps.fill:g}"
