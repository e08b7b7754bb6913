"""What each key of a configuration may hold.

Imports neither torch nor Lightning, so that a mistake answers at once.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf


class Rule(NamedTuple):
    """What a key may hold, in words and as a test."""

    words: str
    holds: Callable[[object], bool]


def _as_typed(value: object) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, ListConfig | DictConfig):
        return json.dumps(OmegaConf.to_container(value))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def number(kind: type[int] | type[float], low: float, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number from `low` to `high`, both included unless `above` leaves `low` out."""
    noun = "a whole number" if kind is int else "a number"
    if high < math.inf:
        words = f"{noun} from {low:,} to {high:,}"
    else:
        words = f"{noun} {'above' if above else 'of at least'} {low:,}"

    def holds(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | kind) or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and value <= high

    return Rule(words, holds)


def one_of(*options: object) -> Rule:
    """One of a few values, told apart by type too: 1 is not true."""
    return Rule(
        " or ".join(map(_as_typed, options)),
        lambda value: any(value == option and type(value) is type(option) for option in options),
    )


def _selects(value: object) -> bool:
    if isinstance(value, ListConfig):
        return 0 < len(value) <= 100 and all(number(int, 0).holds(index) for index in value)
    return number(int, 1, 100).holds(value)


def _is_of_the_hold_out(value: object) -> bool:
    return isinstance(value, str) and value.startswith("val/")


SOME_PATH = Rule("a path", lambda value: isinstance(value, str) and value != "")
PATH = Rule("a path or null", lambda value: value is None or SOME_PATH.holds(value))
SELECTION = Rule("a count from 1 to 100 or as many indices such as [3,14,15]", _selects)

NEURON = Rule(
    "null or a place such as [7,7]",
    lambda value: value is None or (isinstance(value, ListConfig) and len(value) == 2 and _selects(value)),
)


class Rules(NamedTuple):
    """The rules of one entry point: its top-level keys, and what the keys below them may hold."""

    top_level: set[str]
    keys: dict[str, Rule]


_PATCH = {"window": number(int, 1, 28), "stride": number(int, 1, 28), "fill": number(float, 0, 1)}
_SEED = number(int, 0, 2**32 - 1)
PARTS = (
    "seeds",
    "comparison",
    "training",
    "predictions",
    "filters",
    "activations",
    "occlusion",
    "saliency",
    "class_image",
)
_SHARED = {
    "data.dataset": one_of("mnist", "fashion_mnist", "kmnist", "digits"),
    "data.root": SOME_PATH,
    "data.fallback": one_of("digits", None),
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.devices": number(int, 1),
    "trainer.num_nodes": number(int, 1),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "seed": _SEED,
    "ckpt_path": PATH,
}
TRAIN = Rules(
    {"recipe", "overrides", "seed", "monitor", "ckpt_path", "data", "model", "trainer", "logger", "callbacks"},
    _SHARED
    | {
        "data.batch_size": number(int, 1, 1_000_000),
        "data.val_size": number(int, 0),
        "model.batchnorm": one_of(True, False),
        "model.kernel_size": one_of(3, 5, 7, 9, 11),
        "model.lr": number(float, 0, above=True),
        "model.schedule": one_of(None, "one_cycle"),
        "model.distortion": number(float, 0, 1),
        "model.label_smoothing": number(float, 0, 1),
        "model.weight_decay": number(float, 0),
        "model.epsilon": number(float, 0, 1),
        "model.attack_steps": number(int, 1),
        "model.warmup_epochs": number(float, 0),
        "monitor": Rule("the name of a metric of the hold-out, such as val/acc or val/loss", _is_of_the_hold_out),
        "trainer.max_epochs": number(int, 1, 1_000_000),
        "trainer.precision": one_of("32-true", "bf16-mixed", "16-mixed", "64-true"),
        "trainer.log_every_n_steps": number(int, 1),
    }
    | {f"callbacks.{name}.every_n_epochs": number(int, 1) for name in ("filters", "activations", "occlusion")}
    | {
        "callbacks.adversarial.steps": number(int, 1),
        "callbacks.adversarial.seed": _SEED,
        "callbacks.robust_accuracy.epsilon": number(float, 0, 1),
        "callbacks.robust_accuracy.steps": number(int, 1),
        "callbacks.robust_accuracy.num_images": number(int, 1),
    }
    | {f"callbacks.occlusion.{key}": rule for key, rule in _PATCH.items()},
)
_TARGET = Rule("null or a class from 0 to 9", lambda value: value is None or number(int, 0, 9).holds(value))


def _budgets(each: Rule) -> Rule:
    def holds(value: object) -> bool:
        return value is None or (isinstance(value, ListConfig) and all(each.holds(one) for one in value))

    return Rule(f"null or a list such as [0.1,0.2], each {each.words}", holds)


