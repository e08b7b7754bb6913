"""The page: every number has its key, every figure its caption, and nothing is fetched."""

import json
import re
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_mnist.figures.tiles import Tile, Tiles
from cnn_mnist.report import layout, page
from cnn_mnist.report.prose import lookup
from cnn_mnist.report.section import Answer
from tests.conftest import SMALL, Command, Done

VOID = {"meta", "link", "img", "br", "hr", "input"}
NOT_PROSE = {"style", "title", "code", "h1", "h3", "dl"}  # of the page: names, questions and terms


class Page(HTMLParser):
    """What a page says: its numbers with their keys, other text, links, anchors and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str]] = []  # key, value, text
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.grids: list[str] = []
        self.figures: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.links.append(str(given["href"]))
        if tag == "img":
            self.images.append(given)
        if given.get("role") == "group":
            self.grids.append(str(given["aria-label"]))
        if tag == "figure":
            self.figures.append(str(given["id"]))
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        name, _ = self.open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"

    def is_in_figure(self) -> bool:
        """Whether the text belongs to a figure, as an axis does: below a tile, or at a colour bar."""
        return any(
            {"mosaic", "bar", "colours", "note", "number"} & set(str(given.get("class")).split())
            for _, given in self.open
        )

    def handle_data(self, data: str) -> None:
        name, given = self.open[-1] if self.open else ("", {})
        if name == "data":
            self.numbers.append((str(given["data-key"]), str(given["value"]), data))
        elif not NOT_PROSE & {tag for tag, _ in self.open} and name != "a" and not self.is_in_figure():
            self.text.append(data)


@pytest.fixture(scope="module")
def two(run: Done, analyze: Command) -> Done:
    """Two networks side by side; the part of class images is asked for what it cannot do."""
    done = analyze(*SMALL, "images=4", f"against={run.folder}", "class_image.neuron=[3,4]", cwd=run.cwd)
    assert done.status == 1
    return done


@pytest.fixture(params=["whole", "two"])
def report(request: pytest.FixtureRequest) -> Done:
    done: Done = request.getfixturevalue(request.param)
    return done


def read(done: Done) -> Page:
    return Page((done.folder / "report.html").read_text())


def rounded_to(text: str) -> float:
    """The number that a text stands for."""
    value = float(text.replace(",", "").removesuffix("%"))
    return value / 100 if text.endswith("%") else value


def test_every_number_stands_in_results_json(report: Done) -> None:
    found = read(report)
    assert len(found.numbers) > 150
    for key, value, text in found.numbers:
        kept: Any = lookup(report.results, key)
        assert str(kept) == value
        if isinstance(kept, bool):
            assert text == ("yes" if kept else "no")
        elif isinstance(kept, int | float):
            digits = re.search(r"\.(\d+)", text)
            unit = 0.5 * 10.0 ** -(len(digits[1]) if digits else 0) / (100 if text.endswith("%") else 1)
            exact = "e" in text or float(text.replace(",", "").split(" ")[0]) == kept
            assert exact or rounded_to(text) == pytest.approx(kept, abs=1.02 * unit + 1e-12), (key, text, kept)
        else:
            assert text == kept


def test_no_number_stands_there_without_its_key(report: Done) -> None:
    bare = [text for text in read(report).text if re.search(r"(?<![\w.])\d", text)]
    assert bare == []


def test_nothing_comes_from_elsewhere_and_every_link_leads_somewhere(report: Done) -> None:
    found = read(report)
    assert found.open == []
    html = (report.folder / "report.html").read_text()
    assert "<script" not in html
    assert not re.search(r"https?://", html)
    assert len(html) < 10e6
    for link in found.links:
        assert link.removeprefix("#") in found.ids if link.startswith("#") else (report.folder / link).is_file()
    assert len(found.ids) == len(set(found.ids))


def test_every_figure_has_words_and_data(report: Done) -> None:
    found = read(report)
    assert len(found.images) >= 20
    for image in found.images:
        is_chart = str(image["src"]).startswith("data:image/svg+xml;base64,")
        assert is_chart or str(image["src"]).startswith("data:image/webp;base64,")
        assert (len(str(image["alt"])) > 20) == is_chart  # a tile has its figure's
    assert len(found.grids) >= 10
    assert all(len(text) > 20 for text in found.grids)
    num_figures = len(found.grids) + sum("svg" in str(image["src"])[:20] for image in found.images)
    assert found.figures == [f"figure-{n}" for n in range(1, num_figures + 1)]
    assert sum(link.endswith((".npz", ".json")) for link in found.links) >= num_figures


def test_the_reports_questions_are_answered(whole: Done) -> None:
    html = (whole.folder / "report.html").read_text()
    for question in (
        "Are the filters different from one another?",
        "Which channels are dead, and which copy the image, sharp or blurred?",
        "What does an occluded image become?",
        "How many images resist occlusion?",
        "Does the cost rise?",
        "Do the generated images look like real ones?",
        "How far does one image&#39;s noise carry to others?",
    ):
        assert question in html
    assert whole.results["part_seconds"].keys() >= {"training", "predictions", "occlusion", "pgd"}
    assert whole.results["failed"] == {}


def test_a_part_that_fails_is_named_and_the_rest_is_there(two: Done) -> None:
    assert "error in class_image: class_image.neuron=[3, 4] needs a layer" in two.err
    assert two.err.splitlines()[-1] == "error: 1 of 13 sections failed: class_image"
    assert list(two.results["failed"]) == ["class_image"]
    assert "class_image" not in two.results
    assert (
        "This section failed: <code>class_image.neuron=[3, 4] needs a layer" in (two.folder / "report.html").read_text()
    )
    assert two.results["pgd"]["success_rate"] == two.results["other"]["pgd"]["success_rate"]


def test_two_networks_are_set_side_by_side(two: Done, run: Done) -> None:
    found = two.results["comparison"]
    assert (found["first_only"], found["second_only"], found["difference"], found["p"]) == (0, 0, 0, 1)  # one network
    assert two.results["other"]["predictions"] == two.results["predictions"]
    assert two.results["against_checkpoint"] == run.results["checkpoint"]
    keys = [key for key, _, _ in read(two).numbers]
    assert {"filters.conv1_closest.0", "comparison.low_points", "other.predictions.accuracy"} <= set(keys)
    assert "other.filters.conv1_closest.0" not in keys  # what is the same stands there once
    assert (two.folder / "other" / "analysis" / "filters" / "filters.npz").is_file()


def test_every_figure_that_can_be_drawn_has_a_caption(whole: Done) -> None:
    for kind in ("analysis", "attacks"):
        for path in (whole.folder / kind).rglob("*.png"):
            tag = str(path.relative_to(whole.folder / kind).with_suffix(""))
            assert any(fnmatchcase(tag, pattern) for pattern in layout.words()["figures"]), tag
    assert layout.caption_of("sonar/first_ping") == layout.Caption("Sonar: first ping", "Sonar: first ping")
    patterns = list(layout.words()["figures"])
    for place, pattern in enumerate(patterns):  # none is hidden behind a wider one
        assert not any(fnmatchcase(pattern, wider) for wider in patterns[:place]), pattern


def test_what_parts_say_is_escaped(tmp_path: Path) -> None:
    found = {"name": "<script>alert(1)</script>"}
    answer = Answer("Is 1 < 2?", ["filters/conv1"], ["It is {name}."])
    tiles = Tiles([[Tile(np.zeros((2, 2, 3), np.uint8), "<b>tile</b>")]], "title", note="<u>note</u>")
    column = layout.Column(found, "filters.", ["name"], [answer], {"filters/conv1": tiles}, [])
    record = {
        "title": "<i>title</i>",
        "names": ["one"],
        "dataset": "digits",
        "failed": {"occlusion": "<img src=x>"},
        "part_seconds": {"filters": 1.0, "occlusion": 0.1},
        "whole_test_set_seconds": {},
        "filters": found,
    }
    path = page.write(tmp_path, record, [layout.Block("filters", "", [column]), layout.Block("occlusion", "", [])])
    html = path.read_text()
    assert "<script>" not in html
    assert "<img src=x>" not in html
    assert "<b>" not in html
    assert "<u>" not in html
    assert "&lt;i&gt;title" in html
    assert "Is 1 &lt; 2?" in html
    json.dumps(record)
