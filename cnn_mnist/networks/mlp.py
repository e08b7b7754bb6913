"""A multilayer perceptron: linear layers alone."""

from collections import OrderedDict
from typing import Annotated

from torch import nn

from cnn_mnist.option_types import Count, number


class MLP(nn.Sequential):
    """Images float32 (B, 1, 28, 28) in [0, 1] to logits (B, num_classes).

    Args:
        hidden: Neurons of each hidden layer.
        depth: Number of hidden layers, 1 to 100.
        num_classes: Number of classes.

    Raises:
        ValueError: `depth` is out of range.

    Source: Rumelhart, Hinton and Williams 1986; ReLU since Nair and Hinton 2010.
    """

    def __init__(
        self, hidden: Count = 500, depth: Annotated[int, number(int, 1, 100)] = 2, num_classes: Count = 10
    ) -> None:
        if not 1 <= depth <= 100:
            raise ValueError(f"depth must be from 1 to 100, got {depth}")
        sizes = [28 * 28, *[hidden] * depth]
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for k in range(depth):
            layers[f"fc{k + 1}"] = nn.Linear(sizes[k], hidden)
            layers[f"relu{k + 1}"] = nn.ReLU()
        layers[f"fc{depth + 1}"] = nn.Linear(sizes[-1], num_classes)
        super().__init__(layers)
