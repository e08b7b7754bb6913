"""What is looked at: a trained network, the data it was trained on, and a few images."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from cnn_mnist import checkpoint, picture
from cnn_mnist.data import DataModule, Images
from cnn_mnist.network import CNN

OF_IMAGES = ("activations", "occlusion", "saliency")  # the other parts look at the network alone
NEEDS_CAPTUM = "it needs captum (pip install captum)"


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
    """

    network: CNN
    checkpoint: Path
    dataset: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    test: Images | None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.fc1.weight.device

    def on_device(self) -> tuple[Tensor, Tensor]:
        """The images and labels beside the network."""
        return self.images.to(self.device), self.labels.to(self.device)


def parts(cfg: DictConfig, every: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that are asked for and can be had, in the report's order.

    Raises:
        ValueError: The one asked for does not look at a picture, and a picture was given, or it needs captum.
    """
    has_captum = importlib.util.find_spec("captum") is not None
    if cfg.analysis == "all":
        chosen = tuple(part for part in (every if cfg.image is None else OF_IMAGES) if part in cfg)
        if "saliency" in chosen and not has_captum:
            print(f"saliency is left out: {NEEDS_CAPTUM}")
            chosen = tuple(part for part in chosen if part != "saliency")
        return chosen
    if cfg.analysis not in cfg:
        raise ValueError(f"analysis={cfg.analysis}, but ~{cfg.analysis} leaves it out")
    if cfg.image is not None and cfg.analysis not in OF_IMAGES:
        raise ValueError(
            f"analysis={cfg.analysis} looks at no image: leave out image=, or choose {' or '.join(OF_IMAGES)}"
        )
    if cfg.analysis == "saliency" and not has_captum:
        raise ValueError(f"analysis=saliency cannot be had: {NEEDS_CAPTUM}")
    return (cfg.analysis,)


def choose(cfg: DictConfig, overrides: list[str], chosen_parts: tuple[str, ...] = OF_IMAGES) -> Subject:
    """The network that `ckpt_path` names, or the newest, with the images that `images` or `image` name.

    The data set is the run's own, and so is the folder of its files, unless the command line names another; `cfg` then
    says which. Without a part that looks at images there are none, and no data set is needed.

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
    if own is not None:
        return _of_picture(network, file, own, cfg.image)
    _settle_data(cfg, overrides, file, content.get("datamodule_hyper_parameters", {}).get("dataset"))
    if not set(chosen_parts) & set(OF_IMAGES):
        nothing = torch.empty(0, dtype=torch.long)
        return Subject(network, file, cfg.data.dataset, torch.empty(0, 1, 28, 28), nothing, nothing, None)
    data = DataModule(cfg.data.dataset, cfg.data.root, fallback=None)
    data.prepare_data()
    data.setup()
    indices = _indices(cfg.images, data.test)
    images, labels = data.test[indices]
    return Subject(network, file, data.dataset, images, labels, indices, data.test)


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
