"""Reads checkpoints, as data and never as programs. Imports no Lightning, which takes seconds."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnn_mnist.network import CNN, not_finite
from cnn_mnist.runs import locate


def load(path: str | Path) -> CNN:
    """The network of a checkpoint or of a run's folder, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The file is damaged, or not a checkpoint of this network.
    """
    file = locate.find(path, prefer_best=True)
    return network_of(read(file), file)


def network_of(content: dict[str, Any], file: Path) -> CNN:
    """The network of a checkpoint's content, in eval mode; its architecture is the stored one.

    Raises:
        ValueError: It is a checkpoint of another kind of network.
    """
    try:
        hparams = content["hyper_parameters"]
        batchnorm, kernel_size = hparams["batchnorm"], hparams.get("kernel_size", 3)
        if not isinstance(batchnorm, bool) or kernel_size not in range(3, 12, 2):
            raise ValueError(f"batchnorm={batchnorm} and kernel_size={kernel_size} are not of this network")
        network = CNN(batchnorm, kernel_size)
        state = {key.removeprefix("network."): value for key, value in content["state_dict"].items()}
        network.load_state_dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is a checkpoint of another kind of network: {reason}") from error
    if name := not_finite(content["state_dict"]):
        raise ValueError(f"{file} holds weights that are NaN or infinite: {name}")
    return network.eval()


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
