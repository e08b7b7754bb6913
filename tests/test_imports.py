"""A command imports what it needs and no more: Lightning alone takes longer than most analyses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Done

PROGRAM = """
import atexit, runpy, sys

sys.argv = sys.argv[1:]
atexit.register(lambda: print("imported:", *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
NOT_FOR_AN_ANALYSIS = {"pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "captum", "optuna"}
TAKE_A_SECOND = {"sklearn", "scipy"}


def imported_by(script: str, *words: str, cwd: Path) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / script), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("imported: "), done.stderr
    return set(last.split()[1:])


def test_an_analysis_imports_no_lightning(run: Done) -> None:
    modules = imported_by("analyze.py", "analysis=filters", cwd=run.cwd)
    assert {"torch", "matplotlib"} <= modules
    assert not (NOT_FOR_AN_ANALYSIS | TAKE_A_SECOND) & modules


@pytest.mark.mnist
def test_nor_does_an_attack_on_mnist(run: Done, mnist_root: Path) -> None:
    words = ("attack=fgsm", "attack.num_images=50", "data.dataset=mnist", f"data.root={mnist_root}")
    assert not (NOT_FOR_AN_ANALYSIS | TAKE_A_SECOND) & imported_by("analyze.py", *words, cwd=run.cwd)


@pytest.mark.parametrize(
    "command", ["train.py --help", "train.py model.lrr=1", "analyze.py image=nowhere.png", "search.py --trials 0"]
)
def test_neither_help_nor_a_mistake_needs_torch(command: str, tmp_path: Path) -> None:
    assert "torch" not in imported_by(*command.split(), cwd=tmp_path)
