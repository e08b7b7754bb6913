"""The part of RESULTS.md about accuracy under attack, from its record."""

import statistics
from typing import Any

from benchmarks.tables import line, percent
from cnn_mnist import published

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


def trained_by(run: dict[str, Any]) -> str:
    """The options of train.py that make a network another one, but for its seed."""
    groups = ("experiment=", "model.", "network", "data=", "data.val_size=")
    return " ".join(word for word in run["overrides"] if word.startswith(groups)) or f"experiment={run['recipe']}"


def robustness_row(run: dict[str, Any]) -> str:
    """A network as a line of the table of attacks."""
    shares = [percent(run["measured"][key]["share"], 2) if key in run["measured"] else None for key in COLUMNS]
    return line(f"`{trained_by(run)}`", run["seed"], *shares)


def mean_rows(runs: list[dict[str, Any]]) -> list[str]:
    """The mean and the standard deviation over the seeds of each recipe, of what was measured with all of them."""
    rows = []
    for recipe in dict.fromkeys(map(trained_by, runs)):
        measured = [run["measured"] for run in runs if trained_by(run) == recipe]
        if len(measured) < 2:
            continue
        shares = {key: [one[key]["share"] for one in measured if key in one] for key in COLUMNS}
        cells = [
            f"{percent(statistics.fmean(found), 2)} ± {percent(statistics.stdev(found), 2)}"
            if len(found) == len(measured)
            else None
            for found in shares.values()
        ]
        rows.append(line(f"`{recipe}`", f"mean of {len(measured)}", *cells))
    return rows


def published_rows(attacks: list[str | None]) -> list[str]:
    """The papers as lines of the table of attacks: a number for each column whose attack, of these, is the same."""
    rows = []
    for source in dict.fromkeys(one.source for one in published.ROBUST if one.attack in attacks):
        found = {one.attack: one for one in published.ROBUST if one.source == source}
        clean = next(iter(found.values())).clean
        shares = [percent(found[same].robust) if same in found else None for same in attacks]
        rows.append(line(source, None, percent(clean), *shares[1:]))
    return rows


def robustness(record: dict[str, Any]) -> list[str]:
    """The part about attacks."""
    runs = [run for runs in record["networks"].values() for run in runs]
    trained = {run["weights"]: run for run in runs}  # one may have been attacked on several numbers of images
    training = [
        f"`train.py {' '.join(run['overrides'])}`: {run['epochs']} epochs in {run['fit_seconds'] / 60:.1f} minutes on "
        f"{run['device']}, {run['num_threads']} thread{'s' * (run['num_threads'] > 1)}, commit {run['git_commit']}"
        f"{'; ' * ('remark' in run)}{run.get('remark', '')}"
        for run in trained.values()
    ]
    took = [
        f"`{trained_by(run)}`, seed {run['seed']}, {run['num_images']:,} images, {run['date']}: "
        + ", ".join(f"{COLUMNS[name][0]} {found['seconds']:.0f}" for name, found in run["measured"].items())
        + f" ({' and '.join(sorted({found['device'] for found in run['measured'].values()}))})"
        for run in runs
    ]
    return [
        "## Accuracy under attack",
        "",
        f"No pixel changed by more than {record['epsilon']:g}. PGD takes 50 steps from each of 10 starts, APGD 100",
        "steps on the cross-entropy, Square and HopSkipJump 5,000 queries; AutoAttack is the standard ensemble.",
        "*Proven*: classified correctly, whatever changes by up to 0.3, or to 0.1, in each pixel.",
        "No attack can succeed on images that are proven at 0.3, so they are not attacked. The mean over the seeds has",
        "the standard deviation beside it. An empty cell was not measured.",
        "",
        *(
            row
            for number in sorted({run["num_images"] for run in runs}, reverse=True)
            for row in table([run for run in runs if run["num_images"] == number], number)
        ),
        *(checked(record["checklist"]) if "checklist" in record else []),
        "Training:",
        "",
        *(f"- {one}" for one in training),
        "",
        "Seconds of each measurement:",
        "",
        *(f"- {one}" for one in took),
        "",
    ]


def table(runs: list[dict[str, Any]], num_images: int) -> list[str]:
    """The networks that were attacked on the same number of images, and the literature's if these are all images."""
    is_whole = num_images == published.NUM_IMAGES
    ours = {name for run in runs for name in run["measured"]}
    heads = ["`python train.py ...`", "seed", *(name for name, _ in COLUMNS.values())]
    for_boundary = sorted({run["num_boundary_images"] for run in runs if "boundary" in run["measured"]})
    words = f"All {num_images:,} test images" if is_whole else f"{num_images:,} test images, evenly spaced"
    if for_boundary:
        words += f"; HopSkipJump attacks {' or '.join(f'{number:,}' for number in for_boundary)} of them"
    words += f" (`python -m benchmarks.robustness NAME=RUN{'' if is_whole else f' --images {num_images}'} --write`)"
    if is_whole:
        words += ". Published networks have other architectures; each number stands in the column of its attack"
    return [
        f"{words}:",
        "",
        line(*heads),
        line("---", *["---:"] * (len(heads) - 1)),
        *map(robustness_row, runs),
        *mean_rows(runs),
        *(published_rows([same if name in ours else None for name, (_, same) in COLUMNS.items()]) if is_whole else []),
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
