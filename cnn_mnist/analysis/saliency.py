"""Two standard explanations beside occlusion: integrated gradients, by captum (extra `captum`), and Grad-CAM."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.analysis import layers
from cnn_mnist.checks import untouched


class Saliency(NamedTuple):
    """Importance of each pixel for the true class; higher is more important.

    `integrated_gradients` (B, 28, 28): each pixel's share of the true class's probability, from a blank image to this
    one; negative shares are evidence against it. `completeness` (B,): by how much their sum misses the difference of
    the two probabilities. `grad_cam` (B, 28, 28) at least 0: the last convolution's channels, each
    weighted by its mean gradient, added up and enlarged to the size of the image; None without a convolution.
    """

    integrated_gradients: Tensor
    completeness: Tensor
    grad_cam: Tensor | None


def saliency(network: nn.Module, images: Tensor, labels: Tensor, *, steps: int = 50) -> Saliency:
    """Integrated gradients and Grad-CAM of the true class's probability and logit.

    Args:
        network: The network; unchanged afterwards.
        images: (B, 1, 28, 28) in [0, 1].
        labels: True classes, int64 (B,).
        steps: Points between the blank image and this one.

    Source: Sundararajan, Taly and Yan 2017; Selvaraju et al. 2017.
    """
    from captum.attr import IntegratedGradients

    with torch.enable_grad(), untouched(network):
        integrated = IntegratedGradients(lambda x: network(x).softmax(1))
        shares, completeness = integrated.attribute(
            images, baselines=0.0, target=labels, n_steps=steps, internal_batch_size=500, return_convergence_delta=True
        )
        return Saliency(
            shares.detach()[:, 0], completeness.detach().float(), _grad_cam(network, images.detach(), labels)
        )


def _grad_cam(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor | None:
    """Grad-CAM (B, H, W) at the last convolution, after its activation function; None without a convolution."""
    found = layers.trace(network, images.requires_grad_())
    if not any(isinstance(call.module, nn.Conv2d) for call in found.calls):
        return None
    torch.autograd.grad(found.result.gather(1, labels[:, None]).sum(), images)
    convolutions = [call for call in found.calls if isinstance(call.module, nn.Conv2d) and call.name in found.gradients]
    if not convolutions:  # none that the logit depends on
        return None
    last = next((call for call in reversed(convolutions) if not _is_shortcut(call.module)), convolutions[-1]).name
    after, gradient = found.outputs[last].after, found.gradients[last]
    cam = (gradient.mean((2, 3), keepdim=True) * after).sum(1, keepdim=True).relu().detach()
    return F.interpolate(cam, images.shape[2:], mode="bilinear")[:, 0]


def _is_shortcut(module: nn.Module | None) -> bool:
    """Whether a convolution only leads past a residual block: single pixels with a stride, called last."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) == 1 and max(module.stride) > 1
