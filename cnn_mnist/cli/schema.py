"""What each key of a configuration may hold, read from the signature of what it configures.

A node with `_target_: module.function` is checked against the annotations of that function (`option_types`). They are
read from the source, without importing it, so that a mistake is reported at once and not after torch's imports.
"""

import ast
import builtins
import difflib
import importlib.util
import sysconfig
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from cnn_mnist import option_types
from cnn_mnist.option_types import (
    Count,
    HoldOutMetric,
    Rule,
    Seed,
    Selection,
    as_typed,
    list_of,
    number,
    one_of,
    or_null,
)


class Train:
    """The keys of train.yaml that belong to the command itself."""

    recipe: str
    overrides: list[str]
    seed: Seed
    monitor: HoldOutMetric
    ckpt_path: option_types.Path | None


class Analyze:
    """The keys of analyze.yaml that belong to the command itself."""

    ckpt_path: option_types.Path | None
    against: option_types.Path | None
    sweep: option_types.Path | None
    committee: option_types.Paths | None
    image: option_types.Paths | None
    metric: str
    images: Selection
    seed: Seed
    report: Literal["html", "pdf"]


class Trainer:
    """Options of Lightning's Trainer, whose own signature has no limits."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    strategy: Literal["auto", "ddp"]
    devices: Count
    num_nodes: Count
    max_epochs: Annotated[int, number(int, 1, 1_000_000)]
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]
    log_every_n_steps: Count


Command = type[Train] | type[Analyze]
SECTIONS = {Train: ("data", "network", "model", "trainer", "logger", "callbacks"), Analyze: ("data", "trainer")}
GROUPS = {Train: SECTIONS[Train], Analyze: (*SECTIONS[Analyze], "network", "attack", "export")}
MEASURED = ("val/acc", "val/loss")  # in every run with a hold-out
MEASURED_UNDER_ATTACK = ("val/robust_acc", "val/fgsm_acc", "val/certified_acc")  # by callbacks=robust
SET_BY_TRAIN = {"callbacks", "logger", "plugins", "default_root_dir", "enable_progress_bar"}
NEED = {  # options that do nothing where those they need are 0
    "model.attack_steps": ("model.epsilon",),
    "model.warmup_epochs": ("model.epsilon",),
    "model.cooldown_epochs": ("model.distortion", "model.elastic", "model.stroke"),
    "data.held_out": ("data.val_size",),
    "monitor": ("data.val_size",),
}
NAMES = vars(builtins) | vars(typing)  # that an annotation may use, beside the option types that its file imports


def check(cfg: DictConfig, command: Command) -> None:
    """Hold a composed configuration against the declarations of its options.

    Raises:
        ValueError: With the key, its value, what it may hold and the override to change.
    """
    own = typing.get_type_hints(command, include_extras=True)
    for key in cfg:
        value = cfg._get_node(key)
        is_node = isinstance(value, DictConfig) and "_target_" in value and command is Analyze  # an analysis
        if not is_node and key not in own and key not in GROUPS[command]:
            raise ValueError(f"unknown key {key!s}{nearest(str(key), {*own, *GROUPS[command]})}")
    for section in SECTIONS[command]:
        node = cfg.get(section)
        if not isinstance(node, DictConfig) or (section in ("data", "network", "model") and "_target_" not in node):
            raise ValueError(
                f"{section} cannot be left out or replaced as a whole: set {section}.KEY or {section}=NAME"
            )
    for section in ("callbacks", "logger"):
        for name, node in (cfg.get(section) or {}).items():
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise ValueError(
                    f"unknown key {section}.{name}, or it does not name a _target_: leave it out with ~{section}.{name}"
                )
    for key, annotation in own.items():
        if key in cfg and (rule := rule_of(annotation)):
            hold(key, cfg[key], rule)
    for path, node in _nodes(cfg):
        if not isinstance(node._target_, str):
            raise ValueError(f"{path}._target_ must be the name of a class or function, got {as_typed(node._target_)}")
        for key, annotation in annotations_of(node._target_).items():
            if key in node:
                rule = rule_of(annotation)
                if rule is not None and node.get("norm") == "l2":
                    rule = rule.l2 or rule
                hold(f"{path}.{key}", node[key], rule)
    for key in SET_BY_TRAIN & {*cfg.trainer}:
        raise ValueError(f"trainer.{key} is set by train.py itself: leave it out")
    if "monitor" in cfg:
        _check_monitor(cfg)


def hold(key: str, value: object, rule: Rule | None) -> None:
    """Raise ValueError where a value is not what a rule allows."""
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if rule is not None and not rule.holds(plain):
        raise ValueError(f"{key} must be {rule.words}, got {as_typed(plain)}: set {key}=...")


def _nodes(node: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node that names what it configures, with its dotted path."""
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            below = f"{path}.{key}".strip(".")
            if "_target_" in child:
                yield below, child
            yield from _nodes(child, below)


