"""`python analyze.py sweep=...` and `committee=...` on a real sweep, against SciPy and against the runs themselves."""

import csv
import itertools
import json
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score

from cnn_mnist import load_images, load_network
from cnn_mnist.analysis.statistics import Configuration, paired_over_seeds
from cnn_mnist.figures import sweep as draw
from cnn_mnist.figures import training as draw_training
from cnn_mnist.figures.canvas import cost_curves, draw_lines
from cnn_mnist.figures.render import to_pixels
from cnn_mnist.report.prose import plain
from cnn_mnist.report.sections.sweeps.sweep import Sweep, seeds
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import configuration_of, described, options_of, runs_of
from tests.conftest import Command, Done

SWEPT = ("model.batchnorm=false,true", "seed=0,1,2")
FIXED = ("data=digits", "trainer=cpu", "callbacks=none", "trainer.max_epochs=2", "+trainer.limit_train_batches=5")


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
    for job in jobs.jobs(swept.folder):
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
    (option,) = found["options"]  # the seed is none
    assert option["key"] == "model.batchnorm"
    oracle = stats.f_oneway(values[False], values[True])
    assert option["p"] == pytest.approx(oracle.pvalue, rel=1e-4)
    f, num_runs = oracle.statistic, 6
    assert option["share"] == pytest.approx(max(0, (f - 1) / (f - 1 + num_runs)), abs=1e-5)  # omega squared, from F
    assert option["matters"] == (oracle.pvalue < 0.01)
    assert pair["difference_points"] == pytest.approx(100 * pair["difference"])
    one = found["configurations"][0]
    assert (one["lowest"], one["median"], one["highest"]) == pytest.approx(sorted(values[False]), abs=1e-6)


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
    first, second, third = (job.folder for job in jobs.jobs(copy)[:3])
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
        (("committee=multirun/none",), "there is no folder multirun/none: set committee= to a folder of runs"),
        (("committee=multirun",), "a committee needs at least 2 finished runs, and multirun has 0"),
        (("committee=[multirun/mine/none,multirun/mine]",), "there is no checkpoint at multirun/mine/none"),
        (("committee=multirun/mine", "attack=pgd"), "committee= and attack= cannot be combined: leave one of them out"),
        (("sweep=multirun/mine", "metric=test/accuracy"), "metric=test/accuracy is in no job's results: did you mean"),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], message: str, swept: Done, analyze: Command) -> None:
    done = analyze(*options, cwd=swept.cwd)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_sweep_without_a_finished_job_cannot_be_looked_at(copy: Path, analyze: Command) -> None:
    for job in jobs.jobs(copy):
        assert job.folder is not None
        shutil.rmtree(job.folder)
    done = analyze("sweep=multirun/mine", cwd=copy.parents[1])
    assert done.status == 1
    assert "no job of the sweep multirun/mine is done" in done.err


def test_what_one_seed_cannot_tell_is_none() -> None:
    assert paired_over_seeds([0.5], [0.75]) == {"difference": 0.25, "low": None, "high": None, "p": None}
    assert paired_over_seeds([0.5, 0.25], [0.75, 0.5])["p"] is None  # equal differences: no spread to judge by


def simulated(num_levels: int, num_seeds: int, effect: float, generator: np.random.Generator) -> list[jobs.Job]:
    """A sweep over an option and seeds, with noise of a tenth of a per cent and an effect of each further level."""
    return [
        jobs.Job(
            [f"model.lr={level}", f"seed={seed}"],
            jobs.DONE,
            results={"test/acc": 0.99 + effect * level + 0.001 * generator.standard_normal(), "seed": seed},
        )
        for level in range(num_levels)
        for seed in range(num_seeds)
    ]


@pytest.mark.parametrize(("num_levels", "num_seeds"), [(2, 5), (3, 3), (5, 2)])
def test_where_nothing_has_an_effect_hardly_an_option_is_named(num_levels: int, num_seeds: int) -> None:
    generator = np.random.default_rng(0)
    sweeps = [options_of(simulated(num_levels, num_seeds, 0, generator), "test/acc") for _ in range(200)]
    assert sum(any(one["matters"] for one in found) for found in sweeps) <= 10
    assert all([one["key"] for one in found] == ["model.lr"] for found in sweeps)
    assert np.mean([found[0]["share"] for found in sweeps]) < 0.2


