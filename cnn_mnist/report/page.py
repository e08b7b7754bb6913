"""One self-contained page: every figure inline, every number with its key, nothing fetched and no script."""

import base64
import io
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from cnn_mnist.report import summary
from cnn_mnist.report.prose import Found, lookup, marked, plain
from cnn_mnist.report.section import Answer
from cnn_mnist.runs import files


class Column(NamedTuple):
    """What a section found in one network.

    Attributes:
        found: Its findings, which the sentences of the answers refer to.
        prefix: Path of the findings in results.json, put before their keys.
        options: Names of its options.
        answers: Questions, with sentences and tags of figures.
        pictures: PNG files by tag.
        data: Other files that it wrote.
    """

    found: Found
    prefix: str
    options: list[str]
    answers: Sequence[Answer]
    pictures: dict[str, Path]
    data: list[Path]


class Block(NamedTuple):
    """A section of the page, in as many columns as networks; in none where it failed. `question`: what it asks."""

    name: str
    question: str
    columns: list[Column]

    @property
    def title(self) -> str:
        """Its heading: from words.yaml, or else made from its name."""
        return str(words()["sections"].get(self.name, {"title": self.name.replace("_", " ").capitalize()})["title"])

    @property
    def intro(self) -> str:
        """The sentence below the heading."""
        return str(words()["sections"].get(self.name, {"intro": self.question})["intro"])


class Caption(NamedTuple):
    """The caption of a figure, and its alternative text."""

    caption: str
    alt: str


def write(folder: Path, record: dict[str, Any], sections: list[Block]) -> Path:
    """Write `report.html` into a folder and return its path.

    Args:
        folder: The folder of the sections' files; links to them are relative.
        record: The content of results.json.
        sections: The sections, in order.
    """

    def value(key: str, spec: str = "") -> Markup:
        """A value of the record, formatted."""
        return marked(f"{{{key}:{spec}}}", record)

    def knows(key: str) -> bool:
        try:
            return lookup(record, key) is not None
        except KeyError:
            return False

    html = (
        templates()
        .get_template("page.html")
        .render(
            record=record,
            title=summary.title(record),
            abstract=summary.abstract(record),
            conclusion=summary.conclusion(record),
            sections=sections,
            words=words(),
            value=value,
            knows=knows,
            marked=marked,
            plain=plain,
            caption_of=caption_of,
            questions=questions,
            inline=inline,
            link=lambda path: path.relative_to(folder).as_posix(),
        )
    )
    path = folder / "report.html"
    files.write(path, html)
    return path


@cache
def templates() -> Environment:
    """The templates of HTML pages; what is put into them is escaped."""
    return Environment(
        loader=PackageLoader("cnn_mnist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def words() -> dict[str, Any]:
    """Titles, captions and the glossary."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    return content


def caption_of(tag: str) -> Caption:
    """The caption and the alternative text of a figure: from words.yaml, or else made from its tag."""
    for pattern, texts in words()["figures"].items():
        if fnmatchcase(tag, pattern):
            return Caption(**texts)
    name = tag.replace("/", ": ").replace("_", " ").capitalize()
    return Caption(name, name)


def questions(section: Block) -> list[tuple[str, list[tuple[Column, Answer] | None]]]:
    """The section's questions, each with the answers of its columns; None where a column has no answer to it."""
    asked = dict.fromkeys(answer.question for column in section.columns for answer in column.answers)
    return [
        (
            question,
            [
                next(((column, answer) for answer in column.answers if answer.question == question), None)
                for column in section.columns
            ],
        )
        for question in asked
    ]


def inline(path: Path) -> str:
    """A picture as a data URL: lossless WebP, half the size of a PNG."""
    packed = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(packed, "WEBP", lossless=True, method=3, quality=40)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
