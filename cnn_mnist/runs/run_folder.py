"""Training runs and their folders: started, or resumed where they were interrupted, each by one process at a time."""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from cnn_mnist import nodes
from cnn_mnist.data import own_images, sources
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.front import CONF
from cnn_mnist.networks import build
from cnn_mnist.runs import checkpoint, files, locate, record

LOG = "train.log"
BYTES_PER_PARAMETER = 16  # in a checkpoint: the weight, its average, and Adam's two moments, float32
TOO_FEW = "this run has trained for {} epochs: set trainer.max_epochs to at least as many"
NUM_CHECKPOINTS = 3  # that lie on the disk at once: the last, the best, and the one being written


@dataclass
class Run:
    """A run to start or to resume, used as a context manager: inside the block this process has claimed its folder.

    Attributes:
        folder: Its folder.
        cfg: Its configuration.
        checkpoint: The checkpoint it resumes from; None for a new run.
        step: The optimiser's steps in the checkpoint; None for a new run.
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
            if not (self.folder / "config.yaml").exists():  # the run has not started
                with suppress(OSError):  # not empty
                    for folder in (self.folder / "checkpoints", self.folder, self.folder.parent):
                        folder.rmdir()

    @property
    def is_finished(self) -> bool:
        """Whether the run has trained for all its epochs, or as long as a callback let it, and written its results.

        Raises:
            ValueError: It has trained for more epochs than that.
        """
        found = files.read_json(self.results)
        num_done = found.get("epochs", 0)
        if num_done > self.cfg.trainer.max_epochs:
            raise ValueError(TOO_FEW.format(num_done))
        return bool(num_done == self.cfg.trainer.max_epochs or found.get("stopped_early"))

    @property
    def objective(self) -> float | None:
        """The monitored metric on record; None without a hold-out."""
        return files.read_json(self.results).get(self.cfg.monitor)

    @property
    def results(self) -> Path:
        """The path of its results.json."""
        return self.folder.resolve() / "results.json"

    def claim(self) -> None:
        """Claim the folder for this process, once; only the first of several processes does.

        Raises:
            ValueError: Another command uses it.
            OSError: It cannot be written.
        """
        if self._claim is None and not _rank():
            claim = ExitStack()
            claim.enter_context(files.claimed(self.folder))
            self._claim = claim

    def on(self, data: DataModule) -> DataModule:
        """Put the data set that was found, maybe the fallback, into configuration and names; returns `data`."""
        asked, place = data.dataset, self.folder.parent
        if not sources.is_own(self.cfg.data):
            asked, self.cfg.data.dataset = self.cfg.data.dataset, data.dataset
        if asked != data.dataset and place.name == f"{asked}-{self.cfg.recipe}":  # a sweep's has another name
            self.folder = place.with_name(f"{data.dataset}-{self.cfg.recipe}") / self.folder.name
        for logger in self.cfg.logger.values():
            if "run_name" in logger and logger.run_name is None:
                logger.run_name = f"{self.folder.parent.name}_{self.folder.name}"
        return data

    def begin(self, model: nn.Module) -> None:
        """Write the configuration into the folder, and check that there is room for checkpoints.

        From here on a killed run can be resumed. Only the first of several processes writes.

        Raises:
            ValueError: Another command uses the folder.
            OSError: It cannot be written, or the disk is too full.
        """
        if _rank():
            return
        self.claim()
        files.sweep_up(self.folder)
        num_bytes = BYTES_PER_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
        num_there = len(list(self.folder.glob("checkpoints/*.ckpt")))
        files.check_room(self.folder / "checkpoints", NUM_CHECKPOINTS - num_there, num_bytes)
        if self.checkpoint is None:  # of an attempt without a checkpoint
            for old in (*self.folder.glob("events.out.tfevents.*"), self.folder / "metrics.csv", self.folder / LOG):
                old.unlink(missing_ok=True)
        record.write_config(self.folder, self.cfg)
        log = logging.FileHandler(self.folder / LOG)
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(log)
        root.setLevel(min(root.level, logging.INFO))
        if self._claim is not None:
            self._claim.callback(root.removeHandler, log)
            self._claim.callback(log.close)

    def end(self, found: dict[str, Any]) -> Path:
        """Write the record of the training, in the first of several processes only; returns its path."""
        return self.results if _rank() else record.write(self.folder, found)


Check = Callable[[DictConfig], None]  # raises ValueError for a configuration that may not be used


def _rank() -> int:
    """The rank of this process."""
    return int(rank_zero_only.rank or 0)  # type: ignore[attr-defined]


def open_run(cfg: DictConfig, folder: Path, overrides: list[str], check: Check, trusted: Collection[str] = ()) -> Run:
    """The run that a command asks for: the one that `ckpt_path` names, or the one in `folder`.

    The latter is new, unless it is a job of a sweep that was interrupted. A run is resumed with its own config.yaml.
    Options that cannot change what it learns may be given again (`trainer`, `callbacks`, `logger`, `data.root`); the
    others must not differ.

    Args:
        cfg: The configuration as composed.
        folder: The run's folder, unless `ckpt_path` names another.
        overrides: The options given on the command line.
        check: Checks the configuration of a run that is resumed.
        trusted: Classes of networks that may be imported beside those of this package.

    Raises:
        FileNotFoundError: `ckpt_path` names nothing.
        ValueError: `ckpt_path` is not in a run's folder, an option differs, the checkpoint cannot be resumed, or
            another command uses the folder.
    """
    run = Run(folder, cfg)
    file: Path | None = None  # the checkpoint, if a file is named
    if cfg.ckpt_path is not None:
        place = locate.run_of(cfg.ckpt_path)
        if place is None:
            file = locate.find(cfg.ckpt_path).resolve()
            place = file.parent.parent
        run.folder, run.cfg = place, _recorded(place, cfg, overrides, check, trusted)
    elif (folder / "config.yaml").is_file():
        run.cfg = _recorded(folder, cfg, overrides, check, trusted)
    if run.is_finished:
        return run
    if run.folder.is_dir():
        run.claim()
    try:
        last = run.folder / "checkpoints" / "last.ckpt"
        if file is not None or last.is_file():
            _resume_from(file or last, run)
    except BaseException:
        run.__exit__(None, None, None)
        raise
    return run


def _recorded(
    folder: Path, cfg: DictConfig, overrides: list[str], check: Check, trusted: Collection[str]
) -> DictConfig:
    """A run's recorded configuration, updated with the options that may be given again.

    Raises:
        ValueError: It is missing or damaged, or names a class that is neither this project's nor on the command line.
    """
    record = folder / "config.yaml"
    if not record.is_file():
        raise ValueError(f"{folder} is not a run's folder: {record} is missing")
    try:
        own = OmegaConf.load(record)
        OmegaConf.resolve(own)
        assert isinstance(own, DictConfig)
        if "network" not in own:  # of a run before there was a choice
            own.network = {**build.LAB_NETWORK, "kernel_size": own.model.pop("kernel_size", 3)}
        sections = ("data", "network", "model", "trainer", "logger")
        assert all(isinstance(own.get(section), DictConfig) for section in sections)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"{record} is damaged: it is not a run's configuration") from error
    known = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"_target_: *(\S+)", path.read_text())}
    defaults = {"monitor": "val/acc", "overrides": [], "trainer": {"precision": "32-true", "log_every_n_steps": 50}}
    own = OmegaConf.merge(defaults, own)  # of a run older than these options
    assert isinstance(own, DictConfig)
    if "fallback" in own.data:
        own.data.fallback = None  # never half of one data set and half of another
    for override in overrides:
        _take(override.split("=")[0].lstrip("+~"), cfg, own)
    known |= {*trusted, *nodes.targets(OmegaConf.to_container(cfg, resolve=True))}  # of the command line
    plain: Any = OmegaConf.to_container(own, resolve=True)
    asked = {name: str(section) for section, part in plain.items() for name in nodes.targets(part)}
    if any(name.startswith("cnn_mnist.") for name in asked.keys() - known):
        raise ValueError(
            f"{folder} was trained by an older version of this project: it can be analysed, but not resumed"
        )
    if not build.is_shipped(own.network._target_) and own.network._target_ not in trusted:
        known -= {own.network._target_}  # named as something else
    if strange := sorted(asked.keys() - known):
        raise ValueError(
            f"{record} asks for {', '.join(strange)}, which is not run from a file: repeat the options that chose it "
            f"({asked[strange[0]]}...)"
        )
    check(own)
    return own


def _resume_from(file: Path, run: Run) -> None:
    """Resume a run from a checkpoint."""
    content = checkpoint.read(file)
    checkpoint.network_of(content, file, trusted={run.cfg.network._target_})  # by the run's configuration, see above
    if "optimizer_states" not in content or "loops" not in content:
        raise ValueError(f"{file} holds weights, but no state of the optimiser: it cannot be resumed")
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
    loggers = run.cfg.logger  # later rows belong to the interrupted part
    if "tensorboard" in loggers:
        loggers.tensorboard.purge_step = run.step + 1
    if "csv" in loggers:
        loggers.csv.keep_until = run.step


def _averaging(callbacks: Mapping[Any, Any]) -> list[Any]:
    """The nodes of callbacks that average the weights, whose checkpoints hold two networks."""
    return [node for node in callbacks.values() if "averaging" in node[nodes.TARGET].lower()]


def _take(key: str, cfg: DictConfig, own: DictConfig) -> None:
    """Take an option into a run's recorded configuration, or refuse it."""
    if key in ("ckpt_path", "data.fallback") or key.startswith("hydra"):  # its data set is fixed
        return
    if key == "trainer":  # the group: where to run, not how long
        for name in ("accelerator", "strategy", "devices", "num_nodes"):
            own.trainer[name] = cfg.trainer[name]
        return
    section = key.partition(".")[0]
    if section in ("callbacks", "logger"):
        before, own[section] = own.get(section) or {}, cfg[section]
        if _averaging(before) != _averaging(own[section]):
            raise ValueError(
                "averaging of the weights cannot begin, end or change on resuming: leave callbacks= as it was"
            )
        for name, node in own[section].items():
            if "run_name" in node and "run_name" in before.get(name, {}):
                node.run_name = before[name].run_name
        return
    if key == "data" and sources.is_own(cfg.data):
        key = "data._target_"
    key = {"experiment": "recipe", "data": "data.dataset"}.get(key, key).replace("/", ".")
    key = f"{key}._target_" if key in ("model", "network") else key
    asked, kept = OmegaConf.select(cfg, key), OmegaConf.select(own, key)
    if asked == kept:
        return
    planned = key == "trainer.max_epochs" and (own.model.schedule is not None or own.model.get("cooldown_epochs"))
    is_published = not sources.is_own(own.data) and own.data.dataset not in own_images.KINDS
    is_elsewhere = key == "data.root" and is_published  # the same files
    if is_elsewhere or (section == "trainer" and not planned):
        OmegaConf.update(own, key, asked)
        return
    raise ValueError(f"this run has {key}={kept}, which cannot change to {asked} on resuming: leave it out")
