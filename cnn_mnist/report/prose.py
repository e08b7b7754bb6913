"""Sentences whose numbers come from a record: as text on the terminal, and as `<data>` elements with keys on the page.

A sentence is a format string over findings: `"{share:.1%} of {num_images:,} images"`, with dots into dicts and
lists: `{robust_accuracy.epsilon.3:g}`. So no number can be written that was not measured.
"""

from collections.abc import Iterator
from string import Formatter
from typing import Any

from markupsafe import Markup, escape

Found = dict[str, Any]


def plain(sentence: str, found: Found) -> str:
    """The sentence as text."""
    return "".join(text for text, _, _ in _pieces(sentence, found))


def marked(sentence: str, found: Found, prefix: str = "") -> Markup:
    """The sentence as HTML, escaped, every value in a `<data>` element with its key.

    Args:
        sentence: A format string over `found`.
        found: The record that the keys are looked up in.
        prefix: Where that record lies in results.json: put before the keys.
    """
    html = Markup("")
    for text, key, value in _pieces(sentence, found):
        if key is None or value is None:
            html += escape(text)
        else:
            html += Markup('<data data-key="{}" value="{}">{}</data>').format(prefix + key, value, text)
    return html


def lookup(found: Found, key: str) -> Any:
    """The value at `a.b.3`: keys of dicts and indices of lists.

    Raises:
        KeyError: There is no such value.
    """
    value: Any = found
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise KeyError(f"{key} is not in the record")
    return value


def _pieces(sentence: str, found: Found) -> Iterator[tuple[str, str | None, Any]]:
    """Pieces of text; those that stand for a value with its key and the value. A list is several of them."""
    for literal, key, spec, _ in Formatter().parse(sentence):
        yield literal, None, None
        if key is None:
            continue
        value = lookup(found, key)
        if not isinstance(value, list):
            yield _written(value, spec or ""), key, value
            continue
        for place, item in enumerate(value):
            if place:
                yield (" and " if place == len(value) - 1 else ", "), None, None
            yield _written(item, spec or ""), f"{key}.{place}", item
        if not value:
            yield "none", None, None


def _written(value: Any, spec: str) -> str:
    """A value as text, with thousands separators and a space before the percent sign."""
    if value is None:
        return "no such case"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not spec and isinstance(value, int):
        spec = ","
    return format(value, spec).replace("%", " %")
