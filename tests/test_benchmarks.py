"""The benchmarks run: each on a few steps, and its record is kept with where it was measured."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import commands, pictures, processes, results_page, robustness, training
from tests.conftest import ROOT, Done

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


def test_a_network_is_attacked_once_and_tabled(
    run: Done, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(robustness, "CACHE", tmp_path / "parts")
    monkeypatch.setattr(results_page, "PAGE", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results_page, "RECORD", tmp_path / "results.json")
    kept = json.loads((ROOT / "docs" / "results.json").read_text())
    kept.pop("robustness", None)
    (tmp_path / "results.json").write_text(json.dumps(kept))
    words = [f"digits={run.folder}", f"--root={mnist_root}", "--images=12", "--boundary-images=4", "--write"]
    monkeypatch.setattr("sys.argv", ["robustness", *words])
    robustness.main()
    first = capsys.readouterr().out
    (tested,) = json.loads((tmp_path / "results.json").read_text())["robustness"]["networks"]["digits"]
    shares = {name: found["share"] for name, found in tested["measured"].items()}
    assert shares.keys() == set(results_page.COLUMNS)
    assert shares["certified"] <= shares["auto"] <= min(shares[name] for name in ("apgd", "fgsm", "clean"))
    row = next(line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| `data=digits"))
    assert f" {tested['seed']} | {shares['clean']:.2%} | ".replace("%", " %") in row
    monkeypatch.setattr(robustness, "measured_share", None)  # what was measured is not measured again
    robustness.main()
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "there are no networks: name some, or train them with python -m benchmarks.results"),
        (["outputs/run"], "a network must be NAME=RUN[,RUN], got outputs/run"),
        (["a=outputs/run", "--measures=clean,pdg"], "--measures must be of clean,auto,.*, got pdg"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["robustness", *words])
    with pytest.raises(SystemExit):
        robustness.main()
    assert re.search(says.replace("[", r"\["), capsys.readouterr().err)


def test_a_commands_cost_is_that_of_its_process() -> None:
    found = commands.cost(("-c", "held = bytearray(200_000_000); sum(range(3_000_000))"))
    assert found["peak_megabytes"] > 200
    assert 0 < found["cpu_seconds"] < 1.5 * found["seconds"]
