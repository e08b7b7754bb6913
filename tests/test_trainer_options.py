"""Common options of Lightning's Trainer: each works and is recorded correctly, or is refused before training."""

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from cnn_mnist.cli import entry
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.networks.mlp import MLP
from tests.conftest import ROOT, Command, Done, same
from tests.test_train import events

DIGITS = ("data=digits", "network=mlp", "trainer=cpu", "callbacks=none", "trainer.max_epochs=2")


def trained(train: Command, *options: str, cwd: Path | None = None) -> Done:
    done = train(*DIGITS, *options, cwd=cwd)
    assert done.status == 0, done.err
    assert done.err == ""
    return done


def last_but_one(done: Done) -> str:
    return done.out.splitlines()[-2]


def accuracy(done: Done, num_images: int) -> float:
    """Of the run's last weights on the first test images."""
    network = CNN(done.results["batchnorm"]) if done.results["network"].endswith("CNN") else MLP()
    network.load_state_dict({key.removeprefix("network."): value for key, value in done.weights.items()})
    data = DataModule("digits").ready()
    images, labels = data.test[:num_images]
    with torch.no_grad():
        return (network.eval()(images).argmax(1) == labels).double().mean().item()


def test_fast_dev_run_tries_one_batch_of_each_and_keeps_nothing(train: Command) -> None:
    done = trained(train, "+trainer.fast_dev_run=true")
    assert (done.results["steps"], done.results["checkpoint"], done.results["num_test"]) == (1, None, 250)
    assert "no checkpoint" in last_but_one(done)


def test_overfit_batches_sees_the_same_batches_again_and_again(train: Command) -> None:
    done = trained(train, "network=cnn", "+trainer.overfit_batches=2", "trainer.max_epochs=12")
    assert (done.results["steps"], done.results["num_train"]) == (24, 200)
    assert done.results["train/acc"] > max(0.8, done.results["test/acc"])


def test_max_steps_ends_inside_an_epoch_which_cannot_be_resumed(train: Command) -> None:
    done = trained(train, "+trainer.max_steps=5")
    assert done.results["steps"] == 5
    assert done.results["test/acc"] == pytest.approx(accuracy(done, 297), abs=1e-6)
    assert done.results["train_images_per_second"] > 0
    more = train(f"ckpt_path={done.folder}", "+trainer.max_steps=20", cwd=done.cwd)
    assert more.status == 1
    assert "was written inside epoch 1, where trainer.max_steps or trainer.max_time ended the run" in more.err
    assert len(more.err.splitlines()) == 1


def test_max_steps_at_the_end_of_an_epoch_is_resumed_with_more(train: Command) -> None:
    done = trained(train, "+trainer.max_steps=15")
    more = train(f"ckpt_path={done.folder}", "+trainer.max_steps=30", cwd=done.cwd)
    assert more.status == 0, more.err
    assert more.results["steps"] == 30
    assert same(more.weights, trained(train).weights)


def test_max_time_ends_the_run(train: Command) -> None:
    done = trained(train, "+trainer.max_time=00:00:00:01", "trainer.max_epochs=1000")
    assert 0 < done.results["epochs"] < 1000


def test_limited_batches_are_recorded_as_what_they_are(train: Command) -> None:
    options = ("+trainer.limit_train_batches=3", "+trainer.limit_val_batches=1", "+trainer.limit_test_batches=1")
    done = trained(train, *options)
    assert (done.results["num_train"], done.results["num_test"], done.results["steps"]) == (300, 250, 6)
    assert done.results["test/acc"] == pytest.approx(accuracy(done, 250), abs=1e-6)
    assert "of 250 images" in last_but_one(done)


def test_without_test_batches_there_is_no_test_accuracy(train: Command) -> None:
    done = trained(train, "+trainer.limit_test_batches=0", "data.val_size=200")
    assert done.results["num_test"] == 0
    assert "not tested" in last_but_one(done)


def test_accumulated_batches_are_distorted_one_by_one(train: Command, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "from pytorch_lightning.callbacks import Callback\n"
        "import cnn_mnist.training.module as training\n"
        "class Spy(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        inner = training.augmented\n"
        "        def seen(images, **options):\n"
        "            changed = inner(images.new_ones(images.shape), **options)\n"
        "            print('drawn', changed[0].sum().item(), module.global_step)\n"
        "            return changed\n"
        "        training.augmented = seen\n"
    )
    options = ("model.distortion=0.2", "+trainer.accumulate_grad_batches=4", "+callbacks.spy._target_=spy.Spy")
    done = train(*DIGITS, *options, cwd=tmp_path)
    assert done.status == 0, done.err
    drawn = [line.split()[1:] for line in done.out.splitlines() if line.startswith("drawn ")]
    assert len({value for value, _ in drawn}) == len(drawn) == 30
    assert len({step for _, step in drawn}) < len(drawn)
    assert done.results["steps"] == 8


