"""Figures of filters, saliency and class images."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.analysis.class_image import ClassImages
from cnn_mnist.analysis.filters import EdgeLikeness, Similarity
from cnn_mnist.analysis.saliency import Saliency
from cnn_mnist.figures import class_names
from cnn_mnist.figures.canvas import DARK, DIVERGING, LIGHT, WRONG, Colours, enlarged, plot
from cnn_mnist.figures.tiles import MARGIN, WIDE, Tile, Tiles, each, of_images

MOST_FILTERS, MOST_KERNELS = 64, 32  # of a layer that are drawn
ROOM = (WIDE - 2 * MARGIN, 328)  # pixels for a sheet of kernels, on a wide page and on a phone
LARGEST_SCALE = 4  # of a sheet of kernels


def filters(weight: Tensor, layer: str, edges: EdgeLikeness | None) -> Tiles:
    """A layer's filters, of one channel (C, 1, K, K) or of several (C, C', K, K)."""
    return _single_filters(weight, layer, edges) if weight.shape[1] == 1 else _kernels(weight, layer)


def _single_filters(weight: Tensor, layer: str, edges: EdgeLikeness | None) -> Tiles:
    """Filters of one channel, numbered, each with its largest cosine with an edge filter if that is known."""
    num_filters, weight = len(weight), weight[:MOST_FILTERS]
    limit = weight.abs().max().item()
    colours = Colours(DIVERGING, -limit, limit, "weight")
    factor = max(1, 30 // weight.shape[-1])
    title = f"Filters of {layer}"
    captions = [str(number) for number in range(len(weight))]
    if edges is not None:
        captions = [f"{number}: {score:.2f}" for number, score in enumerate(edges.score[:MOST_FILTERS].tolist())]
        title += f"; after its number, how much of each is an edge, 0 to 1 (chance {edges.chance:.2f})"
    tiles = of_images(enlarged(weight[:, 0], factor), captions, scale=2, colours=colours)
    return Tiles(each(tiles), title, bar=colours, note=left_out(num_filters, MOST_FILTERS))


def left_out(number: int, most: int, what: str = "") -> str:
    """A note such as "(the first 32 of 64)", or nothing where all are shown."""
    return f"(the first {most} of {number}{what})" if number > most else ""


def _kernels(weight: Tensor, layer: str) -> Tiles:
    """All kernels of a layer in one sheet: a filter per row, a channel of its input per column; (C, C', K, K)."""
    all_filters, all_channels = weight.shape[:2]
    most = min(MOST_KERNELS, ROOM[1] // (weight.shape[-1] + 1))
    weight = weight[:MOST_KERNELS, :most].detach().float()
    largest = weight.abs().max().item()
    limit = weight.abs().quantile(0.995).item()  # a few outliers would leave the rest pale
    colours = Colours(DIVERGING, -limit, limit, f"weight (largest: {largest:.2f})")
    note = f"{left_out(all_filters, MOST_KERNELS, ' filters')} {left_out(all_channels, most, ' channels')}"
    pixels = sheet(colours.of(weight))
    wide, narrow = (min(LARGEST_SCALE, room // pixels.shape[1]) for room in ROOM)
    tile = Tile(pixels, scale=wide, narrow=narrow)
    title = f"Filters of {layer}: one per row, a column per channel of its input"
    return Tiles([[tile]], title, bar=colours, note=note.strip())


def sheet(tiles: np.ndarray, gap: int = 1) -> np.ndarray:
    """Pictures (R, C, H, W, 3) as one, uint8, R rows of C with white between them."""
    rows, columns, height, width = tiles.shape[:4]
    padded = np.full((rows, columns, height + gap, width + gap, 3), 255, np.uint8)
    padded[:, :, :height, :width] = tiles
    whole = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), 3)
    return whole[: whole.shape[0] - gap, : whole.shape[1] - gap]


def similarity(found: Similarity, layer: str) -> Figure:
    """The cosine of each filter of a layer with each other one, the closest two framed."""
    figure, axes = plot(height=4.3)
    cosine = found.cosine.numpy()
    picture = axes.imshow(cosine, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="none")
    i, j = found.closest
    axes.plot([j, i], [i, j], "s", fillstyle="none", color="black", markersize=8)
    title = f"{layer}: closest {i} and {j}, {found.largest:.2f} (chance {found.chance:.2f})"
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("filter")
    axes.set_ylabel("filter")
    figure.colorbar(picture, ax=axes, shrink=0.8, label="cosine")
    return figure


def edges(found: dict[str, EdgeLikeness]) -> Figure:
    """A histogram of edge likeness for each layer, beside that of random kernels."""
    figure, axes = plot(height=3.6 + 0.2 * len(found))
    bins = np.linspace(0, 1, 21).tolist()
    for (layer, one), colour in zip(found.items(), (WRONG, LIGHT, DARK, "#8a8a8a"), strict=False):
        score = one.score.numpy()
        label = f"{layer} ({len(score):,} kernels)"
        axes.hist(score, bins, weights=np.full(len(score), 1 / len(score)), alpha=0.7, label=label, color=colour)
    if len({one.chance for one in found.values()}) == 1:  # filters of one size
        chance = next(iter(found.values()))
        axes.axvline(chance.chance, color="black", linestyle="--", linewidth=1, label="random: mean")
        axes.axvline(chance.chance_95, color="black", linestyle=":", linewidth=1, label="random: 95 of 100 below")
    axes.set_xlabel("largest cosine with a first-derivative filter")
    axes.set_ylabel("share of kernels")
    figure.legend(loc="outside lower left", fontsize=9, frameon=False, ncols=2)
    return figure


def saliency(images: Tensor, drop: Tensor, found: Saliency, labels: Tensor) -> Tiles:
    """Two or three explanations of each image side by side.

    Args:
        images: (B, 1, 28, 28) in [0, 1].
        drop: Occlusion's mean drop per pixel (B, 28, 28); NaN where no patch reached.
        found: Integrated gradients and, where there are convolutions, Grad-CAM.
        labels: The explained classes, int64 (B,).
    """
    columns = [("occlusion", drop), ("integrated gradients", found.integrated_gradients)]
    if found.grad_cam is not None:
        columns.append(("Grad-CAM", found.grad_cam))
    colours = Colours(DIVERGING, -1, 1, "share of the map's largest value")
    names = [f"class {class_names.name(label)}" for label in labels.tolist()]
    parts = [of_images(images[:, 0], names)]
    for name, values in columns:  # each image on its own scale: only the places compare between methods
        limit = values.nan_to_num().abs().flatten(1).amax(1)
        drops = [f"\n{most:.2g}" if values is drop else "" for most in limit.tolist()]
        captions = [name + fall if most else f"{name}: none" for most, fall in zip(limit.tolist(), drops, strict=True)]
        parts.append(of_images(values / limit.clamp_min(1e-12).view(-1, 1, 1), captions, colours=colours))
    title = "What speaks for the class (red) or against it (blue), each map on its own scale"
    return Tiles(list(zip(*parts, strict=True)), title, bar=colours)


def class_images(found: ClassImages, names: list[str], title: str, probability: Tensor | None = None) -> Tiles:
    """Class images, each over its name and, where given, its probability (B,).

    Without probabilities each image is on its own scale, because those of channels may be faint.
    """
    images = found.images[:, 0].cpu()
    scores = [""] * len(names) if probability is None else [f"\np {p:.2f}" for p in probability.tolist()]
    if probability is None:
        images = images / images.amax((1, 2), keepdim=True).clamp_min(1e-12)
        title += ", each image on its own scale"
    captions = [name + score for name, score in zip(names, scores, strict=True)]
    return Tiles(each(of_images(images, captions)), title)
