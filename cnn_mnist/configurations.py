"""The configurations of a sweep in numbers: each over its seeds, every two of them paired, and what varies."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cnn_mnist.classification import curves_of
from cnn_mnist.figures import sweep as draw
from cnn_mnist.sweep import DONE, FAILED, MISSING, RUNNING, Job, varying

LEVEL = 0.95
FEWEST = 3  # seeds for an interval: from two, Student's factor is 12.7, and the interval says nothing
SURE = 0.01  # p below which an option is said to matter: one in a hundred sweeps without an effect then names an option
MOST_PAIRS = 15  # beyond, each configuration is compared with the first alone
Runs = dict[str, dict[int, Job]]  # by configuration and seed


def is_number(value: object) -> bool:
    """Whether a result can be a metric."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def seconds_of(job: Job) -> float:
    """What a job's training, or its attack, took; NaN where it does not say."""
    return float(job.results.get("fit_seconds", job.results.get("seconds", np.nan)))


def runs_of(done: Sequence[Job]) -> Runs:
    """The jobs by configuration, named by those options other than the seed that not all jobs share."""
    options = [[one for one in job.overrides if not one.startswith("seed=")] for job in done]
    names = varying(options)
    if all(one == options[0] for one in options):
        names = [str(done[0].results.get("recipe", "all"))] * len(done)
    runs: Runs = defaultdict(dict)
    for job, name in zip(done, names, strict=True):
        runs[name][int(job.results.get("seed", 0))] = job
    return runs


def group_of(name: str, own: Sequence[Job], metric: str) -> draw.Group:
    """What is drawn of a configuration: its runs, their mean, and Student's interval of it."""
    values = np.array([job.results[metric] for job in own], dtype=np.float64)
    mean, margin = float(values.mean()), np.nan
    if len(values) >= FEWEST:
        margin = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    low, high = mean - margin, mean + margin
    if is_share(metric, values):
        low, high = np.clip((low, high), 0, 1)
    seconds = np.array([seconds_of(job) for job in own])
    return draw.Group(name, values, seconds, mean, float(low), float(high), _curves(own, metric))


def is_share(metric: str, values: NDArray[np.float64]) -> bool:
    """Whether a metric is a share of images, in 0..1, to be written in per cent."""
    return metric.endswith(("acc", "rate")) and bool(((values >= 0) & (values <= 1)).all())


def _curves(own: Sequence[Job], metric: str) -> NDArray[np.float64]:
    """The metric after each epoch, (R, E); NaN where it was not measured."""
    found = [curves_of(job.folder / "metrics.csv").get(metric, []) for job in own if job.folder is not None]
    curves = np.full((len(own), max(map(len, found), default=0)), np.nan)
    for row, curve in enumerate(found):
        curves[row, : len(curve)] = [np.nan if value is None else value for value in curve]
    return curves


def described(group: draw.Group) -> dict[str, Any]:
    """A configuration in numbers; None for what a single run cannot tell."""
    several, has_interval = len(group.values) > 1, len(group.values) >= FEWEST
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


def paired_over_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Whether the second of two configurations is better, from the same seeds of both.

    Returns:
        `difference`, the mean of the second less that of the first; `low` and `high`, the ends of its 95 % interval;
        and `p`, of Student's paired t-test, two-sided. The last three are None where there are fewer than three seeds,
        or all differences are equal.
    """
    difference = np.subtract(second, first)
    found: dict[str, float | None] = {"difference": float(difference.mean()), "low": None, "high": None, "p": None}
    if len(difference) >= FEWEST and np.ptp(difference) > 0:
        test = stats.ttest_rel(second, first)
        low, high = test.confidence_interval(LEVEL)
        found |= {"low": float(low), "high": float(high), "p": float(test.pvalue)}
    return found


def pairs_of(runs: Runs, metric: str) -> list[dict[str, Any]]:
    """Every two configurations on the seeds that both have; `p_holm` allows for the number of pairs (Holm 1979)."""
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
    allow_for_many(pairs)
    return pairs


def options_of(done: Sequence[Job], metric: str) -> list[dict[str, Any]]:
    """How much of the variance between runs goes with each option that varies, the largest share first.

    The seed is no option: what goes with it is chance.

    Returns:
        Of each: `share`, omega squared, in 0..1, which unlike eta squared is zero on average where there is no effect;
        `p`, of the F test that all levels have one mean; `p_holm`, which allows for the number of options (Holm 1979);
        `matters`, whether that is below `SURE`; and the levels with the highest and the lowest mean. Share and p are
        None where no level has been run twice.

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
        found.append({"key": key, **_effect(list(levels.values())), **ends})
    allow_for_many(found)
    for option in found:
        option["matters"] = option["p_holm"] is not None and option["p_holm"] < SURE
    return sorted(found, key=lambda option: float(option["share"] or 0), reverse=True)


def _effect(levels: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Omega squared and the p of the F test, of the values at each level."""
    values = np.concatenate(levels)
    within = sum(((np.array(own) - np.mean(own)) ** 2).sum() for own in levels)
    df_between, df_within = len(levels) - 1, len(values) - len(levels)
    if not df_within:
        return {"share": None, "p": None}
    total, noise = ((values - values.mean()) ** 2).sum(), within / df_within
    share = (total - within - df_between * noise) / (total + noise)
    p = float(stats.f_oneway(*levels).pvalue) if within > 0 else 0.0
    return {"share": max(0.0, float(share)), "p": p}


def allow_for_many(tests: Sequence[dict[str, Any]]) -> None:
    """Add to each test's `p` a `p_holm` that allows for their number (Holm 1979); None where there is no p."""
    tested = sorted((test for test in tests if test["p"] is not None), key=lambda test: test["p"])
    largest = 0.0
    for test in tests:
        test["p_holm"] = None
    for place, test in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - place) * test["p"]))
        test["p_holm"] = largest


def unfinished(jobs: Sequence[Job]) -> list[dict[str, str]]:
    """The jobs that are not done, and why."""
    labels = varying([job.overrides for job in jobs])
    why = {FAILED: "failed", RUNNING: "running, or killed", MISSING: "missing"}
    return [
        {"job": label, "status": why[job.status], "error": job.error or ""}
        for label, job in zip(labels, jobs, strict=True)
        if job.status != DONE
    ]
