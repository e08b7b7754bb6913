"""Activation maximisation: the image that a class, a channel or a neuron answers to most."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.analysis.guard import untouched
from cnn_mnist.network import CNN

Objective = Callable[[Tensor], Tensor]  # images (B, 1, H, W) -> what is to grow, (B,)


class ClassImages(NamedTuple):
    """The best `images` (B, 1, H, W) in [0, 1] on the way, and `cost` (steps + 1, B): the penalised objective."""

    images: Tensor
    cost: Tensor


def class_logit(model: nn.Module, target: Tensor) -> Objective:
    """The logit of a class, before the softmax: it cannot be raised by lowering the other classes.

    Args:
        model: Images to logits (B, C).
        target: Classes, int64 (B,).
    """
    return lambda images: model(images).gather(1, target[:, None])[:, 0]


def channel(network: CNN, layer: str, index: Tensor) -> Objective:
    """The mean over a channel of a layer, `conv1` or `conv2`; `index` int64 (B,).

    Before the ReLU: behind it, a blank image has no gradient in most channels.
    """
    return lambda images: _maps(network, layer, images, index).mean((1, 2))


def neuron(network: CNN, layer: str, index: Tensor, place: tuple[int, int]) -> Objective:
    """One neuron of a channel, at (row, column) `place` of its map, before the ReLU; `index` int64 (B,)."""
    row, column = place

    def value(images: Tensor) -> Tensor:
        maps = _maps(network, layer, images, index)
        height, width = maps.shape[1:]
        if not (0 <= row < height and 0 <= column < width):
            limits = f"rows 0..{height - 1} and columns 0..{width - 1}"
            raise ValueError(f"a map of {layer} has {limits}, got [{row},{column}]: set class_image.neuron")
        return maps[:, row, column]

    return value


def maximise(
    model: nn.Module,
    objective: Objective,
    start: Tensor,
    *,
    steps: int = 200,
    step_size: float = 0.1,
    penalty: float = 0.1,
    progress: Callable[[range], Iterable[int]] = iter,
) -> ClassImages:
    """Gradient ascent on objective(I) - penalty * ||I||^2, held in [0, 1].

    Every step has the L2 norm `step_size`, so that it suits a logit and a channel's mean alike.

    Args:
        model: What the objective looks at; left as it was.
        objective: What is to grow; one number per image, each of its own image alone.
        start: Images (B, 1, H, W) in [0, 1] to start from; the lab's own are zero.
        steps: Number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        penalty: Weight of the squared L2 norm of the image.
        progress: Goes through the steps, to show how far it is.

    Source: the lab's first optional part; Simonyan, Vedaldi and Zisserman 2013.
    """

    def cost(x: Tensor) -> Tensor:
        return objective(x) - penalty * x.square().sum((1, 2, 3))

    costs = []
    with torch.enable_grad(), untouched(model):
        images = x = start.detach()
        best = torch.full((len(x),), -torch.inf, device=x.device)
        for step in progress(range(steps + 1)):
            x = x.detach().requires_grad_()
            value = cost(x)
            costs.append(value.detach())
            images = images.where((value <= best).view(-1, 1, 1, 1), x.detach())
            best = torch.maximum(best, value.detach())
            if step == steps:
                break
            (gradient,) = torch.autograd.grad(value.sum(), x)  # the sum: images stay independent
            is_stuck = ((x <= 0) & (gradient < 0)) | ((x >= 1) & (gradient > 0))
            gradient = gradient.masked_fill(is_stuck, 0)  # else what is at its limit would use up the step
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
            x = (x + step_size * gradient / length).clamp(0, 1)
    return ClassImages(images, torch.stack(costs))


def _maps(network: CNN, layer: str, images: Tensor, index: Tensor) -> Tensor:
    """One channel's map (B, H, W) of each image, before the ReLU."""
    if layer not in ("conv1", "conv2"):
        raise ValueError(f"layer must be conv1 or conv2, got {layer}: set class_image.layer")
    maps: Tensor = network.norm1(network.conv1(images))
    if layer == "conv2":
        maps = network.norm2(network.conv2(F.max_pool2d(maps, 2).relu()))
    if not (int(index.min()) >= 0 and int(index.max()) < maps.shape[1]):
        raise ValueError(f"{layer} has channels 0..{maps.shape[1] - 1}, got {index.tolist()}")
    return maps[torch.arange(len(maps)), index]
