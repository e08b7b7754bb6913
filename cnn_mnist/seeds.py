"""A sweep's configurations, compared over their seeds: how good each one is, how sure that is, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from cnn_mnist import sweep
from cnn_mnist.configurations import (
    LEVEL,
    described,
    group_of,
    is_number,
    options_of,
    pairs_of,
    runs_of,
    unfinished,
)
from cnn_mnist.figures import sweep as draw
from cnn_mnist.files import shown
from cnn_mnist.part import Answer, Part, Table
from cnn_mnist.rules import nearest
from cnn_mnist.sweep import DONE, Job, as_csv

NOT_METRICS = ("seed", "epochs", "batchnorm", "num_train", "num_val", "num_test", "num_parameters", "num_neurons")
CIRCUMSTANCES = {"git_commit": "code", "num_threads": "number of threads", "device": "processor"}


@dataclass(eq=False)
class Sweep:
    """A sweep that was run, and the metric by which its configurations are compared."""

    folder: Path
    metric: str
    jobs: list[Job]

    @property
    def device(self) -> torch.device:
        """Where the comparison is computed."""
        return torch.device("cpu")

    @property
    def name(self) -> str:
        """What its analyses are filed under."""
        return self.folder.name

    @property
    def facts(self) -> dict[str, Any]:
        """What heads the record of an analysis."""
        datasets = sorted({job.results["dataset"] for job in self.jobs if "dataset" in job.results})
        title = f"A sweep of {len(self.jobs)} jobs"
        return {
            "title": title,
            "names": [title],
            "sweep": shown(self.folder),
            "dataset": " and ".join(datasets),
            "metric": self.metric,
        }


def read(cfg: DictConfig) -> list[Sweep]:
    """The sweep that `cfg.sweep` names.

    Raises:
        ValueError: It is none, none of its jobs is done, or none has the metric.
    """
    folder = Path(cfg.sweep)
    found = sweep.jobs(folder)
    done = [job for job in found if job.status == DONE]
    if not done:
        raise ValueError(f"no job of the sweep {folder} is done: there is nothing to compare")
    known = {key for job in done for key, value in job.results.items() if is_number(value) and key not in NOT_METRICS}
    if cfg.metric not in known:
        raise ValueError(f"metric={cfg.metric} is in no job's results{nearest(cfg.metric, known)}")
    print(f"{folder}: {len(done)} of {len(found)} jobs are done")
    return [Sweep(folder.resolve(), cfg.metric, found)]


def seeds(subject: Sweep) -> Part:
    """Which configuration is best over the seeds, is that more than chance, and which option matters?"""
    metric = subject.metric
    done = [job for job in subject.jobs if job.status == DONE and is_number(job.results.get(metric))]
    runs = runs_of(done)
    groups = [group_of(name, list(own.values()), metric) for name, own in runs.items()]
    values = np.concatenate([group.values for group in groups])
    in_percent = metric.endswith(("acc", "rate")) and bool(((values >= 0) & (values <= 1)).all())
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
    figures = {"seeds/configurations": draw.configurations(groups, metric, in_percent=in_percent)}
    answers = [_which_is_best(findings, spec), *_is_it_chance(findings, spec, done)]
    if findings["options"]:
        answers.append(_what_matters(findings, spec))
        figures["seeds/options"] = draw.shares(findings["options"])
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
    return Part(findings, answers, {}, figures, {name: as_csv(rows).encode() for name, rows in tables.items() if rows})


def _which_is_best(findings: dict[str, Any], spec: str) -> Answer:
    found = findings["configurations"]
    best = max(range(len(found)), key=lambda place: found[place]["mean"])
    says = f"Of {{num_done}} runs, {{configurations.{best}.name}} has the highest mean {{metric}}: " + (
        f"{{configurations.{best}.mean:{spec}}} over {{configurations.{best}.num_seeds}} seeds."
    )
    rows = [
        [
            f"{{configurations.{k}.name}}",
            f"{{configurations.{k}.num_seeds}}",
            f"{{configurations.{k}.mean:{spec}}}",
            *(
                [f"{{configurations.{k}.{name}:{spec}}}" for name in ("sd", "low", "high")]
                if found[k]["sd"] is not None
                else ["one run"] * 3
            ),
            *([f"{{configurations.{k}.seconds:.1f}}"] if np.isfinite(found[k]["seconds"]) else ["not known"]),
        ]
        for k in range(len(found))
    ]
    columns = ["configuration", "seeds", "mean", "standard deviation", "95 % from", "to", "seconds"]
    table = Table(findings["metric"], columns, rows)
    return Answer("Which configuration is best?", ["seeds/configurations"], [says], [table])


def _is_it_chance(findings: dict[str, Any], spec: str, done: Sequence[Job]) -> list[Answer]:
    pairs = findings["pairs"]
    if not pairs:
        return []
    question = "Is the difference more than chance?"
    varied = {one["key"] for one in findings["options"]} - {"seed"}
    if len(pairs) == 1 and varied <= {"model.batchnorm"}:
        question = "Does batch normalisation help, and what does it cost?"
    says = []
    if len(pairs) == 1 and pairs[0]["p"] is not None:
        low, high = pairs[0]["low"], pairs[0]["high"]
        verdict = (
            "the second is better" if low > 0 else "the first is better" if high < 0 else "no difference can be told"
        )
        says = [
            "Over the same {pairs.0.num_seeds} seeds, {pairs.0.second} against {pairs.0.first} adds "
            f"{{pairs.0.difference:+{spec}}} to {{metric}} ({{level:.0%}} interval {{pairs.0.low:+{spec}}} to "
            f"{{pairs.0.high:+{spec}}}; paired t-test: p = {{pairs.0.p:.2g}}), so {verdict}. Training takes "
            "{pairs.0.time_ratio:.2f} times as long."
        ]
    rows = [
        [
            f"{{pairs.{k}.second}} against {{pairs.{k}.first}}",
            f"{{pairs.{k}.num_seeds}}",
            f"{{pairs.{k}.difference:+{spec}}}",
            *(
                [f"{{pairs.{k}.low:+{spec}}}", f"{{pairs.{k}.high:+{spec}}}"]
                + [f"{{pairs.{k}.{name}:.2g}}" for name in ("p", "p_holm")]
                if pairs[k]["p"] is not None
                else ["not to be told"] * 4
            ),
            f"{{pairs.{k}.time_ratio:.2f}}" if np.isfinite(pairs[k]["time_ratio"]) else "not known",
        ]
        for k in range(len(pairs))
    ]
    columns = ["configurations", "seeds", "difference", "95 % from", "to", "p", "p, all pairs", "times as long"]
    return [Answer(question, [], says, [Table("Paired over seeds", columns, rows)])]


def _what_matters(findings: dict[str, Any], spec: str) -> Answer:
    rows = [
        [
            f"{{options.{k}.key}}",
            f"{{options.{k}.share:.0%}}",
            f"{{options.{k}.highest_level}}: {{options.{k}.highest:{spec}}}",
            f"{{options.{k}.lowest_level}}: {{options.{k}.lowest:{spec}}}",
        ]
        for k in range(len(findings["options"]))
    ]
    says = "Of all that varies, {options.0.key} goes with the largest share of the variance between runs: "
    columns = ["option", "share of the variance", "highest mean", "lowest mean"]
    table = Table("Options", columns, rows)
    return Answer("Which option matters?", ["seeds/options"], [says + "{options.0.share:.0%}."], [table])


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
