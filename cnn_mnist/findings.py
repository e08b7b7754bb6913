"""What an analysis leaves behind: figures, tensors and findings, each part's as soon as it is done."""

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from cnn_mnist import results
from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.figures.canvas import to_pixels
from cnn_mnist.subject import Subject, Task


class Part(NamedTuple):
    """What a part found: numbers by name, sentences made from them, tensors by file and name, figures by tag."""

    findings: dict[str, Any]
    sentences: list[str]
    tensors: dict[str, dict[str, Tensor]]
    figures: dict[str, Figure]


def of_attack(
    name: str, subject: Subject, original: Tensor, labels: Tensor, result: AttackResult, seconds: float, part: Part
) -> Part:
    """Complete what an attack found by what every attack leaves: its measures and its tensors.

    Args:
        name: The attack's.
        subject: What was attacked; with another network, which then sees the images too.
        original: The images before, (N, 1, 28, 28).
        labels: Their classes, int64 (N,); -1 where they have none.
        result: The attack's own record, on the CPU.
        seconds: What the attack took.
        part: What else there is to say.
    """
    findings = {"num_images": len(labels), **result.summary(), "seconds": round(seconds, 3), **part.findings}
    sentences = list(part.sentences)
    if subject.other is not None:
        own, clean, seen = (
            predict(network, images.to(subject.device)).argmax(1).cpu()
            for network, images in (
                (subject.network, original),
                (subject.other, original),
                (subject.other, result.images),
            )
        )
        is_aimed = result.target >= 0
        was_right = torch.where(is_aimed, clean != result.target, (clean == labels) & (own == labels))
        is_fooled = torch.where(is_aimed, seen == result.target, seen != labels)[result.success & was_right]
        rate = is_fooled.double().mean().item()
        findings["against"] = {"success_rate": rate, "num_images": len(is_fooled)}
        if len(is_fooled):
            sentences.append(
                f"Of {len(is_fooled):,} successes, {rate:.1%} fool the other network, which was right before."
            )
    saved = {"original": original, "label": labels, **result._asdict()}
    del saved["perturbation"]
    return Part(findings, sentences, {name: saved, **part.tensors}, part.figures)


class Findings:
    """The record of one command, written part by part.

    Below the folder: `analysis/<part>/` and `attacks/<name>/` with figures (.png), tensors (.npz) and findings.json,
    TensorBoard events with the same pictures, and at the end `config.yaml` and `results.json`.
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
            **({} if cfg.against is None else {"against_checkpoint": str(cfg.against)}),
            **results.surroundings(subject.device),
        }

    def add(self, task: Task, part: Part) -> None:
        """Write what a part found and say it."""
        base = self.folder / task.kind
        place = base / task.name
        place.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(self.folder), filename_suffix=f".{task.name}")
        for tag, figure in part.figures.items():
            pixels = to_pixels(figure)
            path = base / f"{tag}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            writer.add_image(_tag(task, tag), pixels, 0, dataformats="HWC")
        writer.close()
        for stem, tensors in part.tensors.items():
            arrays: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in tensors.items()}
            np.savez_compressed(place / f"{stem}.npz", **arrays)
        found = part.findings
        if task.kind == "attacks":
            path = place.resolve() / f"{task.name}.npz"
            found = {"attack": task.name, **task.options, **found, "tensors": str(path)}
        found = _plain(found)
        (place / "findings.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        self.record |= found if task.kind == "attacks" and task.is_alone else {task.name: found}
        for sentence in part.sentences:
            print(f"  {sentence}")

    def close(self) -> Path:
        """Write the record; returns the path of results.json."""
        results.write_config(self.folder, self.cfg)
        return results.write(self.folder, self.record | {"command_seconds": round(time.perf_counter() - self.start, 2)})


def _tag(task: Task, name: str) -> str:
    """A figure's name in TensorBoard: an attack's main one is the attack's."""
    return name if task.kind == "analysis" else f"adversarial/{name.removesuffix('/images')}"


def _plain(value: Any) -> Any:
    """Numbers to six digits, and nothing where there is no number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
