"""RESULTS.md: every recipe trained with several seeds, and compared with published numbers.

    python -m benchmarks.results                       about four hours on 2 cores; resumes where it was
    python -m benchmarks.results --seeds 2 data=digits trainer.max_epochs=1    a rehearsal; other words go to train.py

Each recipe is one sweep below multirun/, each run a real command. Writes RESULTS.md and its record, docs/results.json;
`python -m benchmarks.robustness` adds the attacks, `python -m benchmarks.readme` then writes README's figures.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results_page import LAB, update_record
from cnn_mnist.analysis.statistics import paired_over_seeds
from cnn_mnist.runs.metrics import read_curves
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import configuration_of, described

ROOT = Path(__file__).resolve().parents[1]
BATCHNORM = "model.batchnorm=false,true"
TAIL = 11  # a seed whose last epoch spikes


class Recipe(NamedTuple):
    """A sweep: its experiment, the options that vary, and its seeds."""

    name: str
    options: tuple[str, ...]
    seeds: Sequence[int]

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        tail = "-tail" if TAIL in self.seeds else ""
        return Path("multirun", f"results-{self.name}{tail}")


def command(script: str, *words: str) -> None:
    """Run an entry point, and show what it says.

    Raises:
        SystemExit: It failed.
    """
    print(f"\n$ python {script} {' '.join(words)}", flush=True)
    status = subprocess.run([sys.executable, str(ROOT / script), *words]).returncode
    if status:
        raise SystemExit(status)


def train(recipe: Recipe, more: list[str]) -> list[jobs.Job]:
    """Do what is missing of a recipe's sweep; returns its jobs."""
    seeds = ",".join(map(str, recipe.seeds))
    where = f"hydra.sweep.dir={recipe.folder}"
    command("train.py", "-m", f"experiment={recipe.name}", *recipe.options, f"seed={seeds}", *more, where)
    return [job for job in jobs.jobs(recipe.folder) if job.status == jobs.DONE]


def versus(first: list[jobs.Job], second: list[jobs.Job]) -> dict[str, Any]:
    """What the second of two configurations changes, from the same seeds of both: in percentage points."""
    values = [[job.results["test/acc"] for job in jobs] for jobs in (first, second)]
    found = paired_over_seeds(*values)
    seconds = [sum(job.results["fit_seconds"] for job in jobs) for jobs in (first, second)]
    points = {key: None if found[key] is None else 100 * found[key] for key in ("difference", "low", "high")}  # type: ignore[operator]
    return points | {"p": found["p"], "num_seeds": len(first), "time_ratio": seconds[1] / seconds[0]}


def summary(name: str, jobs: list[jobs.Job]) -> dict[str, Any]:
    """A configuration in numbers."""
    some = jobs[0].results
    keys = ("recipe", "batchnorm", "num_parameters", "epochs")
    values = [job.results["test/acc"] for job in jobs]
    found = described(configuration_of(name, jobs, "test/acc"))
    return {key: some[key] for key in keys} | found | {"accuracies": values}


def tail_of(job: jobs.Job) -> dict[str, Any]:
    """A run whose last epoch spikes: its accuracy, and that after each epoch."""
    assert job.folder is not None
    accuracies = read_curves(job.folder / "metrics.csv")["test/acc"]
    known = [value for value in accuracies if value is not None]
    return {
        "seed": job.results["seed"],
        "accuracy": job.results["test/acc"],
        "best": max(known),
        "best_epoch": accuracies.index(max(known)) + 1,
    }


def main() -> None:
    """Train and write; `benchmarks.robustness` attacks the networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each recipe but the robust one")
    parser.add_argument("--robust-seeds", type=int, default=3, help="of `robust`, half an hour each, and `certified`")
    options, more = parser.parse_known_args()

    start = time.perf_counter()
    recipes = [
        Recipe("paper", (BATCHNORM,), range(options.seeds)),
        Recipe("one_epoch", (BATCHNORM,), range(options.seeds)),
        Recipe("tuned", (), range(options.seeds)),
        Recipe("robust", (), range(options.robust_seeds)),
        Recipe("certified", (), range(options.robust_seeds)),
    ]
    found: dict[str, list[jobs.Job]] = {}  # by recipe and batch normalisation, in the order of the seeds
    for recipe in recipes:
        for job in train(recipe, more):
            with_norm = "_batchnorm" if recipe.options and job.results["batchnorm"] else ""
            found.setdefault(recipe.name + with_norm, []).append(job)
    (tail,) = train(Recipe("paper", (), [TAIL]), more)
    some = found["paper"][0].results
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "dataset": some["dataset"],
        "num_train": some["num_train"],
        "num_test": some["num_test"],
        "num_cores": os.cpu_count(),
        "where": {key: some[key] for key in ("device", "num_threads", "versions", "git_commit")},
        "accuracy": {key: summary(key, jobs) for key, jobs in found.items()},
        "tail": tail_of(tail),
        "paired": {name: versus(found[name], found[f"{name}_batchnorm"]) for name in ("paper", "one_epoch")},
        "lab_report": {key: {"accuracy": accuracy, "fit_seconds": seconds} for key, (accuracy, seconds) in LAB.items()},
    }
    update_record(record)
    print(f"\nRESULTS.md, after {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