def rule_of(annotation: Any) -> Rule | None:
    """The rule that an annotation stands for; None where it says nothing that could be checked."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next((one for one in arguments if isinstance(one, Rule)), None)
    if origin is Literal:
        return one_of(*arguments)
    if origin in (Union, UnionType) and type(None) in arguments and len(arguments) == 2:
        rule = rule_of(next(one for one in arguments if one is not type(None)))
        return rule and or_null(rule)
    if origin is list:
        rule = rule_of(arguments[0])
        return rule and list_of(rule)
    return one_of(True, False) if annotation is bool else None


@cache
def annotations_of(target: str) -> dict[str, Any]:
    """The annotated parameters of a function, or of a class's `__init__`, from its source.

    Those whose annotation needs more than builtins, `typing` and what the file imports from `option_types` are not.
    """
    if target == "pytorch_lightning.Trainer":
        return typing.get_type_hints(Trainer, include_extras=True)
    module, _, name = target.rpartition(".")
    tree = _tree_of(module)
    names: dict[str, Any] = dict(NAMES)
    origins: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            origins |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
            if node.module == "cnn_mnist.option_types":
                names |= {one.asname or one.name: getattr(option_types, one.name, None) for one in node.names}
    found = next((node for node in tree.body if getattr(node, "name", "") == name), None)
    if isinstance(found, ast.ClassDef):
        bases = [base.id for base in found.bases if isinstance(base, ast.Name)]
        found = next((node for node in found.body if getattr(node, "name", "") == "__init__"), None)
        if found is None:  # inherited
            return annotations_of(origins.get(bases[0], f"{module}.{bases[0]}")) if bases else {}
    rules = {}
    if isinstance(found, ast.FunctionDef):
        for argument in (*found.args.args, *found.args.kwonlyargs):
            note = argument.annotation
            if note is not None:
                text = (
                    note.value if isinstance(note, ast.Constant) and isinstance(note.value, str) else ast.unparse(note)
                )
                with suppress(NameError, TypeError, AttributeError, SyntaxError):
                    rules[argument.arg] = eval(text, names)
    return rules


def _tree_of(module: str) -> ast.Module:
    """The syntax tree of a module of this project or of the user's own; empty for libraries, which declare no rules.

    Raises:
        ValueError: The user's file is not valid Python.
    """
    root = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(root)
        is_own = spec is not None and (root == "cnn_mnist" or not _is_library(spec))
        spec = importlib.util.find_spec(module) if is_own else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.has_location:
        return ast.Module([], [])
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{spec.origin}, line {error.lineno}: {error.msg}") from error


def _is_library(spec: ModuleSpec) -> bool:
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return origin is None or any(Path(origin).is_relative_to(place) for place in places)


def _check_monitor(cfg: DictConfig) -> None:
    """Raise ValueError where nothing measures a metric that is monitored; code of the user's own may measure any."""
    nodes = [cfg.model, *cfg.callbacks.values()]
    is_own = any(not str(node._target_).startswith(("cnn_mnist.", "pytorch_lightning.")) for node in nodes)
    if cfg.data.get("val_size") and not is_own and cfg.monitor not in (*MEASURED, *MEASURED_UNDER_ATTACK):
        raise ValueError(
            f"monitor={cfg.monitor}, but nothing measures it{nearest(cfg.monitor, (*MEASURED, *MEASURED_UNDER_ATTACK))}"
        )
    for name in (*(f"callbacks.{name}" for name in cfg.callbacks), "model.schedule"):
        monitor = str(OmegaConf.select(cfg, f"{name}.monitor", default=""))
        is_of_a_library = str(OmegaConf.select(cfg, f"{name}._target_")).startswith(("pytorch_lightning.", "torch."))
        if monitor.startswith("test/") and is_of_a_library:
            raise ValueError(f"{name} watches {monitor}, but the test set chooses nothing: set {name}.monitor=val/...")
        if monitor.startswith("val/") and cfg.data.get("val_size") == 0:
            raise ValueError(f"{name} watches {monitor}, but there is no hold-out: set data.val_size=...")
    if is_own:
        return
    is_measured = any(str(node._target_).endswith(".RobustAccuracy") for node in cfg.callbacks.values())
    if cfg.data.get("val_size") and cfg.monitor == "val/certified_acc" and not cfg.model.get("bound_weight"):
        raise ValueError(f"monitor={cfg.monitor}, but nothing measures it: set model.bound_weight or monitor=val/acc")
    if cfg.data.get("val_size") and cfg.monitor in MEASURED_UNDER_ATTACK and not is_measured:
        raise ValueError(f"monitor={cfg.monitor}, but nothing measures it: set callbacks=robust or monitor=val/acc")


def check_needed(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Raise ValueError for an option of a new training that does nothing without another one, which is 0."""
    if "monitor" not in cfg or cfg.ckpt_path is not None:
        return
    named = {override.partition("=")[0] for override in overrides}
    for key, needed in NEED.items():
        if key in named and not named & {*needed} and all(OmegaConf.select(cfg, one) == 0 for one in needed):
            raise ValueError(f"{key} has no effect without {' or '.join(needed)}: set that as well, or leave {key} out")


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest of the names, or lists them where none is near."""
    names = sorted(name for name in map(str, known) if not name.rpartition(".")[2].startswith("_"))
    if near := difflib.get_close_matches(word, names, n=1):
        return f": did you mean {near[0]}?"
    last = {name.rpartition(".")[2]: name for name in names}
    if near := difflib.get_close_matches(word.rpartition(".")[2], last, n=1):
        return f": did you mean {last[near[0]]}?"
    return f": choose from {', '.join(name for name in names if '.' not in name)}"
