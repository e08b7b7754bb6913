"""The data set of an analysis: that of the training run, unless the command line names another."""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from cnn_mnist import nodes
from cnn_mnist.data import sources
from cnn_mnist.data.batches import Images


def settle(cfg: DictConfig, overrides: list[str], file: Path, dataset: str | None) -> str:
    """Put the run's own data set, folder and options into `cfg` where the command line names no others.

    Args:
        cfg: The configuration of the analysis.
        overrides: The options given on the command line.
        file: The checkpoint.
        dataset: The data set on which it was trained, if that is known.

    Returns:
        The name of the data set.
    """
    given = {override.partition("=")[0] for override in overrides}
    record = file.parent.parent / "config.yaml"
    data = OmegaConf.select(OmegaConf.load(record), "data") if record.is_file() else OmegaConf.create()
    asks_for_ours = "dataset" in cfg.data and given & {"data", "data.dataset"}
    if nodes.TARGET in data and "dataset" not in data and not asks_for_ours:
        changed = {key: value for key, value in cfg.data.items() if f"data.{key}" in given}
        cfg.data = OmegaConf.merge(data, changed)
    elif "dataset" in cfg.data:
        if dataset is not None and not asks_for_ours:
            cfg.data.dataset = dataset
        if "root" in data and "data.root" not in given:
            cfg.data.root = data.root
    return str(cfg.data.get("dataset", cfg.data[nodes.TARGET]))


def check_named(data: DictConfig, file: Path, trusted: Collection[str]) -> None:
    """Raise ValueError where data are of the user's own, of a class that the command does not name."""
    if "dataset" not in data and not set(nodes.targets(OmegaConf.to_container(data))) <= set(trusted):
        raise ValueError(
            f"{file} was trained on data of your own, {data[nodes.TARGET]}. Classes from outside this package are "
            "imported only if the command names them: give --config-dir and data= as in training"
        )


def open_set(data: DictConfig, num_classes: int) -> Callable[[str], Images]:
    """A function that reads a part of a data set, `train` or `test`, once.

    Raises:
        ValueError: It has another number of classes than the network.
    """
    if "dataset" not in data:  # of the user's own
        from cnn_mnist.data import own_module  # needs Lightning, which takes seconds

        module = own_module.made(data).ready()
        names = module.classes
        read = {"train": module.train, "test": module.test}.__getitem__
    else:
        root = Path(data.root).expanduser()
        names = sources.classes(data.dataset, root)

        @cache
        def read(split: str) -> Images:
            return Images(*sources.load(data.dataset, root, split), num_classes)

    if len(names) != num_classes:
        name = data.get("dataset", data[nodes.TARGET])
        raise ValueError(f"{name} has {len(names)} classes, but the network tells {num_classes} apart: set data=")
    return read


def chosen(images: int | ListConfig, test: Images) -> Tensor:
    """The indices of the images to explain: so many, one of each class in turn, or those that are listed.

    Raises:
        ValueError: There are fewer test images.
    """
    if isinstance(images, int):
        if images > len(test):
            raise ValueError(f"there are {len(test):,} test images, not {images:,}: set images=...")
        return test.of_each_class(images)
    indices = torch.tensor(list(images))
    if indices.max() >= len(test):
        raise ValueError(f"test images have the indices 0..{len(test) - 1:,}, got {indices.max():,}: set images=...")
    return indices
