"""Carlini and Wagner's attack, and HopSkipJump: results known by hand, and those of foolbox."""

from typing import Any

import foolbox
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.attacks.result import lead
from cnn_mnist.attacks.smallest_change.boundary import most_rounds, probes
from cnn_mnist.data.batches import Batch
from tests.attacks.conftest import linear
from tests.conftest import trained

IMAGES = torch.tensor([[0.6, 0.5, 0.5, 0.4], [0.5, 0.6, 0.4, 0.5], [0.5, 0.5, 0.56, 0.5]]).view(3, 1, 2, 2)


def distances(model: nn.Module, norm: str = "l2") -> tuple[Tensor, Tensor]:
    """The classes of `IMAGES`, and how far the nearest boundary of the linear model is."""
    logits, weight = model(IMAGES), model[1].weight.detach()  # type: ignore[index]
    labels = logits.argmax(1)
    ahead = logits.gather(1, labels[:, None]) - logits
    slope = weight[labels][:, None] - weight
    slope = slope.abs().sum(2) if norm == "linf" else slope.norm(dim=2)
    return labels, (ahead / slope).nan_to_num(torch.inf).amin(1).detach()


class Constant(nn.Module):
    """Answers 0 whatever it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, -1.0])


class Decision(nn.Module):
    """Tells the predicted class and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 5 * F.one_hot(self.model(x).argmax(1), 10).to(x) - 2


def far(result: attacks.AttackResult) -> Tensor:
    return l2(result.perturbation)[:, 0, 0, 0]


def test_carlini_and_wagner_go_as_far_as_the_boundary() -> None:
    model = linear()
    labels, distance = distances(model)
    found = attacks.carlini_wagner(model, IMAGES, labels, steps=400, step_size=0.01)
    assert found.success.all()
    torch.testing.assert_close(far(found), distance, rtol=0.02, atol=1e-4)
    aimed = (labels + 1) % 3
    found = attacks.carlini_wagner(model, IMAGES, aimed, targeted=True, steps=400, step_size=0.01)
    assert found.predicted.tolist() == aimed.tolist()
    assert (far(found) >= distance - 1e-5).all()


def test_carlini_and_wagner_leave_the_class_as_far_ahead_as_asked(digits: Batch) -> None:
    images, labels = digits.images[:3], digits.labels[:3]
    near, sure = (
        attacks.carlini_wagner(trained(False), images, labels, steps=100, searches=4, confidence=confidence)
        for confidence in (0.0, 4.0)
    )
    assert sure.success.all()
    assert (lead(trained(False)(sure.images), labels) >= 4 - 1e-4).all()
    assert (far(near) < far(sure)).all()


def test_carlini_and_wagner_are_as_near_as_foolboxs(digits: Batch) -> None:
    network, images, labels = trained(False), digits.images[:5], digits.labels[:5]
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=4, steps=100, stepsize=0.05, initial_const=0.1)
    _, theirs, fooled = peer(foolbox.PyTorchModel(network, bounds=(0, 1)), images, labels, epsilons=None)
    ours = attacks.carlini_wagner(network, images, labels, searches=4, steps=100, step_size=0.05, first_weight=0.1)
    assert fooled.all()
    assert ours.success.all()
    assert 0.9 <= far(ours).mean() / l2(theirs - images).mean() <= 1.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_goes_as_far_as_the_boundary(norm: str) -> None:
    model = linear()
    labels, distance = distances(model, norm)
    found = attacks.boundary(model, IMAGES, labels, queries=4000, norm=norm)
    assert found.success.all()
    moved = found.perturbation.abs().amax((1, 2, 3)) if norm == "linf" else far(found)
    assert (moved >= distance - 1e-6).all()
    torch.testing.assert_close(moved, distance, rtol=0.15, atol=1e-4)
    for share, is_broken in ((0.9, False), (1.5, True)):
        for k, radius in enumerate((share * distance).tolist()):
            some = IMAGES[k : k + 1], labels[k : k + 1]
            within = attacks.boundary(model, *some, epsilon=radius, queries=4000, norm=norm)
            assert within.success.item() == is_broken
            assert is_broken or not within.perturbation.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump_is_as_near_as_foolboxs(norm: str, digits: Batch) -> None:
    network, images, labels = trained(False), digits.images[:12], digits.labels[:12]
    torch.manual_seed(0)
    ours = attacks.boundary(network, images, labels, queries=1200, norm=norm)
    peer = foolbox.attacks.HopSkipJumpAttack(steps=most_rounds(1200) - 1, constraint=norm)
    _, theirs, _ = peer(foolbox.PyTorchModel(network, bounds=(0, 1)), images, labels, epsilons=None)
    kind = torch.inf if norm == "linf" else 2
    mine, peers = (
        torch.linalg.vector_norm(moved, kind, (1, 2, 3)).median() for moved in (ours.perturbation, theirs - images)
    )
    assert ours.success.all()
    assert mine <= 1.1 * peers


