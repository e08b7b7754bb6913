"""Builds a network from its description, the name of its class and plain arguments, and checks what it computes."""

import copy
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist.checks import Logits, check_logits, untouched

TARGET = "_target_"  # key of the class's name
REPORT = MappingProxyType({TARGET: "cnn_mnist.network.CNN"})  # the report's network
OWN = ("cnn_mnist.network.", "cnn_mnist.networks.")  # modules whose networks a checkpoint alone may name
NUM_PROBED = 2  # images on which a new network is tried


class CannotBuild(ValueError):
    """A network's class cannot be imported, or cannot be built with these arguments."""


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
        CannotBuild: The class cannot be imported or does not take these arguments, `batchnorm` is true and it has no
            such argument, or it makes something other than an nn.Module.
    """
    target = str(description[TARGET])
    try:
        make = pkgutil.resolve_name(target)
        accepted = inspect.signature(make).parameters
    except Exception as error:  # a file of the user's own runs when it is imported
        raise CannotBuild(f"network {target} cannot be imported: {type(error).__name__}: {error}") from error
    arguments = {key: value for key, value in description.items() if key != TARGET}
    if "batchnorm" in accepted:
        arguments.setdefault("batchnorm", batchnorm)
    elif batchnorm:
        raise CannotBuild(
            f"batchnorm=true, but the network {target} has no batch normalisation to switch on: set model.batchnorm="
            "false"
        )
    if "num_classes" in accepted:
        arguments.setdefault("num_classes", num_classes)
    try:
        network = make(**arguments)
    except Exception as error:
        raise CannotBuild(f"network {target} cannot be built: {error}") from error
    if not isinstance(network, nn.Module):
        raise CannotBuild(f"network {target} must make an nn.Module, got a {type(network).__name__}")
    return network


def sketch(description: Mapping[str, Any], *, batchnorm: bool, num_classes: int) -> nn.Module:
    """The same without weights, which takes no memory; draws no random numbers.

    Raises:
        CannotBuild: As `build`.
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
