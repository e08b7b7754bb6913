"""How threads wait: less eagerly beside busy processes, unless the user has said something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_mnist.cli import threads
from cnn_mnist.cli.threads import SPIN_COUNT, Usage, limit_spinning, used_by_others
from tests.conftest import ROOT

LIMITED = {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


def test_what_others_use_is_what_this_process_does_not() -> None:
    assert used_by_others(Usage(10, 100, 1), Usage(12, 103, 2)) == 1.0


@pytest.mark.parametrize(
    ("others", "given", "expected"),
    [
        (0.1, {}, {}),
        (0.9, {}, LIMITED),
        (0.9, {"OMP_NUM_THREADS": "1"}, {}),  # the other core is free
        (1.9, {"OMP_NUM_THREADS": "1"}, LIMITED),
        (0.9, {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        (0.9, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_spinning_is_limited_where_cores_are_scarce(
    others: float, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(threads, "_START", Usage(0, 0, 0))
    monkeypatch.setattr(threads, "usage", lambda: Usage(1, others + 0.5, 0.5))
    limit_spinning()
    assert {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ} == expected


@pytest.mark.parametrize("content", [None, "", "cpu 1 2 x"])
def test_a_system_that_does_not_say_is_left_alone(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert threads.usage() is None
    limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat")
@pytest.mark.parametrize("words", [("train.py", "data=digits"), ("train.py", "-m", "data=digits", "seed=0,1")])
def test_beside_busy_processes_a_command_limits_it_before_torch_is_imported(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    program = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), file=sys.__stderr__, flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    own = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT / words[0]), *words[1:]],
            cwd=tmp_path,
            env=own,
            capture_output=True,
            text=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert done.stderr.splitlines()[-1] == str(SPIN_COUNT)
