"""The network: the report's numbers, and both its paths against PyTorch's layers."""

import copy
from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters

from cnn_mnist.network import CNN, _ImageGradient


def plain(batchnorm: bool) -> nn.Sequential:
    """The network written down as the report says it, from PyTorch's layers alone."""

    def norm(layer: nn.Module) -> list[nn.Module]:
        return [layer] if batchnorm else []

    conv1 = [nn.Conv2d(1, 32, 3, padding=1), *norm(nn.BatchNorm2d(32)), nn.ReLU(), nn.MaxPool2d(2)]
    conv2 = [nn.Conv2d(32, 32, 3, padding=1), *norm(nn.BatchNorm2d(32)), nn.ReLU(), nn.MaxPool2d(2)]
    fc1 = [nn.Flatten(), nn.Linear(1568, 500), *norm(nn.BatchNorm1d(500)), nn.ReLU()]
    return nn.Sequential(*conv1, *conv2, *fc1, nn.Linear(500, 10))


def pair(batchnorm: bool) -> tuple[CNN, nn.Sequential]:
    """The network and the plain one with the same parameters, none of them trivial, in float64."""
    torch.manual_seed(0)
    network, reference = CNN(batchnorm).double(), plain(batchnorm).double()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(torch.rand_like(tensor) * 0.2)
        if batchnorm:
            network.norm1.weight[::2] *= -1  # the pool does not commute with a falling normalisation
    reference.load_state_dict(dict(zip(reference.state_dict(), network.state_dict().values(), strict=True)))
    return network, reference


@pytest.fixture
def images() -> Tensor:
    images = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images.where(images > 0.7, 0)


