"""Sweeps in real processes: files and terminal output, with any launcher and after any interruption."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import files
from cnn_mnist.sweeps import jobs
from tests.conftest import ROOT, Command, Done, Interrupt, same
from tests.test_train import events

DIGITS = ("data=digits", "trainer=cpu", "callbacks=none")
TIMES = ("fit_seconds", "train_images_per_second")


def table(folder: Path) -> list[dict[str, Any]]:
    """The rows of sweep.csv, times aside."""
    with (folder / "sweep.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, Any]:
    import torch

    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_failing_jobs_hide_no_others_and_only_they_are_done_again(train: Command, tmp_path: Path) -> None:
    options = ("-m", *DIGITS, "trainer.max_epochs=1", "model.lr=-1,1e-3,1e30", "hydra.sweep.dir=multirun/mine")
    done = train(*options, cwd=tmp_path)
    folder = tmp_path / "multirun" / "mine"
    assert done.status == 1
    assert done.results_path == folder / "sweep.json"
    assert "job 2 of 3  done     model.lr=0.001  test/acc" in done.out
    assert "1 of 3 jobs are done" in done.out
    assert [row["status"] for row in table(folder)] == ["failed", "done", "failed"]
    for message in (
        "model.lr must be a number above 0, got -1",
        "train/loss is nan at step 2, with a learning",
    ):
        assert message in done.err  # at once
        assert any(message in row["error"] for row in table(folder))
        assert message.split(":")[0] in " ".join(done.out.split())  # in the table at the end
    assert "Traceback" not in done.err
    good = next(job for job in jobs.jobs(folder) if job.status == jobs.DONE)
    assert good.folder is not None
    assert "epoch 1/1" in (good.folder / "log.txt").read_text()
    before = (good.folder / "results.json").stat().st_mtime_ns
    again = train(*options, cwd=tmp_path)
    assert again.status == 1
    assert "1 of 3 jobs are done already" in again.out
    assert "job 2 of 3" not in again.out
    assert (good.folder / "results.json").stat().st_mtime_ns == before


def test_a_sweep_killed_half_way_ends_with_the_table_of_one_that_was_not(
    train: Command, interrupt: Interrupt, tmp_path: Path
) -> None:
    options = ("-m", *DIGITS, "network=mlp", "trainer.max_epochs=8", "model.lr=1e-3,2e-3", "seed=0,1")
    whole = train(*options, "hydra.sweep.dir=multirun/whole", cwd=tmp_path)
    assert whole.status == 0, whole.err
    killed = [*options, "hydra.sweep.dir=multirun/killed"]
    stopped = interrupt(*killed, cwd=tmp_path, line="job 3 of 4  running", number=signal.SIGKILL)
    assert stopped.status == -signal.SIGKILL
    folder = tmp_path / "multirun" / "killed"
    first = [row["status"] for row in table(folder)]
    assert first[:2] == ["done"] * 2
    assert first[-1] == "missing"
    resumed = train(*killed, cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert table(folder) == table(tmp_path / "multirun" / "whole")
    assert (folder / "sweep.json").exists()
    for job, other in zip(jobs.jobs(folder), jobs.jobs(tmp_path / "multirun" / "whole"), strict=True):
        assert job.folder is not None
        assert other.folder is not None
        assert same(weights(job.folder), weights(other.folder))
        curves = [[(p.step, p.value) for p in events(one).Scalars("train/loss")] for one in (job.folder, other.folder)]
        assert curves[0] == curves[1]


def test_a_folder_with_other_defaults_is_refused(train: Command, tmp_path: Path) -> None:
    options = ("-m", *DIGITS, "trainer.max_epochs=1", "seed=0", "hydra.sweep.dir=multirun/mine")
    assert train(*options, cwd=tmp_path).status == 0
    (job,) = jobs.jobs(tmp_path / "multirun" / "mine")
    assert job.folder is not None
    record = json.loads((job.folder / "job.json").read_text())
    (job.folder / "job.json").write_text(json.dumps(record | {"configuration": "of another time"}))
    done = train(*options, cwd=tmp_path)
    assert done.status == 1
    assert "set another hydra.sweep.dir" in done.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hydra/launcher=sbatch", "error: hydra/launcher=sbatch does not exist"),
        ("experiment=paper,nope", "error: experiment=nope does not exist"),
    ],
)
def test_a_mistake_before_the_first_job_leaves_nothing(
    option: str, message: str, train: Command, tmp_path: Path
) -> None:
    done = train("-m", *DIGITS, option, cwd=tmp_path)
    assert done.status == 1
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) == 1
    assert done.out == ""
    assert not list((tmp_path / "multirun").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_side_by_side_equal_the_same_run_alone(launcher: str, train: Command, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    done = train(
        "-m",
        *DIGITS,
        "trainer.max_epochs=1",
        "model.batchnorm=true",
        "seed=0,1",
        f"hydra/launcher={launcher}",
        "hydra.sweep.dir=multirun/mine",
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    found = jobs.jobs(tmp_path / "multirun" / "mine")
    assert [job.status for job in found] == ["done", "done"]
    assert "2 of 2 jobs are done" in done.out
    num_threads = found[1].results["num_threads"]
    options = ("trainer.max_epochs=1", "model.batchnorm=true", "seed=1")
    alone = train(*DIGITS, *options, OMP_NUM_THREADS=str(num_threads))
    assert found[1].folder is not None
    assert same(weights(found[1].folder), alone.weights)


def test_a_job_that_is_named_twice_is_refused(train: Command, tmp_path: Path) -> None:
    done = train("-m", *DIGITS, "model.lr=1e-3,0.001", cwd=tmp_path)
    assert done.status == 1
    assert done.err.startswith("error: the sweep has the same job twice, ")
    assert "model.lr" in done.err
    assert not list((tmp_path / "multirun").glob("*"))


def test_folders_of_jobs_neither_collide_nor_grow_too_long() -> None:
    texts = ["image=a=b.png", "image=a-b.png", "image=a/b.png", "x" * 500, "x" * 501, "é", "ü", "seed=1", "..", "-"]
    names = [jobs.job_folder([text]) for text in texts] + [jobs.job_folder([])]
    assert len(set(names)) == len(texts) + 1
    assert all(len(name) < 140 and not set(name) & set("=/ ") and name.strip(".") for name in names)
    assert jobs.job_folder(["seed=1", "model.lr=0.001", "data.root=/x"], ["data.root"]) == "model.lr-0.001_seed-1"
    assert jobs.job_folder([]) == "defaults"


def test_a_run_is_named_after_what_makes_it_another_training() -> None:
    same = ["data=mnist", "experiment=tuned", "trainer=cpu", "callbacks=none", "~callbacks.samples", "data.root=/x"]
    assert jobs.options_in_name([*same, "hydra.run.dir=x", "logger=[csv]"]) == ""
    assert jobs.options_in_name(["seed=3", *same, "model.batchnorm=true"]) == "_model.batchnorm-true_seed-3"
    assert jobs.options_in_name(["trainer.max_epochs=2", "network=mlp"]) == "_network-mlp_trainer.max_epochs-2"
    assert jobs.options_in_name(["data=npz", "data.root=a.npz"]) == "_data.root-a.npz"  # the data set itself


def test_paths_that_look_alike_get_folders_of_their_own(run: Done, analyze: Command, tmp_path: Path) -> None:
    pixels = DataModule("digits").ready().test.images[7, 0].numpy().repeat(4, 0).repeat(4, 1)
    for name in ("a=b.png", "a-b.png"):
        Image.fromarray(255 - pixels).save(tmp_path / name)
    words = ("-m", "analysis=saliency", f"ckpt_path={run.folder}", f"image='{tmp_path}/a=b.png','{tmp_path}/a-b.png'")
    done = analyze(*words, cwd=tmp_path)
    assert done.status == 0, done.err
    assert len(list((tmp_path / "multirun").glob("*/*/results.json"))) == 2


def test_a_fallback_stands_in_the_log_of_its_job(train: Command, tmp_path: Path) -> None:
    options = ("-m", "trainer=cpu", "callbacks=none", "trainer.max_epochs=1", "seed=0", "data.root=nowhere")
    done = train(*options, cwd=tmp_path, http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert done.status == 0, done.err
    (log,) = (tmp_path / "multirun").glob("*/*/log.txt")
    assert "do NOT compare with those of mnist" in log.read_text()


SWEEPER = """
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Halving(Sweeper):
    '''Tries a learning rate, then another, and says what came of them.'''

    def __init__(self):
        pass

    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        values = []
        for lr in (1e-3, 1e-1):
            (done,) = self.launcher.launch([[*arguments, f"model.lr={lr}"]], initial_job_idx=len(values))
            values.append(float(done.return_value))
        print("returned", *values)
