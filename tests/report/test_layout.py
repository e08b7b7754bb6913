"""Where things stand on the page: numbers of figures and tables, and what two networks have in common once."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure as Chart

from cnn_mnist.figures.canvas import Colours, Line, Lines
from cnn_mnist.figures.render import Picture
from cnn_mnist.figures.tiles import Tile, Tiles
from cnn_mnist.report import layout
from cnn_mnist.report.section import Answer, Table

NAMES = ("one", "other")


def test_rows_that_are_too_wide_for_half_a_page_stand_one_below_another() -> None:
    answer = Answer("?", ["rows", "few"], [])
    pictures = [{"rows": tiles(shade)._replace(is_row=True), "few": tiles(shade)} for shade in (1, 2)]
    found = two(*(column(k, [answer], one) for k, one in enumerate(pictures)))
    assert [str(one.caption).partition(":")[0] for one in found.shared.figures] == ["One", "Other"]
    assert [[one.tag for one in side.figures] for side in found.sides if side] == [["few"], ["few"]]
    assert [one.number for one in found.shared.figures] == [1, 2]


def tiles(shade: int) -> Tiles:
    return Tiles([[Tile(np.full((2, 2, 3), shade, np.uint8), "a tile")]], "title")


def column(value: float, answers: list[Answer], pictures: dict[str, Picture], prefix: str = "part.") -> layout.Column:
    return layout.Column({"value": value, "half": 0.5}, prefix, [], answers, pictures, [Path("data.npz")])


def two(first: layout.Column, second: layout.Column) -> layout.Question:
    (chapter,) = layout.chapters([layout.Block("part", "", [first, second])], NAMES)
    (question,) = chapter.questions
    return question


def test_figures_and_tables_are_numbered_in_the_order_they_are_read() -> None:
    table = Table("t", ["a"], [["{value}"]])
    answers = [
        Answer("first?", ["x/a"], [], [table]),
        Answer("second?", ["x/b"], [], [table, table], on_demand=["x/c"]),
    ]
    block = layout.Block("part", "", [column(1, answers, {f"x/{name}": tiles(0) for name in "abc"})])
    laid_out = layout.chapters([block, block._replace(name="again")], ())
    assert layout.numbers(laid_out) == {"x/a": [1, 4], "x/b": [2, 5], "x/c": [3, 6]}
    parts = [question.shared for chapter in laid_out for question in chapter.questions]
    assert [one.number for part in parts for one in [*part.figures, *part.on_demand]] == [1, 2, 3, 4, 5, 6]
    assert [table.number for part in parts for table in part.tables] == [1, 2, 3, 4, 5, 6]


def test_what_two_networks_have_in_common_stands_there_once() -> None:
    answer = Answer("?", ["same", "differs", "lines", "chart"], ["Half is {half}.", "It is {value}."])
    pictures = [
        {
            "same": tiles(0),
            "differs": tiles(shade),
            "lines": Lines("x", "y", [Line("this network", [0], [shade], "black")]),
            "chart": Chart(),
        }
        for shade in (1, 2)
    ]
    found = two(*(column(k, [answer], one, prefix) for k, (one, prefix) in enumerate(zip(pictures, "ab", strict=True))))
    assert [one.tag for one in found.shared.figures] == ["same", "lines"]
    assert [[one.tag for one in side.figures] for side in found.sides if side] == [["differs", "chart"]] * 2
    assert not found.shared.says  # one of them differs
    assert [[text.striptags() for text in side.says] for side in found.sides if side] == [
        ["Half is 0.5.", "It is 0."],
        ["Half is 0.5.", "It is 1."],
    ]
    both = found.shared.figures[1].picture
    assert isinstance(both, Lines)
    assert [line.label for line in both.lines] == ["one", "other"]


def test_an_answer_that_is_the_same_in_all_its_sentences_stands_there_once() -> None:
    answer = Answer("?", [], ["Half is {half}.", "Indeed."])
    found = two(column(1, [answer], {}), column(2, [answer], {}))
    assert [text.striptags() for text in found.shared.says] == ["Half is 0.5.", "Indeed."]
    assert found.sides == []


def test_captions_name_the_layer() -> None:
    assert layout.caption_of("activations/conv2/all").caption.startswith("All channels of conv2 ")
    assert layout.caption_of("filters/similarity/stem_0").caption.startswith("The cosine of every filter of stem_0 ")
    assert layout.caption_of("fgsm/robustness").caption.startswith("Accuracy under attack")


def test_tables_about_the_same_things_become_one() -> None:
    table = Table("t", ["epsilon", "accuracy"], [["{half}", "{value}"]])
    found = two(*(column(k, [Answer("?", [], [], [table])], {}, prefix) for k, prefix in enumerate(("", "other."))))
    (one,) = found.shared.tables
    assert found.sides == []
    assert one.columns == ["epsilon", "accuracy", "accuracy"]
    assert one.groups == [("", 1), ("one", 1), ("other", 1)]
    assert [cell.striptags() for cell in one.rows[0]] == ["0.5", "0", "1"]
    assert 'data-key="other.value"' in one.rows[0][2]


@pytest.mark.parametrize(
    "tables",
    [
        (Table("t", ["a", "b"], [["{half}", "1"]]), Table("t", ["a", "b"], [["{half}", "1"], ["x", "2"]])),  # rows
        (Table("t", ["a", "b"], [["x", "1"]]), Table("u", ["a", "b"], [["x", "2"]])),  # captions
        (Table("t", [*"abcdef"], [["x", *"11111"]]), Table("t", [*"abcdef"], [["x", *"11112"]])),  # too wide together
    ],
)
def test_other_tables_stay_apart(tables: tuple[Table, Table]) -> None:
    found = two(*(column(1, [Answer("?", [], [], [table])], {}) for table in tables))
    assert not found.shared
    assert [len(side.tables) for side in found.sides if side] == [1, 1]


def test_a_question_that_one_network_has_no_answer_to() -> None:
    found = two(column(1, [Answer("?", [], ["It is {value}."])], {}), column(2, [], {}))
    assert not found.shared
    assert found.sides[1] is None


def test_values_that_are_equal_only_when_rounded_stand_there_twice() -> None:
    answer = Answer("?", [], ["It is {value:.1f}."])
    found = two(column(1.01, [answer], {}), column(1.02, [answer], {}))
    assert not found.shared
    assert [side.says[0].striptags() for side in found.sides if side] == ["It is 1.0.", "It is 1.0."]


def test_figures_on_other_scales_stay_apart() -> None:
    answer = Answer("?", ["x"], [])
    pictures = [tiles(0)._replace(bar=Colours("viridis", 0, limit)) for limit in (1, 2)]
    found = two(*(column(1, [answer], {"x": picture}) for picture in pictures))
    assert not found.shared
