"""Evaluation in part: the same logits as of the whole model, from fewer operations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnn_mnist import attacks
from cnn_mnist.attacks.autoattack.evaluation import Evaluation, Window
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
        y = torch.nn.functional.leaky_relu(x, 0.1, inplace=True)
        y = 1 - nn.functional.silu(self.second(x * 0.5 + y))
        logits: Tensor = self.last(nn.functional.max_pool2d(y, 2).view(y.size(0), -1))
        return logits


class Standardised(nn.Module):
    """Subtracts each image's own mean, and puts the whole image behind the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        centred = images - images.mean((1, 2, 3), keepdim=True)
        logits: Tensor = self.last(self.conv(torch.cat([centred, images], 1)).amax((2, 3)))
        return logits


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


NETWORKS: dict[str, Any] = {  # with the share of the operations that a square of 4x4 pixels costs at most
    "plain": (lambda: trained(False), 0.25),
    "batch normalisation": (lambda: trained(True), 0.25),
    "large filters": (lambda: trained(True, 7), 0.7),
    "around": (lambda: Around(trained(True)), 0.25),
    "lenet5": (LeNet5, 0.65),
    "mlp": (MLP, 0.45),
    "resnet": (ResNet, 0.4),
    "layers": (layers, 0.42),
    "in place": (InPlace, 0.8),
    "standardised": (Standardised, 1.0),
    "unusual pools": (unusual_pools, 1.0),
    "double": (lambda: CNN().double(), 0.25),
}


@pytest.mark.filterwarnings("ignore:Using padding")  # of an even kernel
@pytest.mark.parametrize("name", NETWORKS)
def test_a_square_alone_is_evaluated_as_the_whole(name: str, digits: Batch) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name][0]().eval()
    dice = torch.Generator().manual_seed(0)
    dtype = torch.float64 if name == "double" else torch.float32
    x = digits.images[:NUM_IMAGES].to(dtype, copy=True)
    evaluated = Evaluation(network, x)
    with torch.no_grad():
        evaluated.logits(x, None)
        evaluated.keep(torch.ones(len(x), dtype=torch.bool))
        for number in range(200):
            side = int(torch.randint(1, 15, (), generator=dice))
            row, column = (int(torch.randint(0, 29 - side, (), generator=dice)) for _ in range(2))
            window = Window(row, column, side)
            changed = x.clone()
            changed[:, :, *window.area] = torch.rand(len(x), 1, side, side, generator=dice, dtype=dtype)
            expected = network(changed)
            tolerance = 2e-6 * expected.abs().max().item()
            torch.testing.assert_close(evaluated.logits(changed, window), expected, atol=tolerance, rtol=1e-4)
            is_kept = torch.rand(len(x), generator=dice) < 0.5
            evaluated.keep(is_kept)
            x = torch.where(is_kept.view(-1, 1, 1, 1), changed, x)
            if number in (30, 60):
                is_left = torch.arange(len(x)) > 0
                evaluated.select(is_left)
                x = x[is_left]
    assert evaluated.is_partial


@pytest.mark.filterwarnings("ignore:Using padding")  # of an even kernel
@pytest.mark.parametrize("name", NETWORKS)
def test_it_takes_a_part_of_the_operations(name: str, digits: Batch) -> None:
    network = NETWORKS[name][0]().eval()
    images = digits.images[:NUM_IMAGES].to(torch.float64 if name == "double" else torch.float32, copy=True)
    evaluated = Evaluation(network, images)
    evaluated.logits(images, Window(12, 12, 4))  # compares, once, with the whole
    with FlopCounterMode(display=False) as part:
        evaluated.logits(images, Window(13, 10, 4))
    with FlopCounterMode(display=False) as whole:
        network(images)
    assert part.get_total_flops() <= NETWORKS[name][1] * whole.get_total_flops()


class Random(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] + torch.rand(len(images), 10)


class Checking(nn.Module):
    """Takes tensors and nothing else."""

    def forward(self, images: Tensor) -> Tensor:
        assert isinstance(images, Tensor)
        return images.flatten(1)[:, :10]


class Stateful(nn.Module):
    """Looks at other pixels at each call, so that what was kept is of no use."""

    first = 0

    def forward(self, images: Tensor) -> Tensor:
        self.first += 1
        return nn.functional.avg_pool2d(images, 2).flatten(1)[:, self.first : self.first + 10]


@pytest.mark.parametrize("kind", [Random, Checking, Stateful])
def test_what_cannot_be_evaluated_in_part_is_evaluated_as_a_whole(kind: type[nn.Module]) -> None:
    network, images = kind().eval(), torch.rand(NUM_IMAGES, 1, 28, 28)
    evaluated = Evaluation(network, images)
    evaluated.logits(images, Window(2, 2, 4))
    assert not evaluated.is_partial
    evaluated.keep(torch.ones(NUM_IMAGES, dtype=torch.bool))
    evaluated.select(torch.arange(NUM_IMAGES) > 0)
    assert evaluated.logits(images[1:], Window(2, 2, 4)).shape == (NUM_IMAGES - 1, 10)


@pytest.mark.parametrize("is_around", [False, True])
def test_square_is_the_same_whichever_way_it_is_evaluated(
    is_around: bool, digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: nn.Module = trained(False)
    network = Around(network).eval() if is_around else network
    images, labels, options = digits.images[:40], digits.labels[:40], {"epsilon": 0.08, "queries": 300}
    quick = attacks.square(network, images, labels, **options)
    monkeypatch.setattr(Evaluation, "_partial", lambda self, images, window: None)
    whole = attacks.square(network, images, labels, **options)
    assert (quick.success == whole.success).double().mean() >= 0.97
    assert 0 < quick.success.sum() < 40
