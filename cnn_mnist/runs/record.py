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
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams as summaries

from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint, files
from cnn_mnist.training.callbacks.throughput import Timing
from cnn_mnist.training.module import Classifier

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")


@rank_zero_only
def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write the resolved configuration to `folder/config.yaml`."""
    files.write(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write `folder/results.json`, in the first of several processes only; returns its absolute path."""
    path = folder.resolve() / "results.json"
    if not rank_zero_only.rank:  # type: ignore[attr-defined]
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
    """The record of a finished training; fractions in 0..1, times in seconds.

    The metrics belong to the chosen checkpoint, or to the last one without a hold-out: those stored in it, and those of
    the test. Without a checkpoint (trainer.fast_dev_run) they are the test's.
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
    """What results depend on besides the configuration: threads, device, commit and versions."""
    return {
        "num_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({_processor()})",
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    """The processor's name on Linux, elsewhere its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_commit() -> str | None:
    """The commit of this code, marked if the working tree differs from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@rank_zero_only
def fill_hparams(trainer: pl.Trainer, cfg: DictConfig, record: dict[str, Any]) -> None:
    """Add the run to TensorBoard's HParams tab: options and final test metrics.

    Lightning's own way would log every metric as another point of its curve.
    """
    scalars = [cfg.data, cfg.model, {"max_epochs": cfg.trainer.max_epochs}]
    skipped = ("_target_", "root", "fallback")  # without influence on the metrics
    hparams = {k: v for part in scalars for k, v in part.items() if k not in skipped and v is not None}
    metrics = {name: record[name] for name in ("test/acc", "test/loss") if name in record}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            for summary in summaries(hparams, metrics):
                writer.add_summary(summary)
            logger.experiment.flush()
