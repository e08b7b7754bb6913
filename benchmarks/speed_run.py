"""How soon an accuracy is reached: wall seconds of a fresh process, over ten seeds.

    python -m benchmarks.results speed       as a part of the results
    python -m benchmarks.speed_run           this part alone, printed

Each recipe was chosen on training images held out; here the test set is used only to see whether the mean accuracy is
reached. Nothing is drawn or tested on the way (`callbacks=none`, no epoch's test): the clock stops after the last step.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.tables import percent
from cnn_mnist.runs import files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("outputs", "results", "speed")
NUM_SEEDS = 10
RECIPES = {  # the accuracy to reach, and the options of train.py
    0.98: ("experiment=third_of_epoch",),
    0.99: ("experiment=one_epoch", "model.batchnorm=true"),
    0.994: ("experiment=three_epochs",),
    0.996: ("experiment=eight_epochs",),
}
PLAIN = ("callbacks=none", "logger=csv", "+trainer.limit_val_batches=0")


class Clock(pl.Callback):
    """Writes when the first step began and when the last one ended, in seconds since 1970."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.first = self.last = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Note the time of the first step."""
        self.first = self.first or time.time()

    def on_train_batch_end(self, *_: object) -> None:
        """Note the time of each step; the last remains."""
        self.last = time.time()

    def on_train_end(self, *_: object) -> None:
        """Write both."""
        files.write(self.file, json.dumps({"first": self.first, "last": self.last}) + "\n")


def timed(options: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Train in a fresh process; what was measured before is not measured again."""
    folder = FOLDER / f"{'_'.join(options).replace('=', '-')}_seed-{seed}"
    clock = folder / "clock.json"
    if not (folder / "results.json").exists():
        own = ("+callbacks.clock._target_=benchmarks.speed_run.Clock", f"+callbacks.clock.file={clock}")
        words = [*options, *PLAIN, *own, f"seed={seed}", f"hydra.run.dir={folder}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.time()
        subprocess.run([sys.executable, str(ROOT / "train.py"), *words], env=environment, check=True)
        files.write(clock, json.dumps({"start": start} | json.loads(clock.read_text(encoding="utf-8"))) + "\n")
    times = json.loads(clock.read_text(encoding="utf-8"))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {
        "accuracy": results["test/acc"],
        "from_start": times["last"] - times["start"],
        "from_first_step": times["last"] - times["first"],
        "where": {key: results[key] for key in ("device", "num_threads", "git_commit")},
    }


def measured(num_seeds: int = NUM_SEEDS, more: Sequence[str] = ()) -> dict[str, Any]:
    """Every recipe, seed after seed, so that a slow minute of the machine falls on all of them."""
    found: dict[float, list[dict[str, Any]]] = {target: [] for target in RECIPES}
    for seed in range(num_seeds):
        for target, options in RECIPES.items():
            found[target].append(timed((*options, *more), seed))
    rows = []
    for target, runs in found.items():
        values = {key: [run[key] for run in runs] for key in ("accuracy", "from_start", "from_first_step")}
        rows.append(
            {
                "target": target,
                "options": " ".join(RECIPES[target]),
                "mean": statistics.mean(values["accuracy"]),
                "lowest": min(values["accuracy"]),
                "is_reached": statistics.mean(values["accuracy"]) >= target,
                "from_start": statistics.median(values["from_start"]),
                "from_first_step": statistics.median(values["from_first_step"]),
            }
        )
    where: dict[str, Any] = found[max(RECIPES)][-1]["where"]
    return {"date": time.strftime("%Y-%m-%d"), "num_seeds": num_seeds, "rows": rows, **where}


if __name__ == "__main__":
    for row in measured()["rows"]:
        print(f"{percent(row['target'], 1)}: {percent(row['mean'])} after {row['from_start']:.1f} s, {row['options']}")
