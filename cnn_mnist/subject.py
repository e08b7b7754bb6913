"""What is looked at: a trained network, the data it was trained on, and a few images."""

from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from cnn_mnist import checkpoint, picture
from cnn_mnist.data import DataModule, Images
from cnn_mnist.network import CNN

OF_A_PICTURE = ("activations", "occlusion", "saliency")  # parts that look at an image; the others at the network alone


class Subject(NamedTuple):
    """A network in eval mode, on its device, and a few images on the CPU.

    Attributes:
        network: The network.
        checkpoint: Where it came from.
        dataset: The data set of the images, or `picture`.
        images: (B, 1, 28, 28) in [0, 1].
        labels: The classes to explain, int64 (B,): the true ones, or the predicted one of a picture.
        indices: Places in the test set, int64 (B,); -1 for a picture.
        test: The whole test set, or None where the one image is a picture of the user's own.
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
    """The parts that are asked for, in the report's order.

    Raises:
        ValueError: The one asked for does not look at a picture, and a picture was given.
    """
    if cfg.image is None:
        return every if cfg.analysis == "all" else (cfg.analysis,)
    if cfg.analysis == "all":
        return OF_A_PICTURE
    if cfg.analysis not in OF_A_PICTURE:
        raise ValueError(f"analysis={cfg.analysis} looks at no image: leave out image=, or choose {OF_A_PICTURE}")
    return (cfg.analysis,)


def choose(cfg: DictConfig, overrides: list[str]) -> Subject:
    """The network that `ckpt_path` names, or the newest, with the images that `images` or `image` name.

    The data set is the run's own, and so is the folder of its files, unless the command line names another.

    Raises:
        FileNotFoundError: There is no such run, checkpoint or picture.
        ValueError: The checkpoint or the picture is of another kind, or an index is out of range.
    """
    file = checkpoint.newest() if cfg.ckpt_path is None else checkpoint.find(cfg.ckpt_path, prefer_best=True)
    print(f"{'newest run: ' if cfg.ckpt_path is None else ''}{file}")
    own = picture.read(cfg.image) if cfg.image is not None else None
    content = checkpoint.read(file)
    network = checkpoint.network_of(content, file).to(_device(cfg.trainer.accelerator))
    if own is not None:
        with torch.no_grad():
            probability = network(own.image.to(network.fc1.weight.device)).softmax(1)[0].cpu()
        first, second = probability.topk(2).indices.tolist()
        print(*(f"{cfg.image}: {note}" for note in own.notes), sep="\n")
        print(f"predicted {first} (p {probability[first]:.3f}), then {second} (p {probability[second]:.3f})")
        index = torch.tensor([-1])
        return Subject(network, file, "picture", own.image, torch.tensor([first]), index, None)
    data = _data(cfg, overrides, file, content.get("datamodule_hyper_parameters", {}).get("dataset"))
    indices = _indices(cfg.images, data.test)
    images, labels = data.test[indices]
    return Subject(network, file, data.dataset, images, labels, indices, data.test)


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _data(cfg: DictConfig, overrides: list[str], file: Path, dataset: str | None) -> DataModule:
    given = {override.partition("=")[0] for override in overrides}
    record = file.parent.parent / "config.yaml"
    own = OmegaConf.load(record) if record.is_file() else OmegaConf.create()
    root = OmegaConf.select(own, "data.root")
    if given & {"data", "data.dataset"} or dataset is None:
        dataset = cfg.data.dataset
    if "data.root" in given or root is None:
        root = cfg.data.root
    data = DataModule(dataset, root, fallback=None)
    data.prepare_data()
    data.setup()
    return data


def _indices(images: int | ListConfig, test: Images) -> Tensor:
    if isinstance(images, int):
        if images > len(test):
            raise ValueError(f"there are {len(test):,} test images, not {images:,}: set images=...")
        return test.of_each_class(images)
    indices = torch.tensor(list(images))
    if indices.max() >= len(test):
        raise ValueError(f"test images have the indices 0..{len(test) - 1:,}, got {indices.max():,}: set images=...")
    return indices
