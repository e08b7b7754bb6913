"""Writes what an analysis found: figures, tensors, findings and the page, section by section."""

import io
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rich.box
import rich.table
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.markup import escape
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.writer import FileWriter

from cnn_mnist.cli import console
from cnn_mnist.cli.errors import Unmet
from cnn_mnist.figures.render import Picture, to_pixels
from cnn_mnist.figures.tiles import CARD, WIDE, Tiles
from cnn_mnist.report import layout, page
from cnn_mnist.report.plan import Task
from cnn_mnist.report.prose import plain
from cnn_mnist.report.section import Section, Table
from cnn_mnist.report.subject import OTHER
from cnn_mnist.runs import files, record

LOG_WIDTH = 140  # columns of a table, where there is no terminal


class About(Protocol):
    """The subject of an analysis: a network, a sweep or a search.

    `name`: folder of its analyses. `facts`: first entries of the record. `device`: where it is computed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def facts(self) -> dict[str, Any]: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102


@dataclass(eq=False)
class InFolder:
    """A subject that is a folder of runs: a sweep or a search."""

    folder: Path

    @property
    def device(self) -> torch.device:
        """Where its statistics are computed; the runs have their own devices on record."""
        return torch.device("cpu")

    @property
    def name(self) -> str:
        """The name of the folder of its analyses."""
        return self.folder.name


class Incomplete(ValueError):
    """Some sections failed; the others are complete."""


class Findings:
    """The record of one command, written section by section.

    Below the folder: `analysis/<section>/` and `attacks/<name>/` with figures (.png), tensors (.npz) and findings.json,
    the same below `other/` for a second network, TensorBoard events with the same pictures, and at the end
    `config.yaml`, `results.json` and `report.html`.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, cfg: DictConfig, sides: Sequence[About]) -> None:
        if folder.parent.name == "analyses":  # a job of a sweep has a folder already
            folder = folder.parent / sides[0].name / folder.name
        folder.mkdir(parents=True, exist_ok=True)  # fail now, not after minutes of work
        self.folder = folder
        self.cfg = cfg
        self.sides = sides
        self.start = time.perf_counter()
        self.sections: list[layout.Block] = []
        self.samples: dict[str, int] = {}  # test images asked for, by part
        self.earlier: dict[str, float] = {}  # seconds that interrupted commands have spent, by part
        self.error: Exception | None = None  # the first one
        self.unmet: list[str] = []
        self.record: dict[str, Any] = {
            **sides[0].facts,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "seed": cfg.seed,
            **record.surroundings(sides[0].device),
            "part_seconds": {},
            "failed": {},
        }

    @contextmanager
    def attempt(self, task: Task) -> Iterator[None]:
        """Compute a section; if it fails, report that and continue with the others."""
        start = time.perf_counter()
        self.sections.append(layout.Block(task.name, task.question, []))
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

    def add(self, task: Task, subject: About, part: Section) -> None:
        """Write and print what a section found in one of the networks, and keep it for the page."""
        is_other = subject is not self.sides[0]
        record = self.record[OTHER] if is_other else self.record
        base = self.folder / OTHER / task.kind if is_other else self.folder / task.kind
        place = base / task.name
        place.mkdir(parents=True, exist_ok=True)
        options = task.options
        if task.needs.sample and "num_test_images" in self.record:
            self.samples[task.name] = options["num_images"]
            self.earlier[task.name] = self.earlier.get(task.name, 0.0) + part.earlier_seconds
            self.record.setdefault("sample_options", {})[task.name] = f"{task.key}.num_images"
        elif task.needs.sample:  # a picture of the user's own instead
            del options["num_images"]
        found = {**options, **part.findings}
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
        data = sorted(path for path in place.iterdir() if path.is_file() and path.suffix != ".png")
        self._draw(task, part, base, OTHER * is_other)

        is_flat = task.kind == "attacks" and task.is_alone
        record |= found if is_flat else {task.name: found}
        prefix = f"{OTHER}." * is_other + f"{task.name}." * (not is_flat)
        column = layout.Column(
            found, prefix, [key for key in options if key not in part.findings], part.answers, part.figures, data
        )
        self.sections[-1].columns.append(column)
        self.unmet += [f"{task.name}: {what}" for what in part.unmet]
        if len(self.sides) == 2 and not task.is_done_once:
            print(f"  {self.record['names'][is_other]}:")
        for answer in part.answers:
            if answer.says:
                print(f"  {answer.question}")
            for sentence in answer.says:
                print(f"    {plain(sentence, found)}")
            for table in answer.tables if task.needs.tables else ():
                _show_table(table, found)
        for file in part.files if task.kind == "export" else ():
            print(f"  {files.shown((place / file).resolve())}")

    def _draw(self, task: Task, part: Section, base: Path, other: str) -> None:
        """Figures as files, and in TensorBoard as wide as its cards."""
        with closing(FileWriter(str(self.folder), filename_suffix=f".{other}{task.name}")) as writer:
            for tag, figure in part.figures.items():
                png, width, height = _as_png(figure)
                with files.replacing(base / f"{tag}.png") as scratch:
                    scratch.write_bytes(png)
                if isinstance(figure, Tiles):
                    png, width, height = _as_png(figure, CARD)
                name = f"{other}/{_tag(task, tag)}" if other else _tag(task, tag)
                image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
                writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), 0)

    def close(self) -> Path:
        """Write the record and the page; returns the path of results.json."""
        record.write_config(self.folder, self.cfg)
        self.record["whole_test_set_seconds"] = self._costs()
        self.record["command_seconds"] = round(time.perf_counter() - self.start, 2)
        page.write(self.folder, self.record, self.sections)
        return record.write(self.folder, self.record)

    def check(self) -> None:
        """Raise Incomplete if a section failed, Unmet if what one checks does not hold."""
        if self.error is not None:
            failed = self.record["failed"]
            num_sections = len(self.sections)
            raise Incomplete(f"{len(failed)} of {num_sections} sections failed: {', '.join(failed)}") from self.error
        if self.unmet:
            raise Unmet(f"does not hold: {'; '.join(self.unmet)}")

    def _costs(self) -> dict[str, float]:
        """Estimated seconds on all test images, for each section that used a sample of them."""
        num_all = self.record.get("num_test_images", 0)
        return {
            name: round((self.record["part_seconds"][name] + self.earlier[name]) * num_all / num_images, 1)
            for name, num_images in self.samples.items()
            if num_images < num_all
        }

    def _take_back(self) -> None:
        """Remove empty folders."""
        with suppress(OSError):  # not empty
            for folder in (self.folder, *self.folder.parents[:2]):
                folder.rmdir()


def _show_table(content: Table, found: dict[str, Any]) -> None:
    """Print a table of findings."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), title=content.caption, title_justify="left")
    for heading in content.columns:
        table.add_column(heading, overflow="fold")
    for row in content.rows:
        table.add_row(*(escape(plain(cell, found)) for cell in row))
    Console(width=None if console.has_terminal() else LOG_WIDTH).print(table, highlight=False)


def _as_png(picture: Picture, width: int = WIDE) -> tuple[bytes, int, int]:
    """A figure as a PNG file, with its width and height."""
    image, png = Image.fromarray(to_pixels(picture, width)), io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue(), image.width, image.height


def _tag(task: Task, name: str) -> str:
    """A figure's tag in TensorBoard; an attack's main figure has the attack's name."""
    return name if task.kind == "analysis" else f"adversarial/{name.removesuffix('/images')}"


def _plain(value: Any) -> Any:
    """Numbers to seven digits, None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
