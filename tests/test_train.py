"""`python train.py` in real processes, on the digits, which need no download."""

import csv
import re
import signal
import socket
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint, training_record
from tests.conftest import Command, Done, Interrupt, same

DIGITS = ("data=digits", "trainer=cpu")
EVERY_OTHER_EPOCH = (
    "filters/conv1",
    "filters/conv2",
    "activations/conv1/overview",
    "activations/conv1/channels",
    "activations/conv2/overview",
    "activations/conv2/channels",
    "occlusion/probability",
    "occlusion/predicted",
)
ADVERSARIAL = (
    "adversarial/non_targeted",
    "adversarial/non_targeted/cost",
    "adversarial/targeted",
    "adversarial/targeted/cost",
    "adversarial/noise",
    "adversarial/noise/cost",
)


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard itself reads in a run's folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


@pytest.fixture(scope="module")
def run(train: Command) -> Done:
    """A run of three epochs, with batch normalisation."""
    options = ("model.batchnorm=true", "seed=5", "callbacks.adversarial.steps=15")
    done = train(*DIGITS, "trainer.max_epochs=3", *options)
    assert done.status == 0, done.err
    return done


def test_a_run_leaves_what_it_promises(run: Done) -> None:
    assert run.err == ""
    assert "800,206 parameters: convolutional 9,568 (1.20%), fully connected 789,510 (98.66%), norm" in run.out
    assert len(re.findall(r"^epoch \d/3 ", run.out, re.MULTILINE)) == 3
    assert run.folder.parent.name == "digits-paper"
    assert run.folder.parents[1].name == "outputs"
    names = {path.name for path in run.folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
    files = {"config.yaml", "results.json", "metrics.csv", "hparams.yaml", "checkpoints", "train.log"}
    assert names == files | {"projector_config.pbtxt", "00000"}  # the last two: TensorBoard's projector
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_the_record_is_complete_and_true(run: Done) -> None:
    results = run.results
    expected = {"dataset": "digits", "recipe": "paper", "seed": 5, "batchnorm": True, "epochs": 3}
    counts = {"num_parameters": 800_206, "num_neurons": 31_870, "num_train": 1500, "num_test": 297}
    assert expected.items() <= results.items()
    assert counts.items() <= results.items()
    assert results["num_threads"] == torch.get_num_threads()
    assert results["versions"]["torch"] == version("torch")
    train_seconds = 3 * 1500 / results["train_images_per_second"]
    assert 0 < train_seconds < results["fit_seconds"]

    data = DataModule("digits")
    data.setup()
    images, labels = data.test[torch.arange(297)]
    with torch.no_grad():
        logits = checkpoint.load(results["checkpoint"])(images)
    assert results["test/acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-6)
    assert results["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)


def test_tensorboard_holds_curves_and_pictures(run: Done) -> None:
    found = events(run.folder)
    for tag in ("train/loss", "train/acc", "test/loss", "test/acc"):
        assert [point.step for point in found.Scalars(tag)] == [15, 30, 45], tag
    assert found.Scalars("test/acc")[-1].value == pytest.approx(run.results["test/acc"])
    every_epoch = {"samples": 1, "predictions": 3, "confusion_matrix": 3}
    pictures = {tag: [picture.step for picture in found.Images(tag)] for tag in found.Tags()["images"]}
    assert {tag: len(steps) for tag, steps in pictures.items() if tag in every_epoch} == every_epoch
    once = {tag: steps for tag, steps in pictures.items() if tag.startswith("adversarial/")}
    assert once == {tag: [45] for tag in ADVERSARIAL}
    others = {tag: steps for tag, steps in pictures.items() if tag not in every_epoch and tag not in once}
    assert others == {tag: [30, 45] for tag in EVERY_OTHER_EPOCH}  # the second epoch, and the last
    assert found.Tags()["graph"]
    assert {"optimisation/learning_rate", "optimisation/gradient_norm"} <= set(found.Tags()["scalars"])
    assert {"custom_scalars__config__", "architecture/text_summary", "pr_curves/9"} <= set(found.Tags()["tensors"])
    assert (run.folder / "projector_config.pbtxt").is_file()
    (config,) = found.Tensors("configuration/text_summary")[0].tensor_proto.string_val
    assert yaml.safe_load(textwrap.dedent(config.decode()))["seed"] == 5
    plugin = found.SummaryMetadata("_hparams_/session_start_info").plugin_data
    session = plugin_data_pb2.HParamsPluginData.FromString(plugin.content).session_start_info
    named = {"max_epochs", "dataset"}  # on the command line
    assert set(session.hparams) == {*training_record.ALWAYS, *named}  # and nothing else at its usual value
    with pytest.raises(KeyError):  # one run's columns would hide what sets others apart
        found.SummaryMetadata("_hparams_/experiment")


@pytest.mark.parametrize(
    ("experiment", "callbacks", "number", "status"),
    [
        pytest.param("paper", "none", signal.SIGTERM, 143, marks=pytest.mark.slow),
        ("tuned", "none", signal.SIGINT, 130),
        pytest.param("robust", "[robust,ema]", signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_one_that_never_stopped(
    experiment: str, callbacks: str, number: int, status: int, train: Command, interrupt: Interrupt, tmp_path: Path
) -> None:
    options = (*DIGITS, f"experiment={experiment}", "model.batchnorm=true", "data.val_size=100")
    options = (*options, f"callbacks={callbacks}")
    whole = train(*options, "trainer.max_epochs=3")
    stopped = interrupt(*options, "trainer.max_epochs=3", cwd=tmp_path, line="epoch 2/3", number=number)
    assert stopped.status == status
    (folder,) = (tmp_path / "outputs").glob("*/*")
    resumed = train(f"ckpt_path={folder}", "data.fallback=digits", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert resumed.folder == folder
    assert same(resumed.weights, whole.weights)
    for name in ("test/acc", "test/loss", "val/acc", "seed", "epochs", "dataset"):
        assert resumed.results[name] == whole.results[name]

    curves = [
        {tag: [(p.step, p.value) for p in events(done.folder).Scalars(tag)] for tag in ("train/loss", "val/acc")}
        for done in (resumed, whole)
    ]
    assert curves[0] == curves[1]
    rows = [list(csv.DictReader((done.folder / "metrics.csv").read_text().splitlines())) for done in (resumed, whole)]
    assert rows[0] == rows[1]
    assert list((tmp_path / "outputs").glob("*/*")) == [folder]


def test_a_finished_run_says_so_and_keeps_its_recipe(run: Done, train: Command) -> None:
    before = (run.folder / "results.json").read_bytes()
    again = train(f"ckpt_path={run.folder}", "model.batchnorm=true")
    assert again.status == 0
    assert "already" in again.out
    assert again.results_path == run.results_path
    assert (run.folder / "results.json").read_bytes() == before
    refused = train(f"ckpt_path={run.folder}", "model.lr=0.5")
    assert refused.status == 1
    assert "model.lr=0.001, which cannot change to 0.5 on resuming" in refused.err
    fewer = train(f"ckpt_path={run.folder}/checkpoints/last.ckpt", "trainer.max_epochs=2")
    assert fewer.status == 1
    assert "has trained for 3 epochs" in fewer.err


def test_more_epochs_go_on_in_the_same_folder(train: Command) -> None:
    short = train(*DIGITS, "network=mlp", "trainer.max_epochs=1", "callbacks=none")
    longer = train(f"ckpt_path={short.folder}", "trainer.max_epochs=2")
    whole = train(*DIGITS, "network=mlp", "trainer.max_epochs=2", "callbacks=none")
    assert longer.folder == short.folder
    assert longer.results["epochs"] == 2
    assert same(longer.weights, whole.weights)


@pytest.mark.parametrize("planned", ["model.schedule=one_cycle", "model.cooldown_epochs=1"])
def test_what_is_planned_to_the_last_epoch_gets_no_more_of_them(planned: str, train: Command) -> None:
    short = train(*DIGITS, "network=mlp", "trainer.max_epochs=1", planned, "model.distortion=0.1", "callbacks=none")
    refused = train(f"ckpt_path={short.folder}", "trainer.max_epochs=2")
    assert refused.status == 1
    assert "this run has trainer.max_epochs=1, which cannot change to 2 on resuming" in refused.err


def test_a_hold_out_chooses_the_best_checkpoint_and_the_test_set_is_measured_once(train: Command) -> None:
    done = train(*DIGITS, "network=mlp", "trainer.max_epochs=2", "data.val_size=300", "callbacks=none")
    assert {path.name for path in (done.folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert done.results["checkpoint"] == str(done.folder / "checkpoints" / "best.ckpt")
    found = events(done.folder)
    assert len(found.Scalars("val/acc")) == 2
    assert len(found.Scalars("test/acc")) == 1
    assert (done.results["num_train"], done.results["num_val"]) == (1200, 300)
    best = max(point.value for point in found.Scalars("val/acc"))
    assert done.results["val/acc"] == pytest.approx(best)


def test_times_count_every_epoch_whichever_was_best(train: Command) -> None:
    stays = "model.lr=1e-9"  # the first epoch is as good as any
    done = train(*DIGITS, "network=mlp", "data.val_size=10", stays, "callbacks=none", "trainer.max_epochs=4")
    best = torch.load(done.results["checkpoint"], weights_only=True)
    assert best["epoch"] == 0
    last = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert done.results["fit_seconds"] >= last["callbacks"]["Throughput"]["fit_seconds"]
    assert last["callbacks"]["Throughput"]["num_images"] == 4 * 1490


def test_a_loss_that_is_not_finite_ends_the_run(train: Command) -> None:
    done = train(*DIGITS, "model.lr=1e30", "callbacks=none")
    assert done.status == 1
    assert "train/loss is nan at step 2, with a learning rate of 1e+30: lower model.lr=1e+30" in done.err


def test_a_sweep_gives_each_job_a_folder_named_after_its_overrides(run: Done, train: Command, tmp_path: Path) -> None:
    done = train(
        "-m", *DIGITS, "model.batchnorm=true", "seed=5,6", "trainer.max_epochs=3", "callbacks=none", cwd=tmp_path
    )
    assert done.status == 0, done.err
    (sweep,) = (tmp_path / "multirun").iterdir()
    jobs = {path.name: path for path in sweep.iterdir() if path.is_dir()}
    name = "callbacks-none_data-digits_model.batchnorm-True_seed-{}_trainer.max_epochs-3_trainer-cpu"
    assert jobs.keys() == {name.format(seed) for seed in (5, 6)}
    states = [
        torch.load(jobs[name.format(seed)] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for seed in (5, 6)
    ]
    assert same(states[0], run.weights)  # the same run alone, and with pictures
    assert not torch.equal(states[1]["network.fc2.bias"], run.weights["network.fc2.bias"])
    assert events(jobs[name.format(5)]).Tags()["images"] == []


def test_an_unreachable_mnist_falls_back_to_the_digits_and_every_record_says_so(
    train_after: Command, train: Command, tmp_path: Path
) -> None:
    impatient = "import cnn_mnist.data.sources as sources\nsources.TIMEOUT = 0.5"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
        done = train_after(impatient, "trainer.max_epochs=1", "trainer=cpu", "callbacks=none", cwd=tmp_path, **proxies)
    refused = train("data.fallback=null", cwd=tmp_path, timeout=90, **proxies)  # no server at all, now
    assert done.status == 0
    assert "WARNING" in done.err
    assert "do NOT compare" in done.err
    assert done.results["dataset"] == "digits"
    assert done.folder.parent == tmp_path / "outputs" / "digits-paper"
    for name in ("config.yaml", "hparams.yaml"):
        assert "dataset: digits" in (done.folder / name).read_text()
    assert refused.status == 1
    assert len(refused.err.splitlines()) == 1
    assert "could not be downloaded" in refused.err


@pytest.mark.gpu
def test_a_gpu_trains_as_well(train: Command) -> None:
    done = train("data=digits", "trainer=gpu", "trainer.max_epochs=6")
    assert done.status == 0, done.err
    assert done.results["test/acc"] > 0.9
    assert "cpu" not in done.results["device"]


@pytest.mark.mnist
@pytest.mark.slow
def test_one_epoch_on_mnist(train: Command, mnist_root: Path) -> None:
    options = ("model.batchnorm=true", f"data.root={mnist_root}", "trainer=cpu", "callbacks=none")
    done = train("experiment=one_epoch", *options)
    assert done.status == 0, done.err
    assert done.results["num_train"] == 60_000
    assert done.results["test/acc"] >= 0.988
