"""The live page runs any network of the layers that it knows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.analysis.occlusion import occlusion_map
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.networks.lenet5 import LeNet5
from cnn_mnist.networks.mlp import MLP
from cnn_mnist.networks.resnet import ResNet
from cnn_mnist.report.export import play
from cnn_mnist.report.export.layers import Layers
from tests.conftest import seen_by
from tests.report.export.conftest import needs_browser, opened


class Swish(nn.Sequential):
    """A network with an activation function that the page does not know."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 10), nn.SiLU())


def test_a_layer_that_the_page_does_not_know_is_refused(data: DataModule) -> None:
    subject = seen_by(Swish().eval(), data)
    with pytest.raises(
        ValueError, match=r"export=play cannot show .*: the page does not know aten.silu.default: it know"
    ):
        play.play(subject, num_images=10)


class Made(nn.Module):
    """A network of one convolution, of what a function makes of it, and of a linear layer."""

    def __init__(self, made: Callable[[Tensor], Tensor], inputs: int) -> None:
        super().__init__()
        self.made = made
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) for images (B, 1, 28, 28)."""
        logits: Tensor = self.last(self.made(self.first(images)))
        return logits


@pytest.mark.parametrize(
    ("made", "inputs", "message"),
    [
        (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1), 4 * 14 * 14, "pooling of whole windows"),
        (lambda x: F.avg_pool2d(x, 2, padding=1).flatten(1), 4 * 15 * 15, "pooling of whole windows"),
        (lambda x: F.max_pool2d(x, 2, 2, dilation=3).flatten(1), 4 * 13 * 13, "pooling of whole windows"),
        (lambda x: x.mean((1, 2)), 28, "averages whole feature maps, and nothing else"),
        (lambda x: x.mean(3).flatten(1), 4 * 28, "averages whole feature maps, and nothing else"),
        (lambda x: (x + x.mean((2, 3), keepdim=True)).flatten(1), 4 * 784, "of two layers, of one shape"),
        (lambda x: (x + 1.0).flatten(1), 4 * 784, "of two layers, of one shape"),
        (lambda x: x.flatten(2).mean(1), 784, "averages whole feature maps, and nothing else"),
        (lambda x: x.flatten(2), 784, "linear layers of vectors"),
    ],
)
def test_what_the_page_would_compute_otherwise_is_refused(
    made: Callable[[Tensor], Tensor], inputs: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Layers(Made(made, inputs).eval())


def test_what_is_changed_in_place_is_seen_by_all_who_use_it() -> None:
    def made(x: Tensor) -> Tensor:
        y = x.relu_()
        return (y + x).flatten(1)

    layers = Layers(Made(made, 4 * 784).eval())
    assert [(one["op"], one["from"]) for one in layers.operations[:3]] == [
        ("conv2d", [0]),
        ("relu", [1]),
        ("add", [2, 2]),
    ]


class AnyLayers(nn.Module):
    """What the other networks lack: strides, groups, padding by name, max-pooling, a sigmoid, a bias that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, (5, 3), stride=(2, 1), padding=(2, 0))
        self.second = nn.Conv2d(6, 6, 3, padding="same", groups=3, bias=False)
        self.last = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10) for images (B, 1, 28, 28)."""
        first = F.max_pool2d(torch.sigmoid(self.first(images)), 3, stride=2)
        both = first + F.dropout(self.second(first), training=self.training)
        logits: Tensor = self.last(F.adaptive_avg_pool2d(both, 1).flatten(1))
        return logits


class TestOtherNetworks:
    pytestmark = needs_browser

    @pytest.mark.parametrize("kinds", [(MLP, LeNet5), (ResNet, AnyLayers)])
    def test_they_compute_the_same(self, kinds: tuple[type[nn.Module], ...], data: DataModule, tmp_path: Path) -> None:
        torch.manual_seed(0)
        networks = [kind().eval() for kind in kinds]
        for layer in networks[0].modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.3, 0.3)
                layer.running_var.uniform_(0.5, 2)
        first, second = (seen_by(network, data) for network in networks)
        first.other, second.other = second, first
        images, labels = data.test[:20]
        with opened(play.play(first, num_images=20).files["play.html"], tmp_path) as page:
            for name, network in zip(("network", "other"), networks, strict=True):
                ask = "([name, all]) => Promise.all(all.map((one) => window[name].logits(one)))"
                logits = torch.tensor(page.evaluate(ask, [name, images.flatten(1).tolist()]))
                with torch.no_grad():
                    torch.testing.assert_close(logits, network(images), atol=2e-3, rtol=0)
                options = {"window": 8, "stride": 5, "fill": 0.5}
                ask = "([name, ...values]) => window[name].occlusion(...values)"
                found = page.evaluate(ask, [name, images[0].flatten().tolist(), int(labels[0]), options])
                expected = occlusion_map(network, images[:1], labels[:1], **options).probability
                torch.testing.assert_close(
                    torch.tensor(found["probability"]).view_as(expected), expected, atol=2e-3, rtol=0
                )
                image, weights = images[:1].clone().requires_grad_(), torch.linspace(-1, 1, 10)
                (gradient,) = torch.autograd.grad((network(image) * weights).sum(), image)
                ask = "async ([name, ...values]) => Array.from(await window[name].gradient(...values))"
                found = page.evaluate(ask, [name, image.flatten().tolist(), weights.tolist()])
                torch.testing.assert_close(torch.tensor(found).view_as(gradient), gradient, atol=2e-3, rtol=1e-3)
            if kinds[0] is MLP:
                assert page.is_hidden("#has-maps")  # it has no convolution
            page.check("input[value='1']")
            page.wait_for_selector("#maps button")
            page.wait_for_selector("#filter-says:text('its filter')")


def seen_through_a_view(x: Tensor) -> Tensor:
    flat = x.view(len(x), -1)
    F.relu_(x)
    return flat


@pytest.mark.parametrize(
    ("made", "inputs"),
    [
        (lambda x: F.avg_pool2d(x, 2, divisor_override=1).flatten(1), 4 * 14 * 14),
        (lambda x: F.max_pool2d(x, 3, stride=4, padding=1).flatten(1), 4 * 7 * 7),
        (seen_through_a_view, 4 * 784),
        (lambda x: F.dropout(x, 0.5, training=True).flatten(1), 4 * 784),
    ],
)
def test_the_operations_themselves_are_compared_with_the_network(
    made: Callable[[Tensor], Tensor], inputs: int, data: DataModule
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the page would be wrong about"):
        play.play(seen_by(Made(made, inputs).eval(), data), num_images=10)


def test_dropout_of_channels_is_nothing_in_eval_mode() -> None:
    class Dropped(Made):
        def __init__(self) -> None:
            super().__init__(lambda x: self.dropout(x).flatten(1), 4 * 784)
            self.dropout = nn.Dropout2d(0.5)

    network, images = Dropped().eval(), torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(Layers(network).rounded(images), network(images), atol=1e-3, rtol=0)
