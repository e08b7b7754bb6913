"""Training through Lightning against a plain PyTorch loop, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.data.batches import Shuffled
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.training.module import Classifier
from tests.conftest import same

EPOCHS = 2


@pytest.fixture
def data() -> DataModule:
    data = DataModule("digits", seed=3)
    data.setup()
    return data


def trainer(folder: Path, epochs: int = EPOCHS, **options: object) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,  # type: ignore[arg-type]
    )


class Keep(pl.Callback):
    """Keeps a checkpoint of every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
@pytest.mark.parametrize("schedule", [None, "one_cycle"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_equals_a_plain_loop(batchnorm: bool, schedule: str | None, data: DataModule, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classifier(batchnorm, lr=1e-2, schedule=schedule)
    fit = trainer(tmp_path)
    fit.fit(model, data)

    torch.manual_seed(0)
    network = CNN(batchnorm)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    order = Shuffled(1500, 100, seed=3)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * len(order))
    if schedule is None:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    for epoch in range(EPOCHS):
        order.set_epoch(epoch)
        losses, num_right = [], 0
        for index in order:
            images, labels = data.train[index]
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                one_cycle.step()
            losses.append(loss.item())
            num_right += int((logits.argmax(1) == labels).sum())
    assert same(network.state_dict(), model.network.state_dict())

    network.eval()
    images, labels = data.test[torch.arange(297)]
    with torch.no_grad():
        logits = network(images)
    assert fit.callback_metrics["train/acc"].item() == pytest.approx(num_right / 1500)
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(sum(losses) / 15, abs=1e-6)
    assert fit.callback_metrics["test/acc"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert fit.callback_metrics["test/loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)


def test_hyperparameters_are_plain_values() -> None:
    kept = {"batchnorm": False, "lr": 0.5, "schedule": "one_cycle", "num_classes": 7}
    kept |= {"distortion": 0.1, "elastic": 0.4, "stroke": 0.6, "label_smoothing": 0.2, "weight_decay": 0.3}
    kept |= {"cooldown_epochs": 2.0}
    defence = {"epsilon": 0.1, "attack_steps": 2, "warmup_epochs": 0.5, "bound_weight": 0.3}
    nodes = {"network": {"_target_": "cnn_mnist.network.CNN", "kernel_size": 5}}
    nodes |= {"optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9}}
    assert dict(Classifier(**kept, **defence, **nodes).hparams) == kept | defence | nodes


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"bound_weight": 0.5}, "model.epsilon and one of model.attack_steps and model.bound_weight need each other"),
        ({"epsilon": 0.3, "attack_steps": 0}, "need each other"),
    ],
)
def test_options_that_have_no_effect_together_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Classifier(**options)


def test_the_optimiser_is_fused_adam() -> None:
    optimizer = Classifier(lr=0.25).configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["fused"] is True
    assert optimizer.defaults["lr"] == 0.25


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
def test_label_smoothing_and_weight_decay_equal_a_plain_loop(data: DataModule, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classifier(True, lr=1e-3, label_smoothing=0.1, weight_decay=0.05)
    trainer(tmp_path, 1).fit(model, data)

    torch.manual_seed(0)
    network = CNN(True)
    layers = (network.conv1, network.conv2, network.fc1, network.fc2)
    weights = [layer.weight for layer in layers]
    others = [parameter for parameter in network.parameters() if all(parameter is not weight for weight in weights)]
    decayed = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05, fused=True)
    plain = torch.optim.Adam(others, lr=1e-3, fused=True)
    for index in Shuffled(1500, 100, seed=3):
        images, labels = data.train[index]
        log_probability = network(images).log_softmax(1)
        target = 0.9 * F.one_hot(labels, 10) + 0.1 / 10
        loss = -(target * log_probability).sum(1).mean()
        network.zero_grad()
        loss.backward()
        decayed.step()
        plain.step()
    for own, other in zip(model.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    data = DataModule("digits", batch_size=1500).ready()
    model = Classifier(lr=1e39)  # the one loss of the epoch is that of the weights before
    fit = trainer(tmp_path, 1, limit_val_batches=0)
    fit.fit(model, data)
    assert fit.callback_metrics["train/loss"].isfinite()
    with pytest.raises(
        ValueError, match=r"weight is not finite at step 1, with a learning rate of 1e\+39: lower model.lr"
    ):
        fit.save_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "last.ckpt").exists()


class Dropping(nn.Module):
    """A linear layer after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        logits: Tensor = self.layers(images)
        return logits


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")
def test_what_a_network_draws_is_drawn_again_after_resuming(data: DataModule, tmp_path: Path) -> None:
    weights = []
    for resumed in (None, tmp_path / "0.ckpt"):
        torch.manual_seed(0)
        model = Classifier(network={"_target_": "tests.training.test_module.Dropping"})
        keep = Keep(tmp_path)
        trainer(tmp_path, callbacks=[keep]).fit(model, data, ckpt_path=resumed, weights_only=True)
        weights.append(model.state_dict())
    assert same(*weights)
