"""The options in which two trainings differ, and a clause that lists them."""

from collections.abc import Sequence
from typing import Any


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """The options in which two trainings differ, of those recorded for both: `key`, `first` and `second`."""

    def written(value: Any) -> Any:
        return "none" if value is None else value

    return [
        {"key": key, "first": written(value), "second": written(second[key])}
        for key, value in first.items()
        if key in second and value != second[key]
    ]


def in_words(differing: Sequence[dict[str, Any]], key: str) -> str:
    """The differences as a clause for `report.prose`; `key` is their key in the findings."""
    places = (f"{key}.{k}" for k in range(len(differing)))
    return ", ".join(f"{{{at}.key}} ({{{at}.first}} and {{{at}.second}})" for at in places)
