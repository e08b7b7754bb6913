"""A search for better options with Optuna: runs of train.py, compared by the hold-out, remembered in SQLite."""

import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cnn_mnist import console, files, signals
from cnn_mnist.figures import search as draw
from cnn_mnist.figures import sweep as draw_sweep
from cnn_mnist.findings import Findings
from cnn_mnist.part import Answer, Part, Table
from cnn_mnist.runs import mode_of
from cnn_mnist.tasks import Task

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
USUAL_METRIC = "val/acc"
FEWEST = 8  # trials that can say which option matters
USUAL = ("data.val_size=5000", "callbacks=none")  # unless the command says otherwise
USUAL_SPACE = (
    "model.lr=tag(log,interval(1e-3,3e-2))",
    "model.distortion=interval(0.0,0.25)",
    "model.label_smoothing=interval(0.0,0.2)",
    "model.weight_decay=tag(log,interval(1e-4,1e-1))",
)


@dataclass(eq=False)
class Search:
    """A search, as a subject of the report's page."""

    folder: Path
    study: optuna.Study

    @property
    def device(self) -> torch.device:
        """Where its numbers are computed; the runs say for themselves."""
        return torch.device("cpu")

    @property
    def name(self) -> str:
        """What it is filed under."""
        return self.folder.name

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


def search(
    options: Sequence[str], *, num_trials: int, folder: str | Path | None, seed: int, metric: str | None = None
) -> None:
    """Run trials until there are `num_trials` that ended well, and write the page.

    Args:
        options: Of train.py; those that are an interval, a range or a choice are searched.
        num_trials: In all, those of earlier calls with the same folder included.
        folder: Of `study.db`, the runs and the page; None: a new one, named by the date.
        seed: Of what is tried.
        metric: Of the hold-out, by which trials are compared; None: that of the search in the folder, or val/acc.

    Raises:
        ValueError: An option is malformed or cannot be searched, the folder holds another search or is in use, there is
            no hold-out, or trials failed.
    """
    if num_trials < 1:
        raise ValueError(f"--trials must be at least 1, got {num_trials}")
    if metric is not None and not metric.startswith("val/"):
        raise ValueError(f"--metric must be one of the hold-out, such as val/acc or val/loss, got {metric}")
    place = Path(folder or time.strftime("multirun/search-%Y-%m-%d_%H-%M-%S")).expanduser().resolve()
    fixed, space = _parsed(options)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signals.search = place
    is_new = not place.exists()
    try:
        with files.claimed(place):
            _search(options, fixed, space, num_trials, place, seed, metric)
    except NothingTried:
        if is_new:
            shutil.rmtree(place)
        raise


class NothingTried(ValueError):
    """The first trial failed before it began: so would every other."""


def _search(
    options: Sequence[str],
    fixed: list[str],
    space: dict[str, BaseDistribution],
    num_trials: int,
    place: Path,
    seed: int,
    metric: str | None,
) -> None:
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{place / 'study.db'}",
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="minimize" if mode_of(metric or USUAL_METRIC) == "min" else "maximize",
        load_if_exists=True,
    )
    if "space" not in study.user_attrs:
        study.set_user_attr("metric", metric or USUAL_METRIC)
        study.set_user_attr("fixed", fixed)
        study.set_user_attr("space", {key: optuna.distributions.distribution_to_json(d) for key, d in space.items()})
    if metric not in (None, metric_of(study)):
        raise ValueError(f"{place} holds a search by {metric_of(study)}, not {metric}: set another --folder")
    kept = {key: optuna.distributions.json_to_distribution(d) for key, d in study.user_attrs["space"].items()}
    if options and (fixed != study.user_attrs["fixed"] or space != kept):
        raise ValueError(f"{place} holds a search of other options: leave the options out, or set --folder")
    _forget_the_killed(study)
    failed = _run(study, kept, num_trials, place)
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        raise ValueError(f"no trial ended well: {failed[-1] if failed else 'none was asked for'}")
    _write_page(place, study, seed)
    if failed:
        raise ValueError(f"{len(failed)} trials failed, the last one so: {failed[-1]}")


def spec_of(metric: str) -> str:
    """The format of a metric's values."""
    return ".2%" if metric.endswith("acc") else ".4g"


def metric_of(study: optuna.Study) -> str:
    """The metric by which a search's trials are compared."""
    metric: str = study.user_attrs.get("metric", USUAL_METRIC)
    return metric


