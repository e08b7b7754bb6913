"""Builds a network from its description, the name of its class and plain arguments, and checks what it computes."""

import copy
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist import nodes
from cnn_mnist.checks import Logits, check_logits, untouched
from cnn_mnist.nodes import TARGET

LAB_NETWORK = MappingProxyType({TARGET: "cnn_mnist.network.CNN"})  # the lab report's network
OWN = ("cnn_mnist.network.", "cnn_mnist.networks.")  # modules whose networks a checkpoint alone may name
NUM_PROBED = 2  # images on which a new network is tried


def is_shipped(target: str) -> bool:
    """Whether a name is that of a network of this package."""
    if not target.startswith(OWN):
        return False
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False
    is_network = inspect.isclass(found) and issubclass(found, nn.Module)
    return is_network and f"{found.__module__}.{found.__qualname__}" == target  # defined there, not imported


def build(description: Mapping[str, Any], *, batchnorm: bool = False, num_classes: int = 10) -> nn.Module:
    """A network with new weights.

    Args:
        description: `_target_`, the name of a class or function that makes an nn.Module, and its arguments.
        batchnorm: Passed to the class, if it has an argument of that name.
        num_classes: Likewise.

    Raises:
        CannotMake: The class cannot be imported or does not take these arguments, `batchnorm` is true and it has no
            such argument, or it makes something other than an nn.Module.
    """
    target = description[TARGET]
    if batchnorm and "batchnorm" not in nodes.imported("network", description)[1]:
        raise nodes.CannotMake(
            f"batchnorm=true, but the network {target} has no batch normalisation to switch on: set model.batchnorm="
            "false"
        )
    network = nodes.make("network", description, batchnorm=batchnorm, num_classes=num_classes)
    if not isinstance(network, nn.Module):
        raise nodes.CannotMake(f"network {target} must make an nn.Module, got a {type(network).__name__}")
    return network


def sketch(description: Mapping[str, Any], *, batchnorm: bool, num_classes: int) -> nn.Module:
    """The same without weights, which takes no memory; draws no random numbers.

    Raises:
        CannotMake: As `build`.
    """
    with torch.device("meta"):
        return build(description, batchnorm=batchnorm, num_classes=num_classes)


def check(network: nn.Module, num_classes: int) -> None:
    """Try a network on two images and on one, and a copy in train mode.

    Its weights, its mode and torch's random numbers stay as they are.

    Raises:
        ValueError: It cannot evaluate float32 images (B, 1, 28, 28), or does not return logits (B, num_classes).
    """
    name = f"network {type(network).__name__}"
    images = torch.linspace(0, 1, NUM_PROBED * 28 * 28).view(NUM_PROBED, 1, 28, 28)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), untouched(network):
        try:
            logits: Tensor = Logits(network)(images)
            check_logits(logits)
            Logits(network)(images[:1])
            Logits(copy.deepcopy(network).train())(images)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{name} cannot evaluate images of the shape (B, 1, 28, 28): {reason}") from error
    if logits.shape[1] != num_classes:
        raise ValueError(f"{name} returns {logits.shape[1]} logits, but the data set has {num_classes} classes")


def is_normalised(network: nn.Module) -> bool:
    """Whether a network has batch normalisation, which needs more than one image in a batch to train."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
