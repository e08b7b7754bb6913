"""A run killed at any moment resumes and ends as if it had not been interrupted."""

import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cnn_mnist.runs import checkpoint, files
from tests.conftest import ROOT, Command, Done, Interrupt, same
from tests.forked_commands import Warm
from tests.test_train import events

OPTIONS = ("data=digits", "trainer=cpu", "model.batchnorm=true", "data.val_size=100", "trainer.max_epochs=4")
KILLS = {"none": 8, "default": 4}  # of each of two runs, without pictures and with them
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
EARLIEST = 0.3  # seconds: before, a fresh process is Python that starts, not this project
LONGEST = {"none": 4.0, "default": 8.0}  # about what a run takes once everything is imported


def start(words: list[str], cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(out: str) -> list[str]:
    """The resume command of the last line."""
    line = out.splitlines()[-1]
    assert line.startswith("to resume: python "), line
    return shlex.split(line.removeprefix("to resume: python "))


def check_whole(folder: Path) -> None:
    """Every checkpoint on disk is whole."""
    for path in folder.rglob("*.ckpt"):
        if not path.name.startswith(files.SCRATCH):
            checkpoint.load(path)


def curves(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[dict[str, str]]]:
    """Every scalar that TensorBoard itself reads, and the rows of the table."""
    found = events(folder)
    scalars = {
        tag: [(point.step, point.value) for point in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if tag != "fit_seconds"
    }
    with (folder / "metrics.csv").open(newline="") as file:
        return scalars, list(csv.DictReader(file))


def killed_again_and_again(seed: int, callbacks: str, cwd: Path, warm: Warm) -> Done:
    """A run that is killed at random moments until it has been killed often enough."""
    dice = random.Random(seed)
    first = [str(ROOT / "train.py"), *OPTIONS, f"callbacks={callbacks}"]
    words, num_kills, num_ends = first, 0, 0
    while num_kills < KILLS[callbacks]:
        number = dice.choice(list(STATUS))
        after = dice.uniform(EARLIEST, LONGEST[callbacks])
        status, out, err = warm.run(Path(words[0]), tuple(words[1:]), cwd, {}, 120, (number, after))
        check_whole(cwd)
        if status != 0:
            num_kills += 1
            assert status == STATUS[number], (out, err)
            assert "Traceback" not in err
            begun = list(cwd.glob("outputs/*/*/config.yaml"))
            assert len(begun) <= 1
            words = told(out) if number != signal.SIGKILL else [first[0], "ckpt_path=last"] if begun else first
        else:  # it was quicker than the kill: another, from the start
            num_ends += 1
            (folder,) = cwd.glob("outputs/*/*")
            folder.rename(cwd / f"done-{num_ends}")
            words = first
    status, out, err = warm.run(Path(words[0]), tuple(words[1:]), cwd, {}, 120)
    assert status == 0, err
    return Done(status, out, err, cwd)


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path_factory: pytest.TempPathFactory, train: Command, warm: Warm) -> None:
    whole = train(*OPTIONS)
    assert whole.status == 0, whole.err
    scalars, table = curves(whole.folder)
    plain = {tag: points for tag, points in scalars.items() if not tag.startswith("optimisation/")}
    for seed, callbacks in enumerate(KILLS):
        done = killed_again_and_again(seed, callbacks, tmp_path_factory.mktemp(callbacks), warm)
        for folder in (done.folder, *done.cwd.glob("done-*")):
            results = Done(0, f"results: {folder / 'results.json'}", "", done.cwd)
            assert same(results.weights, whole.weights)
            assert curves(folder) == (plain if callbacks == "none" else scalars, table)
            for name in ("test/acc", "test/loss", "val/acc", "epochs"):
                assert results.results[name] == whole.results[name]
            assert not list(folder.rglob(f"{files.SCRATCH}*"))


WRITER = """
import json, os, signal, sys
from pathlib import Path
from cnn_mnist.runs import files

path, content = Path(sys.argv[1]), bytes(3_000_000)

def trace(frame, event, argument):
    global count
    if frame.f_code.co_filename in (files.__file__, __file__) or "pathlib" in frame.f_code.co_filename:
        if event == "line":
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

def write():
    sys.settrace(trace)
    with files.replacing(path) as scratch:
        with scratch.open("wb", buffering=0) as file:
            for start in range(0, len(content), 1_000_000):
                file.write(content[start : start + 1_000_000])
    sys.settrace(None)
    os._exit(0)

for line in range(1, 1000):
    path.write_bytes(b"old")
    if not (child := os.fork()):
        count = line
        write()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = path.read_bytes()
    files.sweep_up(path.parent)
    beside = sorted(file.name for file in path.parent.iterdir())
    print(json.dumps([status, "old" if found == b"old" else "new" if found == content else "broken", beside]))
    if status == 0:
        break
"""


def test_the_writer_killed_at_every_line_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "writer.py").write_text(WRITER)
    path = tmp_path / "run" / "last.ckpt"
    path.parent.mkdir()
    command = [sys.executable, str(tmp_path / "writer.py"), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    *killed, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(killed) > 20
    assert {status for status, _, _ in killed} == {-signal.SIGKILL}
    assert {content for _, content, _ in killed} == {"old", "new"}
    assert killed[0][1] == "old"
    assert last == [0, "new", ["last.ckpt"]]
    assert {tuple(beside) for _, _, beside in killed} == {("last.ckpt",)}


INJECTOR = """
import os, runpy, signal, sys
from pathlib import Path

script, place, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[:] = [script, *sys.argv[4:]]
sys.path.insert(0, str(Path(script).parent))
real = Path.replace

def replace(self, target):
    global count
    if str(target).endswith(".ckpt"):
        count -= 1
        if count == 0 and place == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, target)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target) if not str(target).endswith(".ckpt") else target

Path.replace = replace
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def whole(train: Command) -> Done:
    done = train(*OPTIONS, "callbacks=none", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    return done


@pytest.mark.slow
@pytest.mark.parametrize(  # the last of the first epoch, the best and the last of the second
    ("place", "count"), [("before", 2), ("before", 3), ("after", 4)]
)
def test_killed_at_a_rename_of_a_checkpoint(
    place: str, count: int, whole: Done, train: Command, tmp_path: Path
) -> None:
    (tmp_path / "injector.py").write_text(INJECTOR)
    options = (*OPTIONS, "callbacks=none", "trainer.max_epochs=2")
    command = [sys.executable, str(tmp_path / "injector.py"), str(ROOT / "train.py"), place, str(count), *options]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    check_whole(tmp_path)
    (folder,) = (tmp_path / "outputs").glob("*/*")
    folder.rename(folder.with_name("moved"))  # wherever it is now
    resumed = train("ckpt_path=last", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert same(resumed.weights, whole.weights)
    assert Path(resumed.results["checkpoint"]).parents[1] == resumed.folder
    assert curves(resumed.folder) == curves(whole.folder)
    for path in ("best.ckpt", "last.ckpt"):
        one, other = (checkpoint.load(done.folder / "checkpoints" / path) for done in (resumed, whole))
        assert same(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", ["train.py", "analyze.py", "search.py"])
def test_a_signal_while_it_is_set_up_names_the_same_command(
    number: int, script: str, run_folder: Path, tmp_path: Path
) -> None:
    words = [str(ROOT / script), "seed=3"]
    with start(words, tmp_path) as process:
        time.sleep(EARLIEST)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err == ""
    again, folder = told(out)[: len(words)], told(out)[len(words) :]
    assert again == words
    if folder:  # a search that got as far as choosing one
        assert script == "search.py"
        assert folder[0] == "--folder"
        assert Path(folder[1]).parent == tmp_path / "multirun"


def test_a_signal_ends_a_command_whose_reader_is_gone(tmp_path: Path) -> None:
    with start([str(ROOT / "train.py"), "data=digits"], tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()  # as where Ctrl-C ends all of `python train.py | tee log`
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_a_sweep_that_is_stopped_says_how_to_resume(train: Command, interrupt: Interrupt, tmp_path: Path) -> None:
    options = ("-m", "data=digits", "network=mlp", "trainer=cpu", "callbacks=none")
    options = (*options, "trainer.max_epochs=8", "seed=0,1,2,3")  # long enough to be seen running
    stopped = interrupt(*options, cwd=tmp_path, line="job 2 of 4  running", number=signal.SIGINT)
    assert stopped.status == 130, stopped.err
    assert "Traceback" not in stopped.err
    assert re.search(r"seed=1 +stopped.*\n +2 jobs +not started", stopped.out)
    words = told(stopped.out)
    (folder,) = (tmp_path / "multirun").iterdir()
    assert words == [str(ROOT / "train.py"), *options, f"hydra.sweep.dir=multirun/{folder.name}"]
    done = train(*words[1:], cwd=tmp_path)
    assert done.status == 0, done.err
    assert "1 of 4 jobs are done already" in done.out
    assert "4 of 4 jobs are done" in done.out


def processes_in(folder: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.resolve() == folder.resolve():
                found.append(int(place.parent.name))
        except OSError:  # it is gone
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see who is left")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_several_processes_end_with_the_first_and_resume(
    number: signal.Signals, train: Command, interrupt: Interrupt, tmp_path: Path
) -> None:
    options = ("data=digits", "trainer=ddp", "callbacks=none", "trainer.max_epochs=4")
    stopped = interrupt(*options, cwd=tmp_path, line="epoch 2/4", number=number)
    assert stopped.status == STATUS[number], stopped.err
    deadline = time.monotonic() + 30
    while processes_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(tmp_path) == []
    check_whole(tmp_path)
    (folder,) = (tmp_path / "outputs").glob("*/*")
    words = [f"ckpt_path={folder}/checkpoints/last.ckpt"]
    if number != signal.SIGKILL:
        words = told(stopped.out)[1:]
        assert words == [f"ckpt_path={folder.relative_to(tmp_path)}"]
    resumed = train(*words, cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert (resumed.results["epochs"], resumed.results["num_processes"]) == (4, 2)


@pytest.fixture
def running(finished: Done, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A long run, and its folder."""
    process = start(
        [str(ROOT / "train.py"), "data=digits", "trainer=cpu", "callbacks=none", "trainer.max_epochs=500"], tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    (folder,) = (tmp_path / "outputs").glob("*/*")
    with process:
        yield process, folder
        process.kill()


def test_a_folder_in_use_is_refused_and_its_run_goes_on(
    running: tuple["subprocess.Popen[str]", Path], train: Command, tmp_path: Path
) -> None:
    process, folder = running
    second = train(f"ckpt_path={folder}", cwd=tmp_path)
    assert second.status == 1
    assert second.err == f"error: outputs/digits-paper/{folder.name} is in use by another command\n"
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    third = train(f"ckpt_path={folder}", "trainer.max_epochs=1000001", cwd=tmp_path)  # free again: another mistake
    assert "trainer.max_epochs must be" in third.err


def test_two_runs_of_the_same_second_have_folders_of_their_own() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        folders = {compose("train", return_hydra_config=True).hydra.run.dir for _ in range(10)}
    assert len(folders) == 10


@pytest.mark.slow
def test_a_sweep_in_use_is_refused(train: Command, tmp_path: Path) -> None:
    options = ["-m", "data=digits", "trainer=cpu", "callbacks=none", "seed=0,1", "hydra.sweep.dir=multirun/mine"]
    with start([str(ROOT / "train.py"), *options, "trainer.max_epochs=500"], tmp_path) as process:
        try:
            while not list(tmp_path.glob("multirun/mine/*/checkpoints/last.ckpt")):
                assert process.poll() is None
                time.sleep(0.2)
            second = train(*options, "trainer.max_epochs=1", cwd=tmp_path)
            assert process.poll() is None
        finally:
            process.kill()
    assert second.status == 1
    assert second.err == "error: multirun/mine is in use by another command\n"
