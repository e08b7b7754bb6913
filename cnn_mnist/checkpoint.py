"""Find, verify, load and save what a run leaves behind to be gone on with."""

import csv
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from cnn_mnist.network import CNN


class Run(NamedTuple):
    """A run to start or to go on with.

    `checkpoint` and `step`, the optimiser's steps it holds, are None for a new run.
    """

    folder: Path
    cfg: DictConfig
    checkpoint: Path | None = None
    step: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the run has trained for all its epochs and written its results."""
        return self.results.exists() and json.loads(self.results.read_text())["epochs"] >= self.cfg.trainer.max_epochs

    def on(self, dataset: str) -> "Run":
        """The same run on the data set that is really used, by its name and folder too."""
        asked, self.cfg.data.dataset = self.cfg.data.dataset, dataset
        place = self.folder.parent
        if asked == dataset or place.name != f"{asked}-{self.cfg.recipe}":  # a sweep's has another name
            return self
        return self._replace(folder=place.with_name(f"{dataset}-{self.cfg.recipe}") / self.folder.name)

    @property
    def results(self) -> Path:
        """Where its results are, or will be."""
        return self.folder.resolve() / "results.json"


def writers(folder: Path, val_name: str) -> list[ModelCheckpoint]:
    """`last.ckpt` after every epoch, and `best.ckpt` where a hold-out can choose it (never the test set)."""
    common: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    last = ModelCheckpoint(filename="last", monitor=None, **common)
    best = ModelCheckpoint(filename="best", monitor="val/acc", mode="max", **common)
    return [best, last] if val_name == "val" else [last]  # in this order: the last one keeps what the best one knows


def load(path: str | Path) -> CNN:
    """The network of a checkpoint or of a run's folder, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is not a whole checkpoint of this network.
    """
    file = find(path, prefer_best=True)
    return network_of(read(file), file)


def network_of(content: dict[str, Any], file: Path) -> CNN:
    """The network of a checkpoint's content, in eval mode; its architecture is the stored one.

    Raises:
        ValueError: It is a checkpoint of another kind of network.
    """
    try:
        hparams = content["hyper_parameters"]
        network = CNN(hparams["batchnorm"], hparams.get("kernel_size", 3))
        state = {key.removeprefix("network."): value for key, value in content["state_dict"].items()}
        network.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is a checkpoint of another kind of network: {reason}") from error
    return network.eval()


def find(path: str | Path, *, prefer_best: bool = False) -> Path:
    """The checkpoint that is meant: a file, or one of those in a run's folder.

    Args:
        path: A checkpoint or a run's folder.
        prefer_best: Of a folder, the one that a hold-out chose, where it did; else the last.

    Raises:
        FileNotFoundError: There is none.
    """
    file = Path(path)
    if file.is_dir():
        best, last = (file / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
        file = best if prefer_best and best.is_file() else last
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {file}: set ckpt_path= to a run's folder or a .ckpt file")
    return file


def newest() -> Path:
    """The checkpoint of the newest run below outputs/ and multirun/, of the current folder.

    Raises:
        FileNotFoundError: There is no run.
    """
    found = [file for base in ("outputs", "multirun") for file in Path(base).glob("*/*/checkpoints/last.ckpt")]
    if not found:
        raise FileNotFoundError("there is no run below outputs/ or multirun/ to look at: make one with python train.py")
    return find(max(found, key=lambda file: file.stat().st_mtime).parent.parent, prefer_best=True)


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain values, never programs.

    Raises:
        ValueError: The file is damaged or something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch.load itself does not notice a flipped bit
        content = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{file} is not a whole checkpoint ({str(error).splitlines()[0]})") from error
    if damaged:
        raise ValueError(f"{file} is damaged: {damaged} in it does not have its checksum")
    if (
        not isinstance(content, dict)
        or not {"state_dict", "hyper_parameters", "global_step", "epoch"} <= content.keys()
    ):
        raise ValueError(f"{file} is not a checkpoint of a training run")
    return content


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
        ValueError: `ckpt_path` is no checkpoint inside a run's folder, or an option differs.
    """
    if cfg.ckpt_path is None and not (folder / "checkpoints" / "last.ckpt").is_file():
        for file in folder.glob("events.out.tfevents.*"):  # of a try that did not get as far as a checkpoint
            file.unlink(missing_ok=True)
        return Run(folder, cfg)
    checkpoint = find(cfg.ckpt_path or folder).resolve()
    folder = checkpoint.parent.parent
    record = folder / "config.yaml"
    if not record.is_file():
        raise ValueError(f"{checkpoint} does not lie in a run's folder: {record} is missing")
    own = OmegaConf.load(record)
    assert isinstance(own, DictConfig)
    own.data.fallback = None  # never half of one data set and half of another
    for override in overrides:
        _take(override.split("=")[0].lstrip("+~"), cfg, own)
    content = read(checkpoint)
    step, num_done = content["global_step"], content["epoch"] + 1
    if own.trainer.max_epochs < num_done:
        raise ValueError(f"this run has trained for {num_done} epochs: set trainer.max_epochs to at least as many")
    if "tensorboard" in own.logger:
        own.logger.tensorboard.purge_step = step + 1  # what came after belongs to the run that was interrupted
    return Run(folder, own, checkpoint, step)


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


@rank_zero_only
def keep_curves(loggers: list[Logger], step: int | None) -> None:
    """Carry the rows of metrics.csv up to `step` over into a resumed run; Lightning would begin the file anew."""
    for logger in loggers:
        if isinstance(logger, CSVLogger) and step is not None:
            path = Path(logger.log_dir, "metrics.csv")
            if not path.exists():  # the run had other loggers
                continue
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
            logger.experiment.metrics.extend(rows)
            logger.save()
