"""The configurations of a sweep: each over its seeds, paired with each other, and the effects of options."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_mnist.analysis.statistics import (
    MIN_SEEDS,
    Configuration,
    adjust_for_many,
    effect_of,
    mean_interval,
    paired_over_seeds,
)
from cnn_mnist.runs.metrics import read_curves
from cnn_mnist.sweeps.jobs import DONE, FAILED, MISSING, RUNNING, Job, varying

SURE = 0.01  # p below which an option matters: one in a hundred sweeps without any effect names an option
MOST_PAIRS = 15  # with more, each configuration is compared with the first alone
Runs = dict[str, dict[int, Job]]  # by configuration and seed


def is_number(value: object) -> bool:
    """Whether a result can be a metric."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def seconds_of(job: Job) -> float:
    """Time of a job's training or attack; NaN if it is not recorded."""
    return float(job.results.get("fit_seconds", job.results.get("seconds", np.nan)))


def runs_of(done: Sequence[Job]) -> Runs:
    """The jobs by configuration, which is named by the options (except the seed) that not all jobs share."""
    options = [sorted(one for one in job.overrides if not one.startswith("seed=")) for job in done]
    names = varying(options)
    if all(one == options[0] for one in options):
        names = [str(done[0].results.get("recipe", "all"))] * len(done)
    runs: Runs = defaultdict(dict)
    for job, name in zip(done, names, strict=True):
        runs[name][int(job.results.get("seed", 0))] = job
    return runs


def configuration_of(name: str, own: Sequence[Job], metric: str) -> Configuration:
    """The runs of a configuration, with their mean and its interval."""
    values = np.array([job.results[metric] for job in own], dtype=np.float64)
    low, high = mean_interval(values)
    if is_share(metric, values):
        low, high = np.clip((low, high), 0, 1)
    seconds = np.array([seconds_of(job) for job in own])
    return Configuration(name, values, seconds, float(values.mean()), float(low), float(high), _curves(own, metric))


def is_share(metric: str, values: NDArray[np.float64]) -> bool:
    """Whether a metric is a share in 0..1, shown in per cent."""
    return metric.endswith(("acc", "rate")) and bool(((values >= 0) & (values <= 1)).all())


def _curves(own: Sequence[Job], metric: str) -> NDArray[np.float64]:
    """The metric after each epoch, (R, E); NaN where it was not measured."""
    found = [read_curves(job.folder / "metrics.csv").get(metric, []) for job in own if job.folder is not None]
    curves = np.full((len(own), max(map(len, found), default=0)), np.nan)
    for row, curve in enumerate(found):
        curves[row, : len(curve)] = [np.nan if value is None else value for value in curve]
    return curves


def described(group: Configuration) -> dict[str, Any]:
    """Statistics of a configuration; None where one run is too few."""
    several, has_interval = len(group.values) > 1, len(group.values) >= MIN_SEEDS
    return {
        "name": group.name,
        "num_seeds": len(group.values),
        "mean": group.mean,
        "sd": float(group.values.std(ddof=1)) if several else None,
        "low": group.low if has_interval else None,
        "high": group.high if has_interval else None,
        "lowest": float(group.values.min()),
        "median": float(np.median(group.values)),
        "highest": float(group.values.max()),
        "seconds": float(group.seconds.mean()),
        "seconds_sd": float(group.seconds.std(ddof=1)) if several else None,
    }


def pairs_of(runs: Runs, metric: str) -> list[dict[str, Any]]:
    """Every two configurations, compared on the seeds that both have; `p_holm` is adjusted for the number of pairs."""
    couples = list(itertools.combinations(runs, 2))
    if len(couples) > MOST_PAIRS:
        couples = [couple for couple in couples if couple[0] == next(iter(runs))]
    pairs: list[dict[str, Any]] = []
    for couple in couples:
        shared = sorted(runs[couple[0]].keys() & runs[couple[1]].keys())
        if shared:
            own = [[runs[name][seed] for seed in shared] for name in couple]
            values = ([job.results[metric] for job in jobs] for jobs in own)
            first, second = (sum(map(seconds_of, jobs)) for jobs in own)
            names = {"first": couple[0], "second": couple[1], "num_seeds": len(shared)}
            pairs.append(names | paired_over_seeds(*values) | {"time_ratio": second / first})
    adjust_for_many(pairs)
    return pairs


def options_of(done: Sequence[Job], metric: str) -> list[dict[str, Any]]:
    """How much of the variance between runs each varying option explains, the largest share first.

    The seed is left out: its effect is chance.

    Returns:
        Of each: `share`, omega squared, in 0..1, which unlike eta squared is zero on average where there is no effect;
        `p`, of the F test that all levels have one mean; `p_holm`, adjusted for the number of options (Holm 1979);
        `matters`, whether that is below `SURE`; and the levels with the highest and the lowest mean. Share and p are
        None if no level was run twice.

    Source: Hays 1963 for omega squared.
    """
    values = np.array([job.results[metric] for job in done], dtype=np.float64)
    options = [dict(one.lstrip("+").partition("=")[::2] for one in job.overrides) for job in done]
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys(key for one in options for key in one if key != "seed"):
        levels: dict[str, list[float]] = defaultdict(list)
        for one, value in zip(options, values, strict=True):
            levels[one.get(key, "-")].append(float(value))
        if len(levels) == 1 or np.ptp(values) == 0:
            continue
        means = {level: float(np.mean(own)) for level, own in levels.items()}
        best = max(means, key=lambda level: means[level])
        worst = min(means, key=lambda level: means[level])
        ends = {"highest_level": best, "highest": means[best], "lowest_level": worst, "lowest": means[worst]}
        found.append({"key": key, **effect_of(list(levels.values())), **ends})
    adjust_for_many(found)
    for option in found:
        option["matters"] = option["p_holm"] is not None and option["p_holm"] < SURE
    return sorted(found, key=lambda option: float(option["share"] or 0), reverse=True)


def unfinished(jobs: Sequence[Job]) -> list[dict[str, str]]:
    """The jobs that are not done, and why."""
    labels = varying([job.overrides for job in jobs])
    why = {FAILED: "failed", RUNNING: "running, or killed", MISSING: "missing"}
    return [
        {"job": label, "status": why[job.status], "error": job.error or ""}
        for label, job in zip(labels, jobs, strict=True)
        if job.status != DONE
    ]
