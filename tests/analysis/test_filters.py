"""Filters: known pairs and edges, and chance against a simulation."""

import math

import pytest
import torch

from cnn_mnist.analysis.filters import edge_likeness, similarity


def test_the_closest_pair_and_every_cosine() -> None:
    filters = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.3], [-1.0, 0.0]]).view(4, 1, 1, 2)
    found = similarity(filters)
    assert found.closest == (0, 2)
    assert found.largest == pytest.approx(3 / math.hypot(3, 0.3))
    assert found.cosine[0, 3].item() == pytest.approx(-1)
    assert found.cosine[0, 1].item() == pytest.approx(0)
    assert similarity(filters * 7).largest == pytest.approx(found.largest)


def test_chance_is_what_random_filters_reach() -> None:
    draws = torch.randn(50, 32, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    reached = torch.tensor([similarity(filters).largest for filters in draws])
    assert similarity(draws[0]).chance == pytest.approx(reached.median().item(), abs=0.02)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_a_first_derivative_is_an_edge_of_its_own_direction(size: int, degrees: int) -> None:
    angle = math.radians(degrees)
    x = torch.arange(size, dtype=torch.float64) - size // 2
    gauss = torch.exp(-(x[:, None] ** 2 + x**2) / (2 * (size / 4) ** 2))
    edge = (x * math.cos(angle) + x[:, None] * math.sin(angle)) * gauss  # rises towards (cos, sin) = (right, down)
    found = edge_likeness(5 * edge)
    assert found.score.item() == pytest.approx(1)
    assert math.remainder(found.angle.item() - angle, 2 * math.pi) == pytest.approx(0, abs=1e-9)


def test_what_is_no_edge_scores_nothing() -> None:
    spot = torch.zeros(3, 3)
    spot[1, 1] = 1
    found = edge_likeness(torch.stack([torch.ones(3, 3), spot, torch.zeros(3, 3)]))
    torch.testing.assert_close(found.score, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 3x3, got 1x1"):
        edge_likeness(torch.rand(4, 1, 1))


@pytest.mark.parametrize("size", [3, 7])
def test_chance_of_an_edge_is_what_random_filters_score(size: int) -> None:
    found = edge_likeness(torch.randn(20_000, size, size, generator=torch.Generator().manual_seed(0)))
    assert found.chance == pytest.approx(found.score.mean().item(), abs=0.005)
    assert (found.score < found.chance_95).double().mean().item() == pytest.approx(0.95, abs=0.01)
