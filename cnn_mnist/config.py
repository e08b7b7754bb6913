"""What a configuration may hold, and how a mistake in it is said: in one line, with what to change.

Imports neither torch nor Lightning, so that `--help` and a mistake answer at once.
"""

import difflib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

OmegaConf.register_new_resolver("choose", lambda flag, yes, no: yes if flag else no, replace=True)
OmegaConf.register_new_resolver(
    "slug", lambda text: re.sub(r"[^\w.+-]+", "-", text).strip("-") or "defaults", replace=True
)


class Range(NamedTuple):
    """The numbers that a key may hold: `low` to `high`, both included unless `above` leaves `low` out."""

    kind: type[int] | type[float]
    low: float
    high: float = math.inf
    above: bool = False

    def __str__(self) -> str:
        """The range in words."""
        noun = "a whole number" if self.kind is int else "a number"
        if self.high < math.inf:
            return f"{noun} from {self.low:,} to {self.high:,}"
        return f"{noun} {'above' if self.above else 'of at least'} {self.low:,}"

    def holds(self, value: object) -> bool:
        """Whether `value` is a finite number of the right kind within the range."""
        if isinstance(value, bool) or not isinstance(value, int | self.kind) or not math.isfinite(value):
            return False
        return (self.low < value if self.above else self.low <= value) and value <= self.high


RULES: dict[str, Range | tuple[object, ...]] = {
    "seed": Range(int, 0, 2**32 - 1),
    "data.dataset": ("mnist", "fashion_mnist", "kmnist", "digits"),
    "data.batch_size": Range(int, 1),
    "data.val_size": Range(int, 0),
    "data.fallback": ("digits", None),
    "model.batchnorm": (True, False),
    "model.lr": Range(float, 0, above=True),
    "model.schedule": (None, "one_cycle"),
    "trainer.max_epochs": Range(int, 1),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
}
TOP_LEVEL = {"recipe", "seed", "ckpt_path", "data", "model", "trainer", "logger", "callbacks"}


def check(cfg: DictConfig) -> None:
    """Hold a composed configuration against the rules.

    Raises:
        ValueError: With the key, what it holds, what it may hold and the override to change.
    """
    for key in cfg:
        if key not in TOP_LEVEL:
            raise ValueError(f"unknown key {key!s}{_nearest(str(key), TOP_LEVEL)}")
    for key, rule in RULES.items():
        value = OmegaConf.select(cfg, key)
        if isinstance(rule, Range):
            allowed = rule.holds(value)
        else:  # by type too: 1 is not true
            allowed = any(value == option and type(value) is type(option) for option in rule)
        if not allowed:
            words = str(rule) if isinstance(rule, Range) else " or ".join(map(_yaml, rule))
            raise ValueError(f"{key} must be {words}, got {_yaml(value)}: set {key}=...")


def check_device(cfg: DictConfig) -> None:
    """Raise ValueError where a GPU is asked for and there is none."""
    import torch

    if cfg.trainer.accelerator in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise ValueError(f"trainer.accelerator={cfg.trainer.accelerator}, but torch finds no GPU: set trainer=cpu")


def check_batches(cfg: DictConfig, num_train: int) -> None:
    """Raise ValueError where an epoch ends in a batch that batch normalisation cannot normalise."""
    last = num_train % cfg.data.batch_size or cfg.data.batch_size
    if cfg.model.batchnorm and last == 1:
        raise ValueError(
            f"{num_train:,} training images in batches of {cfg.data.batch_size} end in a batch of one image, which "
            "batch normalisation cannot normalise: set data.batch_size or data.val_size"
        )


def run_folder() -> Path:
    """The folder that Hydra has made for this run, taken away again until there is something to put into it."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with suppress(OSError):  # not empty: not ours to take away
        folder.rmdir()
        folder.parent.rmdir()
    return folder


def overrides() -> list[str]:
    """The options given on the command line, Hydra's own left out."""
    return list(HydraConfig.get().overrides.task)


def _yaml(value: object) -> str:
    """A value as it is written on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def run(main: Callable[[DictConfig], None], script: str) -> None:
    """Run `main` under Hydra; end with the exit status and the one line that a person can use.

    Status 0: done; 1: a mistake or a failure, said in one line; 130 and 143: stopped by SIGINT and SIGTERM.
    HYDRA_FULL_ERROR=1 in the environment shows the whole traceback instead of the line.

    Args:
        main: What one job does with its configuration.
        script: The entry point's file; its configuration is conf/<its name>.yaml beside it.
    """
    config_dir, config_name = str(Path(script).resolve().with_name("conf")), Path(script).stem
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would otherwise print

    failed: list[Exception] = []  # jobs of a sweep, each said when it failed

    def say(error: Exception) -> NoReturn:
        if full_error:
            raise error
        if failed:
            raise SystemExit(1)
        print(f"error: {_one_line(error, config_dir, config_name)}", file=sys.stderr)
        raise SystemExit(1) from None

    def job(cfg: DictConfig) -> None:
        try:
            main(cfg)
        except Exception as error:
            if HydraConfig.get().mode is not RunMode.MULTIRUN:
                say(error)
            place = Path(HydraConfig.get().runtime.output_dir).name
            print(f"error in {place}: {_one_line(error, config_dir, config_name)}", file=sys.stderr)
            failed.append(error)
            raise  # for Hydra to go on with the other jobs

    try:
        hydra.main(version_base="1.3", config_path=config_dir, config_name=config_name)(job)()
    except Exception as error:
        say(error)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _one_line(error: Exception, config_dir: str, config_name: str) -> str:
    """What went wrong, as one line that names the override to change."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option} does not exist{_nearest(option, error.options)}"
    if isinstance(error, ConfigCompositionException):
        unknown = next(_unknown_keys(config_dir, config_name), None)
        return unknown or text
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows where)"


def _unknown_keys(config_dir: str, config_name: str) -> Iterator[str]:
    """A line for every override on the command line whose key the configuration does not have."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir, version_base="1.3"):
        cfg = compose(config_name)
    groups = {entry.name for entry in os.scandir(config_dir) if entry.is_dir()}
    known = groups | set(_keys(cfg))
    words = [word for word in sys.argv[1:] if ("=" in word or word.startswith("~")) and not word.startswith("-")]
    for override in OverridesParser.create().parse_overrides(words):
        key = override.key_or_group
        if not override.is_add() and key not in known and not key.startswith("hydra"):
            yield f"unknown key {key}{_nearest(key, known)}"


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration in dotted form, its sections included."""
    for key in map(str, cfg):
        yield prefix + key
        if isinstance(child := cfg._get_node(key), DictConfig):
            yield from _keys(child, f"{prefix}{key}.")


def _nearest(word: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest of the names, or lists them where none is near."""
    names = sorted(name for name in map(str, known) if not name.rpartition(".")[2].startswith("_"))
    if near := difflib.get_close_matches(word, names, n=1):
        return f": did you mean {near[0]}?"
    last = {name.rpartition(".")[2]: name for name in names}
    if near := difflib.get_close_matches(word.rpartition(".")[2], last, n=1):
        return f": did you mean {last[near[0]]}?"
    return f": choose from {', '.join(name for name in names if '.' not in name)}"
