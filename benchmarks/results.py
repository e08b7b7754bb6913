"""The README's table from nothing: every recipe trained over several seeds, measured, and set beside what is published.

    python -m benchmarks.results                       about an hour on 2 cores; what is done already is not done again
    python -m benchmarks.results --seeds 2 data=digits trainer.max_epochs=1    a rehearsal; other words go to train.py

Each recipe is one sweep below multirun/, each run and attack a real command. Writes RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from cnn_mnist import files, sweep
from cnn_mnist.configurations import described, group_of, paired_over_seeds

ROOT = Path(__file__).resolve().parents[1]
BATCHNORM = "model.batchnorm=false,true"
PGD = ("attack=pgd", "attack.steps=50", "attack.step_size=0.01", "attack.restarts=10", "attack.epsilons=[]")
LAB_REPORT = {("paper", False): (0.9894, 786), ("paper", True): (0.9918, 1391)}  # one run of each
PUBLISHED = (  # clean accuracy, accuracy under attack within 0.3, the attack
    ("Madry et al. 2018", 0.9853, 0.8962, "PGD-100 x 50"),
    ("Wong et al. 2020", 0.9850, 0.8877, "PGD-50 x 10"),
    ("TRADES (Zhang et al. 2019)", 0.9948, 0.9281, "AutoAttack"),
    ("Gowal et al. 2020", 0.9926, 0.9634, "AutoAttack"),
)


class Recipe(NamedTuple):
    """A sweep: its experiment, the options that vary, and how many seeds."""

    name: str
    options: tuple[str, ...]
    num_seeds: int

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return Path("multirun", f"results-{self.name}")


def command(script: str, *words: str) -> None:
    """Run an entry point, and show what it says.

    Raises:
        SystemExit: It failed.
    """
    print(f"\n$ python {script} {' '.join(words)}", flush=True)
    status = subprocess.run([sys.executable, str(ROOT / script), *words]).returncode
    if status:
        raise SystemExit(status)


def train(recipe: Recipe, more: list[str]) -> list[sweep.Job]:
    """Do what is missing of a recipe's sweep; returns its jobs."""
    seeds = ",".join(map(str, range(recipe.num_seeds)))
    where = f"hydra.sweep.dir={recipe.folder}"
    command("train.py", "-m", f"experiment={recipe.name}", *recipe.options, f"seed={seeds}", *more, where)
    return [job for job in sweep.jobs(recipe.folder) if job.status == sweep.DONE]


def analyse(place: Path, *words: str) -> dict[str, Any]:
    """What analyze.py finds, into a folder of its own; not again where it has been found."""
    record = place / "results.json"
    if not record.exists():
        command("analyze.py", *words, f"hydra.run.dir={place}")
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def versus(first: list[sweep.Job], second: list[sweep.Job]) -> str:
    """What the second of two configurations changes, from the same seeds of both."""
    values = [[job.results["test/acc"] for job in jobs] for jobs in (first, second)]
    found = {key: None if value is None else 100 * value for key, value in paired_over_seeds(*values).items()}
    seconds = [sum(job.results["fit_seconds"] for job in jobs) for jobs in (first, second)]
    how_sure = "one seed"
    if found["p"] is not None:
        p = found["p"] / 100
        how_sure = (
            f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}; paired t-test, {len(first)} seeds: p = {p:.2g}"
        )
    return f"{found['difference']:+.3f} points ({how_sure}) for {seconds[1] / seconds[0]:.2f} times the training time"


