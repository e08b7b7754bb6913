"""Certificates: beside exact verification, beside attacks, and for the networks of others."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import certificate, is_proven
from cnn_mnist.data.batches import Batch
from cnn_mnist.intervals import ball, furthest_ahead
from cnn_mnist.network import CNN
from cnn_mnist.networks.lenet5 import LeNet5
from cnn_mnist.networks.mlp import MLP
from cnn_mnist.networks.resnet import ResNet
from tests.conftest import trained


def tiny(seed: int) -> nn.Sequential:
    """A convolution, a pool, ReLU and a linear layer, for images of 4x4 pixels and three classes."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().eval()


def exactly_ahead(model: nn.Sequential, image: Tensor, label: int, other: int, epsilon: float) -> float:
    """How far another class can be ahead of the label, found by mixed-integer programming."""
    convolution, last = model[0], model[4]
    with torch.no_grad():
        offset = convolution(torch.zeros(1, 1, 4, 4).double()).flatten()
        slopes = convolution(torch.eye(16).view(16, 1, 4, 4).double()).flatten(1).T - offset[:, None]  # (32, 16)
        towards = (last.weight[other] - last.weight[label]).numpy()
        ahead = (last.bias[other] - last.bias[label]).item()
    groups = F.unfold(torch.arange(32.0).view(2, 1, 4, 4), 2, stride=2).transpose(1, 2).reshape(8, 4).long()
    big = 1 + (slopes.abs().sum(1) + offset.abs()).max().item()
    rows, low, high = [], [], []
    for unit, group in enumerate(groups.tolist()):  # y = max(0, a1..a4); z says which of the five it is
        for choice in range(5):
            a, constant = np.zeros(16), 0.0
            if choice < 4:
                a, constant = slopes[group[choice]].numpy(), offset[group[choice]].item()
            row = np.zeros(16 + 8 + 40)
            row[:16], row[16 + unit] = -a, 1  # y - a.x
            rows.append(row.copy())
            low.append(constant)  # y >= a.x + constant
            high.append(np.inf)
            row[24 + 5 * unit + choice] = big
            rows.append(row)
            low.append(-np.inf)
            high.append(constant + big)  # y <= a.x + constant + big * (1 - z)
        row = np.zeros(16 + 8 + 40)
        row[24 + 5 * unit : 29 + 5 * unit] = 1
        rows.append(row)
        low.append(1)
        high.append(1)
    pixels = image.flatten().numpy()
    least = np.concatenate([np.clip(pixels - epsilon, 0, 1), np.zeros(48)])
    most = np.concatenate([np.clip(pixels + epsilon, 0, 1), np.full(8, big), np.ones(40)])
    cost = np.concatenate([np.zeros(16), -towards, np.zeros(40)])
    is_whole = np.concatenate([np.zeros(24), np.ones(40)])
    found = milp(
        cost,
        integrality=is_whole,
        bounds=Bounds(least, most),
        constraints=LinearConstraint(np.array(rows), low, high),
    )
    assert found.success
    return float(-found.fun + ahead)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_proven_holds_exactly(seed: int) -> None:
    model, epsilon = tiny(seed), 0.04
    images = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    labels = model(images).argmax(1)
    bounds = furthest_ahead(model(ball(images, epsilon)), labels).detach()
    found = certificate(model, images, labels, epsilon=epsilon)
    for k, label in enumerate(labels.tolist()):
        exact = torch.zeros(3).double()
        for other in {0, 1, 2} - {label}:
            exact[other] = exactly_ahead(model, images[k], label, other, epsilon)
            assert bounds[k, other] >= exact[other] - 1e-6
            at_radius = exactly_ahead(model, images[k], label, other, found.radius[k].item())
            assert at_radius <= 1e-6  # within the radius no class comes ahead
        assert not found.is_proven[k] or (exact <= 1e-6).all()
        plain = model(images[k : k + 1])[0]
        assert (bounds[k] >= plain - plain[label] - 1e-9).all()
        assert (bounds[k] - exact).max() < 0.2  # and the bounds are of use
    assert found.is_proven.any()
    assert (found.is_proven == (found.radius >= epsilon - 1e-3)).all()