def _parsed(options: Sequence[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """The options that are fixed, and those to be searched."""
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(list(options))
    if not any(override.is_sweep_override() for override in overrides):
        overrides += parser.parse_overrides(list(USUAL_SPACE))
    keys = {override.key_or_group for override in overrides}
    overrides += [usual for usual in parser.parse_overrides(list(USUAL)) if usual.key_or_group not in keys]
    fixed = [_typed(override) for override in overrides if not override.is_sweep_override()]
    if "data.val_size=0" in fixed:
        raise ValueError("a search needs a hold-out, and may not choose by the test set: set data.val_size above 0")
    return fixed, {one.key_or_group: _distribution(one) for one in overrides if one.is_sweep_override()}


def _typed(override: Override) -> str:
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _distribution(override: Override) -> BaseDistribution:
    """Hydra's grammar for sweeps in Optuna's terms."""
    values = override.value()
    if isinstance(values, IntervalSweep):
        assert values.start is not None
        assert values.end is not None
        is_log = "log" in values.tags
        if isinstance(values.start, int) and isinstance(values.end, int):
            return IntDistribution(values.start, values.end, log=is_log)
        return FloatDistribution(float(values.start), float(values.end), log=is_log)
    if isinstance(values, ChoiceSweep | RangeSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise ValueError(f"{override.input_line} cannot be searched: use interval(low,high), choice(a,b) or range(a,b)")


def _forget_the_killed(study: optuna.Study) -> None:
    """Try again what was at work when an earlier call was killed."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _run(study: optuna.Study, space: dict[str, BaseDistribution], num_trials: int, place: Path) -> list[str]:
    """Do the trials that are missing, each a command of its own; returns what went wrong."""
    failed: list[str] = []
    metric = metric_of(study)
    spec = spec_of(metric)
    num_done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    if num_done:
        print(f"{num_done} of {num_trials} trials are done already")
    for _ in range(num_trials - num_done):
        trial = study.ask(space)
        options = [f"{key}={value}" for key, value in trial.params.items()]
        run = place / f"trial-{trial.number:03}"
        where = [f"hydra.run.dir={files.typed(str(run))}", f"monitor={metric}"]
        command = [sys.executable, str(TRAIN), *study.user_attrs["fixed"], *options, *where]
        start = time.perf_counter()
        done = _done(command)
        short = (f"{key}={one:.3g}" if isinstance(one, float) else f"{key}={one}" for key, one in trial.params.items())
        line = f"trial {trial.number}  " + " ".join(short)
        if done.returncode:
            failed.append(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}")
            study.tell(trial, state=TrialState.FAIL)
            if trial.number == 0 and not (run / "config.yaml").exists():
                raise NothingTried(failed[-1].removeprefix("error: "))
            print(f"{line}  failed: {failed[-1]}", flush=True)
            continue
        results = files.read_json(run / "results.json")
        trial.set_user_attr("seconds", results["fit_seconds"])
        trial.set_user_attr("dataset", results["dataset"])
        study.tell(trial, results[metric])
        best = f"best {study.best_value:{spec}} in trial {study.best_trial.number}"
        print(f"{line}  {metric} {results[metric]:{spec}}  {time.perf_counter() - start:.0f} s  ({best})", flush=True)
    return failed


def _done(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that ends with this one."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signals.closing[:] = [process.kill]
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _write_page(place: Path, study: optuna.Study, seed: int) -> None:
    console.quiet()
    cfg = OmegaConf.create({"seed": seed, "fixed": study.user_attrs["fixed"], "space": study.user_attrs["space"]})
    subject = Search(place, study)
    findings = Findings(place, cfg, [subject])
    task = Task("analysis", "search", DictConfig({}), is_alone=True)
    with findings.attempt(task):
        findings.add(task, subject, trials(subject))
    path = findings.close()
    print(f"report: {path.with_name('report.html')}")
    print(f"results: {path}")


def trials(subject: Search) -> Part:
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
    log = [
        key for key, one in distributions.items() if isinstance(one, FloatDistribution | IntDistribution) and one.log
    ]
    figures = {
        "search/history": draw.history([trial.number for trial in done], values, metric, best),
        "search/slices": draw.slices(
            {key: [trial.params[key] for trial in done] for key in distributions}, log, values, metric
        ),
    }
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
    answers = [
        Answer("What was best?", ["search/history"], says, [Table("The ten best", columns, rows)]),
        Answer("How does the metric go with each option?", ["search/slices"], []),
    ]
    if findings["options"]:
        figures["search/options"] = draw_sweep.shares(findings["options"])
        shares = (
            "Optuna's estimate of how much of the variance between trials goes with each option. The shares add up to "
            "one even where no option has an effect: a sweep over several seeds tells an effect from chance."
        )
        answers.append(Answer("Which option may matter?", ["search/options"], [shares]))
    return Part(findings, answers, {}, figures)


def _importances(study: optuna.Study, values: Sequence[float]) -> list[dict[str, Any]]:
    """How much of the variance of the metric each option explains, by Optuna's evaluator; none where there is none."""
    if len(values) < FEWEST or max(values) == min(values):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study)
    return [{"key": key, "share": float(share)} for key, share in shares.items()]
