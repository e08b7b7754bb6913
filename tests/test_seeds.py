"""`python analyze.py sweep=...` on a real sweep, its numbers against SciPy's and against the runs themselves."""

import csv
import json
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cnn_mnist import sweep
from cnn_mnist.configurations import paired_over_seeds
from tests.conftest import Command, Done

SWEPT = ("model.batchnorm=false,true", "seed=0,1,2")
FIXED = ("data=digits", "trainer=cpu", "callbacks=none", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def swept(train: Command) -> Done:
    """Two configurations with three seeds each."""
    done = train("-m", *FIXED, *SWEPT, "hydra.sweep.dir=multirun/mine")
    assert done.status == 0, done.err
    return done


@pytest.fixture(scope="module")
def looked(swept: Done, analyze: Command) -> Done:
    done = analyze("sweep=multirun/mine", cwd=swept.cwd)
    assert done.status == 0, done.err
    return done


@pytest.fixture
def copy(swept: Done, tmp_path: Path) -> Path:
    """The sweep, to be spoilt."""
    folder = tmp_path / "multirun" / "mine"
    shutil.copytree(swept.folder, folder)
    return folder


def test_means_intervals_and_the_paired_test_are_true(swept: Done, looked: Done) -> None:
    found = looked.results["seeds"]
    values: dict[bool, list[float]] = {False: [], True: []}
    for job in sweep.jobs(swept.folder):
        values[job.results["batchnorm"]].append(job.results["test/acc"])
    for one, own in zip(found["configurations"], values.values(), strict=True):
        assert one["num_seeds"] == 3
        assert one["mean"] == pytest.approx(statistics.mean(own), abs=1e-6)
        assert one["sd"] == pytest.approx(statistics.stdev(own), abs=1e-6)
        low, high = stats.t.interval(0.95, 2, statistics.mean(own), stats.sem(own))
        assert (one["low"], one["high"]) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    (pair,) = found["pairs"]
    oracle = stats.ttest_1samp(np.subtract(values[True], values[False]), 0)
    assert pair["p"] == pytest.approx(oracle.pvalue, rel=1e-4)
    assert pair["difference"] == pytest.approx(statistics.mean(values[True]) - statistics.mean(values[False]), abs=1e-6)
    assert pair["low"] < pair["difference"] < pair["high"]
    shares = {one["key"]: one["share"] for one in found["options"]}
    both = values[False] + values[True]
    within = sum((value - statistics.mean(own)) ** 2 for own in values.values() for value in own)
    total = sum((value - statistics.mean(both)) ** 2 for value in both)
    assert shares["model.batchnorm"] == pytest.approx(1 - within / total, abs=1e-5)
    assert shares.keys() == {"model.batchnorm", "seed"}


def test_the_page_the_tables_and_the_terminal_say_so(looked: Done) -> None:
    html = (looked.folder / "report.html").read_text()
    assert "Does batch normalisation help, and what does it cost?" in html
    values = re.findall(r'<data data-key="seeds\.pairs\.0\.p" value="([^"]+)"', html)
    assert float(values[0]) == looked.results["seeds"]["pairs"][0]["p"]
    assert {"seeds.configurations.0.mean", "seeds.options.0.share"} <= set(re.findall(r'data-key="([^"]+)"', html))
    place = looked.folder / "analysis" / "seeds"
    pictures = {path.name for path in place.glob("*.png")}
    assert pictures == {"configurations.png", "time.png", "curves.png", "options.png"}
    for name, num_rows in {"jobs.csv": 6, "configurations.csv": 2, "pairs.csv": 1}.items():
        with (place / name).open(newline="") as file:
            assert len(list(csv.DictReader(file))) == num_rows
    assert "model.batchnorm=True against model.batchnorm=False" in looked.out
    assert "Paired over seeds" in looked.out


def test_failed_and_missing_jobs_and_mixed_code_are_said(copy: Path, analyze: Command) -> None:
    jobs = sweep.jobs(copy)
    first, second, third = (job.folder for job in jobs[:3])
    assert first is not None
    assert second is not None
    assert third is not None
    results = json.loads((first / "results.json").read_text())
    (first / "results.json").write_text(json.dumps(results | {"git_commit": "of-another-day"}))
    record = json.loads((second / "job.json").read_text())
    (second / "job.json").write_text(json.dumps(record | {"status": "failed", "error": "the roof {fell} in"}))
    shutil.rmtree(third)
    done = analyze("sweep=multirun/mine", cwd=copy.parents[1])
    assert done.status == 0, done.err
    assert "The jobs were run with more than one code" in done.out
    assert "of-another-day" in done.out
    html = (done.folder / "report.html").read_text()
    assert "the roof {fell} in" in html
    assert [one["status"] for one in done.results["seeds"]["unfinished"]] == ["failed", "missing"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("sweep=.",), "is not the folder of a sweep"),
        (("sweep=multirun/mine", "metric=test/accuracy"), "metric=test/accuracy is in no job's results: did you mean"),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], message: str, swept: Done, analyze: Command) -> None:
    done = analyze(*options, cwd=swept.cwd)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_sweep_without_a_finished_job_cannot_be_looked_at(copy: Path, analyze: Command) -> None:
    for job in sweep.jobs(copy):
        assert job.folder is not None
        shutil.rmtree(job.folder)
    done = analyze("sweep=multirun/mine", cwd=copy.parents[1])
    assert done.status == 1
    assert "no job of the sweep multirun/mine is done" in done.err


def test_what_one_seed_cannot_tell_is_none() -> None:
    assert paired_over_seeds([0.5], [0.75]) == {"difference": 0.25, "low": None, "high": None, "p": None}
    assert paired_over_seeds([0.5, 0.25], [0.75, 0.5])["p"] is None  # equal differences: no spread to judge by
