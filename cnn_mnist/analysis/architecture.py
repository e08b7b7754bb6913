"""The report's table of layers: 799,078 parameters, nearly all in FC1, and 31,870 neurons, nearly all in Conv1."""

from math import prod
from typing import NamedTuple

import torch
from torch import nn

from cnn_mnist.network import CNN


class Layer(NamedTuple):
    """One row of the table.

    `kind` is `conv`, `fc`, `norm`, `pool` or `softmax`; sizes are without the batch. Only the outputs of `conv` and
    `fc` count as neurons.
    """

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    num_parameters: int
    num_neurons: int


class Total(NamedTuple):
    """Sums over the layers of one kind, or over all."""

    num_parameters: int
    num_neurons: int


def architecture(network: CNN) -> list[Layer]:
    """Every layer in the order of the report, max-pools and softmax included.

    Sizes are those of the tensors that flow through the network, not worked out by formula.

    Source: lab report 3.1.
    """
    with torch.no_grad():
        was_training = network.training
        network.eval()
        try:
            image = network.fc1.weight.new_zeros(1, 1, 28, 28)
            features = network.features(image)
            logits = network.fc2(features.fc1)
        finally:
            network.train(was_training)
    size = {name: tuple(tensor.shape[1:]) for name, tensor in features._asdict().items()}
    flat = (prod(size["pool2"]),)
    scores = tuple(logits.shape[1:])
    rows = [
        ("Conv1", "conv", network.conv1, tuple(image.shape[1:]), size["conv1"]),
        ("BatchNorm1", "norm", network.norm1, size["conv1"], size["conv1"]),
        ("MaxPool1", "pool", None, size["conv1"], size["pool1"]),
        ("Conv2", "conv", network.conv2, size["pool1"], size["conv2"]),
        ("BatchNorm2", "norm", network.norm2, size["conv2"], size["conv2"]),
        ("MaxPool2", "pool", None, size["conv2"], size["pool2"]),
        ("FC1", "fc", network.fc1, flat, size["fc1"]),
        ("BatchNorm3", "norm", network.norm3, size["fc1"], size["fc1"]),
        ("FC2", "fc", network.fc2, size["fc1"], scores),
        ("Softmax", "softmax", None, scores, scores),
    ]
    return [
        Layer(name, kind, before, after, _num_parameters(module), prod(after) if kind in ("conv", "fc") else 0)
        for name, kind, module, before, after in rows
        if not isinstance(module, nn.Identity)
    ]


def total(layers: list[Layer], *kinds: str) -> Total:
    """Parameters and neurons of the layers of the given kinds; of all when none is given."""
    chosen = [layer for layer in layers if not kinds or layer.kind in kinds]
    return Total(sum(layer.num_parameters for layer in chosen), sum(layer.num_neurons for layer in chosen))


def _num_parameters(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0