def test_of_a_linear_network_the_bounds_are_exact() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    image, label = torch.tensor([[[[0.5, 0.4], [0.6, 0.5]]]]), torch.tensor([1])
    weight = model[1].weight.detach()
    logits = model(image)[0].detach()
    expected = logits - logits[1] + 0.1 * (weight - weight[1]).abs().sum(1)
    found = furthest_ahead(model(ball(image, 0.1)), label)[0].detach()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "network", [CNN(), CNN(batchnorm=True), LeNet5(), MLP(), ResNet()], ids=lambda one: type(one).__name__
)
def test_every_network_here_stays_within_its_bounds(network: nn.Module, digits: Batch) -> None:
    dice = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.running_mean.normal_(0, 0.5, generator=dice)
            layer.running_var.uniform_(0.5, 2, generator=dice)
            layer.weight.data.normal_(0, 1, generator=dice)
    images = digits.images[:6].double()
    network = network.double().eval()
    with torch.no_grad():
        bounds = network(ball(images, 0.02))
        assert (bounds.low < bounds.high).all()
        for _ in range(20):
            moved = (images + 0.02 * (torch.rand(images.shape, generator=dice) - 0.5).sign()).clamp(0, 1)
            logits = network(moved)
            assert (bounds.low <= logits).all()
            assert (logits <= bounds.high).all()
        exact = network(ball(images, 0.0))
    torch.testing.assert_close(exact.low, network(images))
    torch.testing.assert_close(exact.high, network(images))


@pytest.mark.parametrize(
    "network", [CNN(batchnorm=True), LeNet5(), MLP(), ResNet()], ids=lambda one: type(one).__name__
)
def test_examples_are_computed_along_and_normalise_the_bounds_in_training(network: nn.Module, digits: Batch) -> None:
    dice = torch.Generator().manual_seed(0)
    images = digits.images[:6].double()
    alone, along = (copy.deepcopy(network).double().train() for _ in range(2))
    with torch.no_grad():
        for _ in range(10):
            moved = (images + 0.02 * (torch.rand(images.shape, generator=dice) - 0.5).sign()).clamp(0, 1)
            logits, bounds = alone(moved), along(ball(images, 0.02, moved))
            torch.testing.assert_close(bounds.examples, logits)
            assert (bounds.low <= logits).all()
            assert (logits <= bounds.high).all()
        for ours, theirs in zip(along.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)
        exact = along(ball(images, 0.0, images))
    for bound in (exact.low, exact.high):
        torch.testing.assert_close(bound, exact.examples, rtol=1e-9, atol=1e-9)


def test_without_examples_there_is_no_batch_to_normalise_by(digits: Batch) -> None:
    with pytest.raises(
        ValueError, match="batch normalisation takes its statistics from this batch: give `ball` some examples"
    ):
        CNN(batchnorm=True)(ball(digits.images[:2], 0.1))


def test_no_attack_breaks_a_proven_image(digits: Batch) -> None:
    network, images, labels = trained(False), digits.images[:60], digits.labels[:60]
    epsilon = 0.003
    found = certificate(network, images, labels, epsilon=epsilon)
    assert 10 <= found.is_proven.sum() < 60
    proven = images[found.is_proven], labels[found.is_proven]
    everything: list[Callable[..., attacks.AttackResult]] = [
        functools.partial(attacks.apgd, steps=20),
        functools.partial(attacks.apgd, loss="targeted", steps=5),
        functools.partial(attacks.fab, steps=5),
        functools.partial(attacks.square, queries=200),
        functools.partial(attacks.boundary, norm="linf", queries=200),
    ]
    for attack in everything:
        assert not attack(network, *proven, epsilon=epsilon).success.any()
    nearest = attacks.carlini_wagner(network, *proven, steps=50, searches=3).perturbation.abs().amax((1, 2, 3))
    assert (nearest > found.radius[found.is_proven]).all()


class Scaled(nn.Module):
    """Normalises its input as others do, and adds what it skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(784, 784), nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = 1 - (x - 0.1307) / 0.3081 * 2
        x = x.flatten(1)
        return self.last(x + self.inner(x).relu())


def test_arithmetic_on_the_way_keeps_the_bounds(digits: Batch) -> None:
    network, images = Scaled().eval(), digits.images[:4]
    with torch.no_grad():
        bounds = network(ball(images, 0.01))
        for step in (-0.01, 0.0, 0.01):
            logits = network((images + step).clamp(0, 1))
            assert (bounds.low <= logits + 1e-4).all()
            assert (logits <= bounds.high + 1e-4).all()


class Attention(nn.Module):
    """What interval arithmetic has no rule for."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10].softmax(1)


class Product(nn.Module):
    """Multiplies the image by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * x).flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("make", "line"),
    [(Attention, "no bounds for torch's softmax"), (Product, "product of two values that depend")],
)
def test_what_has_no_bounds_is_named(make: Callable[[], nn.Module], line: str, digits: Batch) -> None:
    with pytest.raises(ValueError, match=line):
        make()(ball(digits.images[:2], 0.1))


class Then(nn.Module):
    """Two linear layers with a function between them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.first, self.last = function, nn.Linear(784, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x.flatten(1))))


