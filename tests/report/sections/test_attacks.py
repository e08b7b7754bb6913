"""The sections about attacks: what they measure is what the attacks do."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from cnn_mnist import attacks
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.report.sections.attacks.accuracy_under_attack import evaluate
from cnn_mnist.report.sections.attacks.fgsm_pgd import fgsm
from tests.conftest import seen_by, trained


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_fgsms_curve_is_one_attack_for_each_budget(epsilon: float) -> None:
    subject = seen_by(trained(True), DataModule("digits").ready())
    budgets = [0.0, 0.01, 0.1, 0.3, 1.0]
    part = fgsm(subject, epsilon=epsilon, target=None, num_images=297, epsilons=budgets)
    assert subject.test is not None
    results = [attacks.fgsm(subject.network, *subject.test[:], epsilon=budget) for budget in budgets]
    expected = [1 - result.success.double().mean().item() for result in results]
    assert part.findings["robust_accuracy"]["robust_acc"] == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) == 5


@pytest.mark.parametrize(
    ("attack", "norm", "line"),
    [
        (lambda images, budget: images, "linf", "mine must return an AttackResult, got Tensor: see attacks.judge"),
        (lambda images, budget: images + budget, "linf", r"must return images in \[0, 1\], got 0.3..1.3: clamp them"),
        (
            lambda images, budget: 1 - images,
            "linf",
            "broke an image by changing a pixel by 1, with an epsilon of 0.3",
        ),
        (
            lambda images, budget: 1 - images,
            "l2",
            "broke an image by changing it, in the L2 norm, by .* of 0.3",
        ),
    ],
)
def test_an_attack_that_does_not_keep_its_budget_is_refused(
    attack: Callable[[Tensor, float], Tensor], norm: str, line: str
) -> None:
    subject = seen_by(trained(False), DataModule("digits").ready())

    def mine(images: Tensor, labels: Tensor, budget: float) -> Any:
        moved = attack(images, budget)
        return moved if moved is images else attacks.judge(subject.network, images, moved, labels)

    with pytest.raises(ValueError, match=line):
        evaluate("mine", subject, mine, 0.3, num_images=10, norm=norm)
