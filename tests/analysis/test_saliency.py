"""Saliency: integrated gradients add up, Grad-CAM follows its paper, and the model is unchanged."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam

from cnn_mnist.analysis.saliency import saliency
from cnn_mnist.data.batches import Batch
from cnn_mnist.networks.resnet import ResNet
from tests.conftest import trained
from tests.own_networks import Depthwise, Perceptron


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

    maps = network.norm2(network.conv2(network.features(images).pool1)).detach().requires_grad_()
    logits = network.fc2(network.hidden(F.relu(F.max_pool2d(maps, 2))))
    (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps.detach().relu()).sum(1, keepdim=True).relu()
    expected = F.interpolate(cam, size=(28, 28), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.grad_cam, expected, atol=1e-5, rtol=1e-4)
    assert (found.grad_cam.flatten(1).amax(1) > 0).all()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_grad_cam_of_any_network_is_captums(digits: Batch) -> None:
    torch.manual_seed(0)
    network = Depthwise(num_classes=10).eval()
    images, labels = digits.images[:6], digits.labels[:6]
    theirs = LayerGradCam(network, network[6]).attribute(images, target=labels, relu_attributions=True)  # the last GELU
    expected = F.interpolate(theirs.detach(), size=(28, 28), mode="bilinear")[:, 0]
    torch.testing.assert_close(saliency(network, images, labels).grad_cam, expected, atol=1e-7, rtol=1e-5)


def test_without_a_convolution_there_is_no_grad_cam(digits: Batch) -> None:
    assert saliency(Perceptron().eval(), digits.images[:2], digits.labels[:2]).grad_cam is None


def test_grad_cam_is_not_taken_at_a_blocks_shortcut(digits: Batch) -> None:
    torch.manual_seed(0)
    network = ResNet().eval()
    images, labels = digits.images[:3], digits.labels[:3]
    theirs = LayerGradCam(network, network.block3.bn2).attribute(images, target=labels, relu_attributions=True)
    expected = F.interpolate(theirs.detach(), size=(28, 28), mode="bilinear")[:, 0]
    torch.testing.assert_close(saliency(network, images, labels).grad_cam, expected, atol=1e-7, rtol=1e-5)
