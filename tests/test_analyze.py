"""`python analyze.py` as a person runs it: real processes, after a training run on the digits."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_mnist import checkpoint
from cnn_mnist.data import DataModule
from tests.conftest import Command, Done


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with np.load(path) as file:
        return dict(file)


SMALL = ("activations.num_images=60", "occlusion.num_images=40", "class_image.num_images=2", "class_image.steps=20")


@pytest.fixture(scope="module")
def run(train: Command, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A trained network in a folder of its own."""
    done = train("data=digits", "trainer=cpu", "trainer.max_epochs=2", "model.batchnorm=true", "callbacks=none")
    assert done.status == 0, done.err
    return done


@pytest.fixture(scope="module")
def whole(run: Done, analyze: Command) -> Done:
    """Everything, for the newest run."""
    done = analyze(*SMALL, "images=12", cwd=run.cwd)
    assert done.status == 0, done.err
    return done


def test_the_newest_run_is_looked_at_and_named(whole: Done, run: Done) -> None:
    assert whole.err == ""
    assert whole.out.splitlines()[0].startswith("newest run: outputs/digits-paper/")
    assert whole.results["checkpoint"] == run.results["checkpoint"]
    assert whole.results["dataset"] == "digits"  # the run's own, though the default is MNIST
    assert whole.folder.parent.name == f"digits-paper_{run.folder.name}"
    assert whole.folder.parents[1] == run.cwd / "outputs" / "analyses"


def test_every_part_leaves_figures_tensors_and_findings(whole: Done) -> None:
    for part in ("filters", "activations", "occlusion", "class_image", "saliency"):
        folder = whole.folder / "analysis" / part
        assert json.loads((folder / "findings.json").read_text()) == whole.results[part]
        assert list(folder.glob("*.npz"))
        figures = list(folder.rglob("*.png"))
        assert figures
        for figure in figures:
            with Image.open(figure) as picture:
                picture.load()
                assert min(picture.size) > 100
    written = OmegaConf.load(whole.folder / "config.yaml")
    assert (written.data.dataset, written.images) == ("digits", 12)
    assert Path(written.ckpt_path) == Path(whole.results["checkpoint"]).relative_to(whole.cwd)


def test_tensorboard_shows_the_same_pictures(whole: Done) -> None:
    found = EventAccumulator(str(whole.folder), size_guidance={"images": 0})
    found.Reload()
    place = whole.folder / "analysis"
    tags = {str(path.relative_to(place).with_suffix("")) for path in place.rglob("*.png")}
    assert set(found.Tags()["images"]) == tags
    assert {"filters/conv1", "filters/conv2", "activations/conv1/overview", "occlusion/probability"} <= tags


def test_the_numbers_are_the_networks(whole: Done, run: Done) -> None:
    network = checkpoint.load(run.folder)
    data = DataModule("digits")
    data.setup()
    saved = tensors(whole.folder / "analysis" / "occlusion" / "occlusion.npz")
    assert set(saved) == {"indices", "labels", "probability", "predicted", "clean", "window", "stride", "fill"}
    assert saved["labels"].tolist() == [*range(10), 0, 1]
    images, labels = data.test[torch.from_numpy(saved["indices"])]
    assert torch.equal(labels, torch.from_numpy(saved["labels"]))
    images[:, :, 3:11, 20:28] = 0.5
    with torch.no_grad():
        probability = network(images).softmax(1)
    expected = probability[torch.arange(12), labels]
    np.testing.assert_allclose(saved["probability"][:, 3, 20], expected, atol=1e-5)
    assert np.array_equal(saved["predicted"][:, 3, 20], probability.argmax(1))

    maps = tensors(whole.folder / "analysis" / "occlusion" / "test_images.npz")
    with torch.no_grad():
        chosen, labels = data.test[torch.from_numpy(maps["indices"])]
        is_right = (network(chosen).argmax(1) == labels).numpy()
    resistant = (maps["predicted"] == maps["labels"][:, None, None]).all((1, 2))[is_right]
    assert whole.results["occlusion"]["resistant_share"] == pytest.approx(resistant.mean(), abs=1e-6)
    weights = tensors(whole.folder / "analysis" / "filters" / "filters.npz")["conv1_weight"]
    assert np.array_equal(weights, network.conv1.weight.detach().numpy())


def test_one_part_with_its_options_for_a_checkpoint_that_is_named(run: Done, analyze: Command) -> None:
    path = run.folder / "checkpoints" / "last.ckpt"
    options = ("analysis=occlusion", "occlusion.window=4", "occlusion.stride=12", "occlusion.fill=0", "images=[5,3]")
    done = analyze(*options, "occlusion.num_images=30", f"ckpt_path={path}", "trainer=cpu", cwd=run.cwd)
    assert done.status == 0, done.err
    assert [entry.name for entry in (done.folder / "analysis").iterdir()] == ["occlusion"]
    saved = tensors(done.folder / "analysis" / "occlusion" / "occlusion.npz")
    assert saved["indices"].tolist() == [5, 3]
    assert saved["probability"].shape == (2, 3, 3)
    assert done.results["occlusion"]["drop_on_paper"] == pytest.approx(0, abs=1e-6)  # black on black changes nothing


