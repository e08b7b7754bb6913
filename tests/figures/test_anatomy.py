"""Figures of the anatomy: colours, scales and texts match the numbers."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from cnn_mnist.analysis import filters as analysis
from cnn_mnist.analysis.class_image import ClassImages
from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance
from cnn_mnist.figures import activations, anatomy, canvas, occlusion
from cnn_mnist.figures.class_names import colour
from cnn_mnist.figures.render import to_pixels
from cnn_mnist.figures.tiles import Tiles


def captions(figure: Tiles) -> list[str]:
    return [tile.caption for group in figure.groups for tile in group]


def has_colour(figure: Tiles, shade: tuple[float, ...]) -> bool:
    wanted = np.round(255 * np.array(shade[:3]))
    tiles = [tile.pixels for group in figure.groups for tile in group]
    return any(bool((np.abs(tile - wanted).max(-1) <= 1).any()) for tile in tiles)


def limits(figure: Tiles) -> tuple[float, float]:
    assert figure.bar is not None
    return figure.bar.low, figure.bar.high


def test_filters_have_a_scale_that_is_symmetrical() -> None:
    weight = torch.zeros(8, 1, 3, 3)
    weight[0, 0, 0, 0], weight[1, 0, 1, 1] = -0.5, 0.25
    figure = anatomy.filters(weight, "conv1", analysis.edge_likeness(weight + 1e-9))
    assert limits(figure) == (-0.5, 0.5)
    shades = colormaps["RdBu_r"]
    assert has_colour(figure, shades(0.0))
    assert has_colour(figure, shades(0.75))
    assert has_colour(figure, shades(0.5))
    assert not has_colour(figure, shades(1.0))
    assert to_pixels(figure).shape[2] == 3


def test_all_kernels_are_one_sheet_with_a_row_for_each_filter() -> None:
    weight = torch.zeros(3, 2, 5, 5)
    weight[2, 1] = 1
    figure = anatomy.filters(weight, "conv2", None)
    ((tile,),) = figure.groups
    assert tile.pixels.shape == (3 * 6 - 1, 2 * 6 - 1, 3)
    dark = (tile.pixels == [round(255 * part) for part in colormaps["RdBu_r"](1.0)[:3]]).all(-1)
    assert dark.sum() == 25
    assert dark[12:, 6:].all()
    assert anatomy.filters(torch.rand(2, 32, 11, 11), "x", None).groups[0][0].pixels.shape[1] <= 328
    assert anatomy.filters(torch.rand(40, 50, 3, 3), "x", None).note == "(the first 32 of 40 filters) " + (
        "(the first 32 of 50 channels)"
    )


def test_a_layers_channels_share_one_scale_and_zero_ones_are_named() -> None:
    maps = torch.zeros(2, 4, 14, 14)
    maps[0, 0], maps[1, 1] = 4.0, 1.0
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([7, 3])
    overview = activations.overview(images, labels, maps, "conv2", {1: "strong", 2: "dead"})
    assert captions(overview) == ["7", "1: strong", "2: dead", "3", "1: strong", "2: dead"]
    assert limits(overview) == (0, 4)
    assert has_colour(overview, colormaps["viridis"](0.25))
    assert list(activations.strongest(maps)) == [0, 1, 2]
    single = activations.channels(images[1], maps[1], "conv2")
    assert captions(single) == ["the image", "0: zero", "1", "2: zero", "3: zero"]
    everything = activations.all_channels(images, labels, maps, "conv2")
    assert captions(everything) == ["7", "", "3", ""]
    sheet = everything.groups[0][1].pixels
    assert sheet.shape == (28, 8 * 30 - 2, 3)
    assert (sheet[:, 4 * 30 :] == 255).all()  # no channel


def test_the_units_of_a_linear_layer_are_a_block() -> None:
    figure = activations.overview(torch.rand(2, 1, 28, 28), torch.tensor([7, 3]), torch.ones(2, 3), "fc1")
    assert captions(figure) == ["image", "units"] * 2
    block = figure.groups[0][1].pixels
    assert (block[14:, 14:] == 255).all()  # the fourth of four places has no unit
    assert not (block[:14] == 255).all(-1).any()


def maps_of(probability: float, predicted: int) -> OcclusionMap:
    return OcclusionMap(
        torch.full((2, 21, 21), probability),
        torch.full((2, 21, 21), predicted),
        torch.tensor([0.875, 1.0]),
        window=8,
        stride=1,
        fill=0.5,
    )


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_heat_maps_have_fixed_limits_so_that_two_can_be_compared(probability: float) -> None:
    figure = occlusion.probability_maps(torch.zeros(2, 1, 28, 28), torch.tensor([3, 7]), maps_of(probability, 3))
    assert limits(figure) == (0, 1)
    assert captions(figure) == ["3, p 0.88", "7, p 1.00", "the patch, to scale"]
    shade = 255 * (0.85 * np.array(colormaps["viridis"](probability)[:3]) + 0.15)
    place = np.abs(figure.groups[0][0].pixels - shade).max(-1) < 1.5
    assert place.sum() == (4 * 21) ** 2  # in quarter pixels
    rows, columns = np.nonzero(place)
    # the first cell begins half a pixel before the middle of the first patch, which is 4 pixels from the edge
    assert (columns.min(), rows.min()) == (14, 14)
    patch = figure.groups[2][0].pixels
    assert (patch == [127, 127, 127]).all(-1).sum() == (4 * 8 - 2) ** 2  # less its frame


def test_the_inks_outline_is_drawn_where_the_ink_ends() -> None:
    images = torch.zeros(1, 1, 28, 28)
    images[0, 0, 10:18, 10:18] = 1
    maps = maps_of(1.0, 3)
    one = maps._replace(probability=maps.probability[:1], predicted=maps.predicted[:1], clean=maps.clean[:1])
    tile = occlusion.probability_maps(images, torch.tensor([3]), one).groups[0][0].pixels
    rows, columns = np.nonzero((tile == 0).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 71, 40, 71)


def test_the_class_that_is_predicted_is_written_where_it_is_wrong() -> None:
    images, labels = torch.zeros(2, 1, 28, 28), torch.tensor([3, 7])
    figure = occlusion.predicted_maps(images, labels, maps_of(0.1, 7))
    assert captions(figure) == ["3", "7: never changes", "the patch, to scale"]
    assert [name for name, _ in figure.legend] == ["the true class", "7"]
    assert figure.legend[1][1] == colour(7)
    inside = figure.groups[0][0].pixels[14:-14, 14:-14].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) > 3  # the class is written into the region
    assert len(np.unique(figure.groups[1][0].pixels[14:-14, 14:-14].reshape(-1, 3), axis=0)) == 1
    assert len({colour(label) for label in range(26)}) == 26


def test_the_matrix_of_hidden_digits_says_the_shares() -> None:
    taken_for = torch.zeros(10, 10, dtype=torch.long)
    taken_for[9, 9], taken_for[9, 7], taken_for[9, 0] = 60, 30, 10
    counts = torch.zeros(10, dtype=torch.long)
    counts[9] = 4
    found = Resistance(counts, counts // 4, taken_for, 0.2, 0.1, 0.1, 0.2)
    figure = occlusion.becomes(found)
    assert [text.get_text() for text in figure.axes[0].texts] == ["25", "75"]
    assert figure.axes[0].get_yticklabels()[9].get_text() == "9 (40.0%)"
    assert [text.get_text() for text in occlusion.resistance(found).axes[0].texts][-1] == "25%"
    assert taken_for[9, 9] == 60  # left as it was


def test_curves_are_the_costs() -> None:
    cost = torch.rand(30, 10)
    figure = canvas.cost_curves(cost, [f"class {n}" for n in range(10)], "logit")
    for line, expected in zip(figure.axes[0].lines, cost.T, strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected)
    images = anatomy.class_images(
        ClassImages(torch.rand(2, 1, 28, 28), cost[:, :2]), ["a", "b"], "title", torch.tensor([0.5, 1.0])
    )
    assert captions(images) == ["a\np 0.50", "b\np 1.00"]
