"""Occlusion: maps worked out by hand, the fast path against the plain one, captum as the oracle."""

import math

import pytest
import torch
from torch import Tensor, nn

from cnn_mnist.analysis.occlusion import class_probabilities, occlusion_map
from cnn_mnist.network import CNN


class Ink(nn.Module):
    """Logits (ink in the left half, ink in the right half), in pixels."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = images.flatten(2)[:, 0].unflatten(1, images.shape[2:]).chunk(2, 2)
        return torch.stack([left.sum((1, 2)), right.sum((1, 2))], 1)


def trained(batchnorm: bool, kernel_size: int = 3) -> CNN:
    """A network whose every parameter and statistic is unlike what it starts with, sure of its answers."""
    torch.manual_seed(0)
    network = CNN(batchnorm, kernel_size)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(digits(50))
        network.fc2.weight *= 20
        if batchnorm:
            for norm in (network.norm1, network.norm2, network.norm3):
                norm.weight.uniform_(-1.5, 1.5)
                norm.bias.uniform_(-0.5, 0.5)
    return network.eval()


def digits(num_images: int) -> Tensor:
    """Blobs of ink on empty paper."""
    noise = torch.rand(num_images, 1, 28, 28, generator=torch.Generator().manual_seed(num_images))
    ink = nn.functional.avg_pool2d(noise, 3, 1, 1) * 4 - 1.8
    return ink.clamp(0, 1) * (torch.hann_window(28)[:, None] * torch.hann_window(28) > 0.2)


def test_a_map_worked_out_by_hand() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1.0  # one pixel of ink on the left, one of half grey on the right
    image[0, 0, 3, 3] = 0.5
    found = occlusion_map(Ink(), image, torch.tensor([0]), window=2, stride=2, fill=0.25)

    def sigmoid(left: float, right: float) -> float:
        return 1 / (1 + math.exp(right - left))

    expected = [[sigmoid(1.0, 0.5), sigmoid(1.0, 1.5)], [sigmoid(2.0, 0.5), sigmoid(1.0, 1.0)]]
    torch.testing.assert_close(found.probability, torch.tensor([expected]))
    assert found.predicted.tolist() == [[[0, 1], [0, 0]]]
    torch.testing.assert_close(found.clean, torch.tensor([sigmoid(1.0, 0.5)]))
    assert (found.window, found.stride, found.fill) == (2, 2, 0.25)


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("window", [1, 4, 7, 8, 14, 28])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_fast_path_equals_the_plain_one(batchnorm: bool, window: int, stride: int) -> None:
    network, images = trained(batchnorm), digits(3)
    fast = occlusion_map(network, images, torch.tensor([0, 5, 9]), window=window, stride=stride, fill=0.5)
    with torch.no_grad():
        plain = class_probabilities(network, images, window=window, stride=stride, fill=0.5)
    expected = torch.stack([plain[0, ..., 0], plain[1, ..., 5], plain[2, ..., 9]])
    torch.testing.assert_close(fast.probability, expected, atol=1e-5, rtol=0)
    top = plain.topk(2).values
    is_clear = top[..., 0] - top[..., 1] > 1e-5
    assert torch.equal(fast.predicted[is_clear], plain.argmax(3)[is_clear])
