"""A sweep's configurations, compared over their seeds: how good each one is, how sure that is, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from cnn_mnist.analysis.statistics import LEVEL, MIN_SEEDS
from cnn_mnist.cli.schema import nearest
from cnn_mnist.figures import sweep as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.writer import InFolder
from cnn_mnist.runs import files
from cnn_mnist.runs.metrics import mode_of
from cnn_mnist.sweeps import jobs
from cnn_mnist.sweeps.configurations import (
    configuration_of,
    described,
    is_number,
    is_share,
    options_of,
    pairs_of,
    runs_of,
    unfinished,
)
from cnn_mnist.sweeps.jobs import DONE, Job, varying, varying_words

NOT_METRICS = ("seed", "epochs", "batchnorm", "num_train", "num_val", "num_test", "num_parameters", "num_neurons")
CIRCUMSTANCES = {"git_commit": "code", "device": "processor"}
MUST_AGREE = {  # results that have to be equal in all jobs, unless one of these options says otherwise
    "dataset": ("data", "data.dataset"),
    "max_epochs": ("trainer.max_epochs", "experiment"),
    "num_threads": (),
}


@dataclass(eq=False)
class Sweep(InFolder):
    """A sweep that was run, and the metric by which its configurations are compared."""

    metric: str
    jobs: list[Job]

    @property
    def facts(self) -> dict[str, Any]:
        """What heads the record of an analysis."""
        datasets = sorted({job.results["dataset"] for job in self.jobs if "dataset" in job.results})
        title = f"A sweep of {len(self.jobs)} jobs"
        return {
            "title": title,
            "names": [title],
            "sweep": files.shown(self.folder),
            "dataset": " and ".join(datasets),
            "metric": self.metric,
        }


def read(cfg: DictConfig) -> list[Sweep]:
    """The sweep that `cfg.sweep` names.

    Raises:
        ValueError: It is none, none of its jobs is done, or none has the metric.
    """
    folder = Path(cfg.sweep).expanduser()
    found = jobs.jobs(folder)
    done = [job for job in found if job.status == DONE]
    if not done:
        raise ValueError(f"no job of the sweep {folder} is done: there is nothing to compare")
    known = {key for job in done for key, value in job.results.items() if is_number(value) and key not in NOT_METRICS}
    if cfg.metric not in known:
        raise ValueError(f"metric={cfg.metric} is in no job's results{nearest(cfg.metric, known)}")
    _refuse_a_mixture(folder, done)
    print(f"{folder}: {len(done)} of {len(found)} jobs are done")
    return [Sweep(folder.resolve(), cfg.metric, found)]


def _refuse_a_mixture(folder: Path, done: Sequence[Job]) -> None:
    """Raise ValueError where jobs differ in what none of their options says, such as the data set after a fallback."""
    for key, options in MUST_AGREE.items():
        by_options: dict[tuple[str, ...], dict[str, Job]] = {}
        for job in done:
            said = tuple(one for one in job.overrides if one.lstrip("+").partition("=")[0] in options)
            if key in job.results:
                by_options.setdefault(said, {})[str(job.results[key])] = job
        for values in by_options.values():
            if len(values) > 1:
                labels = dict(zip(map(id, done), varying([job.overrides for job in done]), strict=True))
                each = ", ".join(f"{key}={value} in {labels[id(job)] or 'a job'}" for value, job in values.items())
                raise ValueError(f"the jobs of {folder} cannot be compared: {each}")


@needs(data=False, tables=True)
def seeds(subject: Sweep) -> Section:
    """Which configuration is best over the seeds, is that more than chance, and which option matters?"""
    metric = subject.metric
    done = [job for job in subject.jobs if job.status == DONE and is_number(job.results.get(metric))]
    runs = runs_of(done)
    groups = [configuration_of(name, list(own.values()), metric) for name, own in runs.items()]
    values = np.concatenate([group.values for group in groups])
    in_percent = is_share(metric, values)
    findings: dict[str, Any] = {
        "metric": metric,
        "level": LEVEL,
        "num_jobs": len(subject.jobs),
        "num_done": len(done),
        "configurations": [described(group) for group in groups],
        "pairs": pairs_of(runs, metric),
        "options": options_of(done, metric),
        "unfinished": unfinished(subject.jobs),
        **{key: sorted({str(job.results[key]) for job in done if key in job.results}) for key in CIRCUMSTANCES},
    }
    spec = ".2%" if in_percent else ".4g"
    for pair in findings["pairs"]:
        pair |= {
            f"{name}_points": scaled(pair[name], 100 if in_percent else 1) for name in ("difference", "low", "high")
        }
    figures: dict[str, Picture] = {"seeds/configurations": draw.configurations(groups, metric, in_percent=in_percent)}
    answers = [_which_is_best(findings, spec), *_is_it_chance(findings, in_percent, done)]
    if findings["options"]:
        answers.append(_what_matters(findings, spec))
        known = [one for one in findings["options"] if one["share"] is not None]
        if known:
            figures["seeds/options"] = draw.shares(known, "share of the variance (omega squared)")
    if np.isfinite(np.concatenate([group.seconds for group in groups])).all():
        figures["seeds/time"] = draw.against_time(groups, metric, in_percent=in_percent)
        answers.append(Answer("What does it cost?", ["seeds/time"], []))
    if any(group.curves.size for group in groups):
        figures["seeds/curves"] = draw.curves(groups, metric, in_percent=in_percent)
        answers.append(Answer("How do they learn?", ["seeds/curves"], []))
    answers.append(_trust(findings))
    tables = {
        "jobs.csv": [job.row for job in subject.jobs],
        "configurations.csv": findings["configurations"],
        "pairs.csv": findings["pairs"],
    }
    written = {name: files.as_csv(rows).encode() for name, rows in tables.items() if rows}
    return Section(findings, answers, {}, figures, written)


def _which_is_best(findings: dict[str, Any], spec: str) -> Answer:
    found = findings["configurations"]
    is_lowest = mode_of(findings["metric"]) == "min"
    best = (min if is_lowest else max)(range(len(found)), key=lambda place: found[place]["mean"])
    extreme = "lowest" if is_lowest else "highest"
    says = f"Of {{num_done}} runs, {{configurations.{best}.name}} has the {extreme} mean {{metric}}: " + (
        f"{{configurations.{best}.mean:{spec}}} over {{configurations.{best}.num_seeds}} seeds."
    )
    rows = [
        [
            f"{{configurations.{k}.name}}",
            f"{{configurations.{k}.num_seeds}}",
            f"{{configurations.{k}.mean:{spec}}}",
            f"{{configurations.{k}.sd:{spec}}}" if found[k]["sd"] is not None else "one run",
            *(
                [f"{{configurations.{k}.{name}:{spec}}}" for name in ("low", "high")]
                if found[k]["low"] is not None
                else ["too few seeds"] * 2
            ),
            *(f"{{configurations.{k}.{name}:{spec}}}" for name in ("lowest", "median", "highest")),
            *([f"{{configurations.{k}.seconds:.1f}}"] if np.isfinite(found[k]["seconds"]) else ["not known"]),
        ]
        for k in range(len(found))
    ]
    columns = ["configuration", "seeds", "mean", "standard deviation", "95 % from", "to", "lowest", "median", "highest"]
    columns.append("seconds")
    table = Table(findings["metric"], columns, rows)
    return Answer("Which configuration is best?", ["seeds/configurations"], [says], [table])


def scaled(value: float | None, factor: float) -> float | None:
    """A number times a factor; None for None."""
    return None if value is None else factor * value


def _is_it_chance(findings: dict[str, Any], in_percent: bool, done: Sequence[Job]) -> list[Answer]:
    pairs = findings["pairs"]
    if not pairs:
        return []
    question = "Is the difference more than chance?"
    spec, unit = (".2f", " percentage points") if in_percent else (".4g", "")
    varied = {one.lstrip("+").partition("=")[0] for one in varying_words([job.overrides for job in done])} - {"seed"}
    if len(pairs) == 1 and varied == {"model.batchnorm"}:
        question = "Does batch normalisation help, and what does it cost?"
    says = []
    if len(pairs) == 1 and pairs[0]["p"] is not None:
        low, high = pairs[0]["low"], pairs[0]["high"]
        is_lowest = mode_of(findings["metric"]) == "min"
        higher, lower = ("first", "second") if is_lowest else ("second", "first")
        verdict = "no difference can be told"
        if low > 0 or high < 0:
            verdict = f"the {higher if low > 0 else lower} is better"
        says = [
            "Over the same {pairs.0.num_seeds} seeds, {pairs.0.second} against {pairs.0.first} changes {metric} by "
            f"{{pairs.0.difference_points:+{spec}}}{unit} ({{level:.0%}} interval {{pairs.0.low_points:+{spec}}} to "
            f"{{pairs.0.high_points:+{spec}}}; paired t-test: p = {{pairs.0.p:.2g}}), so {verdict}."
        ]
        if np.isfinite(pairs[0]["time_ratio"]):
            says.append("Training takes {pairs.0.time_ratio:.2f} times as long.")
    rows = [
        [
            f"{{pairs.{k}.second}} against {{pairs.{k}.first}}",
            f"{{pairs.{k}.num_seeds}}",
            f"{{pairs.{k}.difference_points:+{spec}}}",
            *(
                [f"{{pairs.{k}.low_points:+{spec}}}", f"{{pairs.{k}.high_points:+{spec}}}"]
                + [f"{{pairs.{k}.{name}:.2g}}" for name in ("p", "p_holm")]
                if pairs[k]["p"] is not None
                else ["too few seeds" if pairs[k]["num_seeds"] < MIN_SEEDS else "all differences are equal"] * 4
            ),
            f"{{pairs.{k}.time_ratio:.2f}}" if np.isfinite(pairs[k]["time_ratio"]) else "not known",
        ]
        for k in range(len(pairs))
    ]
    columns = [
        "configurations",
        "seeds",
        f"difference{unit and ', points'}",
        "95 % from",
        "to",
        "p",
        "p, all pairs",
        "times as long",
    ]
    return [Answer(question, [], says, [Table("Paired over seeds", columns, rows)])]


def _what_matters(findings: dict[str, Any], spec: str) -> Answer:
    rows = [
        [
            f"{{options.{k}.key}}",
            *(
                [f"{{options.{k}.share:.0%}}", f"{{options.{k}.p_holm:.2g}}"]
                if findings["options"][k]["share"] is not None
                else ["too few runs"] * 2
            ),
            f"{{options.{k}.highest_level}}: {{options.{k}.highest:{spec}}}",
            f"{{options.{k}.lowest_level}}: {{options.{k}.lowest:{spec}}}",
        ]
        for k in range(len(findings["options"]))
    ]
    says = [
        f"{{options.{k}.key}} does: {{options.{k}.share:.0%}} of the variance between runs goes with it (omega "
        f"squared; F test, allowing for all options: p = {{options.{k}.p_holm:.2g}})."
        for k, one in enumerate(findings["options"])
        if one["matters"]
    ] or ["No option stands out: what goes with each of them may be chance."]
    columns = ["option", "share of the variance", "p, all options", "highest mean", "lowest mean"]
    table = Table("Options", columns, rows)
    shown = ["seeds/options"] if any(one["share"] is not None for one in findings["options"]) else []
    return Answer("Which option matters?", shown, says, [table])


def _trust(findings: dict[str, Any]) -> Answer:
    """What stands against taking the numbers at face value."""
    says = [
        f"The jobs were run with more than one {noun}: {{{key}}}."
        for key, noun in CIRCUMSTANCES.items()
        if len(findings[key]) > 1
    ]
    if any("dirty" in commit for commit in findings["git_commit"]):
        says.append("Some were run by code that was not committed.")
    tables = []
    if findings["unfinished"]:
        says.append("Of {num_jobs} jobs, {num_done} are done.")
        rows = [
            [f"{{unfinished.{k}.job}}", f"{{unfinished.{k}.status}}", f"{{unfinished.{k}.error}}"]
            for k in range(len(findings["unfinished"]))
        ]
        tables.append(Table("Jobs that are not done", ["job", "status", "what went wrong"], rows))
    return Answer(
        "Is the sweep whole, and all of one kind?",
        [],
        says or ["It is: every job is done, by the same code, on the same kind of processor."],
        tables,
    )
