"""RESULTS.md from nothing: every recipe trained with several seeds, measured, and compared with published numbers.

    python -m benchmarks.results                       about an hour on 2 cores; what is done already is not done again
    python -m benchmarks.results --seeds 2 data=digits trainer.max_epochs=1    a rehearsal; other words go to train.py

Each recipe is one sweep below multirun/, each run and attack a real command. Writes RESULTS.md and its
record, docs/results.json; `python -m benchmarks.readme` then writes README's figures.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnn_mnist import published
from cnn_mnist.analysis.statistics import paired_over_seeds
from cnn_mnist.runs import files
from cnn_mnist.runs.metrics import read_curves
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import configuration_of, described

ROOT = Path(__file__).resolve().parents[1]
BATCHNORM = "model.batchnorm=false,true"
PGD = ("attack=pgd", "attack.steps=50", "attack.step_size=0.01", "attack.restarts=10", "attack.epsilons=[]")
LAB = {f"paper{'_batchnorm' * norm}": tuple(found.values()) for norm, found in published.LAB_REPORT.items()}
OTHERS = [one for one in published.ROBUST if one.attack != "FGSM"]
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


def analyse(place: Path, *words: str) -> dict[str, Any]:
    """What analyze.py finds, into a folder of its own; not again where it has been found."""
    record = place / "results.json"
    if not record.exists():
        command("analyze.py", *words, f"hydra.run.dir={place}")
    found: dict[str, Any] = json.loads(record.read_text())
    return found


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


def percent(value: float | None, digits: int = 2) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def line(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def accuracy_row(key: str, found: dict[str, Any]) -> str:
    """A configuration as a line of the first table."""
    with_norm = " model.batchnorm=true" if key.endswith("_batchnorm") else ""
    report, report_seconds = LAB.get(key, (None, None))
    has_interval = found["low"] is not None
    return line(
        f"`experiment={found['recipe']}{with_norm}`",
        f"{found['num_parameters']:,}",
        found["epochs"],
        found["num_seeds"],
        percent(found["mean"], 3) + (f" ± {100 * found['sd']:.3f}" if found["sd"] is not None else ""),
        f"{100 * found['low']:.2f} to {percent(found['high'])}" if has_interval else "",
        " / ".join(f"{100 * found[name]:.2f}" for name in ("lowest", "median", "highest")),
        f"{found['seconds']:.0f}" + (f" ± {found['seconds_sd']:.0f}" if found["seconds_sd"] is not None else ""),
        percent(report),
        report_seconds,
    )


def paired_line(found: dict[str, Any]) -> str:
    """A paired difference in words."""
    sure = "too few seeds for an interval"
    if found["p"] is not None:
        sure = (
            f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}; paired t-test, {found['num_seeds']} seeds: "
            f"p = {found['p']:.2g}"
        )
    return (
        f"{found['difference']:+.3f} percentage points ({sure}) for {found['time_ratio']:.2f} times the training time"
    )


def page(record: dict[str, Any]) -> str:
    """RESULTS.md."""
    where = record["where"]
    heads = ["`python train.py ...`", "parameters", "epochs", "seeds", "test accuracy", "95 %"]
    heads += ["lowest / median / highest, %", "seconds", "report", "seconds"]
    tail = record["tail"]
    text = [
        "# Results",
        "",
        f"Written by `make results` on {record['date']}, from {record['dataset']}: {record['num_train']:,} training "
        f"and {record['num_test']:,} test images.",
        f"{where['device']}, {record['num_cores']} cores, {where['num_threads']} threads; "
        + ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        + f"; commit {where['git_commit']}. The numbers are in docs/results.json.",
        "",
        "## Accuracy",
        "",
        "Mean and standard deviation over the seeds 0, 1, ..., and the 95 % interval of the mean (Student's t). The",
        "lab report has one run of each. Seconds are those of `fit`, validation and pictures included.",
        "",
        line(*heads),
        line("---", *["---:"] * (len(heads) - 1)),
        *(accuracy_row(key, found) for key, found in record["accuracy"].items()),
        "",
        "The lab report's recipe keeps its learning rate to the end, and its last epoch can spike. "
        f"Seed {tail['seed']}, outside of these, ends at {percent(tail['accuracy'])} after "
        f"{percent(tail['best'])} in epoch {tail['best_epoch']}: the standard deviation above understates that.",
        "",
        "Batch normalisation, paired by seed:",
        "",
        f"- with the lab report's recipe: {paired_line(record['paired']['paper'])};",
        f"- with one epoch: {paired_line(record['paired']['one_epoch'])}.",
        "",
        "## Accuracy under attack",
        "",
        "Seed 0; no pixel changed by more than 0.3; PGD with 50 steps of 0.01 and 10 restarts.",
        "",
        line("", "test accuracy", "images attacked", "accuracy under PGD-50 x 10"),
        line("---", "---:", "---:", "---:"),
        *(
            line(f"`{found['command']}`", percent(found["clean"]), f"{found['num_images']:,}", percent(found["pgd"], 1))
            for found in record["attacked"].values()
        ),
        "",
        "Published, of other architectures, on all 10,000 test images. A stronger attack leaves less: compare a row "
        "with those of the same attack alone.",
        "",
        line("attack", "", "clean", "under the attack"),
        line("---", "---", "---:", "---:"),
        *(line(attack, name, percent(clean), percent(robust)) for attack, name, clean, robust in OTHERS),
        "",
    ]
    return "\n".join(text)


def main() -> None:
    """Train, attack, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each recipe but the robust one")
    parser.add_argument(
        "--robust-seeds", type=int, default=1, help="runs of the robust recipe, a quarter of an hour each"
    )
    parser.add_argument("--num-images", type=int, default=1000, help="test images that are attacked")
    options, more = parser.parse_known_args()

    start = time.perf_counter()
    recipes = [
        Recipe("paper", (BATCHNORM,), range(options.seeds)),
        Recipe("one_epoch", (BATCHNORM,), range(options.seeds)),
        Recipe("tuned", (), range(options.seeds)),
        Recipe("robust", (), range(options.robust_seeds)),
    ]
    found: dict[str, list[jobs.Job]] = {}  # by recipe and batch normalisation, in the order of the seeds
    for recipe in recipes:
        for job in train(recipe, more):
            with_norm = "_batchnorm" if recipe.options and job.results["batchnorm"] else ""
            found.setdefault(recipe.name + with_norm, []).append(job)
    (tail,) = train(Recipe("paper", (), [TAIL]), more)
    attacked = {
        key: analyse(
            Path("outputs", "results", f"{key.replace('_', '-')}-pgd"),
            f"ckpt_path={jobs[0].folder}",
            *PGD,
            f"attack.num_images={options.num_images}",
        )
        for key, jobs in found.items()
        if key in ("paper", "paper_batchnorm", "robust")
    }
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
        "attacked": {
            key: {
                "command": f"experiment={found[key][0].results['recipe']}"
                + " model.batchnorm=true" * key.endswith("_batchnorm"),
                "clean": found[key][0].results["test/acc"],
                "pgd": 1 - one["success_rate"],
                "num_images": one["num_images"],
            }
            for key, one in attacked.items()
        },
        "lab_report": {key: {"accuracy": accuracy, "fit_seconds": seconds} for key, (accuracy, seconds) in LAB.items()},
        "published": [dict(zip(("attack", "name", "clean", "robust"), one, strict=True)) for one in OTHERS],
    }
    files.write(Path("docs", "results.json"), json.dumps(record, indent=2) + "\n")
    files.write(Path("RESULTS.md"), page(record))
    print(f"\nRESULTS.md, after {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
