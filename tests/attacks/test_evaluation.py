"""Evaluation in part: the same logits as of the whole model, from fewer operations."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnn_mnist import attacks
from cnn_mnist.attacks.autoattack import partial_network
from cnn_mnist.attacks.autoattack.evaluation import Evaluation, Window
from cnn_mnist.checks import Logits
from cnn_mnist.data.batches import Batch
from cnn_mnist.network import CNN
from cnn_mnist.networks.lenet5 import LeNet5
from cnn_mnist.networks.mlp import MLP
from cnn_mnist.networks.resnet import ResNet
from tests.conftest import trained

NUM_IMAGES = 6


class Around(nn.Module):
    """A network whose images are centred and whose logits are multiplied."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.13]).view(1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 100 * self.network((images - self.mean) / 0.3 + 0.1)
        return logits


class InPlace(nn.Module):
    """Uses a tensor that it has changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding="same"), nn.Conv2d(4, 4, 5, padding=1, dilation=2)
        self.last = nn.Linear(4 * 11 * 11, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        x.relu_()
        y = F.leaky_relu(x, 0.1, inplace=True)
        y = 1 - F.silu(self.second(x * 0.5 + y))
        logits: Tensor = self.last(F.max_pool2d(y, 2).view(y.size(0), -1))
        return logits


class Heads(nn.Module):
    """Two branches of maps side by side, and two linear layers of the same values."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(1, 4, 1)
        self.one, self.other = nn.Linear(8 * 49, 10), nn.Linear(8 * 49, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.cat([self.wide(images), self.narrow(images)], 1).relu()
        values = F.avg_pool2d(maps, 4).reshape(-1, 8 * 49)
        logits: Tensor = self.one(values) * torch.sigmoid(self.other(values))
        return logits


class Gated(nn.Module):
    """Multiplies each channel by what the whole maps say (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 10, 3, padding=1)
        self.gate = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.first(images))
        maps = maps * torch.sigmoid(self.gate(maps.mean((2, 3))))[:, :, None, None]
        return self.second(maps).amax((2, 3))


class Standardised(nn.Module):
    """Subtracts each image's own mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        centred = images - images.mean((1, 2, 3), keepdim=True)
        logits: Tensor = self.last(self.conv(torch.cat([centred, images], 1)).amax((2, 3)))
        return logits


class EarlyExit(nn.Module):
    """Answers with its first layer where that is certain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(1, 4, 3), nn.Linear(2704, 10), nn.Linear(2704, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = self.conv(images).flatten(1)
        logits: Tensor = self.one(values)
        return logits if logits.softmax(1).amax(1).min() > 0.12 else self.other(values)


class Parts(nn.Module):
    """Changes views of its maps in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(2704, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        maps[:, :2].relu_()
        both = torch.zeros_like(maps)
        both.copy_(maps)
        both += maps
        logits: Tensor = self.last(both.flatten(1))
        return logits


class Squeezed(nn.Module):
    """Drops every dimension of one value, which a single image's batch is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 8, 5), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = F.adaptive_avg_pool2d(self.second(F.max_pool2d(self.first(images), 2)), 1).squeeze()
        logits: Tensor = self.last(values.view(-1, 8) if values.ndim == 1 else values)
        return logits


class Random(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(images.flatten(1)[:, :10])


class Stateful(nn.Module):
    """Looks at other pixels at each call, so that what was kept is of no use."""

    first = 0

    def forward(self, images: Tensor) -> Tensor:
        self.first += 1
        return F.avg_pool2d(images, 2).flatten(1)[:, self.first : self.first + 10]


def all_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 3), nn.AvgPool2d(12), nn.Flatten()
    )


def hooked() -> nn.Module:
    network = CNN()
    network.conv1.register_forward_hook(lambda module, args, output: output.relu())
    return network


def layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, groups=1),  # (4, 13, 13)
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, (3, 5), padding=(1, 2), groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.MaxPool2d(3, 2),  # (8, 6, 6)
        nn.Dropout2d(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8 * 36, 10),
        nn.Sigmoid(),
    )


def unusual_pools() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.PReLU(4),
        nn.Flatten(1, 2),
        nn.Flatten(),
        nn.Linear(100, 10),
    )


IN_PART: dict[str, Any] = {  # with the share of the operations that a square of 3x3 pixels costs at most
    "plain": (lambda: trained(False), 0.25),
    "batch normalisation": (lambda: trained(True), 0.25),
    "large filters": (lambda: trained(True, 7), 0.7),
    "around": (lambda: Around(trained(True)), 0.25),
    "lenet5": (LeNet5, 0.65),
    "mlp": (MLP, 0.45),
    "resnet": (ResNet, 0.4),
    "layers": (layers, 0.55),
    "in place": (InPlace, 0.5),
    "heads": (Heads, 0.15),
    "parts": (Parts, 0.6),
    "all convolutions": (all_convolutions, 0.7),
    "double": (lambda: CNN().double(), 0.25),
}
AS_A_WHOLE: dict[str, Any] = {
    "gated": Gated,
    "standardised": Standardised,
    "unusual pools": unusual_pools,
    "early exit": EarlyExit,
    "squeezed": Squeezed,
    "random": Random,
    "stateful": Stateful,
    "hooked": hooked,
    "compiled": lambda: torch.compile(CNN(), backend="eager"),
    "bfloat16": lambda: CNN().bfloat16(),
}


@pytest.mark.filterwarnings("ignore:Using padding")  # of an even kernel
@pytest.mark.parametrize("name", [*IN_PART, *AS_A_WHOLE])
def test_a_square_alone_gives_the_same_logits_with_fewer_operations(name: str, digits: Batch) -> None:
    torch.manual_seed(0)
    network = Logits((IN_PART[name][0] if name in IN_PART else AS_A_WHOLE[name])().eval())
    dice = torch.Generator().manual_seed(0)
    x = digits.images[:NUM_IMAGES].to(torch.float64 if name == "double" else torch.float32, copy=True)
    evaluated = Evaluation(network)
    with torch.no_grad():
        for number in range(60):
            side = int(torch.randint(1, 13 if number else 15, (), generator=dice))
            row, column = (int(torch.randint(0, 29 - side, (), generator=dice)) for _ in range(2))
            window = Window(row, column, side)
            changed = x.clone()
            changed[:, :, *window.area] = torch.rand(len(x), 1, side, side, generator=dice, dtype=x.dtype)
            found = evaluated.logits(x, changed, window)
            if name not in ("random", "stateful"):
                expected = network(changed)
                tolerance = 2e-6 * expected.abs().max().item()
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-4)
            is_kept = torch.rand(len(x), generator=dice) < 0.5
            evaluated.keep(is_kept)
            x = torch.where(is_kept.view(-1, 1, 1, 1), changed, x)
            if number % 10 == 5 and len(x) > 1:
                is_left = torch.arange(len(x)) > 0
                evaluated.select(is_left)
                x = x[is_left]
        assert len(x) == 1
        assert evaluated.was_refused == (name in AS_A_WHOLE)
        if name in IN_PART:
            with FlopCounterMode(display=False) as part:
                evaluated.logits(x, x, Window(12, 10, 3))
            with FlopCounterMode(display=False) as whole:
                network(x)
            assert part.get_total_flops() <= IN_PART[name][1] * whole.get_total_flops()


@pytest.mark.parametrize("window", [None, Window(3, 4, 13)])
def test_large_squares_are_evaluated_as_a_whole(window: Window | None, digits: Batch) -> None:
    network = Logits(trained(False))
    evaluated = Evaluation(network)
    images = digits.images[:NUM_IMAGES]
    assert torch.equal(evaluated.logits(images * 0, images, window), network(images))


def test_colour_images_need_not_be_square() -> None:
    torch.manual_seed(0)
    network = Logits(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d((2, 3)), nn.Flatten(), nn.Linear(4 * 9 * 10, 5)))
    images = torch.rand(3, 3, 20, 32)
    evaluated = Evaluation(network)
    for row, column, side in ((0, 0, 8), (12, 24, 8), (5, 30, 2), (19, 31, 1)):
        window = Window(row, column, side)
        changed = images.clone()
        changed[:, :, *window.area] = 0.5
        torch.testing.assert_close(evaluated.logits(images, changed, window), network(changed))
    assert evaluated.is_in_part


class Recorder(nn.Module):
    """Remembers its maps outside itself, and asks for their values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(2704, 10)
        self.memory = SimpleNamespace(maps=[])

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        self.memory.maps.append(maps)
        if maps.isnan().any():
            raise ValueError("not finite")
        logits: Tensor = self.last(maps.flatten(1))
        return logits


def test_a_network_that_cannot_be_exported_is_left_as_it_is(capfd: pytest.CaptureFixture[str], digits: Batch) -> None:
    network = Recorder().eval()
    with torch.no_grad():
        labels = network(digits.images[:3]).argmax(1)
    found = attacks.square(network, digits.images[:3], labels, epsilon=1e-4, queries=210)
    assert found.steps.tolist() == [210] * 3
    assert {type(maps) for maps in network.memory.maps} == {Tensor}
    assert capfd.readouterr() == ("", "")


def test_other_images_are_started_with_anew(digits: Batch) -> None:
    network = Logits(trained(False))
    evaluated = Evaluation(network)
    for images in (digits.images[:4], digits.images[4:7]):
        evaluated.logits(images, images, None)  # as each search begins
        for window in (Window(3, 5, 9), Window(20, 20, 3)):
            changed = images.clone()
            changed[:, :, *window.area] = 0.5
            torch.testing.assert_close(evaluated.logits(images, changed, window), network(changed))
            assert evaluated.is_in_part


def test_what_would_take_too_much_memory_is_evaluated_as_a_whole(
    digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_network, "MOST_KEPT", 100_000)
    network = Logits(trained(False))
    evaluated = Evaluation(network)
    images = digits.images[:NUM_IMAGES]
    assert torch.equal(evaluated.logits(images, images, Window(3, 5, 3)), network(images))
    assert evaluated.was_refused


@pytest.mark.parametrize("is_around", [False, True])
def test_square_is_the_same_whichever_way_it_is_evaluated(
    is_around: bool, digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: nn.Module = trained(False)
    network = Around(network).eval() if is_around else network
    images, labels, options = digits.images[:40], digits.labels[:40], {"epsilon": 0.08, "queries": 300}
    quick = attacks.square(network, images, labels, **options)
    monkeypatch.setattr(Evaluation, "_start", lambda *args: None)
    whole = attacks.square(network, images, labels, **options)
    assert (quick.success == whole.success).double().mean() >= 0.97
    assert 0 < quick.success.sum() < 40
    torch.testing.assert_close(quick.trace, whole.trace, atol=1e-3, rtol=1e-3, equal_nan=True)
