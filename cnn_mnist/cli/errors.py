"""Error messages: one line that says what to change.

Imports neither torch nor Lightning, so that errors appear at once.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from inspect import signature
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn_mnist.cli.schema import annotations_of, nearest
from cnn_mnist.runs import files

OPEN = ("network", "model.optimizer", "model.schedule", "trainer", "logger", "callbacks")  # `+` may add to these
UNEXPECTED = re.compile(
    r"Error in call to target '(\S+)': TypeError.* unexpected keyword argument '(\w+)'.* full_key: (\S+)"
)


SEVERAL = ("analysis", "callbacks", "logger")  # groups of which a command may choose several


class Unmet(ValueError):
    """Everything was computed, and something that a command checks does not hold."""


def one_line(error: Exception, config_dir: str, config_name: str) -> str:
    """An error as one line that names the override to change."""
    line = _in_words(error, config_dir, config_name)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def _in_words(error: Exception, config_dir: str, config_name: str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        hint = nearest(option, error.options)
        others = f" There are {', '.join(sorted(error.options))}" if hint.endswith("?") else ""
        extra = " (pip install 'cnn-mnist[launchers]' brings joblib and submitit)" if group == "hydra/launcher" else ""
        return f"{group}={option} does not exist{hint}{others}{extra}"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, InstantiationException) and (found := UNEXPECTED.search(text)):
        known = (f"{found[3]}.{name}" for name in signature(get_object(found[1])).parameters)
        return f"unknown key {found[3]}.{found[2]}{nearest(f'{found[3]}.{found[2]}', known)}"
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, ValueError):  # says it itself
        return _in_words(error.__cause__, config_dir, config_name)
    if "Ambiguous value for argument" in text:
        key, _, values = text.split("'")[1].partition("=")
        one = _for_the_shell(f"{key}={files.typed(values, always=True)}")
        if key.replace(".", "/") in groups_of(config_dir) and key not in SEVERAL:
            return f"{key} takes one name, got {values}: add -m to sweep over them"
        return (
            f"{key} has several values, {values}: add -m to sweep over them, write {key}=[{values}] for a list, or "
            f"{one} for one text with a comma in it"
        )
    if isinstance(error, ConfigCompositionException):
        with suppress(HydraException, OmegaConfBaseException):  # of the same error
            return next(unknown_keys(config_dir, config_name), text)
    if isinstance(error, OSError) and error.filename and error.strerror:  # a path, without a message of this project
        return f"cannot use {error.filename}: {error.strerror.lower()}"
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows where)"


def _unreadable(word: str) -> str:
    """How to quote a value that Hydra's grammar rejects."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        return f"{word!r} is not an option: write key=value"
    quoted = _for_the_shell(f"{key}={files.typed(value, always=True)}")
    return f"{word} has letters that mean something to Hydra, such as = , [ ] {{ }} ( ) ~ $: write {quoted}"


def _for_the_shell(word: str) -> str:
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def groups_of(config_dir: str) -> dict[str, set[str]]:
    """The options of each group, such as `data` and `model/optimizer`, with those in the user's own --config-dir."""
    own = get_args_parser().parse_args().config_dir
    options: dict[str, set[str]] = {}
    for folder in map(Path, [config_dir, *([own] if own else [])]):
        for place in (path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_dir()):
            names = {file.stem for file in place.glob("*.yaml")}
            options.setdefault(place.relative_to(folder).as_posix(), set()).update(names)
    return options


def refuse_hidden(config_dir: str) -> None:
    """Raise ValueError for a file of the user's own --config-dir that Hydra would not read, for its name is taken."""
    own = get_args_parser().parse_args().config_dir
    for shipped in sorted(Path(config_dir).rglob("*.yaml")) if own else ():
        file = Path(own, shipped.relative_to(config_dir))
        if file.is_file() and file.read_bytes() != shipped.read_bytes():
            raise ValueError(f"{file} is hidden by the project's file of the same name: give it another one")


def unknown_keys(config_dir: str, config_name: str) -> Iterator[str]:
    """A line for every override whose key does not exist."""
    own = get_args_parser().parse_args().config_dir  # of the user
    groups = groups_of(config_dir)
    words = [word for word in sys.argv[1:] if ("=" in word or word.startswith("~")) and not word.startswith("-")]
    given = OverridesParser.create().parse_overrides(words)
    chosen = [
        override.input_line
        for override in given
        if override.key_or_group in groups and not override.is_sweep_override() and not override.is_add()
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir, version_base="1.3"):
        searched = [f"hydra.searchpath=['file://{Path(own).resolve()}']"] if own else []
        cfg = compose(config_name, [*searched, *(line for line in chosen if line)])
    known = {*groups, *keys_of(cfg)}
    for override in given:
        key = override.key_or_group
        section, _, name = key.rpartition(".")
        target = str(OmegaConf.select(cfg, f"{section}._target_")) if section else ""
        is_shipped = target.startswith("cnn_mnist.")
        is_new = section not in known or section in ("", *OPEN)  # a mistake at the top level has its own check
        if key in groups and override.is_add():
            yield f"{key} is there already: write {key}=... without the +"
        elif key not in known and not (is_shipped or section in OPEN) and name in annotations_of(target):
            yield f"{key} is an argument of {target} that its file does not list: add it there"
        elif key not in known and not key.startswith("hydra") and not (override.is_add() and is_new):
            yield f"unknown key {key}{nearest(key, known)}"


def keys_of(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration in dotted form, its sections included."""
    for key in map(str, cfg):
        yield prefix + key
        if isinstance(child := cfg._get_node(key), DictConfig):
            yield from keys_of(child, f"{prefix}{key}.")
