"""The metrics of runs: the curves in metrics.csv, and which way a metric is better."""

import csv
from collections import defaultdict
from pathlib import Path

METRICS = ("loss", "acc", "fgsm_acc", "robust_acc", "certified_acc")
FIRST = tuple(f"{data}/{metric}" for metric in METRICS for data in ("train", "test", "val"))


def read_curves(path: Path) -> dict[str, list[float | int | None]]:
    """The metrics of each epoch in metrics.csv: the last value in the epoch, or the mean of the training loss.

    Empty if there is no file.
    """
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch")]  # the final test is of no epoch
    others = sorted({name for row in rows for name in row if "/" in name} - {*FIRST})
    names = [*FIRST, *others]  # metrics of the user's own callbacks
    values: dict[str, dict[int, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    before = 0
    for row in rows:
        step = int(row["step"])
        for name in names:
            if row.get(name):
                values[name][int(row["epoch"])].append((float(row[name]), step - before))
        if row.get("train/loss"):
            before = step
    trained = values["train/loss"] or {epoch: [] for column in values.values() for epoch in column}
    epochs = sorted(trained)
    curves: dict[str, list[float | int | None]] = {"epoch": [epoch + 1 for epoch in epochs]}
    for name in names:
        take = _mean if name == "train/loss" else _last
        curve = [take(values[name][epoch]) if values[name][epoch] else None for epoch in epochs]
        if any(value is not None for value in curve):
            curves[name] = curve
    return curves


def _mean(points: list[tuple[float, int]]) -> float:
    """The mean of points that are each a mean over so many steps."""
    return round(sum(value * steps for value, steps in points) / max(1, sum(steps for _, steps in points)), 7)


def _last(points: list[tuple[float, int]]) -> float:
    return points[-1][0]


def mode_of(metric: str) -> str:
    """Whether the highest value of a metric is best, `max`, or the lowest, `min`: of losses, errors and times."""
    return "min" if metric.endswith(("loss", "error", "seconds")) else "max"
