"""The record that every run writes: results.json and config.yaml."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from cnn_mnist import checkpoint, files
from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.callbacks.throughput import Timing
from cnn_mnist.data import DataModule
from cnn_mnist.distributed import rank
from cnn_mnist.module import Classifier

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")


@rank_zero_only
def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write what was really used, every value plain, to `folder/config.yaml`."""
    files.write(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write a record to `folder/results.json`; returns its absolute path. Of several processes the first alone does."""
    path = folder.resolve() / "results.json"
    if not rank():
        files.write(path, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path


def of_training(
    cfg: DictConfig,
    data: DataModule,
    model: Classifier,
    trainer: pl.Trainer,
    timing: Timing,
    chosen: Path | None,
) -> dict[str, Any]:
    """What a finished training leaves behind; fractions in 0..1, times in seconds.

    The metrics are those of the checkpoint that was chosen, by the hold-out, or the last where there is none: what it
    keeps of the epoch that it ended, and the test. Without a checkpoint (trainer.fast_dev_run) they are the test's.
    """
    layers = architecture(model.network)
    sums = total(layers)
    content = {} if chosen is None else checkpoint.read(chosen)
    tested = {name: value.item() for name, value in trainer.callback_metrics.items() if "/" in name}
    measured = content.get("metrics", {}) | tested
    num_batches = int(trainer.num_training_batches)
    return {
        "dataset": data.dataset,
        "recipe": cfg.recipe,
        "overrides": list(cfg.get("overrides", [])),
        "seed": cfg.seed,
        "batchnorm": cfg.model.batchnorm,
        "epochs": trainer.current_epoch,
        "max_epochs": trainer.max_epochs,
        "steps": trainer.global_step,
        "num_train": min(len(data.train), num_batches * data.batch_size),
        "num_val": cfg.data.val_size,
        "num_test": model.num_evaluated if "test/acc" in measured else 0,
        "num_parameters": sums.num_parameters,
        "num_neurons": sums.num_neurons,
        **{name: round(value, 7) for name, value in sorted(measured.items())},
        **timing._asdict(),
        "checkpoint": None if chosen is None else str(chosen.resolve()),
        "checkpoint_epoch": content.get("epoch", trainer.current_epoch - 1) + 1,
        "num_processes": trainer.world_size,
        **surroundings(trainer.strategy.root_device),
        "architecture": [layer._asdict() for layer in layers],
    }


def surroundings(device: torch.device) -> dict[str, Any]:
    """What a number depends on besides the configuration: threads, device, commit and versions."""
    return {
        "num_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({_processor()})",
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_commit() -> str | None:
    """The commit of this code, marked where the working tree differs from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
