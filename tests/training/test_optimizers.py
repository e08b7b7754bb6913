"""Optimisers and schedules chosen as nodes, beside plain PyTorch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnn_mnist.data.batches import Shuffled
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.training.optimizers import make_optimizer, make_schedule, recorded
from tests.conftest import Command

WORDS = ("data=digits", "trainer=cpu", "callbacks=none")


def test_sgd_on_a_cosine_equals_a_plain_loop(train: Command) -> None:
    done = train(
        *WORDS, "trainer.max_epochs=2", "model.optimizer=sgd", "model.optimizer.momentum=0.8", "model.lr=0.02",
        "model.schedule=cosine", "model.weight_decay=0.01",
    )  # fmt: skip
    assert done.status == 0, done.err
    data = DataModule("digits").ready()
    torch.manual_seed(0)
    network = CNN()
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.8, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    batches = Shuffled(len(data.train), 100, seed=0)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for index in batches:
            images, labels = data.train[index]
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
    for name, weight in network.state_dict().items():
        assert torch.allclose(done.weights[f"network.{name}"], weight, atol=1e-5), name


def test_the_default_is_the_arithmetic_of_adam() -> None:
    trained = []
    for make in (
        lambda ps: make_optimizer(
            {"_target_": "torch.optim.AdamW", "fused": True, "weight_decay": 0.0}, ps, lr=1e-3, weight_decay=0.0
        ),
        lambda ps: torch.optim.Adam(ps, lr=1e-3, fused=True),
    ):
        torch.manual_seed(0)
        layer = nn.Linear(20, 5)
        optimizer = make(list(layer.parameters()))
        for _ in range(10):
            optimizer.zero_grad()
            layer(torch.randn(8, 20)).square().sum().backward()
            optimizer.step()
        trained.append(layer.weight.detach())
    assert torch.equal(*trained)


def halved(optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A user's schedule: half the learning rate in the second half."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if 2 * step < total_steps else 0.5)


def test_a_schedule_of_ones_own_gets_the_number_of_steps() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = make_schedule(
        {"_target_": f"{__name__}.halved", "interval": "epoch"}, optimizer, lr=1.0, num_steps=90, num_epochs=4
    )
    assert made["interval"] == "epoch"
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["scheduler"].step()
    assert rates == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("hparams", "expected"),
    [
        ({}, {"optimizer": "Adam", "schedule": None}),  # a checkpoint from before there was a choice
        ({"weight_decay": 0.1}, {"optimizer": "AdamW", "optimizer.weight_decay": 0.0, "schedule": None}),
        (
            {"optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.5}, "schedule": "one_cycle"},
            {"optimizer": "SGD", "optimizer.momentum": 0.5, "schedule": "one_cycle"},
        ),
        (
            {"schedule": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}},
            {"optimizer": "Adam", "schedule": "StepLR", "schedule.step_size": 3},
        ),
    ],
)
def test_the_record_names_them(hparams: dict[str, Any], expected: dict[str, Any]) -> None:
    assert recorded(hparams) == expected


def test_a_run_with_the_users_own_optimiser_resumes(train: Command, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "model" / "optimizer").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "optimizer" / "nadam.yaml").write_text("_target_: torch.optim.NAdam\n")
    own = ("--config-dir", "my_conf", "model.optimizer=nadam")
    whole = train(*own, *WORDS, "trainer.max_epochs=2", cwd=tmp_path)
    first = train(*own, *WORDS, "trainer.max_epochs=1", cwd=tmp_path)
    refused = train(f"ckpt_path={first.folder}", "trainer.max_epochs=2", cwd=tmp_path)
    assert "torch.optim.NAdam, which is not run from a file" in refused.err
    resumed = train(*own, f"ckpt_path={first.folder}", "trainer.max_epochs=2", cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.optimizer=sdg",), "model.optimizer must be the name of a file in model/optimizer, such as sgd"),
        (("model.schedule=cosin",), "model.schedule must be null, the name of a file in model/schedule"),
        (("+model.optimizer.lr=3",), "model.optimizer.lr=3 has no effect: set model.lr"),
        (("model.optimizer=sgd", "model.optimizer.momentun=0"), "did you mean model.optimizer.momentum?"),
        (("model.optimizer._target_=torch.optim.Nope",), "optimizer torch.optim.Nope cannot be imported"),
        (("model.optimizer._target_=builtins.dict",), "optimizer builtins.dict cannot be"),
        (("model.optimizer=rmsprop", "model.optimizer.alpha=-1"), "cannot be built: Invalid alpha value: -1"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], message: str, train: Command) -> None:
    done = train(*WORDS, "trainer.max_epochs=1", *words)
    assert done.status == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1
