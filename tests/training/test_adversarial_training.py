"""Training to withstand changes: adversarial examples, bounds, and that they help."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import is_proven
from cnn_mnist.data.batches import Batch
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.training.adversarial_training import adversarial_examples, warmed_up
from cnn_mnist.training.callbacks.robust_accuracy import RobustAccuracy
from cnn_mnist.training.module import Classifier
from tests.conftest import same, trained
from tests.training.test_module import Keep, trainer


def test_epsilon_grows_evenly_and_stays() -> None:
    assert [warmed_up(0.3, epoch, 3.0) for epoch in (0, 1.5, 3, 7)] == pytest.approx([0, 0.15, 0.3, 0.3])
    assert warmed_up(0.3, 0, 0) == 0.3


def test_images_stay_within_reach_and_are_harder(digits: Batch) -> None:
    network = trained(True)
    images, labels = digits.images[:50], digits.labels[:50]
    turned = adversarial_examples(
        network, images, labels, epsilon=0.1, steps=4, generator=torch.Generator().manual_seed(0)
    )
    assert (turned - images).abs().max() <= 0.1 + 1e-6
    assert turned.min() >= 0
    assert turned.max() <= 1
    assert not turned.requires_grad
    with torch.no_grad():
        before, after = (F.cross_entropy(network(x), labels) for x in (images, turned))
    assert after > before + 0.5
    assert network.fc1.weight.requires_grad


def fit(
    folder: Path,
    epochs: int,
    *,
    resume: Path | None = None,
    callbacks: list[pl.Callback] | None = None,
    batches: int | None = None,
    **options: object,
) -> tuple[pl.Trainer, Classifier]:
    data = DataModule("digits", seed=3)
    data.setup()
    torch.manual_seed(0)
    model = Classifier(lr=3e-3, **options)  # type: ignore[arg-type]
    fitted = trainer(folder, epochs, callbacks=callbacks, limit_train_batches=batches or 1.0)
    fitted.fit(model, data, ckpt_path=resume, weights_only=True)
    return fitted, model


QUIET = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore::FutureWarning:pytorch_lightning")


@QUIET
@pytest.mark.parametrize("bound_weight", [0.0, 0.3])
def test_it_goes_on_bit_for_bit(bound_weight: float, tmp_path: Path) -> None:
    defence = {"epsilon": 0.1, "attack_steps": 2, "warmup_epochs": 1.5, "bound_weight": bound_weight}
    defence |= {"batchnorm": bound_weight > 0, "distortion": 0.1, "elastic": 0.5, "stroke": 0.5, "cooldown_epochs": 1.5}
    _, whole = fit(tmp_path, 2, batches=5, callbacks=[Keep(tmp_path)], **defence)
    _, resumed = fit(tmp_path, 2, batches=5, resume=tmp_path / "0.ckpt", **defence)
    assert same(whole.state_dict(), resumed.state_dict())


@QUIET
def test_it_helps_and_is_measured_every_epoch(tmp_path: Path, digits: Batch) -> None:
    options = {"epsilon": 0.1, "steps": 10, "step_size": 0.025}

    def robust(model: Classifier) -> float:
        result = attacks.pgd(model, *digits, **options, generator=torch.Generator().manual_seed(0))
        return 1 - result.success.double().mean().item()

    watch = RobustAccuracy(epsilon=0.1, steps=10, num_images=1000)
    run, defended = fit(tmp_path, 4, epsilon=0.1, attack_steps=2, warmup_epochs=1.0, callbacks=[watch])
    _, plain = fit(tmp_path, 3)
    defended.eval()
    plain.eval()
    left = robust(defended)
    assert left > robust(plain) + 0.2
    assert run.callback_metrics["test/robust_acc"].item() == pytest.approx(left, abs=1e-6)
    one_step = attacks.fgsm(defended, *digits, epsilon=0.1)
    assert run.callback_metrics["test/fgsm_acc"].item() == pytest.approx(
        1 - one_step.success.double().mean().item(), abs=1e-6
    )


@QUIET
@pytest.mark.parametrize(
    ("one_step", "several", "warmup_epochs", "is_said"),
    [(0.9, 0.1, 0.0, True), (0.9, 0.8, 0.0, False), (0.1, 0.9, 0.0, False), (0.9, 0.1, 1.0, False)],
)
def test_a_collapse_is_said_once_epsilon_is_warm(
    one_step: float,
    several: float,
    warmup_epochs: float,
    is_said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leaving(accuracy: float) -> object:
        success = torch.arange(10) >= round(10 * accuracy)
        return lambda model, images, labels, **options: SimpleNamespace(success=success)

    monkeypatch.setattr(attacks, "fgsm", leaving(one_step))
    monkeypatch.setattr(attacks, "pgd", leaving(several))
    watch = RobustAccuracy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run, _ = fit(
            tmp_path, 1, batches=2, epsilon=0.1, attack_steps=1, warmup_epochs=warmup_epochs, callbacks=[watch]
        )
    said = [str(warning.message) for warning in caught if warning.category is attacks.AttackWarning]
    assert len(said) == is_said
    assert all(
        text.startswith("adversarial training has collapsed: accuracy 90.0% under one step, 10.0%") for text in said
    )
    measured = {name: run.callback_metrics[name].item() for name in ("test/fgsm_acc", "test/robust_acc")}
    assert measured == pytest.approx({"test/fgsm_acc": one_step, "test/robust_acc": several})


@QUIET
@pytest.mark.parametrize("batchnorm", [False, True])
def test_training_with_bounds_equals_a_plain_loop(batchnorm: bool, tmp_path: Path) -> None:
    """Bounds written out for the report's network, and the loss of Gowal et al. 2019 without their schedule."""
    options = {"epsilon": 0.1, "attack_steps": 0, "bound_weight": 0.4, "warmup_epochs": 1.0}
    descent = {"momentum": 0.9}  # not Adam, which makes a whole step of a gradient that is nothing but rounding
    node = {"_target_": "torch.optim.SGD", **descent}
    _, model = fit(tmp_path, 1, batches=6, batchnorm=batchnorm, optimizer=node, **options)
    data = DataModule("digits", seed=3)
    data.setup()
    torch.manual_seed(0)
    network = CNN(batchnorm)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=3e-3, **descent)
    batches = list(data.train_dataloader())[:6]
    for number, (images, labels) in enumerate(batches):
        share = number / len(batches)
        low, high = ((images + sign * 0.1 * share).clamp(0, 1) for sign in (-1, 1))
        x, blocks = (
            images,
            ((network.conv1, network.norm1), (network.conv2, network.norm2), (network.fc1, network.norm3)),
        )
        for layer, norm in blocks:
            is_map = isinstance(layer, torch.nn.Conv2d)
            plus, minus = layer.weight.clamp_min(0), layer.weight.clamp_max(0)
            apply = (lambda x, w: F.conv2d(x, w, padding=1)) if is_map else F.linear
            bias = layer.bias.view(-1, 1, 1) if is_map else layer.bias
            low, high = (apply(a, plus) + apply(b, minus) + bias for a, b in ((low, high), (high, low)))
            x = layer(x)
            if batchnorm:  # by the statistics of the images themselves
                others = [dim for dim in range(x.ndim) if dim != 1]
                mean, std = x.mean(others, True), (x.var(others, correction=0, keepdim=True) + norm.eps).sqrt()
                size, shift = (p.view(-1, 1, 1) if is_map else p for p in (norm.weight, norm.bias))
                x, low, high = ((y - mean) / std * size + shift for y in (x, low, high))
                low, high = torch.minimum(low, high), torch.maximum(low, high)  # size may be negative
            x, low, high = (F.relu(F.max_pool2d(y, 2) if is_map else y) for y in (x, low, high))
            x, low, high = (y.flatten(1) if y.shape[-1] == 7 else y for y in (x, low, high))
        ahead = network.fc2.weight - network.fc2.weight[labels][:, None]  # (B, C, 500)
        worst = (ahead.clamp_min(0) @ high[:, :, None] + ahead.clamp_max(0) @ low[:, :, None])[:, :, 0]
        worst = worst + network.fc2.bias - network.fc2.bias[labels][:, None]
        loss = (1 - 0.4 * share) * F.cross_entropy(network.fc2(x), labels)
        loss = loss + 0.4 * share * F.cross_entropy(worst, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = zip(model.network.parameters(), network.parameters(), before, strict=True)
    for ours, theirs, start in parameters:  # biases before a normalisation move by rounding alone
        assert (ours - theirs).norm() <= 0.01 * (theirs - start).norm() + 5e-3


@QUIET
def test_training_with_bounds_proves_more_and_is_measured(tmp_path: Path, digits: Batch) -> None:
    watch = RobustAccuracy(epsilon=0.05, steps=2, num_images=100)
    options = {"epsilon": 0.06, "attack_steps": 0, "warmup_epochs": 2.0, "callbacks": [watch]}
    run, proven = fit(tmp_path, 4, bound_weight=0.5, **options)
    networks = proven.network.eval(), trained(False)
    shares = [is_proven(network, *digits, epsilon=0.05).double().mean() for network in networks]
    assert shares[0] > shares[1] + 0.3
    data = DataModule("digits", seed=3)
    data.setup()
    images, labels = data.val[data.val.evenly_spaced(100)]
    share = is_proven(proven.network, images, labels, epsilon=0.05).double().mean().item()
    assert run.callback_metrics["test/certified_acc"].item() == pytest.approx(share)
