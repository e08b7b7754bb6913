"""One process for each measurement, interleaved, so that no measurement affects the heap of another.

Every measurement is warmed up by one that does not count. Records lie in docs/benchmarks/, from which README's tables
are written (`python -m benchmarks.readme`).
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from cnn_mnist.runs import files
from cnn_mnist.runs.record import surroundings

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
Measured = dict[str, list[dict[str, float]]]  # by case, in the order of the rounds


def measure(module: str, cases: Iterable[str], words: Sequence[str], num_rounds: int) -> Measured:
    """Run `python -m MODULE --one CASE WORDS` for each case in each round; each prints its measurement as JSON."""
    found: Measured = {case: [] for case in cases}
    for number in range(num_rounds):
        for case, own in found.items():
            command = [sys.executable, "-m", module, "--one", case, *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            own.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} of {num_rounds}  {case}  {own[-1]}", file=sys.stderr, flush=True)
    return found


def seconds(run: Callable[[], object]) -> float:
    """How long something takes, once it has been done before."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(found: Measured, case: str, key: str) -> dict[str, float]:
    """Median, lowest and highest of what was measured."""
    values = [one[key] for one in found[case]]
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratio(found: Measured, over: str, under: str, key: str) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(a[key] / b[key] for a, b in zip(found[over], found[under], strict=True))


def keep(name: str, record: dict[str, Any]) -> None:
    """Write a record to docs/benchmarks/, with when and where it was measured, and print it."""
    where = surroundings(torch.device("cpu"))
    record = record | {"date": time.strftime("%Y-%m-%d"), **where}
    files.write(RECORDS / f"{name}.json", json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
