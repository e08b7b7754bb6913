"""The report's network without the units that no image can activate."""

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.autoattack import apgd, evaluation, fab
from cnn_mnist.attacks.autoattack.idle_units import without_idle_units
from cnn_mnist.checks import Logits
from cnn_mnist.data.batches import Batch
from cnn_mnist.network import CNN
from tests.conftest import trained


def with_idle_units(batchnorm: bool, kernel_size: Any = 3) -> CNN:
    """A trained network in which all but 9 and 12 filters, and some of the hidden units, are far below zero."""
    network = copy.deepcopy(trained(batchnorm, kernel_size))
    names = ("norm1", "norm2", "norm3") if batchnorm else ("conv1", "conv2", "fc1")
    with torch.no_grad():
        for name, num_active in zip(names, (9, 12, 430), strict=True):
            getattr(network, name).bias[num_active:] = -1000
    return network


def logits_and_gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    return logits.detach(), gradient


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_it_is_the_same_function_with_fewer_units(batchnorm: bool, kernel_size: Any, digits: Batch) -> None:
    network = with_idle_units(batchnorm, kernel_size)
    noise = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    images = torch.cat([digits.images[:20], noise, torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)])
    reduced = without_idle_units(Logits(network), images)
    assert reduced is not None
    assert [len(layer.weight) for layer in (reduced.conv1, reduced.conv2, reduced.fc1, reduced.fc2)] == [9, 12, 430, 10]
    for found, expected in zip(logits_and_gradient(reduced, images), logits_and_gradient(network, images), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    assert not any(parameter.requires_grad for parameter in reduced.parameters())


def test_a_unit_that_a_single_image_activates_is_kept() -> None:
    network = CNN().eval()
    with torch.no_grad():
        network.conv1.weight.copy_(
            torch.arange(32.0).view(-1, 1, 1, 1).expand(-1, 1, 3, 3) - 16
        )  # 15 see white, 16 not
        network.conv1.bias.copy_(-9 * (torch.arange(32.0) - 16) + 0.001)  # a white patch is just enough
        network.conv1.bias[20] -= 0.002  # and here it is not
    reduced = without_idle_units(network, torch.ones(1, 1, 28, 28))
    assert reduced is not None
    with torch.no_grad():
        has_answered = network.features(torch.ones(1, 1, 28, 28)).conv1.amax((0, 2, 3)) > 0
    is_dark = torch.arange(32) <= 16  # their highest output is that of a black patch, their bias
    assert len(reduced.conv1.weight) == (has_answered | (is_dark & (network.conv1.bias > 0))).sum() == 31


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc1"])
def test_a_layer_without_any_active_unit_gives_a_constant(layer: str, digits: Batch) -> None:
    network = copy.deepcopy(trained(False))
    with torch.no_grad():
        getattr(network, layer).bias.fill_(-1000)
    reduced = without_idle_units(network, digits.images)
    assert reduced is not None
    with torch.no_grad():
        torch.testing.assert_close(reduced(digits.images[:5]), network(digits.images[:5]), atol=1e-4, rtol=1e-4)


def test_other_networks_are_left_alone(digits: Batch) -> None:
    assert without_idle_units(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), digits.images) is None
    network = copy.deepcopy(trained(False))
    network.conv1.register_forward_hook(lambda module, args, output: output * 2)
    assert without_idle_units(network, digits.images) is None
    assert without_idle_units(copy.deepcopy(trained(False)).double(), digits.images) is None


@pytest.mark.parametrize(
    "attack",
    [
        functools.partial(attacks.apgd, steps=20),
        functools.partial(attacks.apgd, steps=10, loss="targeted"),
        functools.partial(attacks.fab, steps=10),
        functools.partial(attacks.square, queries=200),
    ],
)
def test_attacks_break_as_much_as_on_the_whole_network(
    attack: Any, digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images, labels = with_idle_units(True), digits.images[:60], digits.labels[:60]
    quick = attack(network, images, labels, epsilon=0.08)
    for module in (apgd, fab, evaluation):
        monkeypatch.setattr(module, "without_idle_units", lambda model, images: None)
    whole = attack(network, images, labels, epsilon=0.08)
    assert (quick.success == whole.success).double().mean() >= 0.96
    assert 5 < quick.success.sum() < 60


class Rash(nn.Module):
    """Takes every image for misclassified, as rounding may where two logits are equal."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.cat([logits, logits.detach().amax(1, keepdim=True) + 0.01], 1)


@pytest.mark.parametrize(
    "attack", [functools.partial(attacks.apgd, steps=20), functools.partial(attacks.fab, steps=20)]
)
def test_the_network_itself_decides_when_an_image_is_done(
    attack: Any, digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images, labels = trained(False), digits.images[:40], digits.labels[:40]
    expected = attack(network, images, labels, epsilon=0.08).success
    rash = Rash(network)
    monkeypatch.setattr(apgd, "without_idle_units", lambda model, images: rash)
    monkeypatch.setattr(fab, "without_idle_units", lambda model, images: rash)
    found = attack(network, images, labels, epsilon=0.08).success
    assert 5 < expected.sum() < 40
    assert (found & expected).sum() >= 0.8 * expected.sum()
