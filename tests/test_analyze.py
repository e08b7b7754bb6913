"""`python analyze.py` in real processes, after a training run on the digits."""

import json
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint
from tests.conftest import SMALL, Command, Done


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with np.load(path) as file:
        return dict(file)


def test_the_newest_run_is_looked_at_and_named(whole: Done, run: Done) -> None:
    assert whole.err == ""
    assert whole.out.splitlines()[0].startswith("newest run: outputs/digits-paper/")
    assert whole.results["checkpoint"] == run.results["checkpoint"]
    assert whole.results["dataset"] == "digits"  # the run's own, though the default is MNIST
    assert whole.folder.parent.name == f"digits-paper_{run.folder.name}"
    assert whole.folder.parents[1] == run.cwd / "outputs" / "analyses"


def test_every_part_leaves_figures_tensors_and_findings(whole: Done) -> None:
    for part in ("training", "predictions", "filters", "activations", "occlusion", "class_image", "saliency"):
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
    assert {tag for tag in found.Tags()["images"] if not tag.startswith("adversarial/")} == tags
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


def test_a_sweep_keeps_its_jobs_apart(run: Done, analyze: Command) -> None:
    paths = (run.folder, run.folder / "checkpoints" / "last.ckpt")
    options = ("analysis=filters", f"ckpt_path={','.join(map(str, paths))}")
    done = analyze("-m", *options, cwd=run.cwd)
    assert done.status == 0, done.err
    found = list((run.cwd / "multirun").glob("*/*/results.json"))
    assert len(found) == 2
    assert {json.loads(path.read_text())["checkpoint"] for path in found} == {str(paths[1])}


ATTACK_KEYS = {
    "attack",
    "checkpoint",
    "dataset",
    "num_images",
    "success_rate",
    "mean_confidence",
    "mean_linf",
    "mean_l2",
    "mean_mse",
    "mean_steps",
    "seconds",
    "tensors",
}
TENSORS = {"original", "images", "target", "label", "predicted", "confidence", "success", "steps", "trace"}


def test_everything_includes_the_reports_attacks(whole: Done) -> None:
    for name in ("non_targeted", "targeted", "noise", "fgsm", "pgd"):
        place = whole.folder / "attacks" / name
        assert json.loads((place / "findings.json").read_text()) == whole.results[name]
        assert set(tensors(place / f"{name}.npz")) == TENSORS
        assert list(place.glob("*.png"))
    found = EventAccumulator(str(whole.folder), size_guidance={"images": 0})
    found.Reload()
    assert {f"adversarial/{name}" for name in ("non_targeted", "targeted", "noise")} <= set(found.Tags()["images"])


def test_one_attack_with_its_options_seen_by_another_network(run: Done, analyze: Command) -> None:
    options = ("attack=targeted", "attack.beta=20", "attack.steps=80", "attack.target=7", "images=[3,14,15,9,7]")
    done = analyze(*options, f"against={run.folder}", cwd=run.cwd)
    assert done.status == 0, done.err
    assert {entry.name for entry in done.folder.iterdir() if entry.is_dir()} == {"attacks", "other"}
    results = done.results
    assert results.keys() >= ATTACK_KEYS
    assert (results["attack"], results["beta"], results["steps"], results["target"]) == ("targeted", 20, 80, 7)
    assert results["against"] == {"success_rate": 1.0, "num_images": results["num_images"]}  # the same network
    saved = tensors(Path(results["tensors"]))
    assert set(saved) == TENSORS
    assert set(saved["target"]) == {7}
    assert 7 not in saved["label"]
    assert results["num_images"] == 4
    assert "Not counted: 1 of the target's own class." in done.out
    network = plain(run.weights)
    with torch.no_grad():
        probability = network(torch.from_numpy(saved["images"])).softmax(1)
    assert np.array_equal(probability.argmax(1), saved["predicted"])
    np.testing.assert_allclose(probability[:, 7], saved["confidence"], atol=1e-5)
    assert results["success_rate"] == pytest.approx((probability[:, 7] >= 0.5).double().mean().item(), abs=1e-6)
    moved = saved["images"] - saved["original"]
    assert results["mean_mse"] == pytest.approx((moved**2).mean((1, 2, 3)).mean(), abs=1e-6)
    assert results["mean_linf"] == pytest.approx(np.abs(moved).max((1, 2, 3)).mean(), abs=1e-6)


