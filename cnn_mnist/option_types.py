"""What the value of an option may be: annotations that the command line checks.

A signature declares its options, and nothing else lists them:

    def pgd(subject: Subject, *, epsilon: Fraction, steps: Count, norm: Literal["linf", "l2"]) -> Section: ...

Imports nothing heavy: `cli.schema` reads the annotations from the source.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple


class Rule(NamedTuple):
    """What a value may be, in words and as a test; `l2` is the rule where the option `norm` is `l2`."""

    words: str
    holds: Callable[[object], bool]
    l2: "Rule | None" = None


def number(
    kind: type[int] | type[float], low: float, high: float = math.inf, *, above: bool = False, noun: str = ""
) -> Rule:
    """A finite number from `low` to `high`, both included unless `above` excludes `low`."""
    noun = noun or ("a whole number" if kind is int else "a number")
    if high < math.inf:
        words = f"{noun} from {low:,} to {high:,}"
    else:
        words = f"{noun} {'above' if above else 'of at least'} {low:,}"

    def holds(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | kind):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and value <= high

    return Rule(words, holds)


def one_of(*values: object) -> Rule:
    """One of a few values; 1 is not true."""

    def holds(value: object) -> bool:
        return any(value == one and type(value) is type(one) for one in values)

    return Rule(" or ".join(map(as_typed, values)), holds)


def or_null(rule: Rule) -> Rule:
    """Null, or what a rule allows."""
    return Rule(f"null or {rule.words}", lambda value: value is None or rule.holds(value), rule.l2 and or_null(rule.l2))


def list_of(rule: Rule) -> Rule:
    """A list, each element as a rule allows."""

    def holds(value: object) -> bool:
        return isinstance(value, list) and all(map(rule.holds, value))

    return Rule(f"a list such as [0.1,0.2], each {rule.words}", holds, rule.l2 and list_of(rule.l2))


def as_typed(value: object) -> str:
    """A value as it is written on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(number(int, 0).holds, value))


def _is_selection(value: object) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 100 and all(map(number(int, 0).holds, value))
    return number(int, 1, 100).holds(value)


def _is_paths(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and one != "" for one in values)


def _is_node(value: object) -> bool:
    return isinstance(value, dict) and "_target_" in value


Count = Annotated[int, number(int, 1)]
UnitPositive = Annotated[float, number(float, 0, 1, above=True)]
Queries = Annotated[int, number(int, 100)]
CountOrZero = Annotated[int, number(int, 0)]
Fraction = Annotated[float, number(float, 0, 1)]
Positive = Annotated[float, number(float, 0, above=True)]
NonNegative = Annotated[float, number(float, 0)]
Budget = Annotated[float, number(float, 0, 1)._replace(l2=number(float, 0))]  # an L2 norm may be above 1
Seed = Annotated[int, number(int, 0, 2**32 - 1)]
Class = Annotated[int, number(int, 0, noun="a class")]
Pixels = Annotated[int, number(int, 1, 28)]  # a length on a 28x28 image
Place = Annotated[list[int], Rule("a place such as [7,7]", _is_place)]
Selection = Annotated[
    int | list[int], Rule("a count from 1 to 100 or as many indices such as [3,14,15]", _is_selection)
]
Optimizer = Annotated[
    Mapping[str, Any] | None,
    Rule("the name of a file in model/optimizer, such as sgd, or a node with a _target_", _is_node),
]
Schedule = Annotated[
    Mapping[str, Any] | str | None,
    Rule(
        "null, the name of a file in model/schedule, such as one_cycle, or a node with a _target_",
        lambda value: value in (None, "one_cycle") or _is_node(value),
    ),
]
Name = Annotated[str, Rule("a name", lambda value: isinstance(value, str) and value != "")]
LayerName = Annotated[str | int, Rule("a name", lambda value: type(value) in (str, int) and value != "")]
Path = Annotated[str, Rule("a path", lambda value: isinstance(value, str) and value != "")]
Paths = Annotated[str | list[str], Rule("a path, or a list such as [a.png,b.png]", _is_paths)]
HoldOutMetric = Annotated[
    str,
    Rule(
        "the name of a metric of the hold-out, such as val/acc or val/loss",
        lambda value: isinstance(value, str) and value.startswith("val/"),
    ),
]
