"""Experiment trackers, each with the real library on local storage: metrics, options, pictures, and a resumed run."""

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Command, command

TWO_PICTURES = ("~callbacks.filters", "~callbacks.activations", "~callbacks.occlusion", "~callbacks.adversarial")
BLOCK = 2**15  # bytes


class Tracked(NamedTuple):
    """What a tracker holds of a run that was interrupted and resumed."""

    num_runs: int
    accuracy: dict[int, float]  # by step
    has_options: bool
    pictures: set[str]


def mlflow(folder: Path) -> Tracked:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("cnn_mnist").experiment_id])
    run = runs[0].info.run_id
    history = {point.step: point.value for point in client.get_metric_history(run, "test/acc")}
    there = {path.name.partition("+")[0] for path in (folder / "mlruns").rglob("*.png")}
    return Tracked(len(runs), history, runs[0].data.params["lr"] == "0.001", there)


def trackio(folder: Path) -> Tracked:
    with sqlite3.connect(folder / "trackio" / "cnn_mnist.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
        options = [json.loads(row[0]) for row in database.execute("select config from configs").fetchall()]
    points = [(name, step, json.loads(metrics)) for name, step, metrics in rows]
    return Tracked(
        len({name for name, _, _ in points}),
        {step: metrics["test/acc"] for _, step, metrics in points if "test/acc" in metrics},
        options[0]["lr"] == 0.001,
        {key for _, _, metrics in points for key, value in metrics.items() if isinstance(value, dict)},
    )


def wandb(folder: Path) -> Tracked:
    files = sorted(folder.glob("outputs/*/*/wandb/offline-run-*/*.wandb"))
    accuracy, pictures, has_options = {}, set(), False
    for file in files:
        for record in _records(file):
            if record.HasField("run"):
                has_options |= any(one.key == "lr" for one in record.run.config.update)
            if record.HasField("config"):
                has_options |= any(one.key == "lr" for one in record.config.update)
            if record.HasField("history"):
                row = {"/".join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
                if "test/acc" in row:
                    accuracy[row["trainer/global_step"]] = row["test/acc"]
                pictures |= {key.removesuffix("/filenames") for key in row if key.endswith("/filenames")}
    return Tracked(len({file.name for file in files}), accuracy, has_options, pictures)


def _records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # no room for a record's header: zeros to the end of the block
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # SQLAlchemy, of MLflow
@pytest.mark.parametrize("read", [mlflow, wandb, trackio], ids=lambda one: one.__name__)
def test_a_run_is_tracked_and_resumed(
    read: Callable[[Path], Tracked], train: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if read is wandb:  # it writes the last of a run as the process ends, which a forked one does not
        train = command("train.py", tmp_path_factory)
    options = {"cwd": tmp_path, "TRACKIO_DIR": str(tmp_path / "trackio")}
    logger = f"logger=[tensorboard,csv,{read.__name__}]"
    first = train("data=digits", "trainer=cpu", "trainer.max_epochs=1", logger, *TWO_PICTURES, **options)
    assert first.status == 0, first.err
    expected = {15: first.results["test/acc"]}
    resumed = train(f"ckpt_path={first.folder}", "trainer.max_epochs=2", logger, **options)
    assert resumed.status == 0, resumed.err
    found = read(tmp_path)
    assert found.num_runs == 1
    assert found.accuracy == pytest.approx(expected | {30: resumed.results["test/acc"]})
    assert found.has_options
    assert {"predictions", "confusion_matrix"} <= found.pictures


def test_each_job_of_a_sweep_is_a_run_of_its_own(train: Command, tmp_path: Path) -> None:
    words = ("data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=[csv,trackio]")
    done = train("-m", *words, "seed=0,1", cwd=tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    assert done.status == 0, done.err
    assert trackio(tmp_path).num_runs == 2


def test_one_that_is_not_installed_is_one_line(train_after: Command, tmp_path: Path) -> None:
    missing = "import sys\nsys.modules['trackio'] = None"
    done = train_after(missing, "data=digits", "logger=[tensorboard,csv,trackio]", cwd=tmp_path)
    assert done.status == 1
    assert "logger=trackio needs the package trackio: pip install 'cnn-mnist[trackio]'" in done.err
    assert len(done.err.splitlines()) == 1