def in_place(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, when its result is not used."""

    def changed(x: Tensor) -> Tensor:
        function(x)
        return x

    return changed


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_in_place": in_place(torch.relu_),
    "leaky_relu_inplace": in_place(lambda x: F.leaky_relu(x, 3.0, inplace=True)),
    "elu": lambda x: F.elu(x, 0.5),
    "celu": F.celu,
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, 2.0),
    "tanh": torch.tanh,
    "sigmoid": lambda x: x.sigmoid(),
    "hardtanh": F.hardtanh,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "clamp": lambda x: x.clamp(-0.1, 0.2),
    "clamp_min": lambda x: x.clamp_min(0.05),
    "minus": lambda x: 1 - x,
    "negative": lambda x: -x,
    "scaled": lambda x: x * -3 / 2 + 1,
    "columns": lambda x: torch.cat([x[:, 6:], x[:, :6]], 1),
    "residual": lambda x: x + x.relu(),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "pool": lambda x: F.avg_pool2d(x.view(-1, 1, 12, 1), (3, 1), 1, (1, 0)).flatten(1),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "dropout2d": lambda x: F.dropout2d(x.view(-1, 12, 1, 1), 0.5, training=False).flatten(1),
    "rows": lambda x: torch.stack(list(x)),
    "length": lambda x: x.reshape(len(x), -1),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_rule_is_sound(name: str, digits: Batch) -> None:
    network, images, epsilon = Then(FUNCTIONS[name]).double(), digits.images[:4].double(), 0.05
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bounds = network(ball(images, epsilon))
        along, example = network(ball(images, epsilon, images - 0.01)), network(images - 0.01)
        torch.testing.assert_close(along.examples, example)
        ahead = furthest_ahead(bounds, digits.labels[:4])
        for _ in range(200):
            moved = (images + epsilon * (2 * torch.rand(images.shape, generator=dice) - 1).sign()).clamp(0, 1)
            logits = network(moved)
            assert (bounds.low <= logits + 1e-9).all()
            assert (logits <= bounds.high + 1e-9).all()
            assert (logits - logits.gather(1, digits.labels[:4, None]) <= ahead + 1e-9).all()


def test_logits_changed_in_place_are_bounded_as_they_are_now() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(2, 2, bias=False)
            self.last.weight.data = torch.eye(2)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.last(2 * x.flatten(1) - 1)
            F.leaky_relu_(logits, 10.0)
            return logits

    image = torch.tensor([[[[0.45, 0.40]]]])
    found = certificate(Leaky().eval(), image, torch.tensor([0]), epsilon=0.1)
    assert not found.is_proven.any()
    assert found.radius.item() <= 0.025


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.leaky_relu(x, -1.0),
        lambda x: F.elu(x, -3.0),
        lambda x: F.avg_pool2d(x.view(-1, 1, 12, 1), (2, 1), divisor_override=-1).flatten(1),
        lambda x: x.add_(1),
        lambda x: torch.add(x, x, alpha=2),
        lambda x: x.abs(),
        lambda x: abs(x),
        lambda x: x**2,
        lambda x: 1 / x,
        lambda x: x @ x.T,
        lambda x: x > 0.5,
        lambda x: x == 0.5,
        lambda x: x if x else -x,
    ],
)
def test_what_may_fall_or_works_in_place_is_refused(function: Callable[[Tensor], Tensor], digits: Batch) -> None:
    with pytest.raises(ValueError, match="there are no bounds for"):
        Then(function)(ball(digits.images[:2], 0.1))


def test_dropout_drops_the_same_of_both_bounds_and_the_examples(digits: Batch) -> None:
    network, images = Then(nn.Dropout(0.5)).double().train(), digits.images[:8].double()
    bounds = network(ball(images, 0.1, images))
    assert (bounds.low <= bounds.examples).all()
    assert (bounds.examples <= bounds.high).all()
    exact = network(ball(images, 0.0, images))
    torch.testing.assert_close(exact.centre, exact.examples)
    assert not torch.allclose(exact.examples, network.eval()(images))


def test_wrong_images_are_not_proven(digits: Batch) -> None:
    network, images, labels = trained(False), digits.images[:10], digits.labels[:10]
    found = certificate(network, images, (labels + 1) % 10, epsilon=0)
    assert not found.is_proven.any()
    assert not found.radius.any()
    assert certificate(network, images, labels, epsilon=0).is_proven.all()
    with pytest.raises(ValueError, match=r"epsilon must be in 0..1, got 2"):
        certificate(network, images, labels, epsilon=2)


class Threshold(nn.Module):
    """Two classes, told apart by whether the only pixel reaches what no change below `highest` reaches from 0."""

    def __init__(self, highest: float) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2).double()
        self.last.weight.data = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        self.last.bias.data = torch.tensor([highest, 0.0], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.flatten(1))


def test_what_is_proven_is_the_epsilon_asked_for_to_the_last_digit() -> None:
    black, label = torch.zeros(1, 1, 1, 1), torch.tensor([0])
    for highest, holds in ((0.69999999, False), (0.7000000001, True)):  # 0.7 is less in float32
        model = Threshold(highest).eval()
        assert is_proven(model, black, label, epsilon=0.7).item() == holds
        assert certificate(model, black, label, epsilon=0.7).is_proven.item() == holds
