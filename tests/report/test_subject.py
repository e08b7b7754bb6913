"""The subject of an analysis: run, data and images; and what is refused."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image, ImageDraw

from cnn_mnist.data.batches import Images
from cnn_mnist.network import CNN
from cnn_mnist.report import dataset, subject
from tests.cli.test_schema import composed
from tests.runs.test_checkpoint import saved


def asked(**options: object) -> DictConfig:
    """What analyze.py composes for a network trained on the digits."""
    cfg = composed("data=digits", "trainer=cpu", "images=3", script="analyze")
    return OmegaConf.merge(cfg, options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with two runs on the digits, the second one newer and with a hold-out."""
    for number, name in enumerate(("outputs/digits-paper/first", "multirun/sweep/second")):
        torch.manual_seed(number)
        last = saved(
            tmp_path / name / "checkpoints" / "last.ckpt", CNN(), datamodule_hyper_parameters={"dataset": "digits"}
        )
        os.utime(last, (number, number))
    saved(tmp_path / "multirun/sweep/second/checkpoints/best.ckpt", CNN(batchnorm=True))
    (tmp_path / "outputs/analyses/digits-paper_first/now").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_newest_run_is_taken_and_of_it_what_the_hold_out_chose(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = subject.choose(asked(), [])
    assert found.checkpoint == Path("multirun/sweep/second/checkpoints/best.ckpt")
    assert found.network.batchnorm
    assert "newest run: multirun/sweep/second/checkpoints/best.ckpt" in capsys.readouterr().out
    (named,) = subject.choose(asked(ckpt_path="outputs/digits-paper/first"), [])
    assert named.checkpoint.name == "last.ckpt"
    assert not named.network.batchnorm
    assert not named.network.training


def test_a_run_from_before_the_data_module_moved_is_analysed(folder: Path) -> None:
    record = {"data": {"_target_": "cnn_mnist.data.DataModule", "dataset": "digits", "root": "data"}}
    OmegaConf.save(OmegaConf.create(record), folder / "outputs/digits-paper/first/config.yaml")
    (found,) = subject.choose(asked(ckpt_path="outputs/digits-paper/first"), [])
    assert found.dataset == "digits"
    assert len(found.images) == 3


def test_images_by_count_take_every_class_in_turn_and_by_index_as_they_are(folder: Path) -> None:
    (found,) = subject.choose(asked(images=23), [])
    assert found.labels.tolist() == [*range(10), *range(10), 0, 1, 2]
    assert len(set(found.indices.tolist())) == 23
    assert found.test is not None
    assert torch.equal(found.images, found.test[found.indices].images)
    (named,) = subject.choose(asked(images=[5, 0, 5]), [])
    assert named.indices.tolist() == [5, 0, 5]
    assert named.other is None
    assert named.train is not None


def test_another_network_may_look_on(folder: Path) -> None:
    found, other = subject.choose(asked(against="outputs/digits-paper/first"), [])
    assert (found.other, other.other) == (other, found)
    assert (found.network.batchnorm, other.network.batchnorm, other.network.training) == (True, False, False)
    assert torch.equal(found.images, other.images)


@pytest.mark.parametrize(
    ("network", "dataset", "words"),
    [
        (CNN(num_classes=7), "digits", "have 7 and 10 classes|have 10 and 7 classes"),
        (CNN(), "kmnist", "one network was trained on digits, the other on kmnist: set against= to one on digits"),
    ],
)
def test_what_cannot_be_compared_is_refused(network: CNN, dataset: str, words: str, folder: Path) -> None:
    hparams = {"datamodule_hyper_parameters": {"dataset": dataset}}
    saved(folder / "outputs/other/run/checkpoints/last.ckpt", network, **hparams)
    with pytest.raises(ValueError, match=words):
        subject.choose(asked(ckpt_path="outputs/digits-paper/first", against="outputs/other/run"), [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": [3, 297]}, "test images have the indices 0..296, got 297"),
        ({"ckpt_path": "nowhere"}, "there is no checkpoint at nowhere: set ckpt_path="),
        ({"against": "nowhere"}, "there is no checkpoint at nowhere: set against="),
        ({"ckpt_path": "text.ckpt"}, "text.ckpt is not a checkpoint: it is no archive"),
        ({"image": "nowhere.png"}, "there is no picture at nowhere.png: set image="),
        ({"image": "text.ckpt"}, "text.ckpt cannot be read as a picture"),
    ],
)
def test_what_does_not_exist_or_is_something_else_is_said(options: dict[str, object], words: str, folder: Path) -> None:
    (folder / "text.ckpt").write_text("neither a checkpoint nor a picture")
    with pytest.raises((ValueError, FileNotFoundError), match=words.replace("(", r"\(")):
        subject.choose(asked(**options), [])


def test_what_looks_at_the_network_alone_needs_no_data(folder: Path) -> None:
    (found,) = subject.choose(asked(data={"dataset": "mnist", "root": "nowhere"}), [], needs_data=False)
    assert found.test is None
    assert len(found.images) == 0


def test_without_a_run_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no run .*make one with python train.py"):
        subject.choose(asked(), [])


def test_the_epoch_that_a_hold_out_chose_is_no_difference_of_two_trainings(folder: Path) -> None:
    for name, epoch in (("one", 3), ("two", 5)):
        run = folder / "outputs" / "digits-paper" / name
        options = {"datamodule_hyper_parameters": {"dataset": "digits"}, "epoch": epoch}
        saved(run / "checkpoints" / "best.ckpt", CNN(), **options)
        (run / "results.json").write_text('{"epochs": 6}')
    places = {"ckpt_path": "outputs/digits-paper/one", "against": "outputs/digits-paper/two"}
    first, second = subject.choose(asked(**places), [])
    assert first.recipe["epochs"] == 6
    assert subject.differences(first.recipe, second.recipe) == []


@pytest.mark.parametrize(
    ("recorded", "named", "root"),
    [
        ("mnist", "fashion_mnist", "elsewhere"),  # published data sets lie in one folder
        ("image_folder", "image_folder", "elsewhere"),
        ("image_folder", "mnist", "data"),
        ("mnist", "image_folder", "images"),
    ],
)
def test_the_folder_of_the_run_is_taken_for_data_of_its_kind(
    recorded: str, named: str, root: str, folder: Path
) -> None:
    run = folder / "outputs/digits-paper/first"
    record = {"data": {"_target_": "cnn_mnist.data.datamodule.DataModule", "dataset": recorded, "root": "elsewhere"}}
    OmegaConf.save(OmegaConf.create(record), run / "config.yaml")
    cfg = composed(f"data={named}", script="analyze")
    found = dataset.settle(cfg, [f"data={named}"], run / "checkpoints" / "last.ckpt", recorded)
    assert (found, cfg.data.root) == (named, root)


def test_two_networks_have_two_names(folder: Path) -> None:
    places = [folder / name for name in ("multirun/a/seed-0", "multirun/b/seed-0")]
    for place in places:
        saved(place / "checkpoints" / "last.ckpt", CNN(), datamodule_hyper_parameters={"dataset": "digits"})
    saved(places[0] / "checkpoints" / "best.ckpt", CNN(), datamodule_hyper_parameters={"dataset": "digits"})
    first, second = subject.choose(asked(ckpt_path=str(places[0]), against=str(places[1])), [])
    assert (subject.name_of(first, second), subject.name_of(second, first)) == ("a/seed-0", "b/seed-0")
    last = str(places[0] / "checkpoints" / "last.ckpt")
    first, second = subject.choose(asked(ckpt_path=str(places[0]), against=last), [])
    assert (subject.name_of(first, second), subject.name_of(second, first)) == ("seed-0, best", "seed-0, last")


def test_of_a_picture_each_network_explains_its_own_answer(folder: Path) -> None:
    drawing = Image.new("L", (60, 60))
    ImageDraw.Draw(drawing).line((30, 10, 30, 50), fill=255, width=5)
    drawing.save(folder / "one.png")
    places = ("outputs/digits-paper/first", "multirun/sweep/second")
    for place, answer in zip(places, (3, 8), strict=True):
        network = CNN()
        torch.nn.init.constant_(network.fc2.bias, 0)
        network.fc2.bias.data[answer] = 100
        shutil.rmtree(place)
        saved(Path(place, "checkpoints", "last.ckpt"), network, datamodule_hyper_parameters={"dataset": "digits"})
    both = subject.choose(asked(ckpt_path=places[0], against=places[1], image="one.png"), [])
    assert [one.labels.tolist() for one in both] == [[3], [8]]


def test_where_there_are_fewer_images_all_are_taken() -> None:
    images = Images(torch.zeros(12, 1, 28, 28), torch.arange(12) % 10)
    assert sorted(dataset.chosen(20, images).tolist()) == [*range(12)]


def test_on_an_apple_gpu_analyses_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert subject._device("auto") == torch.device("cpu")  # they count in float64, which MPS does not have
