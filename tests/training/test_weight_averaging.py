"""The moving average of the weights: its arithmetic, and that the tested, stored and analysed weights are one."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import cnn_mnist
from cnn_mnist.training.weight_averaging import ExponentialMovingAverage
from tests.conftest import Command

WORDS = ("data=digits", "trainer=cpu", "model.batchnorm=true", "callbacks=[none,ema]", "callbacks.ema.decay=0.9")


class Linear(pl.LightningModule):
    """A linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


def test_it_is_the_recurrence() -> None:
    module = Linear()
    average = ExponentialMovingAverage(0.5)
    average.setup(pl.Trainer(logger=False, enable_checkpointing=False), module, "fit")
    expected = None
    for n in range(30):
        with torch.no_grad():
            module.layer.weight.copy_(torch.randn(2, 3))
        average._average_model.update_parameters(module)  # type: ignore[union-attr]
        if expected is None:
            expected = module.layer.weight.double()
        else:
            decay = min(0.5, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * module.layer.weight.double()
    assert torch.allclose(average._average_model.module.layer.weight.double(), expected, atol=1e-5)  # type: ignore[union-attr]


def test_what_is_tested_is_what_is_stored_and_resumed(train: Command, tmp_path: Path) -> None:
    whole = train(*WORDS, "trainer.max_epochs=2", cwd=tmp_path)
    assert whole.status == 0, whole.err
    images, labels = cnn_mnist.load_images("digits")
    with torch.no_grad():
        predicted = cnn_mnist.load_network(whole.folder)(images).argmax(1)
    assert (predicted == labels).double().mean() == pytest.approx(whole.results["test/acc"], abs=1e-6)
    content = torch.load(whole.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert not torch.equal(
        content["state_dict"]["network.fc2.weight"], content["current_model_state"]["network.fc2.weight"]
    )

    plain = train(*WORDS[:3], "callbacks=none", "trainer.max_epochs=2", cwd=tmp_path)
    curves = [(done.folder / "metrics.csv").read_text().count("\n") for done in (plain, whole)]
    assert curves[0] == curves[1]
    for name, weight in plain.weights.items():  # the average changes nothing in the training
        assert torch.equal(weight, content["current_model_state"][name]), name

    first = train(*WORDS, "trainer.max_epochs=1", cwd=tmp_path)
    refused = train(f"ckpt_path={first.folder}", "trainer.max_epochs=2", "callbacks=none", cwd=tmp_path)
    assert "averaging of the weights cannot begin, end or change on resuming" in refused.err
    resumed = train(f"ckpt_path={first.folder}", "trainer.max_epochs=2", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    for name, weight in whole.weights.items():
        assert torch.equal(weight, resumed.weights[name]), name
    assert json.loads(resumed.results_path.read_text())["test/acc"] == whole.results["test/acc"]
