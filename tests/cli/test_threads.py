"""How threads wait: less spinning, unless the user has said something."""

import os
import subprocess
import sys

import pytest

from cnn_mnist.cli.threads import SPIN_COUNT, limit_spinning
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": str(SPIN_COUNT)}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_the_user_says_stands(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ} == expected


@pytest.mark.parametrize("script", ["train.py", "analyze.py", "search.py"])
def test_every_command_sets_it_before_anything_imports_torch(script: str) -> None:
    program = f"""
import os, runpy, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Watch())
sys.argv = ["{script}", "--help"]
try:
    runpy.run_path("{script}", run_name="__main__")
except SystemExit:
    pass
import torch
"""
    own = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=own, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == str(SPIN_COUNT)
