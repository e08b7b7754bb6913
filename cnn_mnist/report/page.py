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

from cnn_mnist import files
from cnn_mnist.part import Answer
from cnn_mnist.report.prose import Found, lookup, marked, plain


class Column(NamedTuple):
    """What a part found in one network.

    Attributes:
        found: Its numbers, which the sentences of the answers are about.
        prefix: Where they lie in results.json: put before their keys.
        options: Keys of what it was done with.
        answers: Questions, with sentences and tags of figures.
        pictures: PNG files by tag.
        data: Other files that it left.
    """

    found: Found
    prefix: str
    options: list[str]
    answers: Sequence[Answer]
    pictures: dict[str, Path]
    data: list[Path]


class Section(NamedTuple):
    """A part of the report, in as many columns as networks; in none where it failed."""

    name: str
    columns: list[Column]


class Caption(NamedTuple):
    """What is said of a figure: to those who see it, and to those who do not."""

    caption: str
    alt: str


def write(folder: Path, record: dict[str, Any], sections: list[Section]) -> Path:
    """Write `report.html` into a folder and return its path.

    Args:
        folder: Where the files of the sections lie, too: links to them are relative.
        record: What stands in results.json.
        sections: The parts, in order.
    """
    environment = Environment(
        loader=PackageLoader("cnn_mnist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def value(key: str, spec: str = "") -> Markup:
        """A value of the record, written by a format."""
        return marked(f"{{{key}:{spec}}}", record)

    def knows(key: str) -> bool:
        try:
            return lookup(record, key) is not None
        except KeyError:
            return False

    html = environment.get_template("page.html").render(
        record=record,
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
    path = folder / "report.html"
    files.write(path, html)
    return path


@cache
def words() -> dict[str, Any]:
    """Titles, captions and the glossary."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    return content


def caption_of(tag: str) -> Caption:
    """The caption and the alternative text of a figure.

    Raises:
        KeyError: There are no words for it.
    """
    for pattern, texts in words()["figures"].items():
        if fnmatchcase(tag, pattern):
            return Caption(**texts)
    raise KeyError(f"no caption for {tag}: write one into words.yaml")


def questions(section: Section) -> list[tuple[str, list[tuple[Column, Answer] | None]]]:
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
    """A picture as an address that holds it: WebP, every pixel the same, in half the space of a PNG."""
    packed = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(packed, "WEBP", lossless=True, method=3, quality=40)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()
