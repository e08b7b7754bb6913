"""The data set of an analysis: that of the training run, unless the command line names another."""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from cnn_mnist import nodes
from cnn_mnist.data import own_images, sources
from cnn_mnist.data.batches import Images

SETS = {  # as people write them
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "qmnist": "QMNIST",
    "usps": "USPS",
    "emnist_letters": "EMNIST's letters",
    "emnist_balanced": "EMNIST",
    "digits": "scikit-learn's digits",
}


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
    data = _recorded(file.parent.parent / "config.yaml")
    names_another = bool(given & {"data", "data.dataset"})
    if nodes.TARGET in data and sources.is_own(data) and not names_another:
        cfg.data = OmegaConf.merge(data, {key: value for key, value in cfg.data.items() if f"data.{key}" in given})
    elif not sources.is_own(cfg.data):
        if dataset is not None and not names_another:
            cfg.data.dataset = dataset
        was_own = nodes.TARGET in data and sources.is_own(data)
        kinds = {cfg.data.dataset, data.get("dataset", dataset)}
        is_elsewhere = was_own or (len(kinds) > 1 and bool(kinds & {*own_images.KINDS}))
        if isinstance(data.get("root"), str) and "data.root" not in given and not is_elsewhere:
            cfg.data.root = data.root
    elif cfg.data[nodes.TARGET] == data.get(nodes.TARGET):  # the run's own, by name: with the options of training
        cfg.data = OmegaConf.merge(cfg.data, data, {k: v for k, v in cfg.data.items() if f"data.{k}" in given})
    return str(cfg.data[nodes.TARGET] if sources.is_own(cfg.data) else cfg.data.dataset)


def _recorded(record: Path) -> DictConfig:
    """The data on a run's record, as plain values: what an interpolation would hide is seen by `check_named`.

    Raises:
        ValueError: The record is damaged.
    """
    if not record.is_file():
        return OmegaConf.create()
    try:
        plain = OmegaConf.to_container(OmegaConf.load(record), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ValueError(f"{record} is damaged: it is not a run's configuration") from error
    data = plain.get("data") if isinstance(plain, dict) else None
    return OmegaConf.create(data if isinstance(data, dict) else {})


def check_named(data: DictConfig, file: Path, trusted: Collection[str]) -> None:
    """Raise ValueError where data are of the user's own, of a class that the command does not name."""
    if sources.is_own(data) and not set(nodes.targets(OmegaConf.to_container(data, resolve=True))) <= set(trusted):
        raise ValueError(
            f"{file} was trained on data of your own, {data[nodes.TARGET]}. Classes from outside this package are "
            "imported only if the command names them: give --config-dir and data= as in training"
        )


def open_set(data: DictConfig, num_classes: int) -> Callable[[str], Images]:
    """A function that reads a part of a data set, `train` or `test`, once.

    Raises:
        ValueError: It has another number of classes than the network.
    """
    if sources.is_own(data):
        from cnn_mnist.data import own_module  # needs Lightning, which takes seconds

        module = own_module.make(data).ready()
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
        raise ValueError(f"{name} has {len(names)} classes, but the network has {num_classes}: set data=")
    return read


def chosen(images: int | ListConfig, test: Images) -> Tensor:
    """The indices of the images to explain: so many or all, one of each class in turn; or those that are listed.

    Raises:
        ValueError: One that is listed does not exist.
    """
    if isinstance(images, int):
        return test.of_each_class(min(images, len(test)))
    indices = torch.tensor(list(images))
    if indices.max() >= len(test):
        raise ValueError(f"test images have the indices 0..{len(test) - 1:,}, got {indices.max():,}: set images=...")
    return indices
