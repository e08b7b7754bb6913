"""What is looked at: a trained network, the data it was trained on, and a few images."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from cnn_mnist import checkpoint, picture
from cnn_mnist.data import DataModule, Images
from cnn_mnist.network import CNN
from cnn_mnist.rules import PARTS, attacks_of

OF_A_PICTURE = ("activations", "occlusion", "saliency", "targeted", "noise")  # parts that can do with one image
OF_THE_NETWORK = ("filters", "class_image", "non_targeted")  # parts that need none
NEEDS_CAPTUM = "it needs captum (pip install captum)"


class Task(NamedTuple):
    """A part of the report to be done: its kind, `analysis` or `attacks`, its name, and what to instantiate.

    `is_alone`: nothing else is asked for.
    """

    kind: str
    name: str
    node: DictConfig
    is_alone: bool

    @property
    def options(self) -> dict[str, Any]:
        """What it is done with, as plain values."""
        values = OmegaConf.to_container(self.node, resolve=True)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if not str(key).startswith("_")}


class Subject(NamedTuple):
    """A network in eval mode, on its device, and a few images on the CPU.

    Attributes:
        network: The network.
        checkpoint: Where it came from.
        dataset: The data set of the images, or `picture`.
        images: (B, 1, 28, 28) in [0, 1].
        labels: The classes to explain, int64 (B,): the true ones, or the predicted one of a picture.
        indices: Places in the test set, int64 (B,); -1 for a picture.
        test: The whole test set; None where the one image is a picture of the user's own, or where none is needed.
        train: The training set; None with `test`.
        other: The network of `against`, on the same device; None without.
    """

    network: CNN
    checkpoint: Path
    dataset: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    test: Images | None
    train: Images | None = None
    other: CNN | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.fc1.weight.device

    def on_device(self) -> tuple[Tensor, Tensor]:
        """The images and labels beside the network."""
        return self.images.to(self.device), self.labels.to(self.device)


def tasks(cfg: DictConfig, overrides: list[str]) -> list[Task]:
    """What is asked for and can be had, in the report's order: everything, or what `analysis` or `attack` names.

    Raises:
        ValueError: The one that is named does not look at a picture, and a picture was given, or it needs captum.
    """
    has_captum = importlib.util.find_spec("captum") is not None
    named = {"analysis", "attack"} & {override.partition("=")[0] for override in overrides}
    found: list[tuple[str, str, DictConfig]] = []
    if "analysis" in named or not named:
        if cfg.analysis != "all" and cfg.analysis not in cfg:
            raise ValueError(f"analysis={cfg.analysis}, but ~{cfg.analysis} leaves it out")
        parts = [part for part in PARTS if part in cfg] if cfg.analysis == "all" else [cfg.analysis]
        found += [("analysis", part, cfg[part]) for part in parts]
    if "attack" in named or not named:
        found += [("attacks", name, node) for name, node in attacks_of(cfg).items()]
    is_alone = len(found) == 1
    if "saliency" in (name for _, name, _ in found) and not has_captum:
        if is_alone:
            raise ValueError(f"analysis=saliency cannot be had: {NEEDS_CAPTUM}")
        print(f"saliency is left out: {NEEDS_CAPTUM}")
        found = [task for task in found if task[1] != "saliency"]
    if not found:
        raise ValueError("nothing is left to do: every part was left out")
    if cfg.image is not None:
        kind, name = ("attack" if found[0][0] == "attacks" else "analysis"), found[0][1]
        if is_alone and name not in OF_A_PICTURE:
            raise ValueError(
                f"{kind}={name} cannot do with one picture: leave out image=, or choose {' or '.join(OF_A_PICTURE)}"
            )
        found = [task for task in found if task[1] in OF_A_PICTURE]
    return [Task(*task, is_alone=is_alone) for task in found]


def choose(cfg: DictConfig, overrides: list[str], names: Sequence[str] = OF_A_PICTURE) -> Subject:
    """The network that `ckpt_path` names, or the newest, with the images that `images` or `image` name.

    The data set is the run's own, and so is the folder of its files, unless the command line names another; `cfg` then
    says which. Where none of the parts in `names` looks at images there are none, and no data set is needed.

    Raises:
        FileNotFoundError: There is no such run, checkpoint or picture.
        ValueError: The checkpoint or the picture is of another kind, an index is out of range, or an option has no
            effect on an analysis.
    """
    _refuse_what_has_no_effect(overrides)
    file = checkpoint.newest() if cfg.ckpt_path is None else checkpoint.find(cfg.ckpt_path, prefer_best=True)
    print(f"{'newest run: ' if cfg.ckpt_path is None else ''}{file}")
    own = picture.read(cfg.image) if cfg.image is not None else None
    cfg.ckpt_path = str(file)
    content = checkpoint.read(file)
    network = checkpoint.network_of(content, file).to(_device(cfg.trainer.accelerator))
    other = None if cfg.against is None else _other(cfg.against).to(network.fc1.weight.device)
    if own is not None:
        return _of_picture(network, file, own, cfg.image)._replace(other=other)
    _settle_data(cfg, overrides, file, content.get("datamodule_hyper_parameters", {}).get("dataset"))
    if set(names) <= set(OF_THE_NETWORK):
        nothing = torch.empty(0, dtype=torch.long)
        return Subject(network, file, cfg.data.dataset, torch.empty(0, 1, 28, 28), nothing, nothing, None, other=other)
    data = DataModule(cfg.data.dataset, cfg.data.root, fallback=None)
    data.prepare_data()
    data.setup()
    indices = _indices(cfg.images, data.test)
    images, labels = data.test[indices]
    return Subject(network, file, data.dataset, images, labels, indices, data.test, data.train, other)


def _refuse_what_has_no_effect(overrides: list[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.startswith(("data.", "trainer.")) and key not in ("data.dataset", "data.root", "trainer.accelerator"):
            raise ValueError(f"{key} has no effect on an analysis: leave it out")


def _of_picture(network: CNN, file: Path, own: picture.Picture, name: str) -> Subject:
    """Predict a picture, say what was done to it, and explain the class that was predicted."""
    with torch.no_grad():
        probability = network(own.image.to(network.fc1.weight.device)).softmax(1)[0].cpu()
    first, second = probability.topk(2).indices.tolist()
    print(*(f"{name}: {note}" for note in own.notes), sep="\n")
    print(f"predicted {first} (p {probability[first]:.3f}), then {second} (p {probability[second]:.3f})")
    return Subject(network, file, "picture", own.image, torch.tensor([first]), torch.tensor([-1]), None)


def _other(path: str) -> CNN:
    """The network that looks on."""
    try:
        return checkpoint.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(str(error).replace("ckpt_path", "against")) from error


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _settle_data(cfg: DictConfig, overrides: list[str], file: Path, dataset: str | None) -> None:
    """Put the run's own data set and folder into `cfg` where the command line names no others."""
    given = {override.partition("=")[0] for override in overrides}
    record = file.parent.parent / "config.yaml"
    own = OmegaConf.load(record) if record.is_file() else OmegaConf.create()
    root = OmegaConf.select(own, "data.root")
    if dataset is not None and not given & {"data", "data.dataset"}:
        cfg.data.dataset = dataset
    if root is not None and "data.root" not in given:
        cfg.data.root = root


def _indices(images: int | ListConfig, test: Images) -> Tensor:
    if isinstance(images, int):
        if images > len(test):
            raise ValueError(f"there are {len(test):,} test images, not {images:,}: set images=...")
        return test.of_each_class(images)
    indices = torch.tensor(list(images))
    if indices.max() >= len(test):
        raise ValueError(f"test images have the indices 0..{len(test) - 1:,}, got {indices.max():,}: set images=...")
    return indices
