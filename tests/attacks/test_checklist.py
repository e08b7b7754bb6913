"""The checklist: copies that can be broken, and what it says of networks whose robustness is known."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.breakable import NUM_CORNERS, NUM_INNER, breakable
from cnn_mnist.attacks.checklist import GRADIENT
from cnn_mnist.data.batches import Batch
from tests.conftest import trained

SMALL = {"steps": 10, "restarts": 2, "queries": 300, "num_decision_based": 5, "num_breakable": 4}


class Rounding(nn.Module):
    """Sees 20 grey values; its gradient is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return trained(False)((x * 20).round() / 20 + 0 * x)


class Constant(nn.Module):
    """Answers 0 whatever it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :3] + torch.tensor([1.0, 0.0, -1.0])


def test_a_copy_has_one_adversarial_example_among_many(digits: Batch) -> None:
    images, epsilon = digits.images[:5], 0.1
    copies = breakable(trained(False), images, epsilon=epsilon)
    dice = torch.Generator().manual_seed(0)
    drawn = 2 * torch.rand(NUM_INNER + NUM_CORNERS, 1, 28, 28, generator=dice) - 1
    drawn[NUM_INNER:] = drawn[NUM_INNER:].sign()
    for image, one in zip(images, copies, strict=True):
        assert one is not None
        answers = one((image + epsilon * drawn).clamp(0, 1)).argmax(1)
        assert answers.sum() == 1
        assert answers[NUM_INNER:].sum() == 1
        logits = one(image[None])
        assert logits.argmax(1).item() == 0
        assert logits.sum().abs() < 1e-5  # never taken for probabilities
        found = attacks.pgd(one, image[None], 0, epsilon=epsilon, step_size=0.02, steps=30)
        assert found.success.all()


@pytest.mark.filterwarnings("ignore:the gradient is zero")
def test_an_attack_that_cannot_work_breaks_no_copy(digits: Batch) -> None:
    images = digits.images[:5]
    copies = breakable(Rounding().eval(), images, epsilon=0.1)
    for image, one in zip(images, copies, strict=True):
        assert one is not None
        assert not attacks.pgd(one, image[None], 0, epsilon=0.1, step_size=0.02, steps=30).success.any()
    assert breakable(Constant().eval(), images, epsilon=0.1) == [None] * 5


def test_an_undefended_network_is_broken_by_everything(digits: Batch) -> None:
    images, labels = digits.images[:20], digits.labels[:20]
    found = attacks.checklist(trained(False), trained(True), images, labels, epsilon=0.2, **SMALL)
    assert found.left("pgd") == found.left("apgd_ce") == 0
    assert found.curve[-1] == 0
    assert found.curve == sorted(found.curve, reverse=True)
    assert found.last_start == 0
    assert all(found.found_more(name, *GRADIENT) == 0 for name in ("square", "boundary", "transfer"))
    assert found.other_left < 0.2
    assert (found.num_copies, found.broken_copies) == (4, 1)
    assert found.num_attacked["boundary"] == 5
    with torch.no_grad():
        is_wrong = trained(False)(found.images).argmax(1) != labels
    assert torch.equal(is_wrong | ~found.is_right, torch.ones_like(is_wrong))
    assert ((found.images - images).abs() <= 0.2 + 1e-6).all()


@pytest.mark.filterwarnings("ignore:the gradient is zero")
def test_a_masked_gradient_shows(digits: Batch) -> None:
    images, labels = digits.images[:8], digits.labels[:8]
    found = attacks.checklist(Rounding().eval(), trained(False), images, labels, epsilon=0.2, **SMALL)
    assert found.left("pgd") > 0.5
    assert found.found_more("square", *GRADIENT) > 0.3
    assert found.found_more("transfer", *GRADIENT) > 0.3
    assert found.broken_copies == 0
    assert found.curve[-1] > 0.05
    assert found.under("boundary") == (found.is_right & ~found.is_broken["boundary"])[:5].double().mean()


def test_options_out_of_range_are_named(digits: Batch) -> None:
    some = trained(False), trained(True), digits.images[:2], digits.labels[:2]
    with pytest.raises(ValueError, match=r"epsilon must be in 1e-06..1, got 0"):
        attacks.checklist(*some, epsilon=0)
    with pytest.raises(ValueError, match="num_breakable must be at least 1, got 0"):
        attacks.checklist(*some, num_breakable=0)
    for name, value in (("steps", 0), ("restarts", 0), ("step_size", -0.1), ("queries", 50)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            attacks.checklist(*some, **{name: value}, progress=lambda name: pytest.fail("it has begun"))


def test_any_precision_will_do(digits: Batch) -> None:
    model = copy.deepcopy(trained(False)).double()
    found = breakable(model, digits.images[:3], epsilon=0.1)
    assert all(one is not None for one in found)

    class Offset(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.001 * trained(False)(x) + 10_000

    for one, image in zip(breakable(Offset().eval(), digits.images[:10], epsilon=0.1), digits.images, strict=False):
        assert one is None or one(image[None]).argmax(1).item() == 0
