"""Training beside other busy processes: how OpenMP's threads wait for one another.

    python -m benchmarks.busy                            about 25 minutes on 2 cores
    python -m benchmarks.busy --rounds 1 --runs 0        steps alone, some 2 minutes

libgomp's threads spin while they wait. Beside another busy process a spinning thread keeps a core from the thread that
it waits for. `GOMP_SPINCOUNT` limits the spinning; libgomp reads it when torch is imported. The settings take turns
within a round, each measurement is a process of its own, and a neighbour is a process in an endless loop.

libgomp   what libgomp does by itself: 300,000 rounds of spinning
limited   what this project's commands set beside busy processes
passive   OMP_WAIT_POLICY=PASSIVE: hardly any spinning
ours      `python train.py` as it is, which finds out by itself
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import processes
from cnn_mnist.cli.threads import SPIN_COUNT

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "libgomp": {"GOMP_SPINCOUNT": "300000"},
    "limited": {"GOMP_SPINCOUNT": str(SPIN_COUNT)},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "ours": {},
}
STEPS, RUNS = ("libgomp", "limited", "passive"), ("libgomp", "ours")
NEIGHBOURS = {"quiet": 0, "beside_one": 1, "beside_two": 2}


def main() -> None:
    """Measure in turns and keep medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--steps", type=int, default=100, help="training steps in a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1, help="rounds that also time `python train.py`")
    parser.add_argument("--epochs", type=int, default=6, help="of such a run, with all its pictures")
    options = parser.parse_args()
    root = str(Path(options.root).resolve())
    steps: dict[str, dict[str, list[float]]] = {place: {name: [] for name in STEPS} for place in NEIGHBOURS}
    runs: dict[str, dict[str, list[float]]] = {place: {name: [] for name in RUNS} for place in NEIGHBOURS}
    for turn in range(options.rounds):
        for place, number in NEIGHBOURS.items():
            with neighbours(number):
                for name in STEPS:
                    steps[place][name].append(step(name, options.steps, root))
                for name in RUNS if turn < options.runs else ():
                    runs[place][name].append(run(name, options.epochs, root))
            print(place, steps[place], runs[place], file=sys.stderr, flush=True)
    record: dict[str, Any] = {"rounds": options.rounds, "runs": options.runs, "epochs": options.epochs}
    record |= {"steps": options.steps, "spin_count": SPIN_COUNT, "step_ms": medians(steps)}
    if options.runs:
        record["run_seconds"] = medians(runs)
        record["run_over_quiet"] = {
            name: {place: record["run_seconds"][place][name] / record["run_seconds"]["quiet"][name] for place in runs}
            for name in RUNS
        }
    processes.keep("busy", record)


def medians(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """The median of the rounds for each place and setting."""
    return {place: {name: statistics.median(values) for name, values in own.items()} for place, own in found.items()}


def environment(name: str) -> dict[str, str]:
    """The environment of a setting."""
    own = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return own | SETTINGS[name]


@contextmanager
def neighbours(number: int) -> Iterator[None]:
    """So many processes that each want a core."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def step(name: str, steps: int, root: str) -> float:
    """Milliseconds of a training step."""
    words = ["--one", "allocator", "--steps", str(steps), "--root", root]
    command = [sys.executable, "-m", "benchmarks.training", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(name), stdout=subprocess.PIPE, text=True, check=True)
    return 100_000 / float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])


def run(name: str, epochs: int, root: str) -> float:
    """Seconds of a whole command, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            "trainer=cpu",
            f"data.root={root}",
            f"trainer.max_epochs={epochs}",
        ]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment(name), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
