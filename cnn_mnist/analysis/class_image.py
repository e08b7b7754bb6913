"""Activation maximisation: the image that maximises a class, a channel or a neuron."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.analysis import layers
from cnn_mnist.attacks.gradient_ascent import ObjectiveValue, Progress, ascend, fixed_step, unit_inside
from cnn_mnist.attacks.projection import to_grey_values
from cnn_mnist.checks import untouched

Unit = Callable[[Tensor, Tensor], Tensor]  # images (b, 1, H, W), their indices int64 (b,) -> activations (b,)


class ClassImages(NamedTuple):
    """The best `images` (B, 1, H, W) in [0, 1] found, and `cost` (steps + 1, B): the penalised objective."""

    images: Tensor
    cost: Tensor


def class_logit(model: nn.Module, target: Tensor) -> Unit:
    """The logit of a class, before the softmax: unlike the probability, it cannot grow by lowering the other classes.

    Args:
        model: Images to logits (B, C).
        target: Classes, int64 (B,).
    """
    return lambda images, places: model(images).gather(1, target[places][:, None])[:, 0]


def channel(network: nn.Module, layer: str, index: Tensor) -> Unit:
    """The mean over a channel of a convolution, or a linear layer's unit; `layer` its name, `index` int64 (B,).

    Before the activation function, because after a ReLU a blank image has no gradient in most channels.
    """
    return lambda images, places: _maps(network, layer, images, index[places]).mean((1, 2))


def neuron(network: nn.Module, layer: str, index: Tensor, place: tuple[int, int]) -> Unit:
    """One neuron of a channel, at (row, column) `place` of its map, before the activation; `index` int64 (B,)."""
    row, column = place

    def value(images: Tensor, places: Tensor) -> Tensor:
        maps = _maps(network, layer, images, index[places])
        height, width = maps.shape[1:]
        if not (0 <= row < height and 0 <= column < width):
            limits = f"rows 0..{height - 1} and columns 0..{width - 1}"
            raise ValueError(f"a map of {layer} has {limits}, got [{row},{column}]")
        return maps[:, row, column]

    return value


def maximise(
    model: nn.Module,
    unit: Unit,
    start: Tensor,
    *,
    steps: int = 200,
    step_size: float = 0.1,
    penalty: float = 0.1,
    progress: Progress = iter,
) -> ClassImages:
    """Gradient ascent on unit(I) - penalty * ||I||^2, held in [0, 1].

    Every step has the L2 norm `step_size`, which suits a logit as well as a channel's mean.

    Args:
        model: The model that the unit is part of; unchanged afterwards.
        unit: The activation to maximise: one number per image, which depends on that image alone.
        start: Images (B, 1, H, W) in [0, 1] to start from; blank in the lab report.
        steps: Number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        penalty: Weight of the squared L2 norm of the image.
        progress: Wraps the iterator over the steps, to show progress.

    Source: the lab's first optional part; Simonyan, Vedaldi and Zisserman 2013.
    """

    def penalised(x: Tensor, places: Tensor) -> ObjectiveValue:
        cost = unit(x, places) - penalty * x.square().sum((1, 2, 3))
        return ObjectiveValue(cost, score=cost)

    with untouched(model):
        climbed = ascend(
            penalised,
            start,
            steps=steps,
            move=fixed_step(step_size, unit_inside, to_grey_values),
            progress=progress,
        )
    return ClassImages(climbed.images, climbed.trace)


def _maps(network: nn.Module, layer: str, images: Tensor, index: Tensor) -> Tensor:
    """One channel's map (B, H, W) of each image, before the activation function; of a linear layer (B, 1, 1)."""
    found = layers.trace(network, images).outputs
    if layer not in found:
        raise ValueError(f"layer must be {' or '.join(found)}, got {layer}")
    maps = found[layer].before
    maps = maps if maps.ndim == 4 else maps.reshape(len(maps), -1, 1, 1)
    if not (int(index.min()) >= 0 and int(index.max()) < maps.shape[1]):
        raise ValueError(f"{layer} has channels 0..{maps.shape[1] - 1}, got {index.tolist()}")
    return maps[torch.arange(len(maps)), index]