def test_an_effect_is_named() -> None:
    generator = np.random.default_rng(0)
    sweeps = [options_of(simulated(2, 5, 0.004, generator), "test/acc") for _ in range(50)]
    assert sum(found[0]["matters"] for found in sweeps) >= 45


def test_two_seeds_have_no_interval_and_limits_stay_within_0_and_100_per_cent() -> None:
    generator = np.random.default_rng(0)
    two = configuration_of("two", simulated(1, 2, 0, generator), "test/acc")
    assert (described(two)["low"], described(two)["high"]) == (None, None)
    assert paired_over_seeds([0.98, 0.99], [0.97, 0.995])["p"] is None
    wild = [jobs.Job([], results={"test/acc": value, "seed": place}) for place, value in enumerate((0.1, 0.99, 0.98))]
    found = described(configuration_of("wild", wild, "test/acc"))
    assert (found["low"], found["high"]) == (0, 1)
    figure = draw.configurations([two, configuration_of("wild", wild, "test/acc")], "test/acc", in_percent=True)
    low, high = figure.axes[0].get_xlim()
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_epochs_have_no_fractions(num_epochs: int) -> None:
    curves = {"epoch": list(range(1, num_epochs + 1)), "train/loss": [0.5] * num_epochs, "test/acc": [0.9] * num_epochs}
    group = Configuration("one", np.ones(3), np.ones(3), 1.0, 1.0, 1.0, np.full((3, num_epochs), 0.9))
    trace = torch.rand(num_epochs + 1, 2)
    for figure in (
        *map(draw_lines, draw_training.curves(curves).values()),
        draw.curves([group], "test/acc", in_percent=True),
        cost_curves(trace, ["a", "b"], "cost"),
    ):
        to_pixels(figure)
        for axes in figure.axes:
            assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "mnist"}, "dataset=mnist in model.batchnorm=False seed=0, dataset=digits in"),
        ({"max_epochs": 9}, "max_epochs=9 in model.batchnorm=False seed=0, max_epochs=2 in"),
        ({"num_threads": 99}, "num_threads=99 in"),
    ],
)
def test_a_mixture_is_refused_by_name(change: dict[str, object], words: str, copy: Path, analyze: Command) -> None:
    first = jobs.jobs(copy)[0].folder
    assert first is not None
    results = json.loads((first / "results.json").read_text())
    (first / "results.json").write_text(json.dumps(results | change))
    done = analyze("sweep=multirun/mine", cwd=copy.parents[1])
    assert done.status == 1
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_a_committee_is_the_mean_of_its_networks(swept: Done, analyze: Command) -> None:
    done = analyze("committee=multirun/mine", cwd=swept.cwd)
    assert done.status == 0, done.err
    found = done.results["committee"]
    images, labels = load_images("digits")
    runs = [job.folder for job in jobs.jobs(swept.folder)]
    with torch.no_grad():
        each = torch.stack([load_network(str(run))(images).softmax(1) for run in runs])
    answers = each.argmax(2)
    together = each.sum(0).argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, together), abs=1e-6)
    assert [one["accuracy"] for one in found["members"]] == pytest.approx(
        [accuracy_score(labels, one) for one in answers], abs=1e-6
    )
    assert found["num_wrong"] == (together != labels).sum()
    assert found["num_unanimous_mistakes"] == ((together != labels) & (answers == together).all(0)).sum()
    assert found["num_disagreements"] == (answers != answers[0]).any(0).sum()
    pairs = [accuracy_score(labels, (one + two).argmax(1)) for one, two in itertools.combinations(each, 2)]
    two = found["by_number"][1]
    assert (two["lowest"], two["mean"], two["highest"]) == pytest.approx((min(pairs), np.mean(pairs), max(pairs)))
    assert found["by_number"][-1]["mean"] == found["accuracy"]
    assert found["gain_points"] == pytest.approx(100 * (found["accuracy"] - found["member_mean"]))
    assert found["calibration_error"] == pytest.approx(calibration_error(each.mean(0), labels), abs=1e-6)
    html = (done.folder / "report.html").read_text()
    assert {"committee.accuracy", "committee.members.5.accuracy"} <= set(re.findall(r'data-key="([^"]+)"', html))
    assert "Together, by the mean of their probabilities, the 6 networks" in done.out


