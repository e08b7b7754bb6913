"""What an analysis leaves behind: figures, tensors, findings and the page, each part's as soon as it is done."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.utils.tensorboard.writer import SummaryWriter

from cnn_mnist import console, files, results
from cnn_mnist.figures.canvas import to_pixels
from cnn_mnist.part import Part
from cnn_mnist.report import page
from cnn_mnist.report.prose import plain
from cnn_mnist.subject import OTHER
from cnn_mnist.tasks import OF_A_SAMPLE, OF_A_SWEEP, Task


class About(Protocol):
    """What is looked at: a network, a sweep or a search.

    `name`: what its analyses are filed under. `facts`: what heads the record. `device`: where it is computed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def facts(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102


class Incomplete(ValueError):
    """Some parts failed; the others are on record."""


class Findings:
    """The record of one command, written part by part.

    Below the folder: `analysis/<part>/` and `attacks/<name>/` with figures (.png), tensors (.npz) and findings.json,
    the same below `other/` for a second network, TensorBoard events with the same pictures, and at the end
    `config.yaml`, `results.json` and `report.html`.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, cfg: DictConfig, sides: Sequence[About]) -> None:
        if folder.parent.name == "analyses":  # a job of a sweep has its place already
            folder = folder.parent / sides[0].name / folder.name
        folder.mkdir(parents=True, exist_ok=True)  # now, not after minutes of work
        self.folder = folder
        self.cfg = cfg
        self.sides = sides
        self.start = time.perf_counter()
        self.sections: list[page.Section] = []
        self.samples: dict[str, int] = {}  # test images asked for, by part
        self.error: Exception | None = None  # the first one
        self.record: dict[str, Any] = {
            **sides[0].facts,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "seed": cfg.seed,
            **results.surroundings(sides[0].device),
            "part_seconds": {},
            "failed": {},
        }

    @contextmanager
    def attempt(self, task: Task) -> Iterator[None]:
        """Do a part; where it fails say so and go on with the others, if there are any."""
        start = time.perf_counter()
        self.sections.append(page.Section(task.name, []))
        try:
            yield
        except Exception as error:
            if task.is_alone:
                self._take_back()
                raise
            self.error = self.error or error
            words = " ".join(str(error).split())
            message = words if words and isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {words}"
            self.record["failed"][task.name] = message
            print(f"error in {task.name}: {message}", file=sys.stderr)
        self.record["part_seconds"][task.name] = round(time.perf_counter() - start, 2)

    def add(self, task: Task, subject: About, part: Part) -> None:
        """Write what a part found in one of the networks, say it, and keep it for the page."""
        is_other = subject is not self.sides[0]
        record = self.record[OTHER] if is_other else self.record
        base = self.folder / OTHER / task.kind if is_other else self.folder / task.kind
        place = base / task.name
        place.mkdir(parents=True, exist_ok=True)
        found = {**task.options, **part.findings}
        if task.name in OF_A_SAMPLE:
            self.samples[task.name] = task.options["num_images"]
        if task.kind == "attacks":
            found = {"attack": task.name, **found, "tensors": str(place.resolve() / f"{task.name}.npz")}
        found = _plain(found)
        files.write(place / "findings.json", json.dumps(found, indent=2, allow_nan=False) + "\n")
        for stem, tensors in part.tensors.items():
            arrays: dict[str, Any] = {key: value.detach().cpu().numpy() for key, value in tensors.items()}
            with files.replacing(place / f"{stem}.npz") as scratch:
                np.savez_compressed(scratch, **arrays)
        for file, content in part.files.items():
            with files.replacing(place / file) as scratch:
                scratch.write_bytes(content)
        data = sorted(path for path in place.iterdir() if path.is_file())
        pictures = self._draw(task, part, base, OTHER * is_other)

        is_flat = task.kind == "attacks" and task.is_alone
        record |= found if is_flat else {task.name: found}
        prefix = f"{OTHER}." * is_other + f"{task.name}." * (not is_flat)
        column = page.Column(found, prefix, list(task.options), part.answers, pictures, data)
        self.sections[-1].columns.append(column)
        if len(self.sides) == 2 and not task.is_of_one:
            print(f"  {self.record['names'][is_other]}:")
        for answer in part.answers:
            for sentence in answer.says:
                print(f"  {plain(sentence, found)}")
            for table in answer.tables if task.name in (OF_A_SWEEP, "search") else ():
                console.show_table(table, found)

    def _draw(self, task: Task, part: Part, base: Path, other: str) -> dict[str, Path]:
        """Figures as files and in TensorBoard; returns the files by tag."""
        places = {tag: base / f"{tag}.png" for tag in part.figures}
        with SummaryWriter(str(self.folder), filename_suffix=f".{other}{task.name}") as writer:
            for tag, figure in part.figures.items():
                pixels = to_pixels(figure)
                with files.replacing(places[tag]) as scratch:
                    Image.fromarray(pixels).save(scratch, optimize=True)
                name = _tag(task, tag)
                writer.add_image(f"{other}/{name}" if other else name, pixels, 0, dataformats="HWC")
        return places

    def close(self) -> Path:
        """Write the record and the page; returns the path of results.json."""
        results.write_config(self.folder, self.cfg)
        self.record["whole_test_set_seconds"] = self._costs()
        self.record["command_seconds"] = round(time.perf_counter() - self.start, 2)
        page.write(self.folder, self.record, self.sections)
        return results.write(self.folder, self.record)

    def check(self) -> None:
        """Raise Incomplete where a part has failed."""
        if self.error is not None:
            failed = self.record["failed"]
            num_parts = len(self.sections)
            raise Incomplete(f"{len(failed)} of {num_parts} parts failed: {', '.join(failed)}") from self.error

    def _costs(self) -> dict[str, float]:
        """What each part that looks at a sample of the test images would take for all of them, in seconds."""
        num_all = self.record.get("num_test_images", 0)
        return {
            name: round(self.record["part_seconds"][name] * num_all / num_images, 1)
            for name, num_images in self.samples.items()
            if num_images < num_all
        }

    def _take_back(self) -> None:
        """Leave no empty folders behind."""
        with suppress(OSError):  # not empty
            for folder in (self.folder, *self.folder.parents[:2]):
                folder.rmdir()


def _tag(task: Task, name: str) -> str:
    """A figure's name in TensorBoard: an attack's main one is the attack's."""
    return name if task.kind == "analysis" else f"adversarial/{name.removesuffix('/images')}"


def _plain(value: Any) -> Any:
    """Numbers to seven digits, and nothing where there is no number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