def test_a_checkpoint_alone_and_what_a_channel_answers_to(run: Done, analyze: Command, tmp_path: Path) -> None:
    shutil.copy(run.folder / "checkpoints" / "last.ckpt", tmp_path / "network.ckpt")
    options = ("analysis=class_image", "class_image.layer=conv2", "class_image.neuron=[7,7]", "class_image.steps=5")
    done = analyze("ckpt_path=network.ckpt", *options, cwd=tmp_path)
    assert done.status == 0, done.err
    images = tensors(done.folder / "analysis" / "class_image" / "conv2_neuron_7_7.npz")["images"]
    assert images.shape == (32, 1, 28, 28)


def test_a_picture_of_ones_own_is_predicted_and_explained(run: Done, analyze: Command, tmp_path: Path) -> None:
    data = DataModule("digits")
    data.setup()
    scan = 255 - data.test.images[7, 0].numpy().repeat(9, 0).repeat(9, 1)
    Image.fromarray(scan).save(tmp_path / "scan.png")
    done = analyze(f"image={tmp_path / 'scan.png'}", cwd=run.cwd)
    assert done.status == 0, done.err
    assert "scan.png: inverted: its ink is darker" in done.out
    predicted = int(re.search(r"predicted (\d) \(p ", done.out)[1])
    assert done.results["labels"] == [predicted]
    assert done.results["dataset"] == "picture"
    assert {entry.name for entry in (done.folder / "analysis").iterdir()} == {"activations", "occlusion", "saliency"}


def test_a_sweep_keeps_its_jobs_apart(run: Done, analyze: Command) -> None:
    paths = (run.folder, run.folder / "checkpoints" / "last.ckpt")
    options = ("analysis=filters", f"ckpt_path={','.join(map(str, paths))}")
    done = analyze("-m", *options, cwd=run.cwd)
    assert done.status == 0, done.err
    found = list((run.cwd / "multirun").glob("*/*/results.json"))
    assert len(found) == 2
    assert {json.loads(path.read_text())["checkpoint"] for path in found} == {str(paths[1])}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["occlusion.window=29"], "occlusion.window must be a whole number from 1 to 28, got 29: set occlusion.window"),
        (["occlusion.window=0"], "occlusion.window must be a whole number from 1 to 28, got 0"),
        (["occlusion.stride=0"], "occlusion.stride must be a whole number from 1 to 28, got 0"),
        (["occlusion.fill=1.5"], "occlusion.fill must be a number from 0 to 1, got 1.5"),
        (["class_image.layer=conv3"], "class_image.layer must be null or conv1 or conv2, got conv3"),
        (
            ["analysis=filtres"],
            "analysis must be all or filters or activations or occlusion or class_image or saliency",
        ),
        (["images=[3,-1]"], "images must be a count from 1 to 100 or as many indices such as [3,14,15], got [3, -1]"),
        (["images=0"], "images must be a count from 1 to 100"),
        (["images=[3,297]"], "test images have the indices 0..296, got 297: set images="),
        (["oclusion.window=4"], "unknown key oclusion.window: did you mean occlusion.window?"),
        (["class_image.neuron=[3,4]", "analysis=class_image"], "class_image.neuron=[3, 4] needs a layer"),
        (["saliency.window=29"], "saliency.window must be a whole number from 1 to 28, got 29"),
        (["data.val_size=5"], "data.val_size has no effect on an analysis: leave it out"),
        (["image=outputs.txt"], "outputs.txt cannot be read as a picture"),
        (["image=outputs.txt", "analysis=filters"], "analysis=filters looks at no image: leave out image="),
        (["ckpt_path=foreign.ckpt"], "foreign.ckpt is a checkpoint of another kind of network"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments: list[str], line: str, run: Done, analyze: Command) -> None:
    (run.cwd / "outputs.txt").write_text("no picture, no checkpoint")
    content = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"] = {"network.weight": torch.zeros(3)}
    torch.save(content, run.cwd / "foreign.ckpt")
    before = sorted(run.cwd.rglob("*"))
    done = analyze(*arguments, cwd=run.cwd)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert line in done.err
    assert sorted(run.cwd.rglob("*")) == before


def test_without_a_run_it_says_how_to_make_one(analyze: Command, tmp_path: Path) -> None:
    done = analyze(cwd=tmp_path)
    assert done.status == 1
    assert done.err == (
        "error: there is no run below outputs/ or multirun/ to look at: make one with python train.py\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_help_shows_examples(analyze: Command, tmp_path: Path) -> None:
    done = analyze("--help", cwd=tmp_path)
    assert done.status == 0
    assert done.out.count("  python analyze.py ") >= 5


@pytest.mark.gpu
def test_a_gpu_finds_the_same(whole: Done, run: Done, analyze: Command) -> None:
    done = analyze(*SMALL, "images=12", "trainer=gpu", cwd=run.cwd)
    assert done.status == 0, done.err
    for part, key in (("occlusion", "resistant_share"), ("activations", "conv1_correlation")):
        assert done.results[part][key] == pytest.approx(whole.results[part][key], abs=0.02)
