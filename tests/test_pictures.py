"""`python analyze.py image=...`: a picture of the user's own is explained, several are classified."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.figures.canvas import reduced
from cnn_mnist.report import own_pictures
from cnn_mnist.runs import checkpoint
from tests.conftest import Command, Done
from tests.test_analyze import tensors


def scan(label: int, path: Path) -> Path:
    """A test digit of that class, as dark ink on a larger white page."""
    test = DataModule("digits").ready().test
    image = test.images[test.labels == label][0, 0].numpy()
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(255 - image.repeat(9, 0).repeat(9, 1)).save(path)
    return path


def test_a_picture_of_ones_own_is_predicted_and_explained(run: Done, analyze: Command, tmp_path: Path) -> None:
    data = DataModule("digits")
    data.setup()
    scan = 255 - data.test.images[7, 0].numpy().repeat(9, 0).repeat(9, 1)
    Image.fromarray(scan).save(tmp_path / "scan.png")
    done = analyze(f"image={tmp_path / 'scan.png'}", cwd=run.cwd)
    assert done.status == 0, done.err
    assert "scan.png: its ink differs from its paper by being darker" in done.out
    predicted = int(re.search(r"predicted (\d) \(p ", done.out)[1])
    assert done.results["labels"] == [predicted]
    assert done.results["dataset"] == "picture"
    assert done.results["picture"]["predicted"] == predicted
    assert "num_images" not in done.results["activations"]  # of test images, of which there are none
    assert "num_images" not in done.results["occlusion"]
    assert sum(done.results["picture"]["probability"]) == pytest.approx(1, abs=1e-5)
    page = (done.folder / "report.html").read_text()
    assert page.index("<h3>What is it?") < page.index("<h2>What was run")
    found = done.results["picture"]
    train = DataModule("digits").ready().train
    image = tensors(done.folder / "analysis" / "picture" / "picture.npz")["image"]
    distance = np.linalg.norm((train[:].images.numpy() - image).reshape(len(train), -1), axis=1)
    assert found["nearest"]["distance"] == pytest.approx(np.sort(distance)[:8].tolist(), abs=1e-4)
    assert found["nearest"]["num_same"] == found["nearest"]["labels"].count(predicted)
    changed = tensors(done.folder / "analysis" / "picture" / "picture.npz")["changed"]
    assert np.linalg.norm(changed - image) == pytest.approx(found["change"]["l2"], rel=1e-4)
    assert checkpoint.load(run.folder)(torch.from_numpy(changed)).argmax() == int(found["runner_up"])
    assert {entry.name for entry in (done.folder / "analysis").iterdir()} == {
        "picture",
        "activations",
        "occlusion",
        "saliency",
    }
    assert {entry.name for entry in (done.folder / "attacks").iterdir()} == {"targeted", "noise"}


def test_a_folder_of_pictures_becomes_a_sheet_and_a_table(run: Done, analyze: Command, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for label in range(10):
        scan(label, photos / f"{label}.png")
    (photos / "9.png").rename(photos / "9$a{b}<i>[x].png")
    (photos / "8.png").rename(photos / os.fsdecode(b"8\xff.png"))
    Image.new("L", (60, 60), 255).save(photos / "blank.JPG")
    (photos / "notes.txt").write_text("not a picture, and not meant as one")
    done = analyze("image=photos", f"ckpt_path={run.folder}", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "10 of 11 pictures are read and classified." in done.out
    found = done.results["pictures"]
    assert (found["num_pictures"], found["num_read"], found["num_doubtful"]) == (11, 10, 0)
    place = done.folder / "analysis" / "pictures"
    with (place / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [
        *(f"{label}.png" for label in range(8)),
        "8\ufffd.png",
        "9$a{b}<i>[x].png",
        "blank.JPG",
    ]
    network = checkpoint.load(run.folder)
    with torch.no_grad():
        expected = network(torch.from_numpy(tensors(place / "pictures.npz")["images"])).softmax(1)
    for row, probability in zip(rows[:10], expected, strict=True):
        assert int(row["predicted"]) == probability.argmax()
        assert float(row["probability"]) == pytest.approx(probability.max().item(), abs=1e-5)
    assert (
        sum(Path(row["file"]).name[0] == row["predicted"] for row in rows) >= 8
    )  # of 10; the network has seen 2 epochs
    assert rows[10]["predicted"] == ""
    assert rows[10]["remarks"].startswith("not read: is blank")
    assert (place / "sheet_1.png").is_file()
    assert "photos/9$a{b}<i>[x].png" in done.out
    assert "1 other files and folders in it are not read" in done.out
    assert "9$a{b}&lt;i&gt;[x].png" in (done.folder / "report.html").read_text()
    assert [entry.name for entry in (done.folder / "analysis").iterdir()] == ["pictures"]
    assert not (done.folder / "attacks").exists()


def test_files_of_a_list_are_taken_in_its_order_and_one_that_vanishes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [scan(label, tmp_path / f"{label}.png") for label in (3, 1, 2)]
    assert own_pictures.is_several([str(files[0])])
    assert not own_pictures.is_several(str(files[0]))

    def track(items: list[Path], what: str) -> list[Path]:
        files[1].unlink()
        return items

    monkeypatch.setattr(own_pictures.console, "track", track)
    found = own_pictures.read([str(file) for file in files])
    assert isinstance(found, list)
    assert [one.file.name for one in found] == ["3.png", "1.png", "2.png"]
    assert [one.picture is None for one in found] == [False, True, False]
    assert "there is no picture at" in found[1].reason


def test_without_the_training_images_the_nearest_are_left_out(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    node = OmegaConf.create({"_target_": "cnn_mnist.data.datamodule.DataModule", "dataset": "mnist"})
    node.root = str(tmp_path)
    assert own_pictures.training_images(node, 10) is None
    assert not list(tmp_path.iterdir())  # nothing is downloaded for a picture
    node.dataset = "digits"
    assert own_pictures.training_images(node, 3) is None  # of other classes
    node.dataset, raw = "mnist", tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"the training images are left out: .* is damaged"):
        assert own_pictures.training_images(node, 10) is None
    node._target_ = "mine.Data"
    assert own_pictures.training_images(node, 10) is None


def test_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "1.jpg"):
        scan(3, tmp_path / name.replace("jpg", "png")).rename(tmp_path / name)
    found = own_pictures.read(str(tmp_path))
    assert isinstance(found, list)
    assert [one.file.name for one in found] == ["1.jpg", "2.png", "10.png"]


def test_thin_ink_stays_on_a_thumbnail() -> None:
    page = np.ones((3000, 2000, 3), np.float32)
    page[1000:1006, 200:1800] = 0
    small = reduced(page, 160)
    assert max(small.shape[:2]) <= 160
    assert small.min() < 0.8
    np.testing.assert_array_equal(reduced(page[:100, :150], 160), page[:100, :150])
