"""Training runs and their folders: begun, or gone on with where something ended them, each by one process at a time."""

import logging
import re
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from cnn_mnist import archive, checkpoint, files, results, rules, signals
from cnn_mnist.data import DataModule
from cnn_mnist.distributed import rank

LOG = "train.log"
CONF = Path(__file__).resolve().parents[1] / "conf"
BYTES_PER_PARAMETER = 12  # in a checkpoint: the weight and Adam's two moments, float32
TOO_FEW = "this run has trained for {} epochs: set trainer.max_epochs to at least as many"
NUM_CHECKPOINTS = 3  # that lie on the disk at once: the last, the best, and the one being written


@dataclass
class Run:
    """A run to start or to go on with, to be entered: its folder then is this process's own until it is left.

    Attributes:
        folder: Where it lives.
        cfg: Its configuration.
        checkpoint: What it goes on from; None for one that begins.
        step: The optimiser's steps that the checkpoint holds; None without.
    """

    folder: Path
    cfg: DictConfig
    checkpoint: Path | None = None
    step: int | None = None
    _claim: ExitStack | None = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if self._claim is not None:
            self._claim.close()
            if not (self.folder / "config.yaml").exists():  # nothing has begun
                with suppress(OSError):  # there is something else in it
                    for folder in (self.folder / "checkpoints", self.folder, self.folder.parent):
                        folder.rmdir()

    @property
    def is_finished(self) -> bool:
        """Whether the run has trained for all its epochs and written its results.

        Raises:
            ValueError: It has trained for more epochs than that.
        """
        num_done = files.read_json(self.results).get("epochs", 0)
        if num_done > self.cfg.trainer.max_epochs:
            raise ValueError(TOO_FEW.format(num_done))
        return bool(num_done == self.cfg.trainer.max_epochs)

    @property
    def objective(self) -> float | None:
        """The monitored metric on record; None where nothing is held out."""
        return files.read_json(self.results).get(self.cfg.monitor) if self.cfg.data.val_size else None

    @property
    def results(self) -> Path:
        """Where its results are, or will be."""
        return self.folder.resolve() / "results.json"

    def claim(self) -> None:
        """Keep the folder to this process, unless it does already. Of several the first alone does.

        Raises:
            ValueError: Another command is at work in it.
            OSError: It cannot be written.
        """
        if self._claim is None and not rank():
            claim = ExitStack()
            claim.enter_context(files.claimed(self.folder))
            self._claim = claim

    def on(self, data: DataModule) -> DataModule:
        """Take the data set that was to be had into configuration and folder's name; returns its data module."""
        asked, self.cfg.data.dataset = self.cfg.data.dataset, data.dataset
        place = self.folder.parent
        if asked != data.dataset and place.name == f"{asked}-{self.cfg.recipe}":  # a sweep's has another name
            self.folder = place.with_name(f"{data.dataset}-{self.cfg.recipe}") / self.folder.name
        return data

    def begin(self, model: nn.Module) -> None:
        """Put what is really used into the folder, and see that there is room for what is to come.

        From here on a killed run can be gone on with. Of several processes the first alone writes.

        Raises:
            ValueError: Another command is at work in the folder.
            OSError: It cannot be written, or the disk is too full.
        """
        if rank():
            return
        self.claim()
        files.sweep_up(self.folder)
        num_bytes = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
        num_there = len(list(self.folder.glob("checkpoints/*.ckpt")))
        files.check_room(self.folder / "checkpoints", NUM_CHECKPOINTS - num_there, num_bytes)
        if self.checkpoint is None:  # of a try that did not get as far as a checkpoint
            for old in (*self.folder.glob("events.out.tfevents.*"), self.folder / "metrics.csv", self.folder / LOG):
                old.unlink(missing_ok=True)
        results.write_config(self.folder, self.cfg)
        signals.folder = self.folder
        log = logging.FileHandler(self.folder / LOG)
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(log)
        root.setLevel(min(root.level, logging.INFO))
        if self._claim is not None:
            self._claim.callback(root.removeHandler, log)
            self._claim.callback(log.close)


def open_run(cfg: DictConfig, folder: Path, overrides: list[str]) -> Run:
    """The run that a command asks for: the one that `ckpt_path` names, in its own folder, or the one in `folder`.

    That is a new one, unless it was begun before: a job of a sweep that was killed.

    A run is gone on with as its own config.yaml says. Options that cannot change what it learns may be given anew
    (`trainer`, `callbacks`, `logger`, `data.root`); the others must not differ.

    Args:
        cfg: The configuration as composed.
        folder: Where the run lives, or is to live, unless `ckpt_path` names another.
        overrides: The options given on the command line.

    Raises:
        FileNotFoundError: `ckpt_path` names nothing.
        ValueError: `ckpt_path` is no checkpoint inside a run's folder, an option differs, the checkpoint is not one to
            train on from, or another command is at work in the folder.
    """
    run = Run(folder, cfg)
    file: Path | None = None  # the checkpoint, where a file is named
    if cfg.ckpt_path is not None:
        place = archive.run_of(cfg.ckpt_path)
        if place is None:
            file = archive.find(cfg.ckpt_path).resolve()
            place = file.parent.parent
        run.folder, run.cfg = place, _recorded(place, cfg, overrides)
    elif (folder / "config.yaml").is_file():
        run.cfg = _recorded(folder, cfg, overrides)
    if run.is_finished:
        return run
    if run.folder.is_dir():
        run.claim()
    try:
        last = run.folder / "checkpoints" / "last.ckpt"
        if file is not None or last.is_file():
            _go_on_from(file or last, run)
    except BaseException:
        run.__exit__(None, None, None)
        raise
    return run


