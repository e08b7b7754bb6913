"""RESULTS.md from its record, docs/results.json."""

import json
from pathlib import Path
from typing import Any

from benchmarks import robustness_page
from benchmarks.tables import line, percent
from cnn_mnist import published
from cnn_mnist.report.dataset import SETS
from cnn_mnist.runs import files

RECORD, PAGE = Path("docs", "results.json"), Path("RESULTS.md")
LAB = {f"paper{'_batchnorm' * norm}": tuple(found.values()) for norm, found in published.LAB_REPORT.items()}
BY_NAME = ("accuracy", "paired")  # parts of the record with an entry for each configuration or recipe
SPEED_COLUMNS = {"from_start": "s from the process's start", "from_first_step": "s from the first step"}
PAIRED = {"paper": "with the lab report's recipe", "one_epoch": "with one epoch"}


def accuracy_row(key: str, found: dict[str, Any]) -> str:
    """A configuration as a line of the first table."""
    with_norm = " model.batchnorm=true" if key.endswith("_batchnorm") else ""
    report, report_seconds = LAB.get(key, (None, None))
    has_interval = found["low"] is not None and found["low"] < found["high"]  # equal accuracies give none
    return line(
        f"`{' '.join(found['options'])}{with_norm}`",
        f"{found['num_parameters']:,}",
        found["epochs"],
        found["num_seeds"],
        percent(found["mean"], 3) + (f" ± {100 * found['sd']:.3f}" if found["sd"] is not None else ""),
        f"{100 * found['low']:.2f} to {percent(found['high'])}" if has_interval else "",
        " / ".join(f"{100 * found[name]:.2f}" for name in ("lowest", "median", "highest")),
        f"{found['seconds']:.0f}" + (f" ± {found['seconds_sd']:.0f}" if found["seconds_sd"] is not None else ""),
        percent(report),
        report_seconds,
    )


def accuracy(record: dict[str, Any]) -> list[str]:
    """The part about accuracy on untouched images."""
    heads = ["`python train.py ...`", "parameters", "epochs", "seeds", "test accuracy", "95 % interval"]
    heads += ["lowest / median / highest, %", "seconds", "lab report", "its seconds"]
    places: dict[tuple[str, str, str], list[str]] = {}
    for found in record["accuracy"].values():
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        where = f"{found['device']}, {found['num_cores']} cores, {found['num_threads']} threads; {versions}"
        commits = " and ".join(found["git_commits"])
        places.setdefault((found["date"], where, commits), []).append(f"`{found['recipe']}`")
    return [
        "## Accuracy",
        "",
        f"On {SETS.get(record['dataset'], record['dataset'])}: {record['num_train']:,} training and "
        f"{record['num_test']:,} test images. Mean and",
        "standard deviation over the seeds 0, 1, ..., and the 95 % interval of the mean (Student's t). The lab report",
        "has one run of each, on a machine of its own. Seconds are those of `fit`, validation and pictures included.",
        "",
        line(*heads),
        line("---", *["---:"] * (len(heads) - 1)),
        *(accuracy_row(key, found) for key, found in record["accuracy"].items()),
        "",
        *(
            f"- {', '.join(dict.fromkeys(names))}: {date}, {where}; commit {commits}"
            for (date, where, commits), names in places.items()
        ),
        "",
        *(batch_normalisation(record["paired"]) if "paired" in record else []),
        *(spikes(record["spikes"]) if "spikes" in record else []),
        *(repeats(record["repeats"]) if "repeats" in record else []),
    ]


def batch_normalisation(record: dict[str, dict[str, Any]]) -> list[str]:
    """What batch normalisation changes, recipe by recipe."""
    lines = [f"- {PAIRED[name]}: {paired_line(found)}" for name, found in record.items()]
    return ["Batch normalisation, paired by seed:", "", *lines, ""]


def paired_line(found: dict[str, Any]) -> str:
    """A paired difference in words."""
    sure, times = "too few seeds for an interval", ""
    if found["p"] is not None:
        sure = (
            f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}; paired t-test, {found['num_seeds']} seeds: "
            f"p = {found['p']:.2g}"
        )
    if found["time_low"] is not None:
        times = f" ({found['time_low']:.2f} to {found['time_high']:.2f})"
    change = f"{found['difference']:+.3f} percentage points ({sure})"
    return f"{change} for {found['time_ratio']:.2f} times the training time{times}."


