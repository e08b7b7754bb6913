"""Figures of the anatomy: colours, scales and texts match the numbers."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from cnn_mnist.analysis import filters as analysis
from cnn_mnist.analysis.class_image import ClassImages
from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance
from cnn_mnist.figures import anatomy, canvas, occlusion
from cnn_mnist.figures.class_names import colour


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def paper(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def has_colour(figure: Figure, colour: tuple[float, ...]) -> bool:
    return bool((np.abs(paper(figure) - np.array(colour[:3])).max(-1) < 1e-3).any())


def test_filters_have_a_scale_that_is_symmetrical() -> None:
    weight = torch.zeros(8, 1, 3, 3)
    weight[0, 0, 0, 0], weight[1, 0, 1, 1] = -0.5, 0.25
    figure = anatomy.filters(weight, "conv1", analysis.edge_likeness(weight + 1e-9))
    assert figure.axes[1].get_ylim() == (-0.5, 0.5)
    shades = colormaps["RdBu_r"]
    assert has_colour(figure, shades(0.0))
    assert has_colour(figure, shades(0.75))
    assert has_colour(figure, shades(0.5))
    assert not has_colour(figure, shades(1.0))
    assert canvas.to_pixels(figure).shape[2] == 3


def test_a_layers_channels_share_one_scale_and_zero_ones_are_named() -> None:
    maps = torch.zeros(2, 4, 14, 14)
    maps[0, 0], maps[1, 1] = 4.0, 1.0
    images = torch.rand(2, 1, 28, 28)
    overview = anatomy.activations(images, maps, "conv2")
    assert texts(overview)[:5] == ["image", "0", "1", "(2)", "(3)"]
    assert overview.axes[1].get_ylim() == (0, 4)
    assert has_colour(overview, colormaps["viridis"](0.25))
    single = anatomy.channels(images[1], maps[1], "conv2")
    assert texts(single)[:5] == ["0: zero", "1", "2: zero", "3: zero", "the image"]


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
    assert figure.axes[1].get_ylim() == (0, 1)
    assert texts(figure)[:2] == ["class 3, p 0.88", "class 7, p 1.00"]
    shade = 0.85 * np.array(colormaps["viridis"](probability)[:3]) + 0.15
    place = np.abs(paper(figure) - shade).max(-1) < 2e-3
    assert place.sum() == 2 * (2 * 21) ** 2  # two images, in half pixels
    rows, columns = np.nonzero(place[:, : place.shape[1] // 2])
    x, y = figure.axes[0].patches[0].get_xy()
    # the first cell's middle lies at 3.5 pixels, counted from the middle of the first: at 4 from the edge
    assert ((columns.min() - x + 0.5) / 2, (rows.min() - y + 0.5) / 2) == (4, 4)
    patch = figure.axes[0].patches[-1]
    assert (patch.get_width(), patch.get_height()) == (16, 16)


def test_the_class_that_is_predicted_is_written_where_it_is_wrong() -> None:
    figure = occlusion.predicted_maps(torch.zeros(2, 1, 28, 28), torch.tensor([3, 7]), maps_of(0.1, 7))
    assert texts(figure)[:3] == ["3", "7: never changes", "patch, to scale"]
    assert texts(figure).count("7") == 1
    assert len({colour(label) for label in range(26)}) == 26


def test_the_matrix_of_hidden_digits_says_the_shares() -> None:
    taken_for = torch.zeros(10, 10, dtype=torch.long)
    taken_for[9, 9], taken_for[9, 7], taken_for[9, 0] = 60, 30, 10
    counts = torch.zeros(10, dtype=torch.long)
    counts[9] = 4
    found = Resistance(counts, counts // 4, taken_for, 0.2, 0.1, 0.1, 0.2)
    figure = occlusion.resistance(found)
    assert texts(figure) == ["25%", "75%"]
    assert figure.axes[0].get_yticklabels()[9].get_text() == "9 (40.0% wrong)"
    assert [text.get_text() for text in figure.axes[1].texts][-1] == "25%"
    assert taken_for[9, 9] == 60  # left as it was


def test_curves_are_the_costs() -> None:
    cost = torch.rand(30, 10)
    figure = canvas.cost_curves(cost, [f"class {n}" for n in range(10)], "logit")
    for line, expected in zip(figure.axes[0].lines, cost.T, strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected)
    images = anatomy.class_images(
        ClassImages(torch.rand(2, 1, 28, 28), cost[:, :2]), ["a", "b"], "title", torch.tensor([0.5, 1.0])
    )
    assert texts(images) == ["a\np 0.50", "b\np 1.00"]
