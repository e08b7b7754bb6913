"""A search for better options with Optuna: runs of train.py, compared on the hold-out, stored in SQLite."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cnn_mnist.cli import signals
from cnn_mnist.front import CONF, FRONT
from cnn_mnist.runs import files
from cnn_mnist.runs.metrics import mode_of

TRAIN = FRONT / "train.py"
DATABASE = "study.db"  # in the folder of a search
USUAL_METRIC = "val/acc"
WITHOUT_CALLBACKS = ("val/acc", "val/loss")  # metrics that need no callback
USUAL_HOLD_OUT = "data.val_size=5000"  # unless the command says otherwise
CHOOSES = "override /callbacks"  # a line of a recipe
ONLY_SHOW = ("default", "robust")  # callbacks without which a training is the same
USUAL_SPACE = (
    "model.lr=tag(log,interval(1e-3,3e-2))",
    "model.distortion=interval(0.0,0.25)",
    "model.label_smoothing=interval(0.0,0.2)",
    "model.weight_decay=tag(log,interval(1e-4,1e-1))",
)


WritePage = Callable[[Path, optuna.Study, int], None]  # folder, study, seed


def search(
    options: Sequence[str],
    *,
    num_trials: int,
    folder: str | Path | None,
    seed: int,
    write_page: WritePage,
    metric: str | None = None,
    config_dir: str | None = None,
) -> None:
    """Run the trials that are missing from `num_trials`, and write the page.

    Args:
        options: Options of train.py; intervals, ranges and choices are searched.
        num_trials: Successful trials in all, including those of earlier calls with the same folder.
        folder: Folder of `study.db`, the runs and the page; None: a new one, named by the date.
        seed: Random seed of the trials.
        write_page: Writes the page of a study into its folder.
        metric: Metric of the hold-out that compares trials; None: that of the search in the folder, or val/acc.
        config_dir: A configuration folder of the user's own.

    Raises:
        ValueError: An option is malformed or cannot be searched, the folder holds another search or is in use, there is
            no hold-out, or trials failed.
    """
    if num_trials < 1:
        raise ValueError(f"--trials must be at least 1, got {num_trials}")
    if metric is not None and not metric.startswith("val/"):
        raise ValueError(f"--metric must be one of the hold-out, such as val/acc or val/loss, got {metric}")
    place = Path(folder or time.strftime("multirun/search-%Y-%m-%d_%H-%M-%S")).expanduser().resolve()
    own = ["--config-dir", config_dir] if config_dir else []
    fixed, space = _parsed(options, metric, config_dir)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signals.search = place
    is_new, database = not place.exists(), place / DATABASE
    is_begun = database.exists()
    try:
        with files.claimed(place):
            _search(options, fixed, space, num_trials, place, seed, metric, own, write_page)
    except NothingTried:
        if is_new:
            shutil.rmtree(place)
        elif not is_begun:
            database.unlink()
        raise


class NothingTried(ValueError):
    """The first trial failed before training began, as every other would."""


def _search(
    options: Sequence[str],
    fixed: list[str],
    space: dict[str, BaseDistribution],
    num_trials: int,
    place: Path,
    seed: int,
    metric: str | None,
    own: list[str],
    write_page: WritePage,
) -> None:
    opened = partial(sqlite3.connect, place / DATABASE, check_same_thread=False)  # a URL would end at a ?
    study = optuna.create_study(
        study_name="search",
        storage=optuna.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": opened}),
        direction="minimize" if mode_of(metric or USUAL_METRIC) == "min" else "maximize",
        load_if_exists=True,
    )
    if "space" not in study.user_attrs:
        study.set_user_attr("metric", metric or USUAL_METRIC)
        study.set_user_attr("fixed", fixed)
        study.set_user_attr("has_own_conf", bool(own))
        study.set_user_attr("space", {key: optuna.distributions.distribution_to_json(d) for key, d in space.items()})
    if study.user_attrs.get("has_own_conf") and not own:
        raise ValueError(f"{place} holds a search that was begun with --config-dir: give it again")
    if metric not in (None, metric_of(study)):
        raise ValueError(f"{place} holds a search by {metric_of(study)}, not {metric}: set another --folder")
    kept = {key: optuna.distributions.json_to_distribution(d) for key, d in study.user_attrs["space"].items()}
    if options and (fixed != study.user_attrs["fixed"] or space != kept):
        raise ValueError(f"{place} holds a search of other options: leave the options out, or set --folder")
    _forget_the_killed(study)
    failed = _run(study, kept, num_trials, place, seed, own)
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        raise ValueError(f"no trial ended well: {failed[-1] if failed else 'none was asked for'}")
    write_page(place, study, seed)
    if failed:
        raise ValueError(f"{len(failed)} trials failed, the last one so: {failed[-1]}")


def spec_of(metric: str) -> str:
    """The format of a metric's values."""
    return ".2%" if metric.endswith("acc") else ".4g"


