"""The statistics of repeated runs and of paired predictions: intervals, paired tests, effects of options."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

LEVEL = 0.95  # of every interval
MIN_SEEDS = 3  # for an interval: with two seeds Student's factor is 12.7, and the interval is too wide to be of use


class Configuration(NamedTuple):
    """The runs of one configuration, which differ in the seed alone.

    Attributes:
        name: The options that distinguish it from the other configurations.
        values: The metric, (R,).
        seconds: Training time, (R,); NaN where it is unknown.
        mean: Mean of the values.
        low: Lower end of the mean's 95 % interval; NaN with fewer than `MIN_SEEDS` runs.
        high: Upper end.
        curves: The metric after each epoch, (R, E), NaN before a run's first and after its last; (R, 0) without curves.
    """

    name: str
    values: NDArray[np.float64]
    seconds: NDArray[np.float64]
    mean: float
    low: float
    high: float
    curves: NDArray[np.float64]


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Student's interval of the mean of `values` (R,); NaN with fewer than `MIN_SEEDS`."""
    if len(values) < MIN_SEEDS:
        return np.nan, np.nan
    margin = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()) - margin, float(values.mean()) + margin


def paired_over_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Compare two configurations run with the same seeds: Student's paired t-test, two-sided.

    Args:
        first: The metric of the first configuration, one value for each seed.
        second: The same of the second.

    Returns:
        `difference`, the mean of the second minus that of the first; `low` and `high`, the ends of its 95 % interval;
        and `p`. The last three are None with fewer than `MIN_SEEDS` seeds, or where all differences are equal.
    """
    difference = np.subtract(second, first)
    found: dict[str, float | None] = {"difference": float(difference.mean()), "low": None, "high": None, "p": None}
    if len(difference) >= MIN_SEEDS and np.ptp(difference) > 0:
        test = stats.ttest_rel(second, first)
        low, high = test.confidence_interval(LEVEL)
        found |= {"low": float(low), "high": float(high), "p": float(test.pvalue)}
    return found


def effect_of(levels: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """How much of the variance an option explains.

    Args:
        levels: The metric of the runs at each level of the option.

    Returns:
        `share`, omega squared, in 0..1: unlike eta squared its mean is zero where there is no effect. `p`, of the F
        test that all levels have the same mean. Both are None where no level was run twice.

    Source: Hays 1963 for omega squared.
    """
    values = np.concatenate(levels)
    within = sum(((np.array(own) - np.mean(own)) ** 2).sum() for own in levels)
    df_between, df_within = len(levels) - 1, len(values) - len(levels)
    if not df_within:
        return {"share": None, "p": None}
    total, noise = ((values - values.mean()) ** 2).sum(), within / df_within
    share = (total - within - df_between * noise) / (total + noise)
    p = float(stats.f_oneway(*levels).pvalue) if within > 0 else 0.0
    return {"share": max(0.0, float(share)), "p": p}


def adjust_for_many(tests: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` to each test: its `p` adjusted for the number of tests (Holm 1979); None where `p` is None."""
    tested = sorted((test for test in tests if test["p"] is not None), key=lambda test: test["p"])
    largest = 0.0
    for test in tests:
        test["p_holm"] = None
    for place, test in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - place) * test["p"]))
        test["p_holm"] = largest


class PairedPredictions(NamedTuple):
    """Two networks' predictions of the same N images.

    Attributes:
        num_images: N.
        first_only: Images that the first network alone classifies correctly.
        second_only: Images that the second alone classifies correctly.
        difference: Accuracy of the second minus that of the first.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p: McNemar's exact test, two-sided.
    """

    num_images: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    p: float


def mcnemar(first: Tensor, second: Tensor) -> PairedPredictions:
    """Compare which images two networks classify correctly, bool (N,) each.

    Source: McNemar 1947, exact; the interval is the adjusted Wald interval of Bonett and Price 2012.
    """
    num_images = len(first)
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    one, other = (first_only + 1) / (num_images + 2), (second_only + 1) / (num_images + 2)
    width = stats.norm.ppf((1 + LEVEL) / 2) * ((one + other - (other - one) ** 2) / (num_images + 2)) ** 0.5
    num_differing = first_only + second_only
    p = stats.binomtest(first_only, num_differing).pvalue if num_differing else 1.0
    return PairedPredictions(
        num_images,
        first_only,
        second_only,
        (second_only - first_only) / num_images,
        max(-1.0, float(other - one - width)),
        min(1.0, float(other - one + width)),
        float(p),
    )
