"""Which sections a command asks for, and what each of them needs."""

import importlib.util
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from cnn_mnist import nodes
from cnn_mnist.report.own_pictures import is_several
from cnn_mnist.report.section import Needs

SEVERAL = {  # options that name many networks, and the one section about them
    "sweep": "cnn_mnist.report.sections.sweeps.sweep.seeds",
    "committee": "cnn_mnist.report.sections.sweeps.committee.committee",
}
OWN = {
    "picture": "a picture of your own: set image= to its file",
    "pictures": "several pictures of your own: set image= to a folder, or to a list of files",
}
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class Task(NamedTuple):
    """A section to compute.

    Attributes:
        kind: `analysis`, `attacks` or `export`; also the folder of its files.
        name: Its name on the command line, in the record and on the page.
        node: What to instantiate: `_target_` and options.
        is_alone: Nothing else is asked for.
        key: Where its options are on the command line.
    """

    kind: str
    name: str
    node: DictConfig
    is_alone: bool
    key: str = ""

    @property
    def group(self) -> str:
        """The group of options that it is chosen from."""
        return "attack" if self.kind == "attacks" else self.kind

    @property
    def needs(self) -> Needs:
        """What the section needs."""
        found: Needs = getattr(nodes.imported(self.group, self.node)[0], "needs", Needs())
        return found

    @property
    def question(self) -> str:
        """What it asks: the first line of its docstring."""
        return (nodes.imported(self.group, self.node)[0].__doc__ or "").strip().partition("\n")[0]

    @property
    def is_done_once(self) -> bool:
        """Whether it is computed once, however many networks there are."""
        return self.needs.other or self.needs.first or self.kind == "export"

    @property
    def options(self) -> dict[str, Any]:
        """Its options, as plain values."""
        values = OmegaConf.to_container(self.node, resolve=True)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if not str(key).startswith("_")}


def tasks(cfg: DictConfig, overrides: list[str]) -> list[Task]:
    """The sections that are asked for and can be computed, in the order of the report.

    That is everything, or what `analysis`, `attack` or `export` names; of a sweep or a committee, the one section about
    it.

    Raises:
        ValueError: The section that is named cannot use a picture, requires a package that is not installed, or a
            second network.
    """
    named = {"analysis", "attack", "export"} & {override.partition("=")[0] for override in overrides}
    many = next((key for key in SEVERAL if cfg[key] is not None), None)
    if many is not None:
        others = [key for key in ("ckpt_path", "against", "image", *SEVERAL) if key != many and cfg[key] is not None]
        if others := [*others, *sorted(named)]:
            raise ValueError(f"{many}= and {others[0]}= cannot be combined: leave one of them out")
        node = OmegaConf.create({"_target_": SEVERAL[many], "_partial_": True})
        return [Task("analysis", SEVERAL[many].rpartition(".")[2], node, is_alone=True)]
    if "_target_" in (cfg.get("analysis") or ()):
        raise ValueError("the first line of an analysis's file must be `# @package` and its name")
    found: list[Task] = []
    if "analysis" in named or not named:
        found += [Task("analysis", str(name), node, False, str(name)) for name, node in analyses_of(cfg).items()]
    if "attack" in named or not named:
        is_single = "_target_" in (cfg.get("attack") or ())
        found += [
            Task("attacks", name, node, False, "attack" if is_single else f"attack.{name}")
            for name, node in attacks_of(cfg).items()
        ]
    if "export" in cfg and cfg.export is not None:
        if "onnx" in cfg.export._target_ and not all(map(importlib.util.find_spec, ONNX_PACKAGES)):
            raise ValueError("export=onnx requires onnx and onnxruntime: pip install 'cnn-mnist[export]'")
        name = cfg.export._target_.rpartition(".")[2].partition("_")[0]
        if cfg.against is not None and name != "play":
            raise ValueError(f"export={name} writes one network: leave against= out")
        found.append(Task("export", name, cfg.export, False))
    for task in found:
        _check_arguments(task)
    _refuse_what_is_not_done(found, overrides, {*analyses_of(cfg), "attack", "export", "metric"}, cfg.image is None)
    is_alone = len(found) == 1
    reasons = []
    for task in list(found):
        if reason := _cannot_be_done(task, cfg):
            if is_alone:
                raise ValueError(reason)
            if not _is_installed(task.needs.package):
                print(f"left out: {reason}")
            reasons.append(reason)
            found.remove(task)
    if not found:
        raise ValueError(f"nothing is left to do, because {reasons[0]}" if reasons else "nothing is left to do")
    is_alone = len(found) == 1
    return [task._replace(is_alone=is_alone) for task in found]


def _check_arguments(task: Task) -> None:
    """Raise ValueError where the file of a section does not fit the function that it names."""
    accepted = nodes.imported(task.group, task.node)[1]
    arguments = [*accepted.values()][1:]  # the first is the subject
    file, given = f"the file of {task.group}={task.name}", {*task.options}
    if not task.node.get("_partial_"):
        raise ValueError(f"{file} lacks the line `_partial_: true`")
    for one in arguments:
        is_named = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if is_named and one.default is one.empty and one.name not in given:
            raise ValueError(f"{task.node._target_} needs {one.name}: add it to {file}")
    takes_any = any(one.kind is one.VAR_KEYWORD for one in arguments)
    if (unknown := sorted(given - {*accepted})) and not takes_any:
        raise ValueError(f"{task.node._target_} takes no {unknown[0]}: remove it from {file}")


def _refuse_what_is_not_done(asked: list[Task], overrides: list[str], parts: set[str], is_of_test_set: bool) -> None:
    """Raise ValueError for an option of a section that is not asked for, and for test images that none shows."""
    has_images = is_of_test_set and any(task.needs.data and task.needs.images for task in asked)
    done = {part for task in asked for part in (task.key, task.name if task.kind == "analysis" else task.kind)}
    done |= {"attack"} if "attacks" in done else set()
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        part, _, option = key.partition(".")
        is_not_done = part in parts - done and (option or part == "metric")
        if is_not_done or (key == "images" and not has_images):
            raise ValueError(f"{key} has no effect on what is asked for: leave it out")


def _cannot_be_done(task: Task, cfg: DictConfig) -> str:
    """Why a section cannot be computed, or an empty text."""
    what, needs = f"{task.group}={task.name}", task.needs
    if needs.other and cfg.against is None:
        return f"{what} needs two networks: set against= to another run"
    if not _is_installed(needs.package):
        return f"{what} requires {needs.package}: pip install {needs.package}"
    own = "" if cfg.image is None else "pictures" if is_several(cfg.image) else "picture"
    if needs.about and needs.about != own:
        return f"{what} is about {OWN[needs.about]}"
    if own and own != needs.about and not (own == "picture" and needs.picture):
        return f"{what} cannot use {'a single picture' if own == 'picture' else 'several pictures'}: leave out image="
    return ""


def _is_installed(package: str) -> bool:
    return not package or importlib.util.find_spec(package) is not None


def analyses_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """The analyses of a configuration, by name: the nodes at its top level that name a function."""
    sections = ("data", "network", "trainer", "attack", "export", "hydra")
    nodes = {str(key): value for key, value in cfg.items() if key not in sections}
    return {key: node for key, node in nodes.items() if isinstance(node, DictConfig) and "_target_" in node}


def attacks_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """The attacks of a configuration, by name: one, or several below `attack`."""
    if "attack" not in cfg or cfg.attack is None:
        return {}
    if "_target_" in cfg.attack:
        return {cfg.attack._target_.rpartition(".")[2]: cfg.attack}
    return {str(name): node for name, node in cfg.attack.items() if node is not None}
