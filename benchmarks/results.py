"""RESULTS.md, part by part: every recipe over many seeds, and what is measured of the networks.

    python -m benchmarks.results                     all of it, about a day on 2 cores; resumes where it stopped
    python -m benchmarks.results paper best          these parts; or make results PART="paper best"
    python -m benchmarks.results paper --rehearse --seeds 2 data=digits    a rehearsal, below outputs/rehearsal/

The parts are the recipes below; `repeats`, one run again and again; `speed`, see `benchmarks.speed_run`; and `attacks`,
see `benchmarks.robustness`, which takes neither --seeds nor options. Each recipe is a sweep below multirun/, each run a
real command; words with = go to train.py. RESULTS.md and its record, docs/results.json, are written after each part;
`python -m benchmarks.readme` then writes the figures of README and docs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks import robustness, speed_run
from benchmarks.results_page import LAB, update_record
from cnn_mnist.analysis.statistics import LEVEL, mean_interval, paired_over_seeds
from cnn_mnist.runs import files
from cnn_mnist.runs.metrics import read_curves
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import configuration_of, described

ROOT = Path(__file__).resolve().parents[1]
NUM_REPEATS = 3
SPIKE = 0.003  # a run ends in a spike if its last epoch is so far below its best
Runs = dict[str, list[jobs.Job]]  # by configuration, in the order of the seeds


class Recipe(NamedTuple):
    """An experiment, its number of seeds, whether it is run without and with batch normalisation, and more options."""

    name: str
    num_seeds: int
    is_paired: bool = False
    options: tuple[str, ...] = ()


RECIPES = (
    Recipe("paper", 30, is_paired=True),
    Recipe("one_epoch", 30, is_paired=True),
    Recipe("tuned", 10),
    Recipe("handwriting", 3),
    Recipe("best", 5, options=("trainer.precision=bf16-mixed",)),
    Recipe("robust", 3),
    Recipe("certified", 3),
)
PARTS = (*(recipe.name for recipe in RECIPES), "repeats", "speed", "attacks")


def command(*words: str) -> None:
    """Run Python on a script or a module, and show what it says.

    Raises:
        SystemExit: It failed.
    """
    print(f"\n$ python {' '.join(words)}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    status = subprocess.run([sys.executable, *words], env=environment).returncode
    if status:
        raise SystemExit(status)


def trained(recipe: Recipe, more: list[str]) -> Runs:
    """Do what is missing of a recipe's sweep; its runs. A pair of runs is made one after the other."""
    seeds = ",".join(map(str, range(recipe.num_seeds)))
    words = [f"seed={seeds}", *(["model.batchnorm=false,true"] if recipe.is_paired else []), *recipe.options, *more]
    folder = Path("multirun", f"results-{recipe.name}")
    command(str(ROOT / "train.py"), "-m", f"experiment={recipe.name}", *words, f"hydra.sweep.dir={folder}")
    found: Runs = {}
    for job in jobs.jobs(folder)[: recipe.num_seeds * (1 + recipe.is_paired)]:  # later ones are of other commands
        has_norm = recipe.is_paired and job.results["batchnorm"]
        found.setdefault(f"{recipe.name}_batchnorm" if has_norm else recipe.name, []).append(job)
    return found


def summary(name: str, runs: list[jobs.Job]) -> dict[str, Any]:
    """A configuration in numbers, its options, and where it was measured.

    Raises:
        SystemExit: The runs are of different machines or versions, so that their times cannot be averaged.
    """
    some = runs[-1].results
    for key in ("device", "num_threads", "versions"):
        if any(run.results[key] != some[key] for run in runs):
            raise SystemExit(f"error: the runs of {name} differ in {key}: give them a folder of their own")
    keys = ("recipe", "batchnorm", "num_parameters", "epochs", "device", "num_threads", "versions")
    return {
        **{key: some[key] for key in keys},
        "options": [word for word in runs[-1].overrides if not word.startswith(("seed=", "model.batchnorm="))],
        **described(configuration_of(name, runs, "test/acc")),
        "accuracies": [run.results["test/acc"] for run in runs],
        "num_cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.localtime(max(run.started or 0 for run in runs))),
        "git_commits": sorted({str(run.results["git_commit"]) for run in runs}),
    }


def versus(first: list[jobs.Job], second: list[jobs.Job]) -> dict[str, Any]:
    """What the second of two configurations changes, from the same seeds of both.

    Returns:
        `difference` in percentage points with the ends of its interval, `low` and `high`, and `p`; `time_ratio`, the
        geometric mean of the ratios of the training times, with the ends of its interval, `time_low` and `time_high`.
    """
    values = [[run.results["test/acc"] for run in runs] for runs in (first, second)]
    found = paired_over_seeds(*values)
    seconds = [np.array([run.results["fit_seconds"] for run in runs]) for runs in (first, second)]
    ratios = np.log(seconds[1] / seconds[0])
    low, high = (None if np.isnan(end) else float(np.exp(end)) for end in mean_interval(ratios))
    ends = {key: found[key] for key in ("difference", "low", "high")}
    points = {key: None if value is None else 100 * value for key, value in ends.items()}
    times = {"time_ratio": float(np.exp(ratios.mean())), "time_low": low, "time_high": high}
    return points | {"p": found["p"], "num_seeds": len(first)} | times


