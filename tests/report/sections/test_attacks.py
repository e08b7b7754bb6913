"""The sections about attacks: what they measure is what the attacks do."""

import pytest

from cnn_mnist import attacks
from cnn_mnist.data.datamodule import DataModule
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