def metric_of(study: optuna.Study) -> str:
    """The metric by which a search's trials are compared."""
    metric: str = study.user_attrs.get("metric", USUAL_METRIC)
    return metric


def _parsed(
    options: Sequence[str], metric: str | None, config_dir: str | None
) -> tuple[list[str], dict[str, BaseDistribution]]:
    """The fixed options, and those to be searched."""
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(list(options))
    if not any(override.is_sweep_override() for override in overrides):
        overrides += parser.parse_overrides(list(USUAL_SPACE))
    keys = {override.key_or_group for override in overrides}
    if metric not in (None, *WITHOUT_CALLBACKS):
        keys.add("callbacks")  # one of them measures it
    data = next((one.value() for one in overrides if one.key_or_group == "data"), None)
    folders = [Path(config_dir)] if config_dir else []
    if any((folder / "data" / f"{data}.yaml").is_file() for folder in folders):
        keys.add("data.val_size")  # whether there is a hold-out is its own affair
    if "callbacks" not in keys:
        recipe = next((str(one.value()) for one in overrides if one.key_or_group == "experiment"), "")
        kept = [name for name in _callbacks_of(recipe, [CONF, *folders]) if name not in ONLY_SHOW]
        overrides += parser.parse_overrides([f"callbacks=[{','.join(kept)}]" if kept else "callbacks=none"])
    if "data.val_size" not in keys:
        overrides += parser.parse_overrides([USUAL_HOLD_OUT])
    fixed = [_typed(override) for override in overrides if not override.is_sweep_override()]
    if "data.val_size=0" in fixed:
        raise ValueError("a search needs a hold-out, and may not choose by the test set: set data.val_size above 0")
    return fixed, {one.get_key_element(): _distribution(one) for one in overrides if one.is_sweep_override()}


def _callbacks_of(recipe: str, folders: Sequence[Path]) -> list[str]:
    """The callbacks that a recipe chooses, or a recipe that it is made from."""
    file = next((file for folder in folders if (file := folder / "experiment" / f"{recipe}.yaml").is_file()), None)
    found: str | Sequence[str] = []
    for entry in OmegaConf.select(OmegaConf.load(file), "defaults", default=()) if file else ():
        found = _callbacks_of(entry, folders) or found if isinstance(entry, str) else entry.get(CHOOSES, found)
    return [found] if isinstance(found, str) else list(found)


def _typed(override: Override) -> str:
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution for an override in Hydra's sweep grammar."""
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
    """Repeat the trial that was interrupted when an earlier call was killed."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _run(
    study: optuna.Study, space: dict[str, BaseDistribution], num_trials: int, place: Path, seed: int, own: list[str]
) -> list[str]:
    """Run the missing trials, each a command of its own; returns the errors."""
    failed: list[str] = []
    metric = metric_of(study)
    spec = spec_of(metric)
    num_done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    if num_done:
        print(f"{num_done} of {num_trials} trials are done already")
    for _ in range(num_trials - num_done):
        number = len(study.get_trials(deepcopy=False))
        own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])  # in however many calls
        study.sampler = optuna.samplers.TPESampler(seed=own_seed)
        trial = study.ask(space)
        options = [f"{key}={value}" for key, value in trial.params.items()]
        run = place / f"trial-{trial.number:03}"
        where = [f"hydra.run.dir={files.typed(str(run))}", f"monitor={metric}"]
        command = [sys.executable, str(TRAIN), *own, *study.user_attrs["fixed"], *options, *where]
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
        if metric not in results:
            study.tell(trial, state=TrialState.FAIL)
            raise ValueError(f"nothing measures {metric}: a search needs a hold-out, and its metric, in every trial")
        trial.set_user_attr("seconds", results["fit_seconds"])
        trial.set_user_attr("dataset", results["dataset"])
        study.tell(trial, results[metric])
        best = f"best {study.best_value:{spec}} in trial {study.best_trial.number}"
        print(f"{line}  {metric} {results[metric]:{spec}}  {time.perf_counter() - start:.0f} s  ({best})", flush=True)
    return failed


def _done(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that is killed with this process."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signals.closing[:] = [process.kill]
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)
