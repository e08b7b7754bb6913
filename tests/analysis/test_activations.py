"""Activations: a network with known channels, and NumPy's correlation."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from cnn_mnist.analysis import layers
from cnn_mnist.analysis.activations import BLURS, statistics
from cnn_mnist.data.batches import Batch
from cnn_mnist.network import CNN
from tests.conftest import trained

LAYERS = ("conv1", "conv2")


@pytest.fixture
def known() -> CNN:
    """Conv1: 0 copies, 1 inverts, 2 is dead, 3 blurs; the others copy as well."""
    network = CNN()
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.bias.zero_()
        network.conv1.weight[:, 0, 1, 1] = 1
        network.conv1.weight[1, 0, 1, 1] = -0.5
        network.conv1.bias[1] = 0.75
        network.conv1.bias[2] = -2
        gauss = torch.exp(-(torch.arange(-1, 2) ** 2) / 2.0)
        network.conv1.weight[3, 0] = gauss[:, None] * gauss
    return network


def test_channels_that_are_known(known: CNN, digits: Batch) -> None:
    found = statistics(known, digits.images.split(50), LAYERS)
    conv1 = found.layers["conv1"]
    assert found.num_images == len(digits.images)
    assert conv1.dead.nonzero()[:, 0].tolist() == [2]
    assert conv1.correlation[:4].tolist()[:3] == pytest.approx([1, -1, 0], abs=1e-4)
    assert conv1.correlation[3] > 0.99
    assert conv1.blur[:2].tolist() == [0, 0]
    assert conv1.blur[3] >= 0.5
    assert conv1.background[:3].tolist() == pytest.approx([0, 0.75, 0])
    assert conv1.largest[0].item() == pytest.approx(1)
    assert conv1.zero_share[[0, 1, 2]].tolist() == pytest.approx([(digits.images == 0).double().mean().item(), 0, 1])


@pytest.mark.parametrize("batchnorm", [False, True])
def test_a_trained_networks_correlations_are_numpys(batchnorm: bool, digits: Batch) -> None:
    network, images = trained(batchnorm), digits.images[:60]
    found = statistics(network, [images[:25], images[25:]], LAYERS)
    with torch.no_grad():
        maps = network.features(images)
    blurred = [images]
    for sigma in BLURS[1:]:
        x = torch.arange(-9, 10) / sigma
        gauss = torch.exp(-(x**2) / 2) * (x.abs() <= 3 + 1e-6)
        kernel = gauss[:, None] * gauss
        blurred.append(conv2d(images, (kernel / kernel.sum())[None, None], padding=9))
    for channel in (0, 7, 31):
        values = maps.conv1[:, channel].flatten().numpy()
        expected = [np.corrcoef(values, picture.flatten().numpy())[0, 1] for picture in blurred]
        best = int(np.abs(expected).argmax())
        assert found.layers["conv1"].correlation[channel].item() == pytest.approx(expected[best], abs=2e-3)
        assert found.layers["conv1"].zero_share[channel].item() == pytest.approx((values == 0).mean())
    assert torch.equal(found.layers["conv2"].dead, maps.conv2.amax((0, 2, 3)) == 0)
    values = maps.conv2[:, 5].flatten().numpy()
    pooled = [torch.nn.functional.avg_pool2d(picture, 2).flatten().numpy() for picture in blurred]
    expected = [np.corrcoef(values, picture)[0, 1] for picture in pooled]
    assert found.layers["conv2"].correlation[5].item() == pytest.approx(max(expected, key=abs), abs=2e-3)


def test_a_channel_that_hardly_varies_is_measured_and_one_that_does_not_is_not(known: CNN, digits: Batch) -> None:
    with torch.no_grad():
        known.conv1.weight[4:6] = 0
        known.conv1.weight[5, 0, 1, 1] = 1e-3
        known.conv1.bias[4:6] = 0.5
    found = statistics(known, digits.images.split(50), LAYERS).layers["conv1"]
    assert found.correlation[4] == 0
    assert not found.dead[4]
    assert found.correlation[5].item() == pytest.approx(1, abs=1e-2)


def test_no_image_is_refused(known: CNN) -> None:
    with pytest.raises(ValueError, match="no image"):
        statistics(known, [], LAYERS)


def test_a_layer_that_there_is_not_is_named(digits: Batch) -> None:
    with pytest.raises(ValueError, match="the network has no layer conv3, but conv1, "):
        layers.outputs(CNN(), digits.images[:2], ["conv1", "conv3"])