def spikes(runs: list[jobs.Job]) -> dict[str, Any]:
    """How many runs end with an accuracy well below that of their best epoch; the share with its interval."""
    falls = []
    for run in runs:
        assert run.folder is not None
        curve = [value for value in read_curves(run.folder / "metrics.csv")["test/acc"] if value is not None]
        falls.append(max(curve) - curve[-1])
    number = sum(round(fall, 6) >= SPIKE for fall in falls)
    interval = stats.binomtest(number, len(runs)).proportion_ci(LEVEL)
    deepest = int(np.argmax(falls))
    return {
        "fall": SPIKE,
        "num_runs": len(runs),
        "num_spikes": number,
        "low": float(interval.low),
        "high": float(interval.high),
        "deepest": {
            "seed": runs[deepest].results["seed"],
            "accuracy": runs[deepest].results["test/acc"],
            "fall": falls[deepest],
        },
    }


def recipe_part(recipe: Recipe, more: list[str]) -> dict[str, Any]:
    """What a recipe adds to the record."""
    found = trained(recipe, more)
    some = next(iter(found.values()))[0].results
    part: dict[str, Any] = {key: some[key] for key in ("dataset", "num_train", "num_test")}
    part["accuracy"] = {name: summary(name, runs) for name, runs in found.items()}
    if recipe.is_paired:
        part["paired"] = {recipe.name: versus(found[recipe.name], found[f"{recipe.name}_batchnorm"])}
    if recipe.name == "paper":
        part["spikes"] = {name: spikes(runs) for name, runs in found.items()}
        part["lab_report"] = {
            name: {"accuracy": share, "fit_seconds": seconds} for name, (share, seconds) in LAB.items()
        }
    if recipe.name == "best" and recipe.num_seeds > 1:
        part["committee"] = committee(found[recipe.name])
    return part


def committee(runs: list[jobs.Job]) -> dict[str, Any]:
    """How well the networks of several runs do together."""
    place = Path("outputs", "results", "committee")
    members = ",".join(files.typed(str(run.folder)) for run in runs)
    command(str(ROOT / "analyze.py"), f"committee=[{members}]", f"hydra.run.dir={place}")
    found = json.loads((place / "results.json").read_text(encoding="utf-8"))["committee"]
    return {
        key: found[key] for key in ("num_members", "accuracy", "num_wrong", "num_unanimous_mistakes", "member_mean")
    }


def repeats(more: list[str]) -> dict[str, Any]:
    """The lab report's recipe with one seed, several times: what differs between equal runs."""
    runs = []
    for number in range(NUM_REPEATS):
        folder = Path("outputs", "results", "repeats", "_".join(["run", str(number), *more]).replace("=", "-"))
        if not (folder / "results.json").exists():
            command(str(ROOT / "train.py"), "experiment=paper", *more, f"hydra.run.dir={files.typed(str(folder))}")
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        keys = ("test/acc", "fit_seconds", "device", "git_commit", "seed")
        runs.append({key: results[key] for key in keys} | {"weights": robustness.fingerprint(folder)})
    return {
        "date": time.strftime("%Y-%m-%d"),
        "options": ["experiment=paper", *more],
        "num_runs": len(runs),
        "num_different_weights": len({run["weights"] for run in runs}),
        "accuracies": [run["test/acc"] for run in runs],
        "seconds": [run["fit_seconds"] for run in runs],
        **{key: runs[0][key] for key in ("seed", "device", "git_commit")},
    }


def main() -> None:
    """Measure the parts that are asked for, and write each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="PART or KEY=VALUE", help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, help="runs of each recipe, in place of its own number")
    parser.add_argument("--rehearse", action="store_true", help="runs and record lie below outputs/rehearsal/")
    asked = parser.parse_intermixed_args()
    more = [word for word in asked.words if "=" in word]
    parts = [word for word in asked.words if "=" not in word] or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}: choose from {', '.join(PARTS)}")
    if asked.seeds is not None and asked.seeds < 1:
        parser.error("--seeds must be at least 1")
    root = Path("data").resolve()
    if asked.rehearse:
        place = Path("outputs", "rehearsal")
        place.mkdir(parents=True, exist_ok=True)
        more = [f"data.root={files.typed(str(root))}", *more]
        os.chdir(place)
    start = time.perf_counter()
    for recipe in RECIPES:
        if recipe.name in parts:
            update_record(recipe_part(recipe._replace(num_seeds=asked.seeds or recipe.num_seeds), more))
    if "repeats" in parts:
        update_record({"repeats": repeats(more)})
    if "speed" in parts:
        update_record({"speed": speed_run.measured(asked.seeds or speed_run.NUM_SEEDS, more)})
    if "attacks" in parts:
        command("-m", "benchmarks.robustness", "--root", str(root))  # of the runs above
    print(f"\nRESULTS.md, after {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