def calibration_error(probability: torch.Tensor, labels: torch.Tensor) -> float:
    """The expected calibration error in fifteen bins, by the book."""
    confidence, predicted = probability.max(1)
    bins = (confidence * 15).ceil().long()
    parts = [bins == k for k in bins.unique()]
    right = (predicted == labels).double()
    return sum((part.double().mean() * (right[part].mean() - confidence[part].mean())).abs().item() for part in parts)


def test_a_committee_leaves_unfinished_runs_out_and_names_the_run_that_cannot_be_one(
    copy: Path, analyze: Command, train: Command
) -> None:
    first, second = (job.folder for job in jobs.jobs(copy)[:2])
    assert first is not None
    assert second is not None
    (first / "results.json").unlink()
    other = train("data=digits", "network=mlp", "callbacks=none", "trainer.max_epochs=1", cwd=copy.parents[1])
    assert other.status == 0, other.err
    shutil.copytree(other.folder, copy / "zero")
    done = analyze("committee=multirun/mine", cwd=copy.parents[1])  # other layers, the same task
    assert done.status == 0, done.err
    assert "unfinished runs in multirun/mine, left out: 1" in done.out
    assert done.results["committee"]["num_members"] == 6
    path = copy / "zero" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=False)
    content["datamodule_hyper_parameters"]["dataset"] = "mnist"
    torch.save(content, path)
    done = analyze("committee=multirun/mine", cwd=copy.parents[1])
    assert done.status == 1
    assert "multirun/mine/zero cannot be a member beside multirun/mine/" in done.err


def test_a_committee_is_also_a_list_of_runs(swept: Done, analyze: Command) -> None:
    first, *_, last = (job.folder for job in jobs.jobs(swept.folder))
    done = analyze(f"committee=['{last}','{first}']", cwd=swept.cwd)
    assert done.status == 0, done.err
    assert [Path(one["run"]).name for one in done.results["committee"]["members"]] == [last.name, first.name]


def compared(metric: str, first: list[float], second: list[float]) -> str:
    """What the section says of a sweep over two learning rates, with a value of the metric for each seed."""
    done = [
        jobs.Job([f"model.lr={lr}", f"seed={seed}"], jobs.DONE, results={metric: value, "seed": seed, "fit_seconds": 1})
        for lr, values in ((1, first), (2, second))
        for seed, value in enumerate(values)
    ]
    part = seeds(Sweep(Path("nowhere"), metric, done))
    cells = [cell for answer in part.answers for table in answer.tables for row in table.rows for cell in row]
    return plain(" ".join([*(says for answer in part.answers for says in answer.says), *cells]), part.findings)


def test_of_a_loss_or_a_time_the_lowest_is_best() -> None:
    low, high = [0.1, 0.11, 0.12, 0.1], [0.2, 0.22, 0.21, 0.23]
    for metric in ("test/loss", "mine/seconds"):
        said = compared(metric, low, high)
        assert f"model.lr=1 has the lowest mean {metric}" in said
        assert "so the first is better" in said
    said = compared("test/acc", low, high)
    assert "model.lr=2 has the highest mean test/acc" in said
    assert "so the second is better" in said


def test_seeds_that_differ_by_the_same_are_not_too_few() -> None:
    assert "all differences are equal" in compared("test/acc", [0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8])
    assert "too few seeds" in compared("test/acc", [0.5, 0.6], [0.5, 0.7])


def test_options_may_be_given_in_any_order(tmp_path: Path) -> None:
    asked = [["seed=0", "model.lr=1"], ["model.lr=1", "seed=1"]]
    (tmp_path / "jobs.json").write_text(json.dumps({"jobs": asked}))
    for number, overrides in enumerate((["model.lr=1", "seed=0"], ["seed=1", "model.lr=1"])):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "job.json").write_text(json.dumps({"overrides": overrides, "status": jobs.DONE}))
        (tmp_path / str(number) / "results.json").write_text(json.dumps({"test/acc": 0.9, "seed": number}))
    found = jobs.jobs(tmp_path)
    assert [job.status for job in found] == [jobs.DONE] * 2
    other = [job._replace(overrides=["model.batchnorm=true", *job.overrides]) for job in found]
    (runs,) = runs_of([other[0], other[1]._replace(overrides=[*found[1].overrides, "model.batchnorm=true"])]).values()
    assert len(runs) == 2
