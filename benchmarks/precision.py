"""The lab report's recipe in float32 and in bfloat16 over the same seeds: accuracy and time.

    python -m benchmarks.precision                       about 15 minutes on 2 cores; nothing is trained twice

Its runs are a sweep below multirun/precision; further words go to train.py.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.results import command
from cnn_mnist.analysis.statistics import paired_over_seeds
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import configuration_of, described

FOLDER = Path("multirun", "precision")
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def main() -> None:
    """Do what is missing of the sweep and keep what it came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options, words = parser.parse_known_args()
    swept = (f"trainer.precision={','.join(PRECISIONS.values())}", f"seed={','.join(map(str, range(options.seeds)))}")
    command("train.py", "-m", *swept, "callbacks=none", "trainer=cpu", *words, f"hydra.sweep.dir={FOLDER}")
    found = {name: runs_in(value) for name, value in PRECISIONS.items()}
    record: dict[str, Any] = {
        name: described(configuration_of(name, own, "test/acc")) | {"accuracies": accuracies(own)}
        for name, own in found.items()
    }
    processes.keep("precision", record | {"paired": paired_over_seeds(*map(accuracies, found.values()))})


def runs_in(precision: str) -> list[jobs.Job]:
    """The sweep's jobs in one precision, by seed."""
    own = [job for job in jobs.jobs(FOLDER) if f"trainer.precision={precision}" in job.overrides]
    return sorted(own, key=lambda job: int(job.results["seed"]))


def accuracies(runs: list[jobs.Job]) -> list[float]:
    """Of runs on the test set, in 0..1."""
    return [float(job.results["test/acc"]) for job in runs]


if __name__ == "__main__":
    main()
