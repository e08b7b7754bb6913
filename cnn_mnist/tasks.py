"""What a command asks for: parts of the report, by name, and what each needs."""

import importlib.util
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from cnn_mnist.rules import PARTS, attacks_of

OF_A_PICTURE = ("activations", "occlusion", "saliency", "targeted", "noise")  # parts that can do with one image
OF_THE_NETWORK = ("filters", "class_image")  # parts that need none
OF_A_SAMPLE = ("activations", "occlusion", "fgsm", "pgd", "deepfool")  # parts whose `num_images` are test images
OF_BOTH = "comparison"  # the part that needs two networks
OF_A_SWEEP = "seeds"  # the part that needs a sweep, and no network
NEEDED_BY_ONNX = ("onnx", "onnxruntime", "onnxscript")
NEEDS_CAPTUM = "it needs captum (pip install captum)"


class Task(NamedTuple):
    """A part of the report to be done: its kind, `analysis`, `attacks` or `export`, its name, what to instantiate.

    `is_alone`: nothing else is asked for.
    """

    kind: str
    name: str
    node: DictConfig
    is_alone: bool

    @property
    def is_of_one(self) -> bool:
        """Whether it is done once, however many networks are looked at."""
        return self.name == OF_BOTH or self.kind == "export"

    @property
    def options(self) -> dict[str, Any]:
        """What it is done with, as plain values."""
        values = OmegaConf.to_container(self.node, resolve=True)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if not str(key).startswith("_")}


def tasks(cfg: DictConfig, overrides: list[str]) -> list[Task]:
    """What is asked for and can be had, in the report's order.

    That is everything, or what `analysis`, `attack` or `export` names; of a sweep, the one part about it.

    Raises:
        ValueError: The one that is named does not look at a picture, and a picture was given, or it needs captum, or
            another network.
    """
    if cfg.sweep is not None:
        for key in ("ckpt_path", "against", "image", "export"):
            if key in cfg and cfg[key] is not None:
                raise ValueError(f"{key}= is about one network, and sweep= about many: leave one of them out")
        return [Task("analysis", OF_A_SWEEP, cfg[OF_A_SWEEP], is_alone=True)]
    named = {"analysis", "attack", "export"} & {override.partition("=")[0] for override in overrides}
    found: list[tuple[str, str, DictConfig]] = []
    if "analysis" in named or not named:
        if cfg.analysis != "all" and cfg.analysis not in cfg:
            raise ValueError(f"analysis={cfg.analysis}, but ~{cfg.analysis} leaves it out")
        if cfg.analysis == OF_A_SWEEP:
            raise ValueError(f"analysis={OF_A_SWEEP} needs a sweep: set sweep= to its folder")
        parts = (
            [part for part in PARTS if part in cfg and part != OF_A_SWEEP] if cfg.analysis == "all" else [cfg.analysis]
        )
        found += [("analysis", part, cfg[part]) for part in parts]
    if "attack" in named or not named:
        found += [("attacks", name, node) for name, node in attacks_of(cfg).items()]
    if "export" in cfg and cfg.export is not None:
        if "onnx" in cfg.export._target_ and not all(map(importlib.util.find_spec, NEEDED_BY_ONNX)):
            raise ValueError("export=onnx cannot be had: it needs onnx and onnxruntime (pip install -e '.[export]')")
        found.append(("export", cfg.export._target_.rpartition(".")[2].partition("_")[0], cfg.export))
    if cfg.against is None:
        if cfg.analysis == OF_BOTH:
            raise ValueError("analysis=comparison needs two networks: set against= to another run")
        found = [task for task in found if task[1] != OF_BOTH]
    is_alone = len(found) == 1
    if "saliency" in (name for _, name, _ in found) and importlib.util.find_spec("captum") is None:
        if is_alone:
            raise ValueError(f"analysis=saliency cannot be had: {NEEDS_CAPTUM}")
        print(f"saliency is left out: {NEEDS_CAPTUM}")
        found = [task for task in found if task[1] != "saliency"]
    if not found:
        raise ValueError("nothing is left to do: every part was left out")
    if cfg.image is not None:
        kind, name = found[0][0].replace("attacks", "attack"), found[0][1]
        if is_alone and name not in OF_A_PICTURE:
            raise ValueError(
                f"{kind}={name} cannot do with one picture: leave out image=, or choose {' or '.join(OF_A_PICTURE)}"
            )
        found = [task for task in found if task[1] in OF_A_PICTURE]
    return [Task(*task, is_alone=is_alone) for task in found]
