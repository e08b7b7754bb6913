"""Sentences whose numbers come from a record."""

import pytest

from cnn_mnist.report.prose import lookup, marked, plain

FOUND = {
    "share": 0.53712,
    "count": 10000,
    "pair": [4, 13],
    "three": [1, 2, 3],
    "nothing": [],
    "unknown": None,
    "curve": {"epsilon": [0.0, 0.3], "test/acc": [0.99]},
    "becomes": {"9": [7]},
    "name": "<b>paper</b>",
    "is_it": True,
}


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("{share:.1%} of {count} images", "53.7 % of 10,000 images"),
        ("filters {pair}, {three} and {nothing}", "filters 4 and 13, 1, 2 and 3 and none"),
        ("{curve.epsilon.1:g} and {curve.test/acc.0:.0%}", "0.3 and 99 %"),
        ("a nine becomes {becomes.9}", "a nine becomes 7"),
        ("{unknown:.3f}, {is_it}", "no such case, yes"),
        ("a {{brace}}", "a {brace}"),
    ],
)
def test_values_are_written_as_a_person_writes_them(sentence: str, text: str) -> None:
    assert plain(sentence, FOUND) == text


def test_on_the_page_each_value_carries_its_key() -> None:
    assert marked("{share:.1%} & more", FOUND, "occlusion.") == (
        '<data data-key="occlusion.share" value="0.53712">53.7 %</data> &amp; more'
    )
    assert marked("{pair}", FOUND) == (
        '<data data-key="pair.0" value="4">4</data> and <data data-key="pair.1" value="13">13</data>'
    )


def test_what_a_record_holds_is_escaped() -> None:
    assert "&lt;b&gt;paper" in marked("{name}", FOUND)
    assert "<b>" not in marked("{name}", FOUND)


@pytest.mark.parametrize("key", ["absent", "curve.epsilon.2", "share.0", "pair.x"])
def test_what_was_not_measured_cannot_be_written(key: str) -> None:
    with pytest.raises(KeyError, match="is not in the record"):
        lookup(FOUND, key)
