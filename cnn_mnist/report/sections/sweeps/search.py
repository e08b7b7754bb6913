"""A search for better options: what was tried, and what was best."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from cnn_mnist.cli import console
from cnn_mnist.figures import sweep as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.plan import Task
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.writer import Findings, InFolder
from cnn_mnist.runs import files
from cnn_mnist.runs.metrics import mode_of
from cnn_mnist.sweeps.search import metric_of, spec_of

MIN_TRIALS = 8  # trials from which an option's importance is estimated


@dataclass(eq=False)
class Search(InFolder):
    """A search, as a subject of the report's page."""

    study: optuna.Study

    @property
    def facts(self) -> dict[str, Any]:
        """What heads its record."""
        title = f"A search of {len(self.study.trials)} trials"
        return {
            "title": title,
            "names": [title],
            "dataset": self.study.best_trial.user_attrs["dataset"],
            "sweep": files.shown(self.folder),
            "fixed": " ".join(self.study.user_attrs["fixed"]),
        }


def write_page(place: Path, study: optuna.Study, seed: int) -> None:
    """Write `report.html`, `results.json` and the figures of a search into its folder."""
    console.quiet()
    cfg = OmegaConf.create({"seed": seed, "fixed": study.user_attrs["fixed"], "space": study.user_attrs["space"]})
    subject = Search(place, study)
    findings = Findings(place, cfg, [subject])
    task = Task("analysis", "search", DictConfig({"_target_": f"{__name__}.trials"}), is_alone=True)
    with findings.attempt(task):
        findings.add(task, subject, trials(subject))
    path = findings.close()
    print(f"report: {path.with_name('report.html')}")
    print(f"results: {path}")


@needs(data=False, tables=True)
def trials(subject: Search) -> Section:
    """What was tried, what was best, and which option mattered?"""
    study = subject.study
    metric, best = metric_of(study), max if mode_of(metric_of(study)) == "max" else min
    spec = spec_of(metric)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    values = [float(trial.value or 0) for trial in done]
    findings: dict[str, Any] = {
        "metric": metric,
        "num_done": len(done),
        "num_failed": len(study.get_trials(states=(TrialState.FAIL,))),
        "best": {
            "trial": study.best_trial.number,
            "value": study.best_value,
            "seconds": study.best_trial.user_attrs["seconds"],
            "options": " ".join(f"{key}={value}" for key, value in study.best_trial.params.items()),
        },
        "trials": [
            {"number": trial.number, "value": value, "seconds": trial.user_attrs["seconds"], **trial.params}
            for trial, value in zip(done, values, strict=True)
        ],
        "options": _importances(study, values),
    }
    distributions = done[0].distributions
    figures = figures_of(study, metric)
    says = [
        f"Of {{num_done}} trials, number {{best.trial}} has the best {{metric}}: {{best.value:{spec}}}, with "
        "{best.options}.",
        "It is the best of many on one hold-out and one seed, so it promises a little too much: run its options "
        "over several seeds before believing it.",
    ]
    order = sorted(range(len(done)), key=values.__getitem__, reverse=best is max)[:10]
    columns = ["trial", metric, "seconds", *distributions]
    rows = [
        [
            f"{{trials.{k}.number}}",
            f"{{trials.{k}.value:{spec}}}",
            f"{{trials.{k}.seconds:.0f}}",
            *(f"{{trials.{k}.{key.replace('.', '_')}}}" for key in distributions),
        ]
        for k in order
    ]
    findings["trials"] = [
        {key.replace(".", "_"): value for key, value in trial.items()} for trial in findings["trials"]
    ]
    against = [tag for tag in figures if tag.startswith("search/against/")]
    answers = [
        Answer("What was best?", ["search/history"], says, [Table("The ten best", columns, rows)]),
        Answer("How does the metric go with each option?", against, []),
    ]
    if findings["options"]:
        figures["search/options"] = draw.shares(findings["options"])
        shares = (
            "Optuna's estimate of how much of the variance between trials goes with each option. The shares add up to "
            "one even where no option has an effect: a sweep over several seeds tells an effect from chance."
        )
        answers.append(Answer("Which option may matter?", ["search/options"], [shares]))
    return Section(findings, answers, {}, figures)


def figures_of(study: optuna.Study, metric: str) -> dict[str, Picture]:
    """Each trial's value with the best so far, and the values against each option."""
    done = study.get_trials(states=(TrialState.COMPLETE,))
    values = [float(trial.value or 0) for trial in done]
    is_highest, in_percent = mode_of(metric) == "max", metric.endswith("acc")
    best = (np.maximum if is_highest else np.minimum).accumulate(values).tolist()
    figures: dict[str, Picture] = {
        "search/history": draw.history([trial.number for trial in done], values, best, metric, in_percent=in_percent)
    }
    for key, kind in done[0].distributions.items():
        tried = {trial.number: trial.params[key] for trial in done if key in trial.params}
        found = [value for trial, value in zip(done, values, strict=True) if trial.number in tried]
        is_log = bool(getattr(kind, "log", False))
        figures[f"search/against/{key}"] = draw.against_option(
            key, list(tried.values()), found, metric, in_percent=in_percent, is_log=is_log
        )
    return figures


def _importances(study: optuna.Study, values: Sequence[float]) -> list[dict[str, Any]]:
    """How much of the variance of the metric each option explains, by Optuna's evaluator; none where there is none."""
    if len(values) < MIN_TRIALS or max(values) == min(values):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study)
    return [{"key": key, "share": float(share)} for key, share in shares.items()]
