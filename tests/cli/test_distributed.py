"""Training in several processes, compared with one process."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnn_mnist.data.batches import InOrder, Shuffled, share
from tests.conftest import ROOT, Command, Done
from tests.forked_commands import Warm

DIGITS = ("data=digits", "trainer.max_epochs=2", "callbacks=none")


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_every_image_is_seen_exactly_once_and_in_the_same_batches(num_processes: int) -> None:
    whole = list(Shuffled(1500, 100, seed=3))
    parts = [list(Shuffled(1500, 100, 3, rank, num_processes)) for rank in range(num_processes)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(torch.cat(shares).tolist()) == sorted(batch.tolist())
    seen = [index for rank in range(num_processes) for own in InOrder(297, rank, num_processes) for index in _in(own)]
    assert seen == list(range(297))
    assert len(list(InOrder(297, 0, num_processes))) == len(InOrder(297, 0, num_processes))


def _in(own: slice) -> list[int]:
    return list(range(own.start, own.stop))


def test_shares_are_as_even_as_can_be() -> None:
    sizes = [share(10, rank, 4).stop - share(10, rank, 4).start for rank in range(4)]
    assert sum(sizes) == 10
    assert max(sizes) - min(sizes) <= 1


ROBUST = "+callbacks.robust_accuracy"
ATTACKED = (  # whose best checkpoint is chosen by what one of the processes measures
    *DIGITS,
    "data.val_size=100",
    "monitor=val/robust_acc",
    f"{ROBUST}._target_=cnn_mnist.training.callbacks.robust_accuracy.RobustAccuracy",
    f"{ROBUST}.num_images=50",
    f"{ROBUST}.steps=2",
)


@pytest.fixture(scope="module")
def alone(train: Command) -> Done:
    """A run in one process."""
    done = train(*ATTACKED, "trainer=cpu")
    assert done.status == 0, done.err
    return done


@pytest.mark.slow
def test_two_processes_train_what_one_does(alone: Done, train: Command) -> None:
    done = train(*ATTACKED, "trainer=ddp")
    assert done.status == 0, done.err
    assert done.err == ""
    assert done.out.count("epoch 1/2") == 1
    assert [path.name for path in done.cwd.iterdir()] == ["outputs"]
    names = [sorted(path.name for path in run.folder.iterdir() if "tfevents" not in path.name) for run in (done, alone)]
    assert names[0] == names[1]
    assert done.results["num_processes"] == 2
    for name in ("test/acc", "test/loss", "val/acc", "val/robust_acc", "checkpoint_epoch"):
        assert done.results[name] == pytest.approx(alone.results[name], abs=1e-4)
    for key, weight in alone.weights.items():
        difference = (done.weights[key] - weight).abs()
        assert difference.max() < 1e-3, key  # Adam makes much of the rounding of a gradient near zero
        assert difference.mean() < 1e-5, key
    rows = [list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines())) for run in (done, alone)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for row, other in zip(*rows, strict=True):
        for name in ("train/loss", "train/acc", "val/loss", "val/robust_acc"):
            if row[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-3)
    counted = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Throughput"]
    assert counted["num_images"] == 2 * 1400


@pytest.mark.slow
def test_torchrun_starts_them_as_well(alone: Done, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = (*ATTACKED, "trainer=ddp", "trainer.accelerator=cpu")
    done = subprocess.run(
        [*command, str(ROOT / "train.py"), *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "digits-paper").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert results["num_processes"] == 2
    assert results["test/acc"] == pytest.approx(alone.results["test/acc"], abs=1e-4)


def test_an_analysis_runs_in_one_process(alone: Done, analyze: Command) -> None:
    done = analyze(f"ckpt_path={alone.folder}", "analysis=filters", "trainer=ddp")
    assert done.status == 1
    assert done.err == "error: trainer=ddp is for training, and an analysis runs in one process: leave it out\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", "trainer=ddp", "seed=0,1"), "trainer=ddp cannot be part of a sweep"),
        (("trainer=ddp", "trainer.devices=0"), "trainer.devices must be a whole number of at least 1, got 0"),
        (("trainer=cpu", "trainer.devices=2"), "more than one process: set trainer=ddp as well"),
        (("trainer=ddp", "trainer.num_nodes=2"), "use torchrun or srun, see docs/sweeps.md"),
        pytest.param(("trainer=ddp", "data.batch_size=1499"), "too few for 2 processes", marks=pytest.mark.slow),
        pytest.param(("trainer=ddp", "model.lr=1e30"), "lower model.lr=1e+30", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], message: str, warm: Warm, tmp_path: Path) -> None:
    words = (*options, "data=digits", "callbacks=none", "trainer.max_epochs=1")
    status, _, err = warm.run(ROOT / "train.py", words, tmp_path, {}, 120)
    assert status == 1
    assert message in err
    assert len(err.splitlines()) == 1
