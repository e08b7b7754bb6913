"""The benchmarks run: each on a few steps, and its record is kept with where it was measured."""

import json
from pathlib import Path

import pytest

from benchmarks import commands, pictures, processes, training
from tests.conftest import Done

pytestmark = pytest.mark.mnist


def test_a_record_says_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    processes.keep("speed", {"rounds": 3})
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["rounds"] == 3
    assert {"date", "device", "num_threads", "git_commit", "versions"} <= record.keys()


@pytest.mark.parametrize("way", ["in_memory", "allocator", "bf16"])
def test_every_kind_of_loop_trains(way: str, mnist_root: Path) -> None:
    assert training.images_per_second(way, True, 5, mnist_root) > 0


def test_a_network_is_shown_pictures(
    run: Done, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RECORDS", tmp_path)
    words = [f"digits={run.folder},{run.folder}", "--pictures=8", f"--root={mnist_root}"]
    monkeypatch.setattr("sys.argv", ["pictures", *words])
    pictures.main()
    record = json.loads((tmp_path / "pictures.json").read_text())
    assert (record["num_images"], record["num_pictures"], record["digits"]["num_runs"]) == (10_000, 8, 2)
    assert 0.5 < record["digits"]["others"] <= 1
    assert record["digits"]["pictures"] * 8 == pytest.approx(round(record["digits"]["pictures"] * 8), abs=1e-3)


def test_a_commands_cost_is_that_of_its_process() -> None:
    found = commands.cost(("-c", "held = bytearray(200_000_000); sum(range(3_000_000))"))
    assert found["peak_megabytes"] > 200
    assert 0 < found["cpu_seconds"] < 1.5 * found["seconds"]