def test_the_warm_up_of_adversarial_training_counts_batches(train: Command, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "import cnn_mnist.training.module as module\n"
        "from pytorch_lightning.callbacks import Callback\n"
        "inner = module.warmed_up\n"
        "def seen(epsilon, epoch, warmup_epochs):\n"
        "    print('epoch', epoch)\n"
        "    return inner(epsilon, epoch, warmup_epochs)\n"
        "module.warmed_up = seen\n"
        "class Spy(Callback):\n"
        "    pass\n"
    )
    options = ("model.epsilon=0.2", "model.attack_steps=1", "+trainer.accumulate_grad_batches=5")
    done = train(*DIGITS, *options, "+callbacks.spy._target_=spy.Spy", cwd=tmp_path)
    assert done.status == 0, done.err
    epochs = [float(line.split()[1]) for line in done.out.splitlines() if re.fullmatch(r"epoch [\d.]+", line)]
    assert epochs == pytest.approx([batch / 15 for batch in range(30)])


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train_with_all_pictures(precision: str, train: Command) -> None:
    options = ("network=cnn", "model.batchnorm=true", "callbacks=default", "callbacks.adversarial.steps=5")
    short = ("trainer.max_epochs=1", "+trainer.limit_train_batches=5")
    done = train(*DIGITS, f"trainer.precision={precision}", *options, *short)
    assert done.status == 0, done.err
    assert done.err == "" or "processors with AMX" in done.err
    assert done.results["test/acc"] == pytest.approx(accuracy(done, 297), abs=0.02)
    assert "occlusion/probability" in events(done.folder).Tags()["images"]


