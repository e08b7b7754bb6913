"""Reads checkpoints, as data and never as programs. Imports no Lightning, which takes seconds."""

import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist.network import not_finite
from cnn_mnist.networks import build
from cnn_mnist.nodes import TARGET, CannotMake
from cnn_mnist.runs import locate
from cnn_mnist.training import optimizers

PREFIX = "network."  # of the network's tensors among those of the LightningModule


def load(path: str | Path, *, trusted: Collection[str] = ()) -> nn.Module:
    """The network of a checkpoint or of a run's folder, in eval mode, on the CPU.

    Args:
        path: A run's folder, or a .ckpt file.
        trusted: Names of classes, such as `mine.Net`, that may be imported beside those of this package.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The file is damaged or not a checkpoint, or its network is neither of this package nor trusted.
    """
    file = locate.find(path, prefer_best=True)
    return network_of(read(file), file, trusted)


def network_of(content: dict[str, Any], file: Path, trusted: Collection[str] = ()) -> nn.Module:
    """The network of a checkpoint's content, in eval mode: the class that it names, with the arguments it stores.

    Raises:
        ValueError: The class is neither of this package nor trusted, or the weights are not those of that network.
    """
    try:
        hparams = content["hyper_parameters"]
        description = description_of(hparams)
        target = description[TARGET]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is a checkpoint of another kind of network: {error}") from error
    if not build.is_shipped(target) and target not in trusted:
        raise ValueError(
            f"{file} is of the network {target}. Classes from outside this package are imported only if the command "
            "names them: give --config-dir and network= as in training (from Python: trusted=)"
        )
    try:
        kind = {"batchnorm": hparams.get("batchnorm", False), "num_classes": hparams.get("num_classes", 10)}
        if not isinstance(kind["batchnorm"], bool):
            raise ValueError(f"batchnorm is {kind['batchnorm']}")
        weights = {key.removeprefix(PREFIX): value for key, value in content["state_dict"].items()}
        if build.is_shipped(target):
            _check_shapes(build.sketch(description, **kind), weights)
        network = build.build(description, **kind)
        network.load_state_dict(weights)
    except CannotMake as error:
        raise ValueError(f"{file}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is a checkpoint of another kind of network: {reason}") from error
    if name := not_finite(network):
        raise ValueError(f"{file} holds weights that are NaN or infinite: {name}")
    return network.eval()


def _check_shapes(sketch: nn.Module, weights: dict[str, Tensor]) -> None:
    """Raise ValueError where weights are not those of a network, before one of any size is made."""
    expected = {name: tuple(tensor.shape) for name, tensor in sketch.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}")


def description_of(hparams: dict[str, Any]) -> dict[str, Any]:
    """The class of the network and its arguments; of older checkpoints, the lab report's network."""
    found = hparams.get("network", build.LAB_NETWORK | {"kernel_size": hparams.get("kernel_size", 3)})
    return {TARGET: str(found[TARGET]), **found}


def recipe_of(hparams: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a LightningModule and of its network; `network` is the class, in full if it is the user's own.

    A network's argument that the LightningModule has, too, is called `network.NAME`; those of the optimiser and of a
    schedule are `optimizer.NAME` and `schedule.NAME`.
    """
    description = description_of(hparams)
    own = {key: value for key, value in description.items() if key != TARGET}
    own = {f"network.{key}" if key in hparams.keys() - {"kernel_size"} else key: value for key, value in own.items()}
    target = description[TARGET]
    name = target.rpartition(".")[2] if build.is_shipped(target) else target
    return {**hparams, **own, "network": name, **optimizers.recorded(hparams)}


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain values, never programs.

    Raises:
        ValueError: The file is damaged, or not a checkpoint; each case has its message.
    """
    locate.check(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"which names {named[1]}" if named else "of another kind than a checkpoint's"
        raise ValueError(f"{file} is not a checkpoint: it holds a pickle {what}, and is not run") from error
    except Exception as error:  # a malformed archive can break torch.load in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not a checkpoint: torch cannot load it ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a checkpoint of a training run: it holds a {type(content).__name__}")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds weights alone (a bare state dict): it does not say of which network")
    if missing := {"state_dict", "hyper_parameters", "global_step", "epoch"} - content.keys():
        raise ValueError(f"{file} is not a checkpoint of a training run: it has no {', '.join(sorted(missing))}")
    return content
