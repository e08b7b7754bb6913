"""Robust accuracy counted by hand, and detection of gradient masking."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks import AttackWarning, robustness
from cnn_mnist.attacks.robustness import Masking, gradient_masking, robust_accuracy
from cnn_mnist.data.batches import Batch
from tests.attacks.conftest import linear
from tests.conftest import trained


def test_accuracy_falls_where_the_budget_reaches_the_boundary() -> None:
    model = linear(torch.eye(2, 4))  # the brighter of the first two pixels; a gap of g falls to a budget above g / 2
    images = torch.tensor([[0.6, 0.5], [0.7, 0.5], [0.5, 0.7], [0.4, 0.8]]).repeat_interleave(2, 1)[:, [0, 2, 1, 3]]
    labels = torch.tensor([0, 0, 1, 0])  # the last one is wrong without any attack
    attack = functools.partial(attacks.fgsm, model, images.view(4, 1, 2, 2), labels)
    found = robust_accuracy(lambda epsilon: attack(epsilon=epsilon), labels, [0.0, 0.06, 0.11], num_classes=3)
    assert found.epsilon.tolist() == pytest.approx([0, 0.06, 0.11])
    assert found.accuracy.tolist() == [3 / 4, 2 / 4, 0]
    assert found.by_class[:, 0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert found.by_class[:, 1].tolist() == [1, 1, 0]
    assert found.by_class[:, 2].isnan().all()


def look(model: nn.Module, digits: Batch, epsilon: float = 0.1) -> Masking:
    return gradient_masking(
        model.eval(),
        digits.images[:60],
        digits.labels[:60],
        epsilon=epsilon,
        step_size=0.02,
        steps=10,
        generator=torch.Generator().manual_seed(0),
    )


def test_an_honest_network_smells_of_nothing(digits: Batch) -> None:
    found = look(trained(False), digits)
    assert found.warnings == []
    assert found.many_steps <= found.one_step <= found.random
    assert found.huge == 0
    assert found.flat == 0


class Rounded(nn.Module):
    """Sees black and white alone: no gradient, and no protection from more than half a step of grey."""

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = trained(False)((x + 0 * x).round() + 0 * x)
        return seen


def test_a_hidden_gradient_is_smelt(digits: Batch) -> None:
    with pytest.warns(AttackWarning, match="the gradient is zero everywhere on"):
        found = look(Rounded(), digits)
    assert any("the gradient is zero everywhere on" in warning for warning in found.warnings), found


class Saturated(nn.Module):
    """Logits so large that the cross-entropy of what is right is exactly zero, and so is its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = trained(False)(x)
        return 1e4 * logits


def test_large_logits_are_no_hidden_gradient(digits: Batch) -> None:
    x = digits.images[:5].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(Saturated().eval()(x), trained(False)(x).argmax(1)), x)
    assert gradient.abs().max() == 0
    assert look(Saturated(), digits).warnings == []


@pytest.mark.parametrize(
    ("weak", "words"),
    [("pgd", "one step fools more than 10 (accuracy"), ("both", "random noise fools more than the att")],
)
def test_an_attack_that_does_worse_than_a_simpler_one_is_smelt(
    weak: str, words: str, digits: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(model: nn.Module, images: Tensor, labels: Tensor, **options: object) -> attacks.AttackResult:
        return attacks.fgsm(model, images, labels, epsilon=1e-6)

    monkeypatch.setattr(robustness, "pgd", nothing)
    if weak == "both":
        monkeypatch.setattr(robustness, "fgsm", nothing)
    found = look(trained(False), digits, epsilon=0.5)
    assert any(warning.startswith(words) for warning in found.warnings), found
    assert any(warning.startswith("one step") for warning in found.warnings) == (weak == "pgd")


class Ramp(nn.Module):
    """Flat where the first pixel is below 0.6; above it, the second class wins."""

    def forward(self, x: Tensor) -> Tensor:
        ahead = 10 * (x[:, 0, 0, :1] - 0.6).relu() - 1
        return torch.cat([0 * ahead, ahead], 1)


@pytest.mark.filterwarnings("error")
def test_a_start_without_a_gradient_is_no_warning_where_another_succeeds() -> None:
    images = torch.full((20, 1, 2, 2), 0.5)
    found = attacks.pgd(Ramp().eval(), images, 0, epsilon=0.3, step_size=0.1, steps=10, restarts=30)
    assert found.success.all()
    flat = torch.tensor(-1.0).exp().log1p()  # the cross-entropy there
    assert ((found.trace[0] - flat).abs() < 1e-4).any()  # where some began


def test_all_starts_without_a_gradient_are_one() -> None:
    images = torch.full((20, 1, 2, 2), 0.5)
    with pytest.warns(AttackWarning, match="zero everywhere on 20 of 20 images"):
        attacks.pgd(Ramp().eval(), images, 0, epsilon=0.05, step_size=0.1, steps=10, restarts=3)
