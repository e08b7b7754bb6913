"""How soon an accuracy is reached: wall seconds of a fresh process, over ten seeds.

    python -m benchmarks.results speed       as a part of the results
    python -m benchmarks.speed_run           this part alone, printed

Each recipe was chosen on training images held out; here the test set is used only to see whether the mean accuracy is
reached. Nothing is drawn or tested on the way: the clock stops after the last step. On a GPU too, where there is one.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.tables import percent
from cnn_mnist.runs import files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("outputs", "results", "speed")
NUM_SEEDS = 10
RECIPES = {  # the accuracy to reach, and the options of train.py
    0.98: ("experiment=third_of_epoch",),
    0.99: ("experiment=one_epoch", "model.batchnorm=true"),
    0.994: ("experiment=tuned", "trainer.max_epochs=3"),
    0.996: ("experiment=handwriting", "trainer.max_epochs=12"),
}
PLAIN = ("callbacks=none", "logger=csv", "+trainer.limit_val_batches=0", "trainer.precision=bf16-mixed")


class Clock(pl.Callback):
    """Writes when the first step began and when the last one ended, in seconds since 1970."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.first = self.last = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Note the time of the first step."""
        self.first = self.first or time.time()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Note the time of the last step of each epoch, once the device has done it."""
        if trainer.is_last_batch:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.last = time.time()

    def on_train_end(self, *_: object) -> None:
        """Write both."""
        files.write(self.file, json.dumps({"first": self.first, "last": self.last}) + "\n")


def timed(options: Sequence[str], seed: int) -> dict[str, Any]:
    """Train in a fresh process; what was measured before, with the same recipe, is not measured again."""
    recipe = ROOT / "conf" / "experiment" / f"{options[0].partition('=')[2]}.yaml"
    content = recipe.read_bytes() if recipe.exists() else b""
    digest = hashlib.sha256(repr((options, PLAIN)).encode() + content).hexdigest()[:8]
    folder = FOLDER / f"{options[0].replace('=', '-')}_{digest}_seed-{seed}"
    clock = folder / "measured.json"
    if not clock.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        scratch = folder / "clock.json"
        own = (
            "+callbacks.clock._target_=benchmarks.speed_run.Clock",
            f"+callbacks.clock.file={files.typed(str(scratch))}",
        )
        words = [*options, *PLAIN, *own, f"seed={seed}", f"hydra.run.dir={files.typed(str(folder))}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.time()
        subprocess.run([sys.executable, str(ROOT / "train.py"), *words], env=environment, check=True)
        times = json.loads(scratch.read_text(encoding="utf-8"))
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        found = {
            "accuracy": results["test/acc"],
            "from_start": times["last"] - start,
            "from_first_step": times["last"] - times["first"],
            "date": time.strftime("%Y-%m-%d"),
        }
        found |= {key: results[key] for key in ("device", "num_threads", "git_commit")}
        files.write(clock, json.dumps(found, indent=2) + "\n")
    measured: dict[str, Any] = json.loads(clock.read_text(encoding="utf-8"))
    return measured


def measured(num_seeds: int = NUM_SEEDS, more: Sequence[str] = ()) -> dict[str, Any]:
    """Every recipe, seed after seed, so that a slow minute of the machine falls on all of them."""
    devices = ("cpu", "gpu") if torch.cuda.is_available() else ("cpu",)
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for seed in range(num_seeds):
        for target, options in RECIPES.items():
            for device in devices:
                run = timed((*options, f"trainer={device}", *more), seed)
                found.setdefault((target, device), []).append(run)
    rows = []
    for target, options in RECIPES.items():
        runs = found[target, "cpu"]
        mean = statistics.mean(run["accuracy"] for run in runs)
        times = {key: statistics.median(run[key] for run in runs) for key in ("from_start", "from_first_step")}
        on_gpu = [run["from_first_step"] for run in found.get((target, "gpu"), [])]
        rows.append(
            {
                "target": target,
                "options": " ".join(options),
                "mean": mean,
                "lowest": min(run["accuracy"] for run in runs),
                "is_reached": mean >= target,
                **times,
                "gpu": statistics.median(on_gpu) if on_gpu else None,
            }
        )
    last = found[max(RECIPES), "cpu"][-1]
    return {
        "num_seeds": num_seeds,
        "plain": [*PLAIN, "trainer=cpu", *more],
        "rows": rows,
        **{key: last[key] for key in ("date", "device", "num_threads")},
        "git_commits": sorted({run["git_commit"] for runs in found.values() for run in runs}),
    }


if __name__ == "__main__":
    for row in measured()["rows"]:
        print(f"{percent(row['target'], 1)}: {percent(row['mean'])} after {row['from_start']:.1f} s, {row['options']}")
