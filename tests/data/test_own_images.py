"""The user's own images: what is read, errors of one line, and the whole way from files to a report."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cnn_mnist
from cnn_mnist.data import own_images, sources
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.sweeps import jobs
from tests.conftest import Command

SEVEN = ("cat", "dog", "fish", "horse", "owl", "pig", "rat")


def patterns(num_classes: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of bars at a place and an angle of the class's own, with noise."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(num_classes), each)
    rows, columns = np.mgrid[:28, :28] - 13.5
    angle = np.pi * labels / num_classes
    across = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    shift = rng.uniform(-4, 4, (len(labels), 1, 1))
    images = 255 * np.exp(-((across - shift) ** 2) / 8) + rng.normal(0, 8, across.shape)
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of 26 classes, whose names are letters."""
    path = tmp_path_factory.mktemp("npz") / "letters.npz"
    images, labels = patterns(26, 30)
    np.savez(path, images=images, labels=labels, classes=np.array(list("abcdefghijklmnopqrstuvwxyz")))
    return path


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of seven classes, in colour and of another size."""
    root = tmp_path_factory.mktemp("animals")
    images, labels = patterns(7, 12)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / SEVEN[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(image).resize((56, 40)).convert("RGB").save(place / f"{k}.png")
    (root / "cat" / "notes.txt").write_text("no picture")
    (root / ".hidden").mkdir()
    return root


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    images, labels = patterns(3, 4)
    np.savez(
        tmp_path / "own.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[:3] / 255.0,
        test_labels=labels[:3],
    )
    own = own_images.read("npz", tmp_path / "own.npz")
    assert np.array_equal(own.train[0][:, 0].numpy(), images)
    assert own.train[1].tolist() == labels.tolist()
    assert np.array_equal(own.test[0][:, 0].numpy(), images[:3])
    assert own.classes == ("0", "1", "2")
    for part in (own.train, own.test):
        assert (part[0].dtype, part[1].dtype) == (torch.uint8, torch.int64)


def test_a_fifth_of_each_class_is_the_test_set_and_stays_it(letters: Path) -> None:
    own = own_images.read("npz", letters)
    assert own.test[1].bincount().tolist() == [6] * 26
    assert own.train[1].bincount().tolist() == [24] * 26
    images = np.load(letters)["images"]
    both = torch.cat([own.train[0], own.test[0]]).flatten(1)
    assert len(both.unique(dim=0)) == len(np.unique(images.reshape(len(images), -1), axis=0))
    own_images.read.cache_clear()
    assert torch.equal(own_images.read("npz", letters).test[0], own.test[0])


def test_floats_between_grey_values_are_kept(tmp_path: Path) -> None:
    images, labels = patterns(3, 8)
    faint = (images / 255 / 100).astype(np.float32)
    path = saved(tmp_path / "faint.npz", images=faint, labels=labels)
    data = DataModule("npz", root=str(path), fallback=None).ready()
    loaded, _ = cnn_mnist.load_images("npz", "train", path)
    assert torch.equal(data.train[:].images, loaded)
    assert np.isin(loaded.numpy(), faint).all()
    assert len(loaded.unique()) > 100


def test_pictures_become_grey_and_28_by_28(animals: Path) -> None:
    own = own_images.read("image_folder", animals)
    assert own.classes == SEVEN
    assert own.train[0].shape[1:] == (1, 28, 28)
    assert len(own.train[0]) + len(own.test[0]) == 84
    with Image.open(animals / "cat" / "0.png") as picture:
        expected = np.array(picture.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
    assert any(np.array_equal(one[0].numpy(), expected) for part in (own.train, own.test) for one in part[0])


def test_a_folder_may_have_a_test_set_of_its_own(animals: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(animals, tmp_path / part)
    own = own_images.read("image_folder", tmp_path)
    assert len(own.train[0]) == len(own.test[0]) == 84
    own_images.read.cache_clear()
    (tmp_path / "test" / "unicorn").mkdir()
    with pytest.raises(ValueError, match="train and test must hold the same classes, but unicorn is in one of them"):
        own_images.read("image_folder", tmp_path)


def test_the_number_of_classes_reaches_data_module_and_hold_out(letters: Path) -> None:
    data = DataModule("npz", root=str(letters), val_size=52, fallback=None).ready()
    assert data.num_classes == 26
    assert data.val.labels.bincount().tolist() == [2] * 26
    assert data.hparams["classes"] == list("abcdefghijklmnopqrstuvwxyz")
    assert sources.classes("npz", letters)[25] == "z"


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


IMAGES, LABELS = patterns(3, 6)
TRAIN = {"train_images": IMAGES, "train_labels": LABELS}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": IMAGES}, "has no array labels, but images"),
        ({"images": IMAGES[:-1], "labels": LABELS}, "has 17 images and 18 labels"),
        (
            {"images": IMAGES[:, :20], "labels": LABELS},
            "images must have the shape (N, 28, 28) or",
        ),
        (
            {"images": IMAGES.astype(np.int32), "labels": LABELS},
            "must be uint8, or floats from 0 to 1, got int32",
        ),
        ({"images": IMAGES.astype(np.float32), "labels": LABELS}, "or floats from 0 to 1, got 0 to 255"),
        ({"images": IMAGES // 128, "labels": LABELS}, "grey values of 0..255, got no more than 1: multiply them by"),
        (
            {"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b", "a"])},
            "two classes have the same name, a, b, a",
        ),
        ({"images": np.full((18, 28, 28), np.nan), "labels": LABELS}, "images must be uint8, or floats from 0 to 1"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "labels must be whole numbers of the shape (N,), got float64"),
        ({"images": IMAGES, "labels": LABELS + 1}, "labels must be 0..2 for 3 classes, got 3"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels must be 0..2 for 3 classes, got -1"),
        ({"images": IMAGES, "labels": LABELS * 0}, "holds 1 class: a classifier needs at least two"),
        ({"images": IMAGES[:6], "labels": LABELS[:6]}, "class 0 has 2 images, and needs at least 5"),
        (
            {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:0], "test_labels": LABELS[:0]},
            "class 0 has 0 test images, and needs at least 1",
        ),
        ({"images": np.array([{}], object), "labels": LABELS}, "is not an .npz file of arrays: set data.root="),
    ],
)
def test_what_is_wrong_with_arrays_is_said(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{re.escape(says)}"):
        own_images.read("npz", path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 and nothing more"])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(ValueError, match="is not an .npz file of arrays: set data.root=FILE.npz"):
        own_images.read("npz", tmp_path / "own.npz")
    with pytest.raises(ValueError, match="there is no file .*nowhere.npz: set data.root=FILE.npz"):
        own_images.read("npz", tmp_path / "nowhere.npz")


def test_a_sweep_over_data_sets_of_ones_own_is_of_different_jobs() -> None:
    assert jobs.OWN_IMAGES == own_images.KINDS
    names = {jobs.job_folder(["data=npz", f"data.root={name}"], ["data.root"]) for name in ("a.npz", "b.npz")}
    assert len(names) == 2
    assert jobs.job_folder(["data=mnist", "data.root=a"], ["data.root"]) == "data-mnist"
    assert jobs.job_folder(["data=mine", "data.root=a"], ["data.root"], "own") == "data.root-a_data-mine"
    assert jobs.job_folder(["experiment=mine", "data.root=a"], ["data.root"], "npz") == "data.root-a_experiment-mine"


def test_a_picture_with_a_transparent_ground_keeps_its_strokes(tmp_path: Path) -> None:
    images, labels = patterns(2, 5)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        ink = np.zeros((28, 28, 4), np.uint8)  # black ink on nothing
        ink[..., 3] = image
        Image.fromarray(ink).save(tmp_path / str(label) / f"{k}.png")
    own = own_images.read("image_folder", tmp_path)
    assert own.train[0].float().std() > 30


def test_what_is_wrong_with_folders_is_one_line(train: Command, animals: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "a.png").write_bytes((animals / "cat" / "0.png").read_bytes())
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "a.png").write_text("no picture")
    for root, says in (
        ("nowhere", "nowhere is not a folder of pictures: set data.root=FOLDER"),
        ("one", "one holds 1 class: a classifier needs at least two"),
        ("empty", "cat holds no picture, though each class needs some"),
        ("broken", "a.png cannot be read as a picture"),
    ):
        done = train("data=image_folder", f"data.root={root}", "trainer=cpu", cwd=tmp_path)
        assert done.status == 1
        assert len(done.err.splitlines()) == 1, done.err
        assert says in done.err
    assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]


def test_from_files_to_a_report(train: Command, analyze: Command, animals: Path, tmp_path: Path) -> None:
    words = ("data=image_folder", f"data.root={animals}", "trainer=cpu", "trainer.max_epochs=3", "callbacks=none")
    done = train(*words, cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.err == ""
    assert done.results["architecture"][-1]["output"] == [7]
    looked = analyze("analysis=occlusion", "occlusion.num_images=7", "images=14", cwd=tmp_path)
    assert looked.status == 0, looked.err
    assert looked.results["dataset"] == "image_folder"
    other = analyze("analysis=occlusion", "data=digits", cwd=tmp_path)
    assert other.status == 1
    assert "digits has 10 classes, but the network has 7" in other.err
    attacked = analyze("attack=targeted", "attack.target=30", "images=14", cwd=tmp_path)
    assert attacked.status == 1
    assert "attack.target must be a class of the network, 0..6, got 30" in attacked.err
