"""EMNIST, QMNIST and USPS from files in their original format."""

import bz2
import struct
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from cnn_mnist.data import sources, torchvision_sets
from cnn_mnist.data.datamodule import DataModule
from tests.conftest import SMALL, Command
from tests.data.test_own_images import patterns

TRAIN, TEST = 780, 156  # images of each of the files below


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """An IDX file; 8: bytes, 12: 32-bit integers."""
    content = array.astype(np.uint8).tobytes() if kind == 8 else array.astype(">i4").tobytes()
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + content


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them."""
    folder = tmp_path_factory.mktemp("sets")
    emnist, qmnist = folder / "EMNIST" / "raw", folder / "QMNIST" / "raw"
    emnist.mkdir(parents=True)
    qmnist.mkdir(parents=True)
    for part, number in (("train", TRAIN), ("test", TEST)):
        for name, num_classes, first in (("letters", 26, 1), ("balanced", 47, 0)):
            images, labels = (array[:number] for array in patterns(num_classes, 30))
            stem = emnist / f"emnist-{name}-{part}"
            Path(f"{stem}-images-idx3-ubyte").write_bytes(idx(images.transpose(0, 2, 1)))  # lying on their side
            Path(f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels + first))
        images, labels = (array[:number] for array in patterns(10, 100))
        (qmnist / f"qmnist-{part}-images-idx3-ubyte").write_bytes(idx(images))
        columns = np.stack([labels, *[np.full(len(labels), 9)] * 7], 1)
        (qmnist / f"qmnist-{part}-labels-idx2-int").write_bytes(idx(columns, 12))
        small = images[:, 6:22, 6:22] / 127.5 - 1
        lines = (
            f"{label + 1} " + " ".join(f"{k + 1}:{value:.4f}" for k, value in enumerate(image.flatten()))
            for label, image in zip(labels, small, strict=True)
        )
        (folder / f"usps{'.t' * (part == 'test')}.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    return folder


@pytest.mark.parametrize(("name", "num_classes"), [("emnist_letters", 26), ("emnist_balanced", 47), ("qmnist", 10)])
def test_images_stand_upright_and_classes_begin_at_0(name: str, num_classes: int, root: Path) -> None:
    images, labels = sources.load(name, root, "train")
    expected, classes = patterns(num_classes, 30 if num_classes > 10 else 100)
    assert np.array_equal(images[:, 0].numpy(), expected[:TRAIN])
    assert labels.tolist() == classes[:TRAIN].tolist()
    assert len(sources.classes(name, root)) == num_classes
    assert len(sources.load(name, root, "test")[0]) == TEST


def test_usps_is_framed_as_mnist_is(root: Path) -> None:
    images, labels = sources.load("usps", root, "test")
    assert images.shape == (TEST, 1, 28, 28)
    assert labels.tolist() == patterns(10, 100)[1][:TEST].tolist()
    assert int((images > 0).any(3).sum(2).max()) <= 20  # rows
    places = torch.arange(28.0) + 0.5
    mass = images.double().sum((1, 2, 3))
    centre = (images.double().sum((1, 3)) @ places.double()) / mass
    assert ((centre - 14).abs() < 1.1).double().mean() > 0.9


def test_the_names_are_torchvisions() -> None:
    assert list(torchvision_sets.classes("emnist_balanced")) == datasets.EMNIST.classes_split_dict["balanced"]
    assert list(torchvision_sets.classes("emnist_letters")) == datasets.EMNIST.classes_split_dict["letters"][1:]


def test_a_missing_set_is_asked_for_with_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise HTTPException(f"no network, limit {torchvision_sets.socket.getdefaulttimeout()}")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.usps.download_url", refuse)
    for name in torchvision_sets.SETS:
        with pytest.raises(ConnectionError, match=f"{name} is not in .* could not be downloaded .no network, limit 10"):
            DataModule(name, root=str(tmp_path), fallback=None).ready()
    assert torchvision_sets.socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("emnist_letters", "EMNIST/raw/emnist-letters-train-images-idx3-ubyte", b"no images"),
        ("emnist_letters", "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte", idx(np.zeros(5))),
        ("emnist_letters", "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte", idx(np.zeros(TRAIN))),
        ("qmnist", "QMNIST/raw/qmnist-train-labels-idx2-int", idx(np.zeros(4), 12)[:-3]),
        ("usps", "usps.bz2", b"no archive"),
        ("usps", "usps.bz2", bz2.compress(b"1 1:0.5 2:0.5")),
    ],
)
def test_a_damaged_file_is_said(name: str, file: str, content: bytes, root: Path) -> None:
    good = (root / file).read_bytes()
    try:
        (root / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"the train files of {name} in .* are damaged"):
            DataModule(name, root=str(root), fallback=None).ready()
    finally:
        (root / file).write_bytes(good)


@pytest.mark.slow
def test_letters_from_files_to_a_report(train: Command, analyze: Command, root: Path, tmp_path: Path) -> None:
    words = ("data=emnist_letters", f"data.root={root}", "trainer=cpu", "trainer.max_epochs=1")
    done = train(*words, cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.err == ""
    looked = analyze(*SMALL, "images=3", cwd=tmp_path)
    assert looked.status == 0, looked.err
    assert len(looked.results["predictions"]["confusion_matrix"]) == 26
    assert looked.results["training"]["recipe_options"]["classes"][25] == "z"
    assert looked.results["targeted"]["num_images"] <= 10 * 25
    assert ">z</data>" in (looked.folder / "report.html").read_text()


@pytest.mark.parametrize("name", torchvision_sets.SETS)
def test_missing_files_are_not_damaged(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"the train files of {name} are not in"):
        torchvision_sets.read(name, tmp_path, "train")
