"""Makes what a node of a configuration describes: `_target_`, the name of a class or function, and its arguments."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

TARGET = "_target_"  # key of the name


class CannotMake(ValueError):
    """What a node names cannot be imported, or does not take these arguments."""


def targets(node: object) -> list[str]:
    """Every `_target_` in and below a node of plain dicts and lists."""
    if isinstance(node, list):
        return [name for value in node for name in targets(value)]
    if not isinstance(node, dict):
        return []
    own = [str(node[TARGET])] if TARGET in node else []
    return own + targets(list(node.values()))


def imported(what: str, node: Mapping[str, Any]) -> tuple[Callable[..., Any], Mapping[str, inspect.Parameter]]:
    """The class or function that a node names, and its parameters.

    Args:
        what: What it makes, for messages, such as `network`.
        node: The node.

    Raises:
        CannotMake: It cannot be imported.
    """
    target = str(node[TARGET])
    try:
        make = pkgutil.resolve_name(target)
        return make, inspect.signature(make).parameters
    except Exception as error:  # a file of the user's own runs when it is imported
        raise CannotMake(f"{what} {target} cannot be imported: {type(error).__name__}: {error}") from error


def make(what: str, node: Mapping[str, Any], *subjects: object, **offered: object) -> Any:
    """What a node describes.

    Args:
        what: What it makes, for messages, such as `network`.
        node: The node.
        subjects: Passed first.
        offered: Passed where the node has no argument of that name, and what it names takes one.

    Raises:
        CannotMake: It cannot be imported or does not take these arguments.
    """
    call, accepted = imported(what, node)
    own = {name: value for name, value in node.items() if name != TARGET}
    try:
        return call(*subjects, **{name: value for name, value in offered.items() if name in accepted} | own)
    except Exception as error:
        raise CannotMake(f"{what} {node[TARGET]} cannot be built: {error}") from error
