"""The user's own images, with any number of classes: arrays in an .npz file, or a folder of pictures for each."""

import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

KINDS = ("npz", "image_folder")
SIDE = 28  # pixels
FEWEST = 5  # images of a class, where a fifth of all become the test set
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm"}


class Own(NamedTuple):
    """Images (N, 1, 28, 28) with labels int64 (N,) for `train` and `test`, and the names of the classes.

    Images are uint8, or float32 where they are other values than the 256 grey values.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: tuple[str, ...]


@cache
def read(kind: str, path: Path) -> Own:
    """Read and check a data set; of one without a test set, a stratified fifth that never changes is the test set.

    Args:
        kind: `npz`: a file of arrays `images` and `labels`, or `train_images`, `train_labels`, `test_images` and
            `test_labels`, and `classes` where the classes have names. Images are uint8, or floats in [0, 1], of the
            shape (N, 28, 28) or (N, 1, 28, 28); labels are 0..K-1. `image_folder`: a folder with one folder of
            pictures for each class, or with `train` and `test` that hold these.
        path: The file or folder.

    Raises:
        ValueError: There is no such data set, or it is not as described.
    """
    return _npz(path) if kind == "npz" else _image_folder(path)


def _npz(path: Path) -> Own:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: set data.root=FILE.npz")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz file of arrays: set data.root=FILE.npz") from error
    parts = ("train_", "test_") if "train_images" in arrays else ("",)
    wanted = [f"{part}{name}" for part in parts for name in ("images", "labels")]
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(f"{path} has no array {missing[0]}, but {', '.join(arrays) or 'none'}")
    found = [(_pixels(arrays[f"{part}images"], path), _labels(arrays[f"{part}labels"], path)) for part in parts]
    for images, labels in found:
        if len(images) != len(labels):
            raise ValueError(f"{path} has {len(images):,} images and {len(labels):,} labels")
    num_classes = len(found[0][1].unique())
    names = tuple(map(str, arrays.get("classes", np.arange(num_classes)).astype(str).tolist()))
    return _checked(found, names, path)


def _pixels(images: NDArray[np.generic], path: Path) -> Tensor:
    """Images (N, 1, 28, 28), uint8 or float32."""
    if images.shape[1:] not in ((SIDE, SIDE), (1, SIDE, SIDE)):
        raise ValueError(f"{path}: images must have the shape (N, 28, 28) or (N, 1, 28, 28), got {images.shape}")
    if images.dtype != np.uint8:
        if images.dtype.kind != "f":
            raise ValueError(f"{path}: images must be uint8, or floats from 0 to 1, got {images.dtype}: convert them")
        values = images.astype(np.float64)
        low, high = values.min(initial=0), values.max(initial=0)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{path}: images must be uint8, or floats from 0 to 1, got {low:g} to {high:g}")
        grey = np.round(values * 255)
        if np.abs(grey / 255 - values).max(initial=0) > 1e-6:
            return torch.from_numpy(values.astype(np.float32)).view(-1, 1, SIDE, SIDE)
        return torch.from_numpy(grey.astype(np.uint8)).view(-1, 1, SIDE, SIDE)
    if images.max(initial=0) == 1:
        raise ValueError(f"{path}: uint8 images are grey values of 0..255, got no more than 1: multiply them by 255")
    return torch.from_numpy(np.ascontiguousarray(images)).view(-1, 1, SIDE, SIDE)


def _labels(labels: NDArray[np.generic], path: Path) -> Tensor:
    """Labels int64 (N,)."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels must be whole numbers of the shape (N,), got {labels.dtype} {labels.shape}")
    return torch.from_numpy(labels.astype(np.int64))


def _image_folder(path: Path) -> Own:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder of pictures: set data.root=FOLDER")
    has_parts = all((path / part).is_dir() for part in ("train", "test"))
    parts = [path / "train", path / "test"] if has_parts else [path]
    found = [[one.name for one in sorted(part.iterdir()) if one.is_dir() and one.name[0] != "."] for part in parts]
    if found[0] != found[-1]:
        odd = sorted({*found[0]} ^ {*found[1]})[0]
        raise ValueError(f"{path}: train and test must hold the same classes, but {odd} is in one of them alone")
    return _checked([_pictures(part, found[0]) for part in parts], tuple(found[0]), path)


def _pictures(folder: Path, classes: list[str]) -> tuple[Tensor, Tensor]:
    """Every picture of a folder of classes, grey and scaled to 28x28."""
    from cnn_mnist.data import picture  # imports scikit-image

    images, labels = [], []
    for label, name in enumerate(classes):
        files = [file for file in sorted((folder / name).glob("*")) if file.suffix.lower() in ENDINGS]
        if not files:
            raise ValueError(f"{folder / name} holds no picture, though each class needs some: fill it or remove it")
        for file in files:
            whole = Image.fromarray(np.round(picture.grey(file) * 255).astype(np.uint8))
            images.append(torch.from_numpy(np.array(whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS))))
            labels.append(label)
    if not images:
        return torch.empty(0, 1, SIDE, SIDE, dtype=torch.uint8), torch.empty(0, dtype=torch.long)
    return torch.stack(images)[:, None], torch.tensor(labels)


def _checked(found: list[tuple[Tensor, Tensor]], classes: tuple[str, ...], path: Path) -> Own:
    """The data set, with a test set of its own or one split off.

    Raises:
        ValueError: It has fewer than two classes, a label that is none of them, or too few images of a class.
    """
    num_classes = len(classes)
    if len({*classes}) < num_classes:
        raise ValueError(f"{path}: two classes have the same name, {', '.join(classes)}")
    if num_classes < 2:
        raise ValueError(
            f"{path} holds {num_classes} class{'es' * (num_classes != 1)}: a classifier needs at least two"
        )
    for _, labels in found:
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if len(outside):
            raise ValueError(f"{path}: labels must be 0..{num_classes - 1} for {num_classes} classes, got {outside[0]}")
    fewest = 1 if len(found) == 2 else FEWEST
    for (_, labels), part in zip(found, ("training", "test"), strict=False):
        counts = labels.bincount(minlength=num_classes)
        if counts.min() < fewest:
            name, noun = classes[int(counts.argmin())], "" if len(found) == 1 else f"{part} "
            raise ValueError(f"{path}: class {name} has {counts.min()} {noun}images, and needs at least {fewest}")
    if len(found) == 2:
        return Own(found[0], found[1], classes)
    from sklearn.model_selection import train_test_split  # takes a second to import

    images, labels = found[0]
    train, test = train_test_split(np.arange(len(labels)), test_size=1 / FEWEST, stratify=labels, random_state=0)
    train, test = np.sort(train), np.sort(test)
    return Own((images[train], labels[train]), (images[test], labels[test]), classes)