def plain(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network as anybody would write it, with the weights of a run with batch normalisation."""
    nn = torch.nn
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            norm1=nn.BatchNorm2d(32),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 32, 3, padding=1),
            norm2=nn.BatchNorm2d(32),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(1568, 500),
            norm3=nn.BatchNorm1d(500),
            relu3=nn.ReLU(),
            fc2=nn.Linear(500, 10),
        )
    )
    model.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    return model.eval()


def test_a_sweep_over_attacks_and_budgets(run: Done, analyze: Command) -> None:
    before = set((run.cwd / "multirun").glob("*/*/results.json"))
    sweep = ("attack=fgsm,pgd", "attack.epsilon=0.05,0.1", "attack.num_images=50", "attack.epsilons=[0.02,0.2]")
    done = analyze("-m", *sweep, cwd=run.cwd)
    assert done.status == 0, done.err
    found = set((run.cwd / "multirun").glob("*/*/results.json")) - before
    jobs = [json.loads(path.read_text()) for path in found]
    rates = {(job["attack"], job["epsilon"]): job["success_rate"] for job in jobs}
    assert rates.keys() == {("fgsm", 0.05), ("fgsm", 0.1), ("pgd", 0.05), ("pgd", 0.1)}
    for epsilon in (0.05, 0.1):
        assert rates["fgsm", epsilon] <= rates["pgd", epsilon]
    for job in jobs:
        curve = job["robust_accuracy"]
        assert curve["epsilon"] == [0.02, 0.2]
        assert curve["robust_acc"][0] >= 1 - job["success_rate"] >= curve["robust_acc"][1]
        assert len(curve["robust_acc_by_class"][0]) == 10
        assert {"restarts", "steps", "step_size", "num_images"} <= curve.keys()


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_what_was_misclassified_before_is_not_what_an_attack_changed(name: str, whole: Done, run: Done) -> None:
    found = whole.results[name]
    saved = tensors(whole.folder / "attacks" / name / f"{name}.npz")
    with torch.no_grad():
        clean = checkpoint.load(run.folder)(torch.from_numpy(saved["original"])).argmax(1).numpy()
    was_right, is_right = clean == saved["label"], saved["predicted"] == saved["label"]
    assert 0 < was_right.mean() < 1
    assert found["accuracy_before"] == pytest.approx(was_right.mean(), abs=1e-6)
    assert found["accuracy_after"] == pytest.approx(is_right.mean(), abs=1e-6)
    assert found["num_changed"] == (was_right & ~is_right).sum() < (~is_right).sum()
    html = (whole.folder / "report.html").read_text()
    assert "become another class" not in html
    assert f'data-key="{name}.num_changed"' in html
    assert re.search(r"under PGD, epsilon <data data-key=.pgd.epsilon", html)


def test_the_shown_cost_is_described(whole: Done) -> None:
    for name in ("non_targeted", "targeted", "noise"):
        trace, cost = tensors(whole.folder / "attacks" / name / f"{name}.npz")["trace"], whole.results[name]["cost"]
        assert cost["start"] == pytest.approx(trace[0].mean(), rel=1e-4)
        assert cost["highest"] == pytest.approx(np.nanmax(trace, 0).mean(), rel=1e-4)
        ends = [column[np.isfinite(column)][-1] for column in trace.T]
        assert cost["end"] == pytest.approx(np.mean(ends), rel=1e-4)
    assert "is highest at" in whole.out


@pytest.mark.parametrize(
    "attack", ["universal", "deepfool", "carlini_wagner", "boundary", "apgd", "square", "auto", "checklist"]
)
def test_the_other_attacks_leave_the_same_record(attack: str, run: Done, analyze: Command) -> None:
    few = "attack.num_images=20"
    small = {
        "universal": ("attack.steps=5", "attack.num_train_images=50", "attack.target=3", "attack.num_test_images=30"),
        "deepfool": (few,),
        "carlini_wagner": (few, "attack.steps=20"),
        "boundary": (few, "attack.queries=200"),
        "apgd": (few, "attack.steps=10", "attack.epsilons=[0,0.2]"),
        "square": (few, "attack.queries=50"),
        "auto": (few,),
        "checklist": (
            few,
            "attack.steps=10",
            "attack.queries=100",
            "attack.num_decision_based=5",
            "attack.num_breakable=2",
        ),
    }
    done = analyze(f"attack={attack}", *small[attack], cwd=run.cwd)
    assert done.status == 0, done.err
    assert done.results.keys() >= ATTACK_KEYS
    assert set(tensors(Path(done.results["tensors"]))) == TENSORS


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["occlusion.window=29"], "occlusion.window must be a whole number from 1 to 28, got 29: set occlusion.window"),
        (["occlusion.window=0"], "occlusion.window must be a whole number from 1 to 28, got 0"),
        (["occlusion.stride=0"], "occlusion.stride must be a whole number from 1 to 28, got 0"),
        (["occlusion.fill=1.5"], "occlusion.fill must be a number from 0 to 1, got 1.5"),
        (
            ["analysis=class_image", "class_image.layer=conv3"],
            "class_image.layer must be null or a layer of the network, conv1, conv2, fc1, fc2, got conv3",
        ),
        (
            ["analysis=filtres"],
            "analysis=filtres does not exist: did you mean filters?",
        ),
        (["images=[3,-1]"], "images must be a count from 1 to 100 or as many indices such as [3,14,15], got [3, -1]"),
        (["images=0"], "images must be a count from 1 to 100"),
        (["attack=pgd", "images=[3]"], "images has no effect on what is asked for: leave it out"),
        (["analysis=filters", "images=3"], "images has no effect on what is asked for: leave it out"),
        (
            ["analysis=predictions", "attack=square", "images=3"],
            "images has no effect on what is asked for: leave it out",
        ),
        (["oclusion.window=4"], "unknown key oclusion.window: did you mean occlusion.window?"),
        (["class_image.neuron=[3,4]", "analysis=class_image"], "class_image.neuron=[3, 4] needs a layer"),
        (["saliency.window=29"], "saliency.window must be a whole number from 1 to 28, got 29"),
        (["data.val_size=5"], "data.val_size has no effect on an analysis: leave it out"),
        (["network=mlp", "network.hidden=9"], "network.hidden has no effect on an analysis: leave it out"),
        (
            ["attack=hopskipjump"],
            "attack=hopskipjump does not exist: choose from all, apgd, auto, boundary, carlini_wagner",
        ),
        (["attack=pdg"], "attack=pdg does not exist: did you mean pgd? There are all, apgd, auto, boundary,"),
        (
            ["attack=targeted", "attack.target=3", "images=[3]"],
            "every image is of the target's class, or classified as it without an attack",
        ),
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


@pytest.mark.parametrize("place", ["outputs", "outputs/analyses"])
def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    place: str, run: Done, analyze: Command, tmp_path: Path
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    done = analyze(f"ckpt_path={run.folder}", cwd=tmp_path)
    assert done.status == 1
    assert re.fullmatch(r"error: cannot use outputs/analyses/\S+: not a directory\n", done.err)
    assert done.out == ""
    assert (tmp_path / place).read_text() == "a file"


def test_without_a_run_it_says_how_to_make_one(analyze: Command, tmp_path: Path) -> None:
    done = analyze(cwd=tmp_path)
    assert done.status == 1
    assert done.err == (
        "error: there is no run below outputs/ or multirun/ to analyse: make one with python train.py\n"
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
