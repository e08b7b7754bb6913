"""Full disks, read-only folders, pictures that cannot be drawn, busy ports."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnn_mnist.runs import checkpoint
from tests.conftest import ROOT, Command, Done, same

DIGITS = ("data=digits", "trainer=cpu", "callbacks=none")
CAN_MOUNT = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
SMALL_FILES = "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))"
needs_mount = pytest.mark.skipif(not CAN_MOUNT, reason="needs to mount file systems of its own")


def mounted(mount: str, folder: Path, *words: str) -> Done:
    """`python WORDS` in a folder on which something is mounted, for this command alone; its files are listed after."""
    script = f'{mount} && cd "$0" && "$@"; status=$?; cd "$0"; find . -type f >&2; exit $status'
    command = ["unshare", "-m", "sh", "-c", script, str(folder), sys.executable, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr, folder)


@needs_mount
def test_a_read_only_folder_is_named_before_the_work(tmp_path: Path) -> None:
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    done = mounted(read_only, tmp_path, str(ROOT / "train.py"), *DIGITS)
    assert done.status == 1
    assert re.fullmatch(r"error: cannot use \S*outputs\S*: read-only file system\n", done.err), done.err
    assert done.out == ""


@needs_mount
@pytest.mark.slow
def test_a_disk_that_is_too_full_is_named_before_the_work(tmp_path: Path) -> None:
    done = mounted('mount -t tmpfs -o size=20m tmpfs "$0"', tmp_path, str(ROOT / "train.py"), *DIGITS)
    assert done.status == 1
    assert re.fullmatch(r"error: cannot use \S+/checkpoints: no space left on device\n", done.err), done.err
    assert "epoch 1" not in done.out


def test_a_limit_on_files_is_named_before_the_work(train_after: Command, tmp_path: Path) -> None:
    done = train_after(f"import resource\n{SMALL_FILES}", *DIGITS, cwd=tmp_path)
    assert done.status == 1
    assert re.fullmatch(r"error: cannot use \S+/checkpoints: file too large\n", done.err), done.err
    assert "epoch 1" not in done.out


def test_a_disk_that_fills_while_it_trains_ends_the_run_and_the_old_checkpoint_survives(
    train: Command, train_after: Command, tmp_path: Path
) -> None:
    full = f"import resource, signal\nsignal.signal(signal.SIGUSR2, lambda *_: {SMALL_FILES})"
    options = (*DIGITS, "trainer.max_epochs=60")
    done = train_after(full, *options, cwd=tmp_path, interrupt=(signal.SIGUSR2, "epoch 2/"))
    assert done.status == 1
    assert re.fullmatch(r"error: cannot use \S+/checkpoints/last.ckpt: file too large\n", done.err), done.err
    (folder,) = (tmp_path / "outputs").glob("*/*")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    checkpoint.load(folder)
    num_done = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    resumed = train("ckpt_path=last", f"trainer.max_epochs={num_done + 1}", cwd=tmp_path)
    whole = train(*DIGITS, f"trainer.max_epochs={num_done + 1}")
    assert same(resumed.weights, whole.weights)


def test_pictures_that_cannot_be_drawn_are_said_once_and_training_goes_on(
    train: Command, train_after: Command, tmp_path: Path
) -> None:
    options = ("data=digits", "trainer=cpu", "trainer.max_epochs=2")
    usetex = "import matplotlib\nmatplotlib.rcParams['text.usetex'] = True"  # there is no LaTeX
    tiles = ("~callbacks.occlusion", "~callbacks.activations", "callbacks.adversarial.steps=5")  # drawn without
    done = train_after(usetex, *options, *tiles, cwd=tmp_path, PATH=str(Path(sys.executable).parent))
    assert done.status == 1
    assert done.err.count("WARNING") == 2  # one for each callback that draws with matplotlib, in two epochs
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(
        "error: the training is done and on record, but not all of its pictures: confusion_matrix (RuntimeError"
    )
    assert done.results["epochs"] == 2
    plain = train(*options, "callbacks=none")
    assert same(done.weights, plain.weights)


def test_a_loss_that_is_finite_for_the_last_time_leaves_no_checkpoint(train: Command, tmp_path: Path) -> None:
    done = train(*DIGITS, "data.batch_size=1500", "model.lr=1e39", cwd=tmp_path)
    assert done.status == 1
    assert re.search(r"error: test/loss is nan at step 1, with a learning rate of 1e\+39: lower model.lr", done.err)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_is_not_a_terminal_is_spared_its_signs(finished: Done) -> None:
    assert "\x1b" not in finished.out
    assert "\r" not in finished.out
    assert finished.err == ""


@pytest.mark.slow
def test_tensorboard_takes_the_next_port(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("127.0.0.1", 6006))
        busy.listen()
        with subprocess.Popen(
            ["make", "-C", str(ROOT), "tensorboard", "READY=", f"BIN={Path(sys.executable).parent}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = next(line for line in process.stdout if "http://" in line)
            finally:
                os.killpg(process.pid, signal.SIGTERM)
    port = int(re.search(r"http://\S+?:(\d+)", line)[1])
    assert port != 6006