@pytest.mark.parametrize(
    ("has", "is_fast"),
    [({"amx_bf16"}, True), ({"avx512_bf16"}, True), (set(), False)],
)
def test_bf16_on_a_processor_without_it_is_warned_of(
    has: set[str], is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities = {name: name in has for name in ("amx_bf16", "avx512_bf16", "avx2")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    given = {"strategy": "auto", "devices": 1, "num_nodes": 1, "accelerator": "cpu", "precision": "bf16-mixed"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entry.check_device(OmegaConf.create({"trainer": given}))
    assert ["this one does not have" in str(one.message) for one in caught] == [True] * (not is_fast)


def test_a_profiler_prints_what_it_found(train: Command) -> None:
    done = trained(train, "+trainer.profiler=simple")
    assert "run_training_batch" in done.out


def test_the_training_loss_is_logged_as_often_as_asked(train: Command) -> None:
    done = trained(train, "trainer.log_every_n_steps=4")
    points = events(done.folder).Scalars("train/loss")
    assert [point.step for point in points] == [4, 8, 12, 15, 19, 23, 27, 30]
    shown = float(re.search(r"epoch 2/2 .*train/loss (\S+)", done.out)[1])
    weights = (4, 4, 4, 3)
    mean = sum(point.value * weight for point, weight in zip(points[4:], weights, strict=True)) / 15
    assert shown == pytest.approx(mean, abs=1e-4)
    assert done.results["train/loss"] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("trainer.precision=8", "trainer.precision must be 32-true or bf16-mixed or 16-mixed or 64-true, got 8"),
        ("+trainer.precision=8", "trainer.precision"),
        ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps must be a whole number of at least 1, got 0"),
        ("monitor=test/acc", "monitor must be the name of a metric of the hold-out, such as val/acc"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(option: str, line: str, train: Command, tmp_path: Path) -> None:
    done = train(*DIGITS, option, cwd=tmp_path)
    assert done.status == 1
    assert line in done.err
    assert len(done.err.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_hold_out_metric_that_chooses_is_an_option_and_every_metric_is_of_that_checkpoint(train: Command) -> None:
    options = ("data.val_size=200", "experiment=robust", "callbacks=robust", "model.attack_steps=1")
    small = ("callbacks.robust_accuracy.steps=2", "callbacks.robust_accuracy.num_images=50")
    leave_out = [f"~callbacks.{name}" for name in ("samples", "predictions", "confusion_matrix", "filters")]
    leave_out += [f"~callbacks.{name}" for name in ("activations", "occlusion", "adversarial")]
    done = train("data=digits", "trainer=cpu", "trainer.max_epochs=4", *options, *small, *leave_out)
    assert done.status == 0, done.err
    curves = {name: [p.value for p in events(done.folder).Scalars(name)] for name in ("val/robust_acc", "val/acc")}
    best = max(range(4), key=curves["val/robust_acc"].__getitem__)
    assert done.results["checkpoint_epoch"] == best + 1
    for name, values in curves.items():
        assert done.results[name] == pytest.approx(values[best], abs=1e-6)
    content = torch.load(done.results["checkpoint"], weights_only=True)
    assert content["epoch"] == best
    assert all(content["metrics"][name] == pytest.approx(done.results[name], abs=1e-6) for name in curves)
    refused = train("data=digits", "data.val_size=200", "monitor=val/robust_acc")
    assert "monitor=val/robust_acc, but nothing measures it: set callbacks=robust" in refused.err


def test_the_lowest_loss_is_best(train: Command) -> None:
    done = trained(train, "data.val_size=200", "monitor=val/loss", "model.lr=0.02", "trainer.max_epochs=4")
    losses = [point.value for point in events(done.folder).Scalars("val/loss")]
    assert done.results["val/loss"] == pytest.approx(min(losses), abs=1e-6)


def test_every_run_ends_with_what_it_came_to(train: Command) -> None:
    done = trained(train, "data.val_size=200")
    results = done.results
    assert last_but_one(done).startswith(f"test accuracy {results['test/acc']:.2%} of 297 images, epoch ")
    assert f"epoch {results['checkpoint_epoch']} of 2" in last_but_one(done)
    assert last_but_one(done).endswith(str(Path(results["checkpoint"]).relative_to(done.cwd)))


def test_a_run_has_a_log_in_its_folder_with_what_callbacks_log(train: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import logging\n"
        "from pytorch_lightning.callbacks import Callback\n"
        "class Mine(Callback):\n"
        "    def on_train_epoch_end(self, trainer, module):\n"
        "        logging.getLogger(__name__).info('mine was here')\n"
    )
    done = train(*DIGITS, "+callbacks.mine._target_=mine.Mine", cwd=tmp_path)
    assert done.status == 0, done.err
    log = (done.folder / "train.log").read_text()
    assert log.count("INFO mine: mine was here") == 2
    assert "INFO cnn_mnist: epoch 2/2" in log
    assert "INFO cnn_mnist: test accuracy" in log


def test_a_callback_of_ones_own_fails_with_its_own_error_and_resumes_as_pasted(train: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning.callbacks import Callback\n"
        "class Fails(Callback):\n"
        "    def on_validation_epoch_end(self, trainer, module):\n"
        "        raise KeyError('my own mistake')\n"
        "class Stops(Callback):\n"
        "    def __init__(self, when):\n"
        "        self.when = when\n"
        "    def on_train_epoch_start(self, trainer, module):\n"
        "        if trainer.current_epoch == self.when and not os.path.exists('stopped'):\n"
        "            open('stopped', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = train(*DIGITS, "+callbacks.mine._target_=mine.Fails", cwd=tmp_path)
    assert done.status == 1
    assert done.err.startswith("error: KeyError: 'my own mistake'")
    options = ("+callbacks.mine._target_=mine.Stops", "+callbacks.mine.when=1", "data.val_size=150", "model.lr=2e-3")
    stopped = train(*DIGITS, *options, "+trainer.gradient_clip_val=0.5", cwd=tmp_path)
    assert stopped.status == 130, stopped.err
    pasted = stopped.out.splitlines()[-1]
    assert "+callbacks.mine.when=1" in pasted
    python, script, *words = shlex.split(pasted.partition(": ")[2])
    assert (python, Path(script).name) == ("python", "train.py")
    again = train(*words, cwd=tmp_path)
    assert again.status == 0, again.err
    assert again.results["epochs"] == 2
    assert "+callbacks.mine.when=1" in again.results["overrides"]


def test_the_bar_counts_as_the_lines_do_and_shows_the_loss(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, str(ROOT / "train.py"), *DIGITS]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as run:
        os.close(follower)
        seen = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the end
                break
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert run.returncode == 0, text
    bars = re.findall(r"epoch (\d)/2 [^\n]*?━", text)
    assert set(bars) == {"1", "2"}
    assert re.search(r"epoch 2/2 [^\n]*━[^\n]*loss: \d", text)
    assert "epoch 0/" not in text
    assert "v_num" not in text
    outcome = text[text.index("finished") :]
    assert re.search(r"result +test accuracy [\d.]+% of 297 images", outcome)
    (folder,) = (tmp_path / "outputs").glob("*/*")
    following = re.search(r"next +(python analyze\.py ckpt_path=\S+)", outcome)
    assert following
    assert following[1] == f"python analyze.py ckpt_path={folder.relative_to(tmp_path)}"
    assert text.splitlines()[-1].startswith("results: ")