def test_the_reports_counts() -> None:
    assert sum(p.numel() for p in CNN().parameters()) == 799_078
    assert sum(p.numel() for p in CNN(batchnorm=True).parameters()) == 800_206


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_plain_network_with_gradients_and_statistics(
    batchnorm: bool, training: bool, images: Tensor
) -> None:
    network, reference = pair(batchnorm)
    labels = torch.arange(20) % 10
    inputs = [images.clone().requires_grad_(), images.clone().requires_grad_()]
    for model, x in zip((network, reference), inputs, strict=True):
        F.cross_entropy(model.train(training)(x), labels).backward()

    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(
        [p.grad for p in network.parameters()], [p.grad for p in reference.parameters()], atol=1e-12, rtol=1e-8
    )
    torch.testing.assert_close(list(network.buffers()), list(reference.buffers()))


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_with_frozen_weights_the_image_has_the_same_gradients(
    kernel_size: Literal[3, 7], batchnorm: bool, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = CNN(batchnorm, kernel_size).double().eval()
    labels = torch.arange(20) % 10

    def gradients() -> tuple[Tensor, Tensor]:
        """Of the loss, and of its gradient's square, as penalties on gradients need it."""
        x = images.clone().requires_grad_()
        (first,) = torch.autograd.grad(F.cross_entropy(network(x), labels), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return first.detach(), second

    expected = gradients()
    network.requires_grad_(False)
    calls: list[int] = []
    backward = _ImageGradient.backward
    monkeypatch.setattr(_ImageGradient, "backward", staticmethod(lambda *given: calls.append(1) or backward(*given)))
    torch.testing.assert_close(gradients(), expected)
    assert calls


@pytest.mark.parametrize("batchnorm", [False, True])
def test_float32_differs_by_rounding_alone(batchnorm: bool, images: Tensor) -> None:
    network, reference = (model.float().eval() for model in pair(batchnorm))
    torch.testing.assert_close(network(images.float()), reference(images.float()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_features_lead_to_the_same_logits(batchnorm: bool, training: bool, images: Tensor) -> None:
    network, _ = pair(batchnorm)
    network.train(training)
    features = copy.deepcopy(network).features(images)
    torch.testing.assert_close(network.fc2(features.fc1), network(images))
    assert [tuple(tensor.shape[1:]) for tensor in features] == [
        (32, 28, 28),
        (32, 14, 14),
        (32, 14, 14),
        (32, 7, 7),
        (500,),
    ]
    assert all((tensor >= 0).all() for tensor in features)


@pytest.mark.parametrize("kernel_size", [5, 7])
def test_larger_filters_normalise_as_pytorch_does(kernel_size: int, images: Tensor) -> None:
    torch.manual_seed(0)
    network = CNN(batchnorm=True, kernel_size=kernel_size).double().train()
    reference = copy.deepcopy(network)
    conv1 = F.relu(F.max_pool2d(reference.norm1(reference.conv1(images)), 2))
    expected = reference.fc2(reference.hidden(F.relu(F.max_pool2d(reference.norm2(reference.conv2(conv1)), 2))))
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(list(network.buffers()), list(reference.buffers()))


def test_in_mixed_precision_the_folded_statistics_stay_in_float32(images: Tensor) -> None:
    network, _ = pair(batchnorm=True)
    network = network.float().train()
    reference = copy.deepcopy(network)
    reference(images.float())
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images.float())
    assert logits.dtype == torch.bfloat16
    assert torch.equal(network.norm1.running_mean, reference.norm1.running_mean)
    assert torch.equal(network.norm1.running_var, reference.norm1.running_var)


def test_state_dict_holds_what_a_plain_network_needs() -> None:
    shapes = {tuple(tensor.shape) for name, tensor in CNN().state_dict().items() if name.endswith("weight")}
    assert shapes == {(32, 1, 3, 3), (32, 32, 3, 3), (500, 1568), (10, 500)}
    norms = [module for module in CNN(batchnorm=True).modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 3
    assert all(norm.eps == 1e-5 for norm in norms)


def test_an_images_logits_do_not_depend_on_its_batch(images: Tensor) -> None:
    network, _ = pair(batchnorm=True)
    network.eval()
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["conv1", "norm1", "conv2", "norm2", "fc1", "norm3", "fc2"])
def test_a_hook_on_any_layer_fires_and_changes_no_number(
    name: str, training: bool, batchnorm: bool, images: Tensor
) -> None:
    network, reference = pair(batchnorm)
    network.train(training)
    reference.train(training)
    seen: list[Tensor] = []
    getattr(network, name).register_forward_hook(lambda layer, given, output: seen.append(output))
    torch.testing.assert_close(network(images), reference(images))
    assert len(seen) == 1


def test_captum_looks_into_a_layer(images: Tensor) -> None:
    from captum.attr import LayerActivation

    network, _ = pair(batchnorm=True)
    network.eval()
    found = LayerActivation(network, network.norm1).attribute(images)
    torch.testing.assert_close(F.relu(found), network.features(images).conv1)


def test_parameters_may_be_flattened_pruned_and_optimised_by_lbfgs(images: Tensor) -> None:
    network = CNN(batchnorm=True).double()
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    vector = parameters_to_vector(network.parameters())
    vector_to_parameters(vector * 0.5, network.parameters())
    labels = torch.arange(20) % 10
    optimizer = torch.optim.LBFGS(network.parameters(), lr=0.1, max_iter=3)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(network(images), labels)
        value.backward()
        return value

    before = loss().item()
    optimizer.step(loss)
    assert loss().item() < before
    prune.ln_structured(network.conv2, "weight", amount=0.5, n=2, dim=0)
    assert network(images).shape == (20, 10)


def test_a_frozen_filter_leaves_the_bias_its_gradient(images: Tensor) -> None:
    network, reference = pair(batchnorm=False)
    for model, first in ((network, network.conv1), (reference, reference[0])):
        first.weight.requires_grad_(False)
        model(images.clone().requires_grad_()).sum().backward()
    torch.testing.assert_close(network.conv1.bias.grad, reference[0].bias.grad)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_torch_func_differentiates_a_frozen_network(images: Tensor) -> None:
    network, reference = (model.requires_grad_(False).eval() for model in pair(batchnorm=True))

    def loss(model: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: model(x).square().sum()

    torch.testing.assert_close(torch.func.grad(loss(network))(images), torch.func.grad(loss(reference))(images))
    columns, expected = (torch.func.jacrev(model)(images[:1]) for model in (network, reference))
    torch.testing.assert_close(columns, expected)
    tangents = torch.func.jvp(network, (images,), (images,)), torch.func.jvp(reference, (images,), (images,))
    torch.testing.assert_close(*tangents)
