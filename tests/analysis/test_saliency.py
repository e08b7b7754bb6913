"""Saliency: integrated gradients add up, Grad-CAM follows its paper, and the model is unchanged."""

import pytest
import torch
import torch.nn.functional as F

from cnn_mnist.analysis.saliency import saliency
from cnn_mnist.data.batches import Batch
from tests.conftest import trained


@pytest.mark.parametrize("batchnorm", [False, True])
def test_both_against_their_definitions(batchnorm: bool, digits: Batch) -> None:
    network = trained(batchnorm)
    images, labels = digits.images[:6], digits.labels[:6]
    found = saliency(network, images, labels, steps=200)

    with torch.no_grad():
        probability = network(torch.cat([images, torch.zeros_like(images)])).softmax(1)
    gained = probability[:6].gather(1, labels[:, None]) - probability[6:].gather(1, labels[:, None])
    torch.testing.assert_close(found.integrated_gradients.sum((1, 2)), gained[:, 0], atol=0.02, rtol=0)
    assert found.completeness.abs().max() < 0.02

    features = network.features(images)
    maps = features.conv2.detach().requires_grad_()
    logits = network.fc2(network.hidden(F.max_pool2d(maps, 2)))
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    expected = F.interpolate(cam, size=(28, 28), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.grad_cam, expected, atol=1e-5, rtol=1e-4)
    assert (found.grad_cam.flatten(1).amax(1) > 0).all()
    assert all(parameter.requires_grad for parameter in network.parameters())
