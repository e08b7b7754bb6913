"""Class images: activation maximisation of a class, a channel or a neuron (the lab's first optional part)."""

from typing import Annotated, Any

import torch
from torch import nn

from cnn_mnist.analysis import class_image as ascend
from cnn_mnist.analysis import layers
from cnn_mnist.cli import console
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures import class_names
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Count, LayerName, NonNegative, Place, Positive, Seed, number
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject

MOST_UNITS = 100  # channels of a layer


@needs(data=False)
def class_image(
    subject: Subject,
    *,
    layer: LayerName | None,
    neuron: Place | None,
    num_images: Annotated[int, number(int, 1, 100)],
    steps: Count,
    step_size: Positive,
    penalty: NonNegative,
    seed: Seed,
) -> Section:
    """Which image maximises the activation of a class, a channel or a neuron?

    Args:
        subject: The network.
        layer: None for the classes, or the name of the layer whose channels are looked at (at most 100 of them).
        neuron: With a layer: (row, column) of one neuron in each channel, instead of the whole channel.
        num_images: Images per class: the first from a blank image, the others from faint noise.
        steps: Steps of gradient ascent.
        step_size: L2 norm of a step.
        penalty: Weight of the squared L2 norm of the image.
        seed: Random seed of the noise.

    Raises:
        ValueError: A layer that the network does not have, a neuron without a layer, or one outside of its map.
    """
    if layer is None and neuron is not None:
        raise ValueError(f"class_image.neuron={neuron} needs a layer: set class_image.layer to its name")
    network, device = subject.network, subject.device
    layer = None if layer is None else str(layer)
    num_channels = subject.num_classes if layer is None else _num_channels(network, layer)
    num_units = num_channels if layer is None else min(MOST_UNITS, num_channels)
    target = torch.arange(num_units, device=device).repeat(num_images if layer is None else 1)
    if layer is None:
        objective = ascend.class_logit(network, target)
    elif neuron is None:
        objective = ascend.channel(network, layer, target)
    else:
        objective = ascend.neuron(network, layer, target, (neuron[0], neuron[1]))
    start = 0.1 * torch.rand(len(target), 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(device)
    start[:num_units] = 0
    try:
        found = ascend.maximise(
            network,
            objective,
            start,
            steps=steps,
            step_size=step_size,
            penalty=penalty,
            progress=lambda taken: console.track(taken, "class images"),
        )
    except ValueError as error:
        raise ValueError(f"{error}: set class_image.neuron" if neuron else str(error)) from error
    with torch.no_grad():
        probability = network(found.images).softmax(1).cpu()
    confidence = probability[torch.arange(len(target)), target.cpu()] if layer is None else None
    noun = "class" if layer is None else f"{layer} channel"
    key = layer and layers.key_of(layer)
    names = [f"{noun} {class_names.name(unit)}" if layer is None else str(unit) for unit in target.tolist()]
    stem = "classes" if layer is None else f"{key}{'' if neuron is None else f'_neuron_{neuron[0]}_{neuron[1]}'}"
    figures: dict[str, Picture] = {
        f"class_image/{stem}": draw.class_images(found, names, f"The image that maximises each {noun}", confidence)
    }
    rises = (found.cost[-1] > found.cost[0]).double().mean().item()
    findings: dict[str, Any] = {"unit": noun, "num_images": len(target), "steps": steps, "cost_rises_share": rises}
    findings |= {"layer": layer, "num_units": num_units, "num_channels": num_channels}
    says = [
        f"What is maximised, the cost, is the {'logit of the class' if layer is None else 'activation'} less "
        "{penalty:g} times the squared norm of the image. After {steps} steps it is higher than it began for "
        "{cost_rises_share:.0%} of {num_images} images."
    ]
    if num_units < num_channels:
        says.append("These are the first {num_units} of {num_channels} channels.")
    if confidence is None:
        mean = found.cost.mean(1, keepdim=True)
        figures[f"class_image/{stem}_cost"] = cost_curves(mean, [f"mean of {num_units} channels"], "cost")
    else:
        curves = [f"class {label}" for label in range(num_units)]
        figures["class_image/cost"] = cost_curves(found.cost[:, :num_units], curves, "logit - penalty")
        findings["mean_confidence"] = confidence.mean().item()
        says.append("The network classifies them as their class with p = {mean_confidence:.3f} on average.")
    tensors = {"target": target.cpu(), "images": found.images.cpu(), "cost": found.cost.cpu()}
    question = f"Which image maximises each {noun}?"
    return Section(findings, [Answer(question, list(figures), says)], {stem: tensors}, figures)


def _num_channels(network: nn.Module, layer: str) -> int:
    """The number of channels of a convolution, or of units of a linear layer.

    Raises:
        ValueError: There is no such layer.
    """
    found = layers.walk(network).outputs
    if layer not in found:
        raise ValueError(f"class_image.layer must be null or a layer of the network, {', '.join(found)}, got {layer}")
    shape = found[layer].before.shape
    return int(shape[1] if len(shape) == 4 else shape[1:].numel())
