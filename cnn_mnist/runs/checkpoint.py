"""Checkpoints: load and save them, as data and never as programs."""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from cnn_mnist.network import CNN, not_finite
from cnn_mnist.runs import files, locate


class CheckpointFiles(TorchCheckpointIO):
    """Writes and reads the Trainer's checkpoints: whole or not at all, and never as programs."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Replace the previous checkpoint, which stays if this fails.

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
        """The content of a checkpoint file, with its paths updated if the folder has moved.

        Raises:
            ValueError: It is not a checkpoint.
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
    """Update the paths in a ModelCheckpoint's state after its folder has moved."""
    state["dirpath"] = str(place)
    for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
        state[key] = str(place / Path(state[key]).name) if state[key] else ""
    state["best_k_models"] = {str(place / Path(path).name): score for path, score in state["best_k_models"].items()}


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


def writers(folder: Path, val_name: str, monitor: str) -> list[ModelCheckpoint]:
    """`last.ckpt` after every epoch, and `best.ckpt` where a hold-out can choose it (never the test set).

    Args:
        folder: The run's folder.
        val_name: Name of the data evaluated after each epoch: `val` or `test`.
        monitor: The metric that chooses: the highest is best, or the lowest loss.
    """
    common: dict[str, object] = {
        "dirpath": folder / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    last = ModelCheckpoint(filename="last", monitor=None, **common)  # type: ignore[arg-type]
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode_of(monitor), **common)  # type: ignore[arg-type]
    return [best, last] if val_name == "val" else [last]  # in this order: last.ckpt stores the best one's state


def mode_of(metric: str) -> str:
    """Whether the highest value of a metric is best, `max`, or the lowest, `min`."""
    return "min" if metric.endswith("loss") else "max"


def chosen(writers: list[ModelCheckpoint]) -> Path | None:
    """The checkpoint to test and record; None if none was written, as with trainer.fast_dev_run."""
    return next((Path(writer.best_model_path) for writer in writers if writer.best_model_path), None)
