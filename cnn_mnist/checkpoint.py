"""Checkpoints: load and save them, as data and never as programs."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from cnn_mnist import archive, files
from cnn_mnist.network import CNN, not_finite
from cnn_mnist.rules import TRAIN, hold


class CheckpointFiles(TorchCheckpointIO):
    """How the Trainer writes and reads checkpoints: whole or not at all, and never as programs."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Put a checkpoint in the place of the one before, which stays where this fails.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        content = io.BytesIO()  # torch's own writer does not say why it failed
        torch.save(checkpoint, content)
        with files.replacing(Path(path)) as scratch:
            scratch.write_bytes(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The content of a checkpoint file, as `read` gives it, at home where the file is now, wherever it was written.

        Raises:
            ValueError: It is not one.
        """
        content, place = read(Path(path)), Path(path).resolve().parent
        try:
            for state in content.get("callbacks", {}).values():
                if (
                    "best_model_path" in state
                ):  # Lightning's ModelCheckpoint forgets the best one of a run that has moved
                    _move(state, place)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a checkpoint of a training run: what its callbacks kept is damaged"
            ) from error
        return content


def _move(state: dict[str, Any], place: Path) -> None:
    """Say of what a ModelCheckpoint has written that it is in another folder."""
    state["dirpath"] = str(place)
    for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
        state[key] = str(place / Path(state[key]).name) if state[key] else ""
    state["best_k_models"] = {str(place / Path(path).name): score for path, score in state["best_k_models"].items()}


def load(path: str | Path) -> CNN:
    """The network of a checkpoint or of a run's folder, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a whole checkpoint of this network.
    """
    file = archive.find(path, prefer_best=True)
    return network_of(read(file), file)


def network_of(content: dict[str, Any], file: Path) -> CNN:
    """The network of a checkpoint's content, in eval mode; its architecture is the stored one.

    Raises:
        ValueError: It is a checkpoint of another kind of network.
    """
    try:
        hparams = content["hyper_parameters"]
        batchnorm, kernel_size = hparams["batchnorm"], hparams.get("kernel_size", 3)
        for key, value in (("model.batchnorm", batchnorm), ("model.kernel_size", kernel_size)):
            hold(key, value, TRAIN.keys[key])
        network = CNN(batchnorm, kernel_size)
        state = {key.removeprefix("network."): value for key, value in content["state_dict"].items()}
        network.load_state_dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is a checkpoint of another kind of network: {reason}") from error
    if name := not_finite(content["state_dict"]):
        raise ValueError(f"{file} holds a network that is no more: {name} is not finite")
    return network.eval()


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain values, never programs.

    Raises:
        ValueError: The file is damaged or something else, with a sentence for each.
    """
    archive.check(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"which names {named[1]}" if named else "of another kind than a checkpoint's"
        raise ValueError(f"{file} is not a checkpoint: it holds a pickle {what}, and is not run") from error
    except Exception as error:  # an archive of a stranger's making can break torch.load in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not a checkpoint: torch cannot load it ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a checkpoint of a training run: it holds a {type(content).__name__}")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{file} holds weights alone (a bare state dict): it does not say of which network")
    if missing := {"state_dict", "hyper_parameters", "global_step", "epoch"} - content.keys():
        raise ValueError(f"{file} is not a checkpoint of a training run: it holds no {', '.join(sorted(missing))}")
    return content
