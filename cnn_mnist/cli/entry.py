"""How a command runs and ends.

Imports neither torch nor Lightning, so that `--help` and errors appear at once.
"""

import os
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn_mnist import nodes
from cnn_mnist.cli import errors, schema, signals, threads
from cnn_mnist.runs import files, locate
from cnn_mnist.runs.metrics import mode_of

OmegaConf.register_new_resolver("choose", lambda flag, yes, no: yes if flag else no, replace=True)
OmegaConf.register_new_resolver("mode", mode_of, replace=True)


def check(cfg: DictConfig, command: schema.Command) -> None:
    """Check a configuration and the files that it names, before seconds are spent on imports.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: An option has a value that is not allowed, or a checkpoint is damaged or something else.
    """
    schema.check(cfg, command)
    schema.check_needed(cfg, overrides())
    if "against" in cfg and cfg.sweep is None and cfg.committee is None and cfg.ckpt_path in (None, locate.LAST):
        locate.newest()
    for key in ("ckpt_path", "against"):
        path = OmegaConf.select(cfg, key)
        if path not in (None, locate.LAST) and not locate.is_begun(Path(path).expanduser()):
            locate.check(locate.find(path, key=key))


def check_recorded(cfg: DictConfig) -> None:
    """Check the configuration of a run that is resumed."""
    schema.check(cfg, schema.Train)


def check_device(cfg: DictConfig) -> None:
    """Raise ValueError for a GPU that does not exist, or several devices without trainer=ddp.

    Warns of bf16-mixed on a processor without instructions for it.
    """
    import torch

    if cfg.trainer.strategy != "ddp" and cfg.trainer.devices * cfg.trainer.num_nodes > 1:
        raise ValueError(f"trainer.devices={cfg.trainer.devices} is more than one process: set trainer=ddp as well")
    if cfg.trainer.accelerator in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise ValueError(f"trainer.accelerator={cfg.trainer.accelerator}, but torch finds no GPU: set trainer=cpu")
    is_on_cpu = cfg.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    has_bf16 = any(capabilities.get(name, not capabilities) for name in ("amx_bf16", "avx512_bf16"))
    if cfg.trainer.precision == "bf16-mixed" and is_on_cpu and not has_bf16:
        warnings.warn(
            "trainer.precision=bf16-mixed is fast on processors with AMX or AVX-512 BF16, which this one does not "
            "have: here it is unlikely to be faster than 32-true",
            stacklevel=2,
        )


def check_batches(cfg: DictConfig, batch_size: int, num_train: int, *, is_normalised: bool) -> None:
    """Raise ValueError if an epoch ends in a batch too small for batch normalisation or for all processes."""
    last = num_train % batch_size or batch_size
    num_processes = cfg.trainer.devices * cfg.trainer.num_nodes
    if num_processes > 1 and last < num_processes * (1 + is_normalised):
        raise ValueError(
            f"{num_train:,} training images in batches of {batch_size} end in a batch of {last}, too few for "
            f"{num_processes} processes: set data.batch_size or trainer.devices"
        )
    if is_normalised and last == 1:
        raise ValueError(
            f"{num_train:,} training images in batches of {batch_size} end in a batch of one image, which "
            "batch normalisation cannot normalise: set data.batch_size or data.val_size"
        )


def own_classes(cfg: DictConfig, group: str) -> set[str]:
    """The classes that the command names in a group: those of its configuration, and of its own --config-dir."""
    folder = get_args_parser().parse_args().config_dir
    files = Path(folder, group).glob("*.yaml") if folder else ()
    parts = [cfg.get(group), *(OmegaConf.load(file) for file in files)]
    return {
        name for part in parts if isinstance(part, DictConfig) for name in nodes.targets(OmegaConf.to_container(part))
    }


