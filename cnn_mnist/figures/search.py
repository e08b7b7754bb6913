"""What is drawn of a search: what each trial reached, and with which options."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from matplotlib.figure import Figure

from cnn_mnist.figures.canvas import DARK, WRONG, per_cent, whole_numbers


def history(numbers: Sequence[int], values: Sequence[float], metric: str, best: Callable[..., float] = max) -> Figure:
    """The metric of each trial, and the best so far: by `best`, the highest or the lowest."""
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.plot(numbers, values, "o", color=DARK, label="a trial")
    axes.step(numbers, list(accumulate(values, best)), "-", where="post", color=WRONG, label="the best so far")
    axes.set_xlabel("trial")
    whole_numbers(axes.xaxis)
    axes.set_ylabel(metric)
    if metric.endswith("acc"):
        per_cent(axes.yaxis)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def slices(options: Mapping[str, Sequence[object]], log: Sequence[str], values: Sequence[float], metric: str) -> Figure:
    """The metric against each option that was searched.

    Args:
        options: What each trial had, by key.
        log: Keys that were drawn evenly in their logarithm.
        values: The metric of each trial.
        metric: Its name.
    """
    num_columns = min(3, len(options))
    num_rows = math.ceil(len(options) / num_columns)
    figure = Figure(figsize=(3.4 * num_columns, 2.8 * num_rows), layout="constrained", dpi=110)
    for place, (key, levels) in enumerate(options.items()):
        axes = figure.add_subplot(num_rows, num_columns, place + 1)
        is_number = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
        axes.plot(levels if is_number else [str(level) for level in levels], values, "o", color=DARK, markersize=4)  # type: ignore[arg-type]
        if key in log:
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.set_ylabel(metric if place % num_columns == 0 else "")
        if metric.endswith("acc"):
            per_cent(axes.yaxis)
        axes.grid(alpha=0.3)
    return figure
