"""RESULTS.md from its record, docs/results.json."""

import json
from pathlib import Path
from typing import Any

from cnn_mnist import published
from cnn_mnist.runs import files

RECORD, PAGE = Path("docs", "results.json"), Path("RESULTS.md")
LAB = {f"paper{'_batchnorm' * norm}": tuple(found.values()) for norm, found in published.LAB_REPORT.items()}
COLUMNS = {  # the columns of the table of attacks: what is measured, and the same attack in the literature
    "clean": ("clean", None),
    "fgsm": ("FGSM", "FGSM"),
    "pgd": ("PGD-50 x 10, steps of 0.01", "PGD-50 x 10"),
    "pgd_large_steps": ("PGD-50 x 10, steps of 0.019", None),
    "apgd": ("APGD", None),
    "square": ("Square", None),
    "auto": ("AutoAttack", "AutoAttack"),
    "boundary": ("HopSkipJump", None),
    "certified": ("proven", None),
    "certified_at_0.1": ("proven at 0.1", None),
}


def percent(value: float | None, digits: int = 2) -> str:
    """A share in per cent; nothing for None."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def line(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def accuracy_row(key: str, found: dict[str, Any]) -> str:
    """A configuration as a line of the first table."""
    with_norm = " model.batchnorm=true" if key.endswith("_batchnorm") else ""
    report, report_seconds = LAB.get(key, (None, None))
    has_interval = found["low"] is not None
    return line(
        f"`experiment={found['recipe']}{with_norm}`",
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


def paired_line(found: dict[str, Any]) -> str:
    """A paired difference in words."""
    sure = "too few seeds for an interval"
    if found["p"] is not None:
        sure = (
            f"95 % interval {found['low']:+.3f} to {found['high']:+.3f}; paired t-test, {found['num_seeds']} seeds: "
            f"p = {found['p']:.2g}"
        )
    return (
        f"{found['difference']:+.3f} percentage points ({sure}) for {found['time_ratio']:.2f} times the training time"
    )


def trained_by(run: dict[str, Any]) -> str:
    """The options of train.py that make a network another one, but for its seed."""
    groups = ("experiment=", "model.", "network", "data=", "data.val_size=")
    return " ".join(word for word in run["overrides"] if word.startswith(groups)) or f"experiment={run['recipe']}"


def robustness_row(run: dict[str, Any]) -> str:
    """A network as a line of the table of attacks."""
    shares = [percent(run["measured"][key]["share"], 2) if key in run["measured"] else None for key in COLUMNS]
    return line(f"`{trained_by(run)}`", run["seed"], *shares)


def published_row(source: str) -> str:
    """A paper as a line of the table of attacks, each number in the column of the same attack."""
    found = {one.attack: one for one in published.ROBUST if one.source == source}
    clean = next(iter(found.values())).clean
    shares = [percent(found[same].robust) if same in found else None for _, same in COLUMNS.values()]
    return line(source, None, percent(clean), *shares[1:])


def robustness(record: dict[str, Any]) -> list[str]:
    """The part about attacks."""
    runs = [run for runs in record["networks"].values() for run in runs]
    is_whole = record["num_images"] == published.NUM_IMAGES
    same = {same for _, same in COLUMNS.values()}
    sources = dict.fromkeys(one.source for one in published.ROBUST if one.attack in same)
    heads = ["`python train.py ...`", "seed", *(name for name, _ in COLUMNS.values())]
    training = [
        f"`train.py {' '.join(run['overrides'])}`: {run['epochs']} epochs in {run['fit_seconds'] / 60:.1f} minutes on "
        f"{run['device']}, {run['num_threads']} threads, commit {run['git_commit']}"
        for run in runs
    ]
    took = [
        f"`{trained_by(run)}`, seed {run['seed']}: "
        + ", ".join(f"{COLUMNS[name][0]} {found['seconds']:.0f}" for name, found in run["measured"].items())
        + f" ({' and '.join(sorted({found['device'] for found in run['measured'].values()}))})"
        for run in runs
    ]
    return [
        "## Accuracy under attack",
        "",
        f"No pixel changed by more than {record['epsilon']:g}; {record['num_images']:,} test images, of which",
        f"HopSkipJump (5,000 queries) attacks {record['num_boundary_images']:,}, evenly spaced. PGD takes",
        "50 steps from each of 10 starts, APGD 100 steps on the cross-entropy, Square 5,000 queries; AutoAttack is the",
        "standard ensemble. *Proven*: classified correctly, whatever changes by up to 0.3, or to 0.1, in each pixel.",
        f"`python -m benchmarks.robustness` repeats it. Measured on {record['date']}; an empty cell was not measured.",
        "",
        line(*heads),
        line("---", *["---:"] * (len(heads) - 1)),
        *map(robustness_row, runs),
        *(map(published_row, sources) if is_whole else []),
        "",
        *(
            [
                "Published networks have other architectures. Each number stands in the column of its attack, and is "
                "of all 10,000 test images.",
                "",
            ]
            if is_whole
            else []
        ),
        *(checked(record["checklist"]) if "checklist" in record else []),
        "Training:",
        "",
        *([record["remark"], ""] if "remark" in record else []),
        *(f"- {one}" for one in training),
        "",
        "Seconds of each measurement:",
        "",
        *(f"- {one}" for one in took),
        "",
    ]


def checked(found: dict[str, Any]) -> list[str]:
    """The part about the checklist."""
    return [
        f"`attack=checklist` on the robust network, {found['num_images']:,} images: {found['num_holding']} of "
        f"{found['num_points']} points hold.",
        "",
        line("asked", "measured", "verdict"),
        line(*["---"] * 3),
        *(
            line(point["asks"], point["measured"], "holds" if point["holds"] else "does not hold")
            for point in found["points"]
        ),
        "",
    ]


def page(record: dict[str, Any]) -> str:
    """RESULTS.md."""
    where = record["where"]
    heads = ["`python train.py ...`", "parameters", "epochs", "seeds", "test accuracy", "95 %"]
    heads += ["lowest / median / highest, %", "seconds", "report", "seconds"]
    tail = record["tail"]
    text = [
        "# Results",
        "",
        f"Written by `make results` on {record['date']}, from {record['dataset']}: {record['num_train']:,} training "
        f"and {record['num_test']:,} test images.",
        f"{where['device']}, {record['num_cores']} cores, {where['num_threads']} threads; "
        + ", ".join(f"{name} {version}" for name, version in where["versions"].items())
        + f"; commit {where['git_commit']}. The numbers are in docs/results.json.",
        "",
        "## Accuracy",
        "",
        "Mean and standard deviation over the seeds 0, 1, ..., and the 95 % interval of the mean (Student's t). The",
        "lab report has one run of each. Seconds are those of `fit`, validation and pictures included.",
        "",
        line(*heads),
        line("---", *["---:"] * (len(heads) - 1)),
        *(accuracy_row(key, found) for key, found in record["accuracy"].items()),
        "",
        "The lab report's recipe keeps its learning rate to the end, and its last epoch can spike. "
        f"Seed {tail['seed']}, outside of these, ends at {percent(tail['accuracy'])} after "
        f"{percent(tail['best'])} in epoch {tail['best_epoch']}: the standard deviation above understates that.",
        "",
        "Batch normalisation, paired by seed:",
        "",
        f"- with the lab report's recipe: {paired_line(record['paired']['paper'])};",
        f"- with one epoch: {paired_line(record['paired']['one_epoch'])}.",
        "",
        *(robustness(record["robustness"]) if "robustness" in record else []),
    ]
    return "\n".join(text)


def update_record(parts: dict[str, Any]) -> None:
    """Write parts of the record, and RESULTS.md from all of it."""
    before = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    record = before | parts
    text = page(record)
    files.write(RECORD, json.dumps(record, indent=2) + "\n")
    files.write(PAGE, text)