def run_folder() -> Path:
    """The folder that Hydra made for this run; removed again until there is something to write."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with suppress(OSError):  # not empty
        folder.rmdir()
        folder.parent.rmdir()
    return folder


def overrides() -> list[str]:
    """The options given on the command line, without Hydra's own."""
    return list(HydraConfig.get().overrides.task)


Main = Callable[[DictConfig], float | None]  # a command, and the metric that it returns to a sweeper
InSweep = Callable[[Main, DictConfig, Callable[[Exception], str]], float | None]  # runs it as a job of a sweep


def run(main: Main, script: str, in_sweep: InSweep) -> None:
    """Run `main` under Hydra; end with an exit status and, after an error, one line.

    Status 0: done; 1: an error, reported in one line; 130 and 143: stopped by SIGINT and SIGTERM.
    HYDRA_FULL_ERROR=1 in the environment shows the whole traceback instead of the line.

    Args:
        main: What one job does with its configuration.
        script: The entry point's file; its configuration is conf/<its name>.yaml beside it.
        in_sweep: Runs `main` as a job of a sweep.
    """
    config_dir, config_name = str(Path(script).resolve().with_name("conf")), Path(script).stem

    def one_line(error: Exception) -> str:
        return errors.one_line(error, config_dir, config_name)

    say = _speaker(one_line)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would otherwise print

    def job(cfg: DictConfig) -> float | None:
        if HydraConfig.get().job.chdir:
            os.chdir(HydraConfig.get().runtime.cwd)
            run_folder()
            say(ValueError("hydra.job.chdir=true is not supported: data.root and other paths are those of this folder"))
        if any(word.startswith("+") for word in overrides()):
            for unknown in errors.unknown_keys(config_dir, config_name):
                say(ValueError(unknown))
        threads.limit_spinning()  # torch is imported from here on
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            return in_sweep(main, cfg, one_line)
        try:
            if config_name == "train":
                signals.folder = Path(HydraConfig.get().runtime.output_dir)
                if isinstance(cfg.ckpt_path, str) and cfg.ckpt_path:
                    _where_it_ran(cfg)
            return in_all_processes(main, cfg)
        except Exception as error:
            say(error)

    try:
        parser = get_args_parser()
        parser.error = refuse  # type: ignore[method-assign]
        asked = parser.parse_intermixed_args()
        sys.argv[1:] = sorted(sys.argv[1:], key=asked.overrides.__contains__)  # Hydra wants flags first
        sys.path.append(os.getcwd())  # files of the user's own, named by a _target_
        errors.refuse_hidden(config_dir)
        groups = errors.groups_of(config_dir)
        words = [_in_its_group(word, groups, asked.multirun) for word in _at_home(sys.argv[1:])]
        sys.argv[1:] = _with_swept_groups(words, _parsed(words, groups))
        try:
            hydra.main(version_base="1.3", config_path=config_dir, config_name=config_name)(job)()
        finally:
            is_whole = all([end() for end in signals.at_end])
        if not is_whole:
            raise SystemExit(1)
    except Exception as error:
        say(error)


def refuse(message: str) -> NoReturn:
    """Report an argparse error in one line."""
    raise ValueError(f"{message} (--help shows examples)")


def run_without_hydra(main: Callable[[], None]) -> None:
    """Run an entry point that has no Hydra configuration, with the same statuses and lines."""
    say = _speaker(lambda error: errors.one_line(error, "", ""))
    try:
        main()
    except Exception as error:
        say(error)


def _speaker(one_line: Callable[[Exception], str]) -> Callable[[Exception], NoReturn]:
    """A function that ends the process with one line for an error."""
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")

    def say(error: Exception) -> NoReturn:
        if full_error:
            raise error
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None

    return say


