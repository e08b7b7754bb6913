"""Transfer of noise to other images, counted by hand."""

import pytest
import torch

from cnn_mnist.attacks.transfer import transfer
from tests.attacks.conftest import linear


def test_rates_are_counted_as_they_are_defined() -> None:
    model = linear(torch.eye(3, 4))  # the class is the brightest of the first three pixels
    images = torch.tensor([[0.8, 0.1, 0.1, 0.0], [0.8, 0.5, 0.1, 0.0], [0.1, 0.8, 0.1, 0.0], [0.1, 0.1, 0.6, 0.0]])
    noises = torch.tensor([[-0.6, 0.0, 0.5, 0.0], [0.0, 0.9, 0.0, 0.0]])  # made for 2 and for 1
    found = transfer(
        model,
        noises.view(2, 1, 2, 2),
        torch.tensor([2, 1]),
        images.view(4, 1, 2, 2),
        generator=torch.Generator().manual_seed(0),
    )
    assert found.clean.tolist() == [0, 0, 1, 2]
    assert found.predicted.tolist() == [[2, 2, 1, 2], [1, 1, 1, 1]]
    assert found.fooling_rate.tolist() == pytest.approx([2 / 4, 3 / 4])
    assert found.success_rate.tolist() == pytest.approx([2 / 3, 3 / 3])  # the 2, and the 1, are left out


def test_random_noise_has_the_same_norm_and_does_nothing_to_what_looks_elsewhere() -> None:
    weight = torch.zeros(2, 784)
    weight[0, 0], weight[1, 1] = 1, 1
    images = torch.full((5, 1, 28, 28), 0.5)
    images[:, 0, 0, 0] = 0.9
    noises = torch.zeros(1, 1, 28, 28)
    noises[0, 0, 0, 1] = 0.5  # a norm of 0.5: enough on the right pixel, 0.02 a pixel when spread over all
    found = transfer(linear(weight, 28), noises, torch.tensor([1]), images, generator=torch.Generator().manual_seed(0))
    assert found.fooling_rate.tolist() == [1]
    assert found.success_rate.tolist() == [1]
    assert found.random_fooling_rate.tolist() == [0]
    assert found.random_success_rate.tolist() == [0]