def spikes(record: dict[str, dict[str, Any]]) -> list[str]:
    """How often a run of the lab report's recipe ends badly."""
    return [
        "The lab report's recipe keeps its learning rate to the end, so the last epoch of a run can be a bad one. Runs "
        f"whose last epoch is at least {100 * record['paper']['fall']:g} percentage points below their best:",
        "",
        *(
            f"- in {found['num_spikes']} of {found['num_runs']} runs {'with' if 'batchnorm' in name else 'without'} "
            f"batch normalisation (95 % interval of the share {100 * found['low']:.0f} to "
            f"{percent(found['high'], 0)}); the largest fall is {100 * found['deepest']['fall']:.2f} points, to "
            f"{percent(found['deepest']['accuracy'])} (seed {found['deepest']['seed']})."
            for name, found in record.items()
        ),
        "",
    ]


def repeats(found: dict[str, Any]) -> list[str]:
    """What differs between equal runs."""
    number = found["num_different_weights"]
    same = "the same weights, bit for bit" if number == 1 else f"{number} different sets of weights"
    seconds = ", ".join(f"{value:.1f}" for value in found["seconds"])
    accuracies = ", ".join(percent(value) for value in dict.fromkeys(found["accuracies"]))
    return [
        f"Repeatability: `python train.py {' '.join(found['options'])} seed={found['seed']}`, run {found['num_runs']} "
        f"times on {found['date']} ({found['device']}, commit {found['git_commit']}), gave {same}, and the accuracy "
        f"{accuracies}. The times of `fit` were {seconds} s.",
        "",
    ]


def committee(found: dict[str, Any]) -> list[str]:
    """The part about the most that the network can do."""
    return [
        "## Best accuracy",
        "",
        "The networks of `experiment=best` in the table above, alone and as a committee, by the mean of their",
        "probabilities (`python analyze.py committee=multirun/results-best`). The options were chosen with the last",
        "10,000 training images held out (docs/data.md), and the networks then trained on all training images.",
        "",
        line("", "what", "test accuracy", "remark"),
        line("---", "---", "---:", "---"),
        line("this network", "one, mean over the seeds", percent(found["member_mean"], 3), None),
        line(
            "this network",
            f"committee of {found['num_members']}",
            percent(found["accuracy"]),
            f"{found['num_wrong']} mistakes; in {found['num_unanimous_mistakes']} all predict the same wrong class",
        ),
        *(line(one.source, one.what, percent(one.accuracy), one.remark) for one in published.ACCURACIES),
        "",
    ]


def speed(found: dict[str, Any]) -> list[str]:
    """The part about the shortest time to an accuracy."""
    return [
        "## Time to an accuracy",
        "",
        f"The median of {found['num_seeds']} seeds, each a fresh process (`python -m benchmarks.results speed`), with "
        f"`{' '.join(found['plain'])}`: no pictures, and no test before the end. The recipes were chosen on training "
        "images held out; the test set only says whether the mean accuracy is reached. The clock stops after the last "
        f"step. {found['date']}, {found['device']}, {found['num_threads']} threads, commit "
        f"{' and '.join(found['git_commits'])}.",
        "",
        line("to reach", "`python train.py ...`", "mean accuracy", "lowest", *SPEED_COLUMNS.values(), "s on a GPU"),
        line("---:", "---", *["---:"] * 5),
        *(
            line(
                percent(row["target"], 1) + ("" if row["is_reached"] else " (missed)"),
                f"`{row['options']}`",
                percent(row["mean"]),
                percent(row["lowest"]),
                *(f"{row[key]:.1f}" for key in SPEED_COLUMNS),
                f"{row['gpu']:.1f}" if row["gpu"] else "not measured",
            )
            for row in found["rows"]
        ),
        *(line(percent(one.accuracy), one.source, None, None, None, None, one.words) for one in published.SPEEDS),
        "",
    ]


def page(record: dict[str, Any]) -> str:
    """RESULTS.md."""
    text = [
        "# Results",
        "",
        "Each part names the command that measures it, and when and where it was measured; `make results` runs all of",
        "them, with three seeds of `experiment=robust` and of `experiment=certified`. The numbers are in",
        "docs/results.json.",
        "",
        *(accuracy(record) if "accuracy" in record else []),
        *(committee(record["committee"]) if "committee" in record else []),
        *(speed(record["speed"]) if "speed" in record else []),
        *(robustness_page.robustness(record["robustness"]) if "robustness" in record else []),
    ]
    return "\n".join(text)


def record() -> dict[str, Any]:
    """What has been measured."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return found


def update_record(parts: dict[str, Any]) -> None:
    """Write parts of the record, and RESULTS.md from all of it; a configuration takes the place of that name alone."""
    found = record()
    for key, value in parts.items():
        found[key] = found.get(key, {}) | value if key in BY_NAME else value
    files.write(RECORD, json.dumps(found, indent=2) + "\n")
    files.write(PAGE, page(found))