def test_hop_skip_jump_sees_the_predicted_class_alone(digits: Batch) -> None:
    some = digits.images[:6], digits.labels[:6]
    found, told = (
        attacks.boundary(model, *some, queries=400) for model in (trained(False), Decision(trained(False)).eval())
    )
    torch.testing.assert_close(found.images, told.images)
    assert (found.trace[-1] < found.trace[0]).all()
    assert (found.steps <= 400).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("queries", [100, 137, 700])
def test_hop_skip_jump_keeps_to_its_queries(queries: int, norm: str, digits: Batch) -> None:
    asked: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return trained(False)(x)

    found = attacks.boundary(Counting().eval(), digits.images[:1], digits.labels[:1], queries=queries, norm=norm)
    assert found.steps.item() <= queries
    free = 480 + 2 + 1 + 1 + 1  # starts; probing the model, with and without a batch; before and after
    assert found.steps.item() <= sum(asked) <= found.steps.item() + free
    assert found.steps.item() >= queries / 2 * (queries > 200)


def test_hop_skip_jump_asks_more_in_each_round_as_published() -> None:
    assert [probes(k) for k in (1, 2, 3, 20_000)] == [100, 141, 173, 10_000]


@pytest.mark.filterwarnings("ignore:the gradient is zero everywhere")
@pytest.mark.parametrize("attack", [attacks.boundary, attacks.carlini_wagner])
def test_where_there_is_no_other_class_images_stay_as_they_are(attack: Any) -> None:
    found = attack(Constant().eval(), IMAGES, torch.zeros(3, dtype=torch.long))
    assert torch.equal(found.images, IMAGES)
    assert not found.success.any()


@pytest.mark.parametrize(
    ("attack", "options", "line"),
    [
        (attacks.carlini_wagner, {"steps": 0}, "steps must be at least 1, got 0"),
        (attacks.carlini_wagner, {"searches": 0}, "searches must be at least 1, got 0"),
        (attacks.carlini_wagner, {"first_weight": 0}, "first_weight must be at least"),
        (attacks.carlini_wagner, {"confidence": -1}, "confidence must be at least 0, got -1"),
        (attacks.boundary, {"norm": "l1"}, "norm must be linf or l2, got l1"),
        (attacks.boundary, {"norm": "linf", "epsilon": 2}, r"epsilon must be in 0..1, got 2"),
        (attacks.boundary, {"queries": 99}, "queries must be at least 100, got 99"),
    ],
)
def test_options_out_of_range_are_named(attack: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        attack(linear(), IMAGES, 0, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_carlini_and_wagner_succeed_in_any_precision(dtype: torch.dtype, digits: Batch) -> None:
    images, labels = digits.images[:4], digits.labels[:4]
    found = attacks.carlini_wagner(trained(False), images.to(dtype), labels, steps=60, searches=4, confidence=1.0)
    assert found.images.dtype == dtype
    assert found.success.all()