def percent(value: float | None, digits: int = 2) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def accuracy_row(recipe: Recipe, jobs: list[sweep.Job]) -> str:
    """A configuration as a line of the first table."""
    some, found = jobs[0].results, described(group_of(recipe.name, jobs, "test/acc"))
    with_norm = " model.batchnorm=true" if recipe.options and some["batchnorm"] else ""
    report, report_seconds = LAB_REPORT.get((recipe.name, some["batchnorm"]), (None, ""))
    has_spread = found["sd"] is not None
    cells = (
        f"`experiment={recipe.name}{with_norm}`",
        f"{some['num_parameters']:,}",
        some["epochs"],
        found["num_seeds"],
        f"{100 * found['mean']:.3f}" + (f" ± {100 * found['sd']:.3f} %" if has_spread else " %"),
        f"{100 * found['low']:.2f} to {percent(found['high'])}" if has_spread else "",
        f"{found['seconds']:.0f}" + (f" ± {found['seconds_sd']:.0f}" if has_spread else ""),
        percent(report),
        report_seconds,
    )
    return line(*cells)


def line(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


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
        Recipe("paper", (BATCHNORM,), options.seeds),
        Recipe("one_epoch", (BATCHNORM,), options.seeds),
        Recipe("tuned", (), options.seeds),
        Recipe("robust", (), options.robust_seeds),
    ]
    found: dict[tuple[str, bool], list[sweep.Job]] = {}  # by recipe and batch normalisation, in the order of the seeds
    for recipe in recipes:
        for job in train(recipe, more):
            found.setdefault((recipe.name, job.results["batchnorm"]), []).append(job)
    attacked = {
        key: analyse(
            Path("outputs", "results", f"{key[0]}-{'batchnorm' if key[1] else 'plain'}-pgd"),
            f"ckpt_path={jobs[0].folder}",
            *PGD,
            f"attack.num_images={options.num_images}",
        )
        for key, jobs in found.items()
        if key[0] in ("paper", "robust")
    }
    some = found["paper", False][0].results
    text = [
        "# Results",
        "",
        f"Written by `make results` on {time.strftime('%Y-%m-%d')}, from {some['dataset']}: {some['num_train']:,} "
        f"training and {some['num_test']:,} test images.",
        f"{some['device']}, {os.cpu_count()} cores, {some['num_threads']} threads; "
        + ", ".join(f"{name} {version}" for name, version in some["versions"].items())
        + f"; commit {some['git_commit']}.",
        "",
        "## Accuracy",
        "",
        "Mean and standard deviation over the seeds 0, 1, ..., and the 95 % interval of the mean (Student's t). The",
        "lab report has one run of each. Seconds are those of `fit`, validation and pictures included.",
        "",
        line(
            "`python train.py ...`",
            "parameters",
            "epochs",
            "seeds",
            "test accuracy",
            "95 %",
            "seconds",
            "report",
            "seconds",
        ),
        line("---", *["---:"] * 8),
        *(accuracy_row(recipe, jobs) for recipe in recipes for key, jobs in found.items() if key[0] == recipe.name),
        "",
        "Batch normalisation, paired by seed:",
        "",
        f"- with the report's recipe: {versus(found['paper', False], found['paper', True])};",
        f"- with one epoch: {versus(found['one_epoch', False], found['one_epoch', True])}.",
        "",
        "## Accuracy under attack",
        "",
        "Seed 0; no pixel changed by more than 0.3; PGD with 50 steps of 0.01 and 10 restarts on "
        f"{options.num_images:,} test images.",
        "Published numbers are of other architectures, on all 10,000 test images.",
        "",
        line("", "clean", "under attack", "attack"),
        line("---", "---:", "---:", "---"),
        *(
            line(
                f"`experiment={name}{' model.batchnorm=true' if name == 'paper' and batchnorm else ''}`",
                percent(found[name, batchnorm][0].results["test/acc"]),
                percent(1 - attack["success_rate"], 1),
                f"PGD-50 x 10, {attack['num_images']:,} images",
            )
            for (name, batchnorm), attack in attacked.items()
        ),
        *(line(name, percent(clean), percent(robust), attack) for name, clean, robust, attack in PUBLISHED),
        "",
    ]
    files.write(Path("RESULTS.md"), "\n".join(text))
    print(f"\nRESULTS.md, after {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