"""


@pytest.mark.slow
def test_a_sweeper_that_chooses_by_what_jobs_return_gets_the_metric(train: Command, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "halving.py").write_text(SWEEPER)
    (tmp_path / "conf" / "hydra" / "sweeper").mkdir(parents=True)
    (tmp_path / "conf" / "hydra" / "sweeper" / "halving.yaml").write_text("_target_: hydra_plugins.halving.Halving\n")
    options = (*DIGITS, "trainer.max_epochs=1", "data.val_size=200", "hydra/sweeper=halving", "--config-dir", "conf")
    done = train("-m", *options, cwd=tmp_path, PYTHONPATH=str(tmp_path / "plugins"))
    assert done.status == 0, done.err
    returned = [float(word) for word in re.search("^returned (.*)$", done.out, re.MULTILINE)[1].split()]
    found = [json.loads(path.read_text()) for path in (tmp_path / "multirun").glob("*/*/results.json")]
    assert sorted(returned) == sorted(one["val/acc"] for one in found)
    assert not list((tmp_path / "multirun").glob("*/sweep.*"))  # a job writes none: the process that watches them does


@pytest.mark.parametrize("script", ["train", "analyze", "search"])
def test_importing_an_entry_point_leaves_the_importer_alone(script: str) -> None:
    program = f"import signal, {script}; print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "_stop" not in done.stdout


def test_rows_are_named_by_what_differs() -> None:
    assert jobs.varying([["a=1", "seed=0"], ["a=1", "seed=1"]]) == ["seed=0", "seed=1"]
    assert jobs.varying([["a=1", "seed=0"]]) == ["a=1 seed=0"]
    assert files.as_csv([{"a": 1}, {"b": "x,y", "a": None}]) == 'a,b\n1,\n,"x,y"\n'
