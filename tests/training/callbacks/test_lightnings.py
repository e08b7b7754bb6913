"""Callbacks of Lightning's own that come as options: early stopping and the learning rate's curve."""

from pathlib import Path

from tests.conftest import Command
from tests.test_train import events


def test_a_training_that_no_longer_improves_ends_and_is_finished(train: Command, tmp_path: Path) -> None:
    words = (
        "data=digits",
        "network=mlp",
        "data.val_size=300",
        "trainer=cpu",
        "trainer.max_epochs=40",
    )
    done = train(*words, "callbacks=[none,early_stopping]", "callbacks.early_stopping.patience=2", cwd=tmp_path)
    assert done.status == 0, done.err
    found = done.results
    assert found["stopped_early"]
    assert found["epochs"] == found["checkpoint_epoch"] + 2 < 40
    again = train(f"ckpt_path={done.folder}", cwd=tmp_path)
    assert again.status == 0, again.err
    assert "has finished its training already" in again.out
    assert again.results == found


def test_early_stopping_without_a_hold_out_is_one_line(train: Command) -> None:
    done = train("data=digits", "trainer=cpu", "callbacks=[default,early_stopping]")
    assert done.status == 1
    says = "callbacks.early_stopping watches val/acc, but there is no hold-out: set data.val_size=..."
    assert done.err == f"error: {says}\n"


def test_the_learning_rate_is_a_curve(train: Command, analyze: Command, tmp_path: Path) -> None:
    words = (
        "data=digits",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "model.schedule=one_cycle",
        "model.lr=3e-3",
        "trainer.log_every_n_steps=5",
    )
    done = train(*words, "callbacks=[none,lr_monitor]", "callbacks.lr_monitor.logging_interval=step", cwd=tmp_path)
    assert done.status == 0, done.err
    rates = [one.value for one in events(done.folder).Scalars("lr-AdamW")]
    assert max(rates) <= 3e-3
    assert rates[-1] < rates[0]
    assert "lr-AdamW" in (done.folder / "metrics.csv").read_text().splitlines()[0]
    looked = analyze("analysis=training", cwd=tmp_path)
    assert looked.status == 0, looked.err
