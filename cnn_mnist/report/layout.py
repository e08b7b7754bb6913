"""What stands where on the page: numbered figures and tables, and what two networks have in common only once."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml
from markupsafe import Markup

from cnn_mnist.figures.canvas import Lines, overlaid
from cnn_mnist.figures.render import Picture
from cnn_mnist.figures.tiles import Tiles
from cnn_mnist.report.prose import Found, marked, plain
from cnn_mnist.report.section import Answer, Table

MOST_COLUMNS = 5  # of a table that is set beside another network's


class Column(NamedTuple):
    """What a section found in one network.

    Attributes:
        found: Its findings, which the sentences of the answers refer to.
        prefix: Path of the findings in results.json, put before their keys.
        options: Names of its options.
        answers: Questions, with sentences and tags of figures.
        pictures: Figures by tag.
        data: Files that it wrote, figures apart.
    """

    found: Found
    prefix: str
    options: list[str]
    answers: Sequence[Answer]
    pictures: dict[str, Picture]
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


@dataclass(eq=False)
class Figure:
    """A figure on the page; `number` is given when all of them are known."""

    tag: str
    picture: Picture
    caption: Markup
    alt: str
    data: list[Path]
    number: int = 0


@dataclass(eq=False)
class TableOnPage:
    """A table on the page: cells as HTML, and above the headings those of `groups` of columns, each with its width."""

    caption: str
    columns: list[str]
    rows: list[list[Markup]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    number: int = 0


@dataclass(eq=False)
class Part:
    """Sentences, figures and tables that stand together."""

    says: list[Markup] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[TableOnPage] = field(default_factory=list)
    on_demand: list[Figure] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.says or self.figures or self.tables or self.on_demand)


class Question(NamedTuple):
    """A question with its answer: what two networks share, and the rest of each; None where one has no answer."""

    question: str
    shared: Part
    sides: list[Part | None]


class Chapter(NamedTuple):
    """A section with its questions."""

    block: Block
    questions: list[Question]


def chapters(blocks: Sequence[Block], names: Sequence[str]) -> list[Chapter]:
    """The sections, laid out, their figures and tables numbered from 1 in the order in which they are read."""
    found = [Chapter(block, list(_questions(block, names))) for block in blocks]
    figures, tables = count(1), count(1)
    for part in _parts(found):
        for one in [*part.figures, *part.on_demand]:
            one.number = next(figures)
        for table in part.tables:
            table.number = next(tables)
    return found


def numbers(laid_out: Sequence[Chapter]) -> dict[str, list[int]]:
    """The numbers of the figures of each tag: one, or one for each network."""
    found: dict[str, list[int]] = {}
    for part in _parts(laid_out):
        for figure in [*part.figures, *part.on_demand]:
            found.setdefault(figure.tag, []).append(figure.number)
    return found


def num_tables(laid_out: Sequence[Chapter]) -> int:
    """The number of tables."""
    return sum(len(part.tables) for part in _parts(laid_out))


def _parts(laid_out: Sequence[Chapter]) -> Iterator[Part]:
    for chapter in laid_out:
        for question in chapter.questions:
            yield from filter(None, (question.shared, *question.sides))


@cache
def words() -> dict[str, Any]:
    """Titles, captions and the glossary."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
    return content


def caption_of(tag: str) -> Caption:
    """The caption and the alternative text of a figure: from words.yaml, or else made from its tag.

    `LAYER` stands for the part of the tag that the pattern's first star stands for.
    """
    for pattern, texts in words()["figures"].items():
        if fnmatchcase(tag, pattern):
            layer = tag.split("/")[pattern.split("/").index("*")] if "*" in pattern.split("/") else ""
            return Caption(**{name: text.replace("LAYER", layer) for name, text in texts.items()})
    name = tag.replace("/", ": ").replace("_", " ").capitalize()
    return Caption(name, name)


def _questions(block: Block, names: Sequence[str]) -> Iterator[Question]:
    asked = dict.fromkeys(answer.question for column in block.columns for answer in column.answers)
    for question in asked:
        found = [
            next(((column, answer) for answer in column.answers if answer.question == question), None)
            for column in block.columns
        ]
        parts = [None if one is None else _part(*one) for one in found]
        if len(parts) == 1:
            assert parts[0] is not None
            yield Question(question, parts[0], [])
        elif None in parts:
            yield Question(question, Part(), parts)
        else:
            yield Question(question, *_merged(found, parts, names))  # type: ignore[arg-type]


