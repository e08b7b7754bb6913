"""The record that every run writes: results.json and config.yaml."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from cnn_mnist.front import IS_INSTALLED
from cnn_mnist.runs import files

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")


def write_config(folder: Path, cfg: DictConfig) -> None:
    """Write the resolved configuration to `folder/config.yaml`."""
    files.write(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Write `folder/results.json`; returns its absolute path."""
    path = folder.resolve() / "results.json"
    files.write(path, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path


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
    if IS_INSTALLED:  # maybe inside of another project's checkout
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