def _recorded(folder: Path, cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """A run's own configuration, with those of the options given anew that it may take.

    Raises:
        ValueError: There is none, it is damaged, or it names something to build that is none of this project's.
    """
    record = folder / "config.yaml"
    if not record.is_file():
        raise ValueError(f"{folder} is not a run's folder: {record} is missing")
    try:
        own = OmegaConf.load(record)
        OmegaConf.resolve(own)
        assert isinstance(own, DictConfig)
        assert all(isinstance(own.get(section), DictConfig) for section in ("data", "model", "trainer", "logger"))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"{record} is damaged: it is not a run's configuration") from error
    known = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"_target_: *(\S+)", path.read_text())}
    if OmegaConf.select(own, "logger.csv._target_") == "pytorch_lightning.loggers.CSVLogger":  # until 2026-11-24
        own.logger.csv = {"_target_": "cnn_mnist.curves.Curves", "keep_until": None}
    defaults = {"monitor": "val/acc", "overrides": [], "trainer": {"precision": "32-true", "log_every_n_steps": 50}}
    own = OmegaConf.merge(defaults, own)  # of a run begun before these were options
    assert isinstance(own, DictConfig)
    own.data.fallback = None  # never half of one data set and half of another
    for override in overrides:
        _take(override.split("=")[0].lstrip("+~"), cfg, own)
    known |= set(_targets(OmegaConf.to_container(cfg, resolve=True)))  # of the command line, which is no stranger's
    if strange := sorted(set(_targets(OmegaConf.to_container(own, resolve=True))) - known):
        raise ValueError(
            f"{record} asks for {', '.join(strange)}, which is not run from a file: name it on the command line, too "
            "(+callbacks... or the like)"
        )
    rules.check(own, rules.TRAIN)
    return own


def _targets(node: object) -> list[str]:
    """What everything in and below a node is built from, wherever Hydra would look."""
    if isinstance(node, list):
        return [name for value in node for name in _targets(value)]
    if not isinstance(node, dict):
        return []
    own = [str(node["_target_"])] if "_target_" in node else []
    return own + _targets(list(node.values()))


def _go_on_from(file: Path, run: Run) -> None:
    """Let a run go on from a checkpoint."""
    content = checkpoint.read(file)
    checkpoint.network_of(content, file)
    if "optimizer_states" not in content or "loops" not in content:
        raise ValueError(f"{file} holds weights alone, and not how their training stood: it cannot be gone on with")
    batches = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    if not batches.get("is_last_batch", True):
        raise ValueError(
            f"{file} was written inside epoch {content['epoch'] + 1}, where trainer.max_steps or trainer.max_time "
            "ended the run: only the end of an epoch can be resumed, so begin a new run"
        )
    num_done = content["epoch"] + 1
    if run.cfg.trainer.max_epochs < num_done:
        raise ValueError(TOO_FEW.format(num_done))
    run.checkpoint, run.step = file, content["global_step"]
    loggers = run.cfg.logger  # what came after belongs to the run that was interrupted
    if "tensorboard" in loggers:
        loggers.tensorboard.purge_step = run.step + 1
    if "csv" in loggers:
        loggers.csv.keep_until = run.step


def _take(key: str, cfg: DictConfig, own: DictConfig) -> None:
    """Let an option given anew into a run's own configuration, or refuse it."""
    if key in ("ckpt_path", "data.fallback") or key.startswith("hydra"):  # its data set is settled
        return
    if key == "trainer":  # the group: where to run, not how long
        for name in ("accelerator", "strategy", "devices", "num_nodes"):
            own.trainer[name] = cfg.trainer[name]
        return
    section = key.partition(".")[0]
    if section in ("callbacks", "logger"):
        own[section] = cfg[section]
        return
    key = {"experiment": "recipe", "data": "data.dataset", "model": "model._target_"}.get(key, key)
    asked, kept = OmegaConf.select(cfg, key), OmegaConf.select(own, key)
    if asked == kept:
        return
    planned = key == "trainer.max_epochs" and own.model.schedule is not None
    if key == "data.root" or (section == "trainer" and not planned):
        OmegaConf.update(own, key, asked)
        return
    raise ValueError(f"this run has {key}={kept}, which cannot become {asked} half way: leave it out of the command")


def writers(folder: Path, val_name: str, monitor: str) -> list[ModelCheckpoint]:
    """`last.ckpt` after every epoch, and `best.ckpt` where a hold-out can choose it (never the test set).

    Args:
        folder: The run's.
        val_name: What the data measured after each epoch are called: `val`, or `test`.
        monitor: The metric that chooses; the highest is best, of a loss the lowest.
    """
    common: dict[str, object] = {
        "dirpath": folder / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    last = ModelCheckpoint(filename="last", monitor=None, **common)  # type: ignore[arg-type]
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode_of(monitor), **common)  # type: ignore[arg-type]
    return [best, last] if val_name == "val" else [last]  # in this order: the last one keeps what the best one knows


def mode_of(metric: str) -> str:
    """Whether the highest value of a metric is best, `max`, or the lowest, `min`."""
    return "min" if metric.endswith("loss") else "max"


def chosen(writers: list[ModelCheckpoint]) -> Path | None:
    """The checkpoint to be tested and recorded; None where none was written, as with trainer.fast_dev_run."""
    return next((Path(writer.best_model_path) for writer in writers if writer.best_model_path), None)
