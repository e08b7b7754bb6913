"""Two standard explanations beside occlusion, both computed by captum (extra `captum`)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.checks import untouched
from cnn_mnist.network import CNN


class Saliency(NamedTuple):
    """Importance of each pixel for the true class; higher is more important.

    `integrated_gradients` (B, 28, 28): each pixel's share of the true class's probability, from a blank image to this
    one; negative shares are evidence against it. `completeness` (B,): by how much their sum misses the difference of
    the two probabilities. `grad_cam` (B, 28, 28) at least 0: the last convolution's channels, each
    weighted by its mean gradient, added up and enlarged from 14x14.
    """

    integrated_gradients: Tensor
    completeness: Tensor
    grad_cam: Tensor


def saliency(network: CNN, images: Tensor, labels: Tensor, *, steps: int = 50) -> Saliency:
    """Integrated gradients and Grad-CAM of the true class's probability and logit.

    Args:
        network: The network; unchanged afterwards.
        images: (B, 1, 28, 28) in [0, 1].
        labels: True classes, int64 (B,).
        steps: Points between the blank image and this one.

    Source: Sundararajan, Taly and Yan 2017; Selvaraju et al. 2017.
    """
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam

    with torch.enable_grad(), untouched(network):
        integrated = IntegratedGradients(lambda x: network(x).softmax(1))
        shares, completeness = integrated.attribute(
            images, baselines=0.0, target=labels, n_steps=steps, internal_batch_size=500, return_convergence_delta=True
        )
        model = _SeenThrough(network)
        maps = LayerGradCam(model, model.maps).attribute(images, target=labels, relu_attributions=True)
        enlarged = LayerAttribution.interpolate(maps, images.shape[2:], "bilinear")
    return Saliency(shares.detach()[:, 0], completeness.detach().float(), enlarged.detach()[:, 0])


class _SeenThrough(nn.Module):
    """The network with its last feature maps, after their ReLU, as a layer for captum."""

    def __init__(self, network: CNN) -> None:
        super().__init__()
        self.network = network
        self.maps = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        maps = self.maps(self.network.features(images).conv2)
        logits: Tensor = self.network.fc2(self.network.hidden(F.max_pool2d(maps, 2)))
        return logits