def _part(column: Column, answer: Answer) -> Part:
    def figures(tags: Sequence[str]) -> list[Figure]:
        return [
            Figure(
                tag,
                column.pictures[tag],
                marked(caption_of(tag).caption, column.found, column.prefix),
                plain(caption_of(tag).alt, column.found),
                column.data,
            )
            for tag in tags
        ]

    return Part(
        [marked(sentence, column.found, column.prefix) for sentence in answer.says],
        figures(answer.shows),
        [_table(content, column) for content in answer.tables],
        figures(answer.on_demand),
    )


def _table(content: Table, column: Column) -> TableOnPage:
    rows = [[marked(cell, column.found, column.prefix) for cell in row] for row in content.rows]
    return TableOnPage(content.caption, content.columns, rows)


def _merged(
    found: Sequence[tuple[Column, Answer]], parts: Sequence[Part], names: Sequence[str]
) -> tuple[Part, list[Part | None]]:
    """What two answers to a question have in common, and what is left of each."""
    first, second = parts
    shared = Part()
    texts = [[_values(sentence) for sentence in part.says] for part in parts]
    if texts[0] == texts[1]:  # some alone, out of their order, would not say of which network they speak
        shared.says, first.says, second.says = first.says, [], []
    shared.figures, first.figures, second.figures = _split(
        first.figures, second.figures, lambda one, other: _one_figure(one, other, names)
    )
    for side, name in zip((first, second), names, strict=True):  # too wide for half a page
        wide = [figure for figure in side.figures if isinstance(figure.picture, Tiles) and figure.picture.is_row]
        side.figures = [figure for figure in side.figures if figure not in wide]
        begin = Markup("{}: ").format(name[:1].upper() + name[1:])
        shared.figures += [replace(figure, caption=begin + figure.caption) for figure in wide]
    shared.on_demand, first.on_demand, second.on_demand = _split(
        first.on_demand, second.on_demand, lambda one, other: _one_figure(one, other, names)
    )
    shared.tables, first.tables, second.tables = _split(
        first.tables, second.tables, lambda one, other: _one_table(one, other, names)
    )
    return shared, [first, second] if first or second else []


def _values(html: Markup) -> str:
    """A sentence with its values, unrounded, but not the keys under which they stand."""
    return re.sub(r' data-key="[^"]*"', "", html)


Shown = TypeVar("Shown", Figure, TableOnPage)


def _split(
    first: list[Shown], second: list[Shown], together: Callable[[Shown, Shown], Shown | None]
) -> tuple[list[Shown], list[Shown], list[Shown]]:
    """Pairs that become one, and what is left of both lists."""
    left, right, shared = list(first), list(second), []
    for one in first:
        for other in second:
            if other in right and (both := together(one, other)) is not None:
                shared.append(both)
                left.remove(one)
                right.remove(other)
                break
    return shared, left, right


def _one_figure(one: Figure, other: Figure, names: Sequence[str]) -> Figure | None:
    """One figure for two networks: of lines on the same axes, or of pictures that are the same."""
    if one.tag != other.tag:
        return None
    if isinstance(one.picture, Lines) and isinstance(other.picture, Lines):
        both = overlaid((one.picture, other.picture), names)
        return Figure(one.tag, both, one.caption, one.alt, [*one.data, *other.data])
    is_same = isinstance(one.picture, Tiles) and isinstance(other.picture, Tiles) and _equal(one.picture, other.picture)
    return one if is_same else None


def _equal(one: Tiles, other: Tiles) -> bool:
    """Whether two figures of tiles look the same."""
    tiles = [[tile for group in figure.groups for tile in group] for figure in (one, other)]
    return (
        one._replace(groups=()) == other._replace(groups=())
        and len(tiles[0]) == len(tiles[1])
        and all(a[1:] == b[1:] and np.array_equal(a.pixels, b.pixels) for a, b in zip(*tiles, strict=True))
    )


def _one_table(one: TableOnPage, other: TableOnPage, names: Sequence[str]) -> TableOnPage | None:
    """One table for two networks, whose rows are about the same things: their columns side by side."""
    heads = [[row[0].striptags() for row in table.rows] for table in (one, other)]
    if (one.caption, one.columns, heads[0]) != (other.caption, other.columns, heads[1]):
        return None
    cells = [[[_values(cell) for cell in row] for row in table.rows] for table in (one, other)]
    if cells[0] == cells[1]:
        return one
    if len(one.columns) > MOST_COLUMNS:
        return None
    width = len(one.columns) - 1
    rows = [[*left, *right[1:]] for left, right in zip(one.rows, other.rows, strict=True)]
    groups = [("", 1), (names[0], width), (names[1], width)]
    return TableOnPage(one.caption, [*one.columns, *one.columns[1:]], rows, groups)
