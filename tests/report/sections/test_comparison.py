"""Two networks on the same images."""

import pytest
import torch
from scipy.stats import binomtest

from cnn_mnist.analysis.statistics import mcnemar
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.report.prose import plain
from cnn_mnist.report.sections.comparison import comparison
from cnn_mnist.report.subject import Subject
from tests.conftest import seen_by, trained


def answers(both: int, first: int, second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many images that both, one or neither network gets right."""
    pattern = torch.tensor([[1, 1]] * both + [[1, 0]] * first + [[0, 1]] * second + [[0, 0]] * neither).bool()
    return pattern[:, 0], pattern[:, 1]


def test_mcnemar_and_the_difference() -> None:
    found = mcnemar(*answers(9871, 39, 50, 40))
    assert (found.num_images, found.first_only, found.second_only) == (10000, 39, 50)
    assert found.difference == pytest.approx(0.0011)
    assert found.p == pytest.approx(binomtest(39, 89).pvalue)
    assert found.low < 0 < found.high
    standard_error = (89 / 10000**2) ** 0.5  # of the difference, were it zero
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.03)


def test_a_clear_difference_is_one() -> None:
    found = mcnemar(*answers(900, 5, 80, 15))
    assert found.p < 1e-10
    assert 0 < found.low < found.difference < found.high


def test_two_alike_and_two_opposite_stay_within_bounds() -> None:
    same = mcnemar(*answers(10, 0, 0, 0))
    assert (same.difference, same.p) == (0, 1)
    assert same.low < 0 < same.high
    opposite = mcnemar(*answers(0, 0, 3, 0))
    assert opposite.difference == 1
    assert opposite.high <= 1


def test_the_interval_holds_the_difference_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.tensor([0.90, 0.06, 0.03, 0.01])  # both, first, second, neither
    inside = 0
    for _ in range(400):
        counts = torch.multinomial(chances, 300, replacement=True, generator=generator).bincount(minlength=4)
        found = mcnemar(*answers(*counts.tolist()))
        inside += found.low <= 0.03 - 0.06 <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_the_reports_question_is_answered_in_a_sentence() -> None:
    data = DataModule("digits")
    data.setup()
    first, second = seen_by(trained(False), data), seen_by(trained(True), data)
    first.recipe, second.recipe = {"lr": 0.1, "batchnorm": False}, {"lr": 0.1, "batchnorm": True}
    first.run, second.run = {"recipe": "paper", "fit_seconds": 10.0}, {"recipe": "paper", "fit_seconds": 15.0}
    first.other, second.other = second, first
    part = comparison(first)
    (answer,) = part.answers
    assert answer.question == "Does batch normalisation help, and what does it cost?"
    text = plain(" ".join(answer.says), part.findings)
    right = [(side.network(data.test[:].images).argmax(1) == data.test.labels) for side in (first, second)]
    accuracy = f"the network with batch norm classifies {right[1].double().mean():.2%} correctly"
    assert accuracy.replace("%", " %") in text
    points = 100 * (right[1].double().mean() - right[0].double().mean()).item()
    assert f"a difference of {points:+.2f} percentage points" in text
    assert "different options" not in text
    assert "Training took 1.50 times as long: 15 s against 10 s." in text
    assert part.findings["first_only"] == int((right[0] & ~right[1]).sum())
    assert speaks_of_the_lab_report(first, second)
    assert not speaks_of_the_lab_report(second, first)
    second.recipe["lr"] = 0.2
    assert not speaks_of_the_lab_report(first, second)
    second.recipe, second.network = first.recipe, first.network  # another seed
    assert not speaks_of_the_lab_report(first, second)


def speaks_of_the_lab_report(first: Subject, second: Subject) -> bool:
    """Whether the comparison of two networks on MNIST says what batch normalisation does."""
    first.other, second.other, first.dataset = second, first, "mnist"
    return "lab_report_time_ratio" in comparison(first).findings


def test_where_more_than_batch_normalisation_differs_that_is_said() -> None:
    data = DataModule("digits")
    data.setup()
    first, second = seen_by(trained(False), data), seen_by(trained(True), data)
    first.recipe = {"lr": 0.1, "schedule": None, "batchnorm": False, "seed": 1}
    second.recipe = {"lr": 0.01, "schedule": "one_cycle", "batchnorm": True, "seed": 1}
    first.run = second.run = {"recipe": "paper"}
    first.other, second.other = second, first
    part = comparison(first)
    assert part.answers[0].question.startswith("Is the network with batch norm better than")
    text = plain(" ".join(part.answers[0].says), part.findings)
    assert "different options: lr (0.1 and 0.01), schedule (none and one_cycle), batchnorm (no and yes)." in text
