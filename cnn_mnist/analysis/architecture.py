"""The table of layers; of the lab report's network 799,078 parameters, nearly all in FC1, and 31,870 neurons."""

from collections import Counter
from math import prod
from typing import NamedTuple

from torch import nn

from cnn_mnist.analysis import layers


class Layer(NamedTuple):
    """One row of the table.

    `kind` is `conv`, `fc`, `norm`, `pool`, `softmax` or `other`; `module` is the layer's name in the network, empty
    where a function does the work; sizes are without the batch. Only the outputs of `conv` and `fc` count as neurons.
    """

    name: str
    kind: str
    module: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    num_parameters: int
    num_neurons: int

    @property
    def label(self) -> str:
        """Its name, and the module's where that says more."""
        return f"{self.name} ({self.module})" if self.module not in ("", self.name.lower()) else self.name


class Total(NamedTuple):
    """Sums over the layers of one kind, or over all."""

    num_parameters: int
    num_neurons: int


def architecture(network: nn.Module) -> list[Layer]:
    """Every layer with parameters and every pool, in the order in which an image meets them, and the softmax.

    Sizes are those of the tensors that flow through the network, not worked out by formula. A layer that is met again
    has its parameters counted once. Parameters that belong to no layer are in a last row.

    Args:
        network: Images (B, 1, 28, 28) to logits (B, C); unchanged afterwards.

    Source: lab report 3.1.
    """
    rows, numbers, seen = list[Layer](), Counter[str](), set[int]()
    walk = layers.walk(network)
    for call in walk.calls:
        numbers[call.type] += 1
        own = [one for one in (call.module.parameters() if call.module else ()) if id(one) not in seen]
        seen.update(map(id, own))
        num_neurons = prod(call.output) if call.kind in ("conv", "fc") else 0
        sizes = (call.input, call.output, sum(one.numel() for one in own), num_neurons)
        rows.append(Layer(f"{call.type}{numbers[call.type]}", call.kind, call.name, *sizes))
    scores = tuple(walk.result.shape[1:])
    rows.append(Layer("Softmax", "softmax", "", scores, scores, 0, 0))
    if rest := sum(one.numel() for one in network.parameters() if id(one) not in seen):
        rows.append(Layer("Others", "other", "", (), (), rest, 0))
    return rows


def total(rows: list[Layer], *kinds: str) -> Total:
    """Parameters and neurons of the layers of the given kinds; of all when none is given."""
    chosen = [layer for layer in rows if not kinds or layer.kind in kinds]
    return Total(sum(layer.num_parameters for layer in chosen), sum(layer.num_neurons for layer in chosen))
