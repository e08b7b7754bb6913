"""What an analysis leaves behind: figures, tensors and findings, each part's as soon as it is done."""

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from cnn_mnist import results
from cnn_mnist.figures.canvas import to_pixels
from cnn_mnist.subject import Subject


class Part(NamedTuple):
    """What a part found: numbers by name, sentences made from them, tensors by file and name, figures by tag."""

    findings: dict[str, Any]
    sentences: list[str]
    tensors: dict[str, dict[str, Tensor]]
    figures: dict[str, Figure]


class Findings:
    """The record of one command, written part by part.

    Below the folder: `analysis/<tag>.png`, `analysis/<part>/*.npz`, `analysis/<part>/findings.json`, TensorBoard
    events with the same pictures, and at the end `config.yaml` and `results.json`.
    """

    def __init__(self, folder: Path, cfg: DictConfig, subject: Subject) -> None:
        file = subject.checkpoint.resolve()
        run = file.parent.parent
        name = f"{run.parent.name}_{run.name}" if file.parent.name == "checkpoints" else file.stem
        if folder.parent.name == "analyses":  # a job of a sweep has its place already
            folder = folder.parent / name / folder.name
        self.folder = folder
        self.cfg = cfg
        self.start = time.perf_counter()
        self.record: dict[str, Any] = {
            "checkpoint": str(file),
            "dataset": subject.dataset,
            "images": subject.indices.tolist(),
            "labels": subject.labels.tolist(),
            **results.surroundings(subject.device),
        }

    def add(self, name: str, part: Part) -> None:
        """Write what a part found and say it."""
        place = self.folder / "analysis" / name
        place.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(self.folder), filename_suffix=f".{name}")
        for tag, figure in part.figures.items():
            pixels = to_pixels(figure)
            path = self.folder / "analysis" / f"{tag}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            writer.add_image(tag, pixels, 0, dataformats="HWC")
        writer.close()
        for stem, tensors in part.tensors.items():
            arrays: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in tensors.items()}
            np.savez_compressed(place / f"{stem}.npz", **arrays)
        found = _plain(part.findings)
        (place / "findings.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        self.record[name] = found
        for sentence in part.sentences:
            print(f"  {sentence}")

    def close(self) -> Path:
        """Write the record; returns the path of results.json."""
        results.write_config(self.folder, self.cfg)
        return results.write(self.folder, self.record | {"seconds": round(time.perf_counter() - self.start, 2)})


def _plain(value: Any) -> Any:
    """Numbers to six digits, and nothing where there is no number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
