"""The directions of imports: every arrow goes one way, and there is no circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cnn_mnist"
BASE = {"option_types", "nodes", "checks", "network", "intervals", "published", "front"}
MAY_IMPORT = {  # beside modules of its own room
    "option_types": set(),
    "nodes": set(),
    "network": set(),
    "intervals": set(),
    "networks": {"option_types", "nodes", "checks"},
    "published": set(),
    "front": set(),
    "__main__": {"", "front", "cli"},
    "checks": set(),
    "data": {"option_types", "nodes"},
    "attacks": BASE,
    "analysis": BASE | {"attacks"},
    "figures": BASE | {"attacks", "analysis"},
    "training": BASE | {"networks", "attacks", "analysis", "figures", "data"},
    "runs": BASE | {"networks", "analysis", "data", "training"},
    "cli": BASE | {"analysis", "runs", "training"},
    "sweeps": BASE | {"analysis", "runs", "cli"},
    "report": BASE | {"networks", "attacks", "analysis", "figures", "data", "runs", "cli", "sweeps"},
    "": {"network", "runs", "data"},  # cnn_mnist/__init__.py
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its name below `cnn_mnist`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts if parts[-1] != "__init__" else parts[:-1]), path


NAMES = {name for name, _ in modules()}


def imports(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cnn_mnist":
            base = (node.module or "").partition(".")[2]
            for name in node.names:
                full = f"{base}.{name.name}".strip(".")
                yield full if full in NAMES else base
        elif isinstance(node, ast.Import):
            yield from (name.name.partition(".")[2] for name in node.names if name.name.startswith("cnn_mnist."))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_imports_go_one_way(name: str) -> None:
    own = name.partition(".")[0]
    allowed = {own, *MAY_IMPORT[own]}
    wrong = {other for other in imports(dict(modules())[name]) if other.partition(".")[0] not in allowed}
    assert not wrong, f"{name} may not import {', '.join(sorted(wrong))}: see CONTRIBUTING.md"


def test_there_is_no_circle() -> None:
    graph = {name: set(imports(path)) - {name} for name, path in modules()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_a_folder_holds_about_ten_files_of_at_most_300_lines() -> None:
    for folder in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        assert len(list(folder.glob("*.py"))) <= 12, folder
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("*.py"), *PACKAGE.parent.glob("benchmarks/*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
