"""Activation maximisation: a model with a known best image, and the report's network."""

import pytest
import torch
from torch import nn

from cnn_mnist.analysis.class_image import channel, class_logit, maximise, neuron
from cnn_mnist.network import CNN
from tests.conftest import trained


def test_a_linear_models_best_image_is_found() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    weight = torch.tensor([[0.4, 0.2, -0.3, 9.0], [0.1, 0.0, 0.3, 0.2]])
    model[1].weight.data = weight
    penalty = 0.5
    found = maximise(
        model,
        class_logit(model, torch.tensor([0, 1])),
        torch.zeros(2, 1, 2, 2),
        steps=600,
        step_size=0.005,
        penalty=penalty,
    )
    best = (weight / (2 * penalty)).clamp(0, 1)
    torch.testing.assert_close(found.images.flatten(1), best, atol=0.006, rtol=0)
    assert found.cost.shape == (601, 2)
    assert found.cost[0].tolist() == [0, 0]
    value = (weight * best).sum(1) - penalty * best.square().sum(1)
    torch.testing.assert_close(found.cost.amax(0), value, atol=1e-3, rtol=0)


def test_the_classes_of_a_trained_network() -> None:
    network = trained(True).train()
    try:
        target = torch.arange(10)
        found = maximise(network, class_logit(network, target), torch.zeros(10, 1, 28, 28), steps=60, penalty=0.01)
        assert network.training
        assert network.fc1.weight.requires_grad
    finally:
        network.eval()
    assert (found.cost[-1] > found.cost[0] + 1).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    with torch.no_grad():
        assert torch.equal(network(found.images).argmax(1), target)
    alone = maximise(network, class_logit(network, target[3:4]), torch.zeros(1, 1, 28, 28), steps=60, penalty=0.01)
    torch.testing.assert_close(alone.cost[:20, 0], found.cost[:20, 3], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_channels_and_neurons_grow_from_a_blank_image(layer: str, batchnorm: bool) -> None:
    network = trained(batchnorm)
    index = torch.tensor([0, 4, 9])
    start = torch.zeros(3, 1, 28, 28)
    for objective in (channel(network, layer, index), neuron(network, layer, index, (6, 7))):
        found = maximise(network, objective, start, steps=20, penalty=0.0)
        assert (found.cost.amax(0) > found.cost[0]).sum() >= 2  # a blank image may be the best one
    features = network.features(found.images)
    maps = getattr(features, layer)[torch.arange(3), index]
    torch.testing.assert_close(found.cost.amax(0).relu(), maps[:, 6, 7].detach(), atol=1e-5, rtol=1e-5)


def test_what_does_not_exist_is_refused() -> None:
    images, places = torch.zeros(1, 1, 28, 28), torch.tensor([0])
    with pytest.raises(ValueError, match="layer must be conv1 or conv2 or fc1 or fc2, got conv3"):
        channel(CNN(), "conv3", torch.tensor([0]))(images, places)
    with pytest.raises(ValueError, match="conv2 has channels 0..31, got"):
        channel(CNN(), "conv2", torch.tensor([32]))(images, places)
    with pytest.raises(ValueError, match=r"a map of conv2 has rows 0..13 and columns 0..13, got \[3,14\]"):
        neuron(CNN(), "conv2", torch.tensor([0]), (3, 14))(images, places)