def _where_it_ran(cfg: DictConfig) -> None:
    """Resume a run in as many processes as before, unless the command says otherwise."""
    given = {word.partition("=")[0] for word in overrides()}
    if "trainer" in given:
        return
    run = locate.run_of(cfg.ckpt_path) or locate.find(cfg.ckpt_path).resolve().parent.parent
    with suppress(OmegaConfBaseException, OSError, ValueError, yaml.YAMLError):  # reported when all of it is read
        own = OmegaConf.load(run / "config.yaml")
        for key in ("strategy", "devices", "num_nodes"):
            value = OmegaConf.select(own, f"trainer.{key}")
            if value is not None and f"trainer.{key}" not in given:
                cfg.trainer[key] = value


def in_all_processes(main: Main, cfg: DictConfig) -> float | None:
    """Run `main`, with trainer=ddp in several processes."""
    if OmegaConf.select(cfg, "trainer.strategy") != "ddp":
        return main(cfg)
    if "model" not in cfg:
        raise ValueError("trainer=ddp is for training, and an analysis runs in one process: leave it out")
    from cnn_mnist.cli import distributed

    return distributed.run(main, cfg)


def _at_home(words: list[str]) -> list[str]:
    """The command line with a leading `~/` of Hydra's folders expanded; Hydra would make a folder named `~`."""

    def expanded(word: str) -> str:
        key, equals, value = word.partition("=")
        path = value.strip("'\"")
        if key not in ("hydra.run.dir", "hydra.sweep.dir") or not path.startswith("~"):
            return word
        return f"{key}{equals}{files.typed(str(Path(path).expanduser()))}"

    return [expanded(word) for word in words]


def _in_its_group(word: str, groups: Mapping[str, Collection[str]], is_sweep: bool) -> str:
    """`model.optimizer=sgd` in Hydra's own form for a group inside another, `model/optimizer=sgd`."""
    key, _, value = word.partition("=")
    group = key.replace(".", "/")
    names = [name.strip() for name in value.removeprefix("choice(").removesuffix(")").split(",")]
    if len(names) > 1 and is_sweep:  # one may be none of the files
        names = ["none" if name == "null" else name for name in names]
        value = f"choice({','.join(names)})"
    is_choice = group != key and set(names) <= set(groups.get(group, ())) and (is_sweep or len(names) == 1)
    return f"{group}={value}" if is_choice else word


def _parsed(words: list[str], groups: Collection[str]) -> dict[str, Override]:
    """The overrides among the words of a command line.

    Raises:
        ValueError: One has no key, or chooses something else than names from a group, which breaks Hydra.
    """
    parser = OverridesParser.create()
    given = {}
    for word in words:
        if "=" in word and not word.startswith("-"):
            with suppress(HydraException):  # an error that Hydra will report
                given[word] = parser.parse_override(word)
    for word, override in given.items():
        if not override.key_or_group:
            raise ValueError(f"{word!r} is not an option: write key=value")
        group = override.key_or_group
        if group not in groups or override.is_sweep_override() or override.is_delete():
            continue
        chosen = override.value()
        if chosen is None:
            raise ValueError(f"{word} names nothing: leave it out, or set {group}= to a name that --help lists")
        if isinstance(chosen, list) and not all(isinstance(name, str) for name in chosen):
            raise ValueError(f"{word} must name a file in conf/{group}: set {group}=NAME")
        if isinstance(chosen, list) and len(chosen) > 1 and group not in errors.SEVERAL:
            raise ValueError(f"{word} chooses several, but {group} takes one: set {group}=NAME, or add -m and sweep it")
    return given


def _with_swept_groups(words: list[str], given: dict[str, Override]) -> list[str]:
    """The command line with `attack.steps=9` as a sweep of one value, where `attack=` itself is swept.

    Hydra first composes a configuration without the swept options, in which the options of those choices do not exist.
    """
    swept = tuple(f"{one.key_or_group.replace('/', '.')}." for one in given.values() if one.is_sweep_override())
    return [
        f"{one.key_or_group}=choice({word.partition('=')[2]})"
        if (one := given.get(word))
        and one.key_or_group.startswith(swept)
        and not one.is_sweep_override()
        and not one.is_add()
        else word
        for word in words
    ]
