"""Writes a run's checkpoints with Lightning: which ones, and whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from cnn_mnist.runs import files
from cnn_mnist.runs.checkpoint import read
from cnn_mnist.runs.metrics import mode_of


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


def chosen(writers: list[ModelCheckpoint]) -> Path | None:
    """The checkpoint to test and record; None if none was written, as with trainer.fast_dev_run."""
    return next((Path(writer.best_model_path) for writer in writers if writer.best_model_path), None)
