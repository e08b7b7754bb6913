"""EMNIST, QMNIST and USPS, read and downloaded by torchvision.

Torchvision unpacks the files of EMNIST and QMNIST and checks the archives alone: what is unpacked is checked here for
its format, not for its content.
"""

import socket
import string
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnn_mnist.data.digits import framed

SETS = ("emnist_letters", "emnist_balanced", "qmnist", "usps")
BALANCED = string.digits + string.ascii_uppercase + "abdefghnqrt"  # those lower case letters that look different
TIMEOUT = 10.0  # seconds that a server may stay silent


def classes(dataset: str) -> tuple[str, ...]:
    """The names of the classes."""
    names = {"emnist_letters": string.ascii_lowercase, "emnist_balanced": BALANCED}
    return tuple(names.get(dataset, string.digits))


def download(dataset: str, root: Path) -> None:
    """Download the files where they are missing.

    Raises:
        ConnectionError: They could not be downloaded.
    """
    try:
        for split in ("train", "test"):
            _opened(dataset, root, split)
        return
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file can break torchvision in any way, and is reported by `read`
        if "Dataset not found" not in str(error):
            return
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none
    try:
        for split in ("train", "test"):
            _opened(dataset, root, split, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        where = root if dataset == "usps" else root / dataset.partition("_")[0].upper() / "raw"
        raise ConnectionError(
            f"{dataset} is not in {where} and could not be downloaded ({error}). Put the files there by hand, under "
            "the names that torchvision gives them"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def read(dataset: str, root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 1, 28, 28) and labels int64 (N,) of `train` or `test`.

    EMNIST's images are turned upright, its letters numbered from 0; the digits of USPS are framed as MNIST's.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged.
    """
    try:
        found = _opened(dataset, root, split)
        images, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets)
        if dataset == "usps":
            return framed(images[:, None].float() / 255), labels
        labels = labels[:, 0] if dataset == "qmnist" else labels - int(dataset == "emnist_letters")
        if images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise ValueError(f"{tuple(images.shape)} images and {len(labels)} labels")
        num_classes = len(classes(dataset))
        if not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
            raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())} for {num_classes} classes")
    except Exception as error:
        if isinstance(error, FileNotFoundError) or "not found" in str(error):
            raise FileNotFoundError(f"the {split} files of {dataset} are not in {root}") from error
        raise ValueError(
            f"the {split} files of {dataset} in {root} are damaged ({error}): delete them to have them downloaded"
        ) from error
    images = images.transpose(1, 2) if dataset.startswith("emnist") else images
    return images[:, None].contiguous(), labels.long()


def _opened(dataset: str, root: Path, split: str, *, download: bool = False) -> Any:
    """Torchvision's data set."""
    from torchvision import datasets  # takes seconds to import

    options = {"root": str(root), "train": split == "train", "download": download}
    if dataset == "usps":
        if download:
            root.mkdir(parents=True, exist_ok=True)
        return datasets.USPS(**options)
    if dataset == "qmnist":
        return datasets.QMNIST(**options, compat=False)
    return datasets.EMNIST(split=dataset.partition("_")[2], **options)