ATTACK = {  # options by name; they mean the same in every attack, or are named with theirs
    "target": _TARGET,
    "beta": number(float, 0),
    "epsilon": number(float, 0, 1),
    "noise.epsilon": Rule(
        "null or a number from 0 to 1", lambda value: value is None or number(float, 0, 1).holds(value)
    ),
    "epsilons": _budgets(number(float, 0, 1)),
    "deepfool.epsilons": _budgets(number(float, 0)),
    "steps": number(int, 1),
    "step_size": number(float, 0, above=True),
    "pgd.step_size": Rule(
        "null or a number above 0", lambda value: value is None or number(float, 0, above=True).holds(value)
    ),
    "confidence": number(float, 0, 1),
    "restarts": number(int, 1),
    "norm": one_of("linf", "l2"),
    "early_stop": one_of(True, False),
    "overshoot": number(float, 0),
    "batch_size": number(int, 1),
    "num_images": number(int, 1),
    "num_test_images": number(int, 1),
    "num_train_images": number(int, 1),
    "seed": _SEED,
}
ANALYZE = Rules(
    {
        "ckpt_path",
        "against",
        "sweep",
        "metric",
        "analysis",
        "attack",
        "export",
        "images",
        "image",
        "seed",
        "data",
        "trainer",
        *PARTS,
    },
    _SHARED
    | {f"{part}.{key}": rule for part in ("occlusion", "saliency") for key, rule in _PATCH.items()}
    | {
        "analysis": one_of("all", *PARTS),
        "against": PATH,
        "sweep": PATH,
        "image": PATH,
        "images": SELECTION,
        "activations.num_images": number(int, 2),
        "occlusion.num_images": number(int, 2),
        "class_image.layer": one_of(None, "conv1", "conv2"),
        "class_image.neuron": NEURON,
        "class_image.seed": _SEED,
        "class_image.num_images": number(int, 1, 100),
        "class_image.steps": number(int, 1),
        "class_image.step_size": number(float, 0, above=True),
        "class_image.penalty": number(float, 0),
        "saliency.steps": number(int, 1),
        "export.num_images": number(int, 1),
    },
)


SECTIONS = ("data", "model", "trainer", "logger", "callbacks")  # that are there, though they may be empty


def check(cfg: DictConfig, rules: Rules) -> None:
    """Hold a composed configuration against the rules.

    Raises:
        ValueError: With the key, what it holds, what it may hold and the override to change.
    """
    for key in cfg:
        if key not in rules.top_level:
            raise ValueError(f"unknown key {key!s}{nearest(str(key), rules.top_level)}")
    for section in SECTIONS:
        if section in rules.top_level and not isinstance(cfg.get(section), DictConfig):
            raise ValueError(
                f"{section} cannot be left out or replaced as a whole: set {section}.KEY or {section}=NAME"
            )
    for section in ("callbacks", "logger"):
        nodes = cfg.get(section) or {}
        for name, node in nodes.items():
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise ValueError(
                    f"unknown key {section}.{name}, or nothing that can be built: leave it out by ~{section}.{name}"
                )
    for key, rule in rules.keys.items():
        section = key.rpartition(".")[0]
        if section and OmegaConf.select(cfg, section) is None:  # left out, as by ~callbacks.occlusion
            continue
        hold(key, OmegaConf.select(cfg, key), rule)
    if "monitor" in cfg:
        _check_monitor(cfg)
    for name, node in attacks_of(cfg).items():
        prefix = "attack." if "_target_" in cfg.attack else f"attack.{name}."
        for key, value in node.items():
            if key in ATTACK:
                rule = ATTACK.get(f"{name}.{key}", ATTACK[str(key)])
                if "norm" in node and node.norm == "l2":  # larger than any change of a single pixel
                    rule = {"epsilon": number(float, 0), "epsilons": ATTACK["deepfool.epsilons"]}.get(str(key), rule)
                hold(f"{prefix}{key}", value, rule)


def _check_monitor(cfg: DictConfig) -> None:
    """Raise ValueError where nothing measures the metric that is to choose, or the options leave no whole epoch."""
    watches = any(str(node._target_).endswith(".RobustAccuracy") for node in cfg.callbacks.values())
    if cfg.data.val_size and cfg.monitor in ("val/robust_acc", "val/fgsm_acc") and not watches:
        raise ValueError(f"monitor={cfg.monitor}, but nothing measures it: set callbacks=robust or monitor=val/acc")


def attacks_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """The attacks that a configuration holds, by name: one, or several below `attack`."""
    if "attack" not in cfg or cfg.attack is None:
        return {}
    nodes = [cfg.attack] if "_target_" in cfg.attack else [node for node in cfg.attack.values()]
    return {node._target_.rpartition(".")[2]: node for node in nodes if node is not None}


def hold(key: str, value: object, rule: Rule) -> None:
    """Raise ValueError where a key holds what it may not."""
    if not rule.holds(value):
        raise ValueError(f"{key} must be {rule.words}, got {_as_typed(value)}: set {key}=...")


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest of the names, or lists them where none is near."""
    names = sorted(name for name in map(str, known) if not name.rpartition(".")[2].startswith("_"))
    if near := difflib.get_close_matches(word, names, n=1):
        return f": did you mean {near[0]}?"
    last = {name.rpartition(".")[2]: name for name in names}
    if near := difflib.get_close_matches(word.rpartition(".")[2], last, n=1):
        return f": did you mean {last[near[0]]}?"
    return f": choose from {', '.join(name for name in names if '.' not in name)}"
