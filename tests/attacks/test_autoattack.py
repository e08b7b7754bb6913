"""APGD, FAB, Square and the ensemble: results known by hand, and those of the reference implementation."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.autoattack import ensemble
from cnn_mnist.attacks.autoattack.apgd import checks
from cnn_mnist.attacks.autoattack.square import bumps, side_of
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.attacks.projection import onto_hyperplane
from cnn_mnist.data.batches import Batch
from tests.attacks.conftest import linear
from tests.conftest import trained

EPSILON = 0.08


def left(result: attacks.AttackResult) -> float:
    return 1 - result.success.double().mean().item()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_the_step_to_a_hyperplane_is_the_smallest_one(norm: str, seed: int) -> None:
    dice = np.random.default_rng(seed)
    x, normal = dice.random(6), dice.normal(size=6)
    low, high = -x, 1 - x
    reach = np.where(normal > 0, high, low) @ normal  # as far as the grey values allow
    amount = 0.6 * reach
    step = onto_hyperplane(
        *(torch.from_numpy(value).view(1, 1, 2, 3) for value in (x, normal)), torch.tensor([amount]), norm
    ).flatten()
    assert step.numpy() @ normal == pytest.approx(amount, rel=1e-5)
    assert ((step.numpy() >= low - 1e-9) & (step.numpy() <= high + 1e-9)).all()
    if norm == "linf":  # the least t with every change within -t..t
        bounds = [*zip(low, high, strict=True), (0, None)]
        within = np.block([[np.eye(6), -np.ones((6, 1))], [-np.eye(6), -np.ones((6, 1))]])
        found = linprog([0] * 6 + [1], within, np.zeros(12), [[*normal, 0]], [amount], bounds)
        assert step.abs().max().item() == pytest.approx(found.fun, rel=1e-5)
    else:
        on_plane = {"type": "eq", "fun": lambda d: d @ normal - amount}
        found = minimize(lambda d: d @ d, np.zeros(6), bounds=list(zip(low, high, strict=True)), constraints=on_plane)
        assert step.norm().item() ** 2 == pytest.approx(found.fun, rel=1e-4)


def test_where_the_plane_is_out_of_reach_the_step_goes_as_far_as_it_can() -> None:
    images = torch.tensor([0.25, 0.5, 1.0]).view(1, 1, 1, 3)
    step = onto_hyperplane(images, torch.tensor([1.0, -1.0, 1.0]).view(1, 1, 1, 3), torch.tensor([9.0]), "linf")
    assert (images + step).flatten().tolist() == pytest.approx([1, 0, 1])
    flat = onto_hyperplane(images, torch.zeros(1, 1, 1, 3), torch.tensor([1.0]), "l2")
    assert not flat.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_to_a_hyperplane_does_not_depend_on_the_others(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images, normals = (torch.rand((16, 1, 4, 4), dtype=torch.double, generator=generator) for _ in range(2))
    amounts = torch.linspace(0.01, 1.2, 16, dtype=torch.double) * (normals * (1 - images)).sum((1, 2, 3))
    together = onto_hyperplane(images, normals, amounts, norm)
    alone = [
        onto_hyperplane(*rows, norm) for rows in zip(images.split(1), normals.split(1), amounts.split(1), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_periods_become_shorter_as_published() -> None:
    assert checks(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}


def test_squares_become_smaller_as_published() -> None:
    shares = {0: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625, 8001: 0.0015625}
    size = torch.Size((28, 28))
    assert [side_of(query, size) for query in shares] == [
        max(round((share * 784) ** 0.5), 1) for share in shares.values()
    ]


@pytest.mark.parametrize("side", [3, 5, 8])
def test_the_bumps_of_a_square_have_opposite_signs(side: int) -> None:
    both = bumps(side, torch.zeros(1))
    assert both.norm().item() == pytest.approx(1)
    assert (both[: side // 2] > 0).all()
    assert (both[side // 2 :] < 0).all()
    lower = both[side // 2 :].abs()
    assert lower.max() == lower[(side - side // 2) // 2, side // 2]  # it falls off from its centre


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["ce", "dlr", "targeted", "fab", "square"])
def test_they_find_what_a_linear_model_has_nearest(attack: str, norm: str) -> None:
    """Four grey pixels away from their limits: the distance to each boundary is known."""
    weight = torch.tensor([[1.0, -2.0, 0.0, 0.5], [-1.0, 1.0, 0.0, 0.5], [0.0, 0.0, 3.0, -3.0], [0.1, 0.2, 0.1, -0.2]])
    model = linear(weight)
    images = torch.tensor([[0.6, 0.5, 0.5, 0.4], [0.5, 0.6, 0.4, 0.5], [0.5, 0.5, 0.56, 0.5]]).view(3, 1, 2, 2)
    logits = model(images)
    labels = logits.argmax(1)
    lead = logits.gather(1, labels[:, None]) - logits
    slope = weight[labels][:, None] - weight
    slope = slope.abs().sum(2) if norm == "linf" else slope.norm(dim=2)
    distance = (lead / slope).nan_to_num(torch.inf).amin(1)
    run: dict[str, Callable[..., attacks.AttackResult]] = {
        "fab": attacks.fab,
        "square": functools.partial(attacks.square, queries=3000),
    }
    run |= {loss: functools.partial(attacks.apgd, loss=loss) for loss in ("ce", "dlr", "targeted")}
    for k, far in enumerate(distance.tolist()):
        is_exact = attack in ("targeted", "fab") or (attack, norm) == ("square", "linf")  # the others mix the classes
        for share, is_broken in ((0.9, False), (1.1 if is_exact else 2.5, True)):
            fewer = {} if is_broken else {"queries": 300} if attack == "square" else {"steps": 30}  # it is out of reach
            found = run[attack](model, images[k : k + 1], labels[k : k + 1], epsilon=share * far, norm=norm, **fewer)
            assert found.success.item() == is_broken, (k, share)
            moved = found.perturbation.abs().amax() if norm == "linf" else l2(found.perturbation)
            assert moved.item() <= share * far + 1e-6


def digits_of(digits: Batch, number: int) -> tuple[Tensor, Tensor]:
    return digits.images[:number], digits.labels[:number]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", pytest.param("fab-t", marks=pytest.mark.slow), "square"])
def test_each_leaves_as_much_accuracy_as_the_reference(name: str, norm: str, digits: Batch) -> None:
    network, (images, labels) = trained(False), digits_of(digits, 50)
    epsilon = {"linf": 0.06, "l2": 0.7}[norm]
    peer = AutoAttack(
        network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, version="standard", device="cpu", seed=0
    )
    peer.attacks_to_run = [name]
    peer.square.n_queries, peer.fab.n_iter, peer.apgd.n_iter, peer.apgd_targeted.n_iter = 300, 20, 40, 20
    theirs = peer.run_standard_evaluation(images, labels, batch_size=100)[0]
    with torch.no_grad():
        expected = (network(theirs).argmax(1) == labels).double().mean().item()
    ours: dict[str, Callable[..., attacks.AttackResult]] = {
        "apgd-ce": functools.partial(attacks.apgd, steps=40),
        "apgd-t": functools.partial(attacks.apgd, loss="targeted", steps=20),
        "fab-t": functools.partial(attacks.fab, steps=20),
        "square": functools.partial(attacks.square, queries=300),
    }
    found = left(ours[name](network, images, labels, epsilon=epsilon, norm=norm))
    assert found == pytest.approx(
        expected, abs=0.045 if name == "square" else 0.025
    )  # two images, or one: both start at random
    assert 0.1 < expected < 0.95


class Masked(nn.Module):
    """A network whose logits are so large that the cross-entropy is zero in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * trained(False)(x)


class Rounding(nn.Module):
    """Sees 20 grey values; its gradient is zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return trained(False)((x * 20).round() / 20 + 0 * x)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ensemble with fewer steps and queries."""
    fewer = {"square": {"queries": 1500}}
    members = tuple(
        one._replace(attack=functools.partial(one.attack, **fewer.get(one.name, {"steps": 25})))
        for one in ensemble.STANDARD
    )
    monkeypatch.setattr(ensemble, "STANDARD", members)


@pytest.mark.usefixtures("brief")
def test_the_ensemble_gives_each_attack_what_the_ones_before_it_left(digits: Batch) -> None:
    network, (images, labels) = trained(False), digits_of(digits, 20)
    seen: list[tuple[str, float]] = []

    def progress(name: str, accuracy: float) -> Callable[[range], Any]:
        seen.append((name, accuracy))
        return iter

    found = attacks.auto(network, images, labels, epsilon=EPSILON, progress=progress)
    alone = attacks.apgd(network, images, labels, epsilon=EPSILON, steps=25)
    assert torch.equal(found.success & (found.trace.isfinite().sum(0) <= 1), alone.success)
    assert left(found) <= left(alone)
    names = [name for name, _ in seen]
    assert [*dict.fromkeys(names)] == [one.name for one in ensemble.STANDARD][: len(names)]
    assert seen[0][1] == pytest.approx((network(images).argmax(1) == labels).double().mean().item())
    attacked = found.trace.isfinite()
    for row in range(1, 4):  # an image that is broken, or was wrong from the start, is left alone
        assert not (attacked[row] & ~attacked[row - 1]).any()
        assert not (attacked[row] & (found.trace[row - 1] > 0)).any()
    assert ((found.images - images).abs() <= EPSILON + 1e-6).all()


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore:the gradient is zero")
@pytest.mark.parametrize(
    ("model", "number", "within"),
    [(Masked(), 15, 0.005), pytest.param(Rounding(), 30, 0.05, marks=pytest.mark.slow)],
)
def test_a_masked_gradient_does_not_help(model: nn.Module, number: int, within: float, digits: Batch) -> None:
    images, labels = digits_of(digits, number)
    truth = left(attacks.auto(trained(False), images, labels, epsilon=EPSILON))
    assert left(attacks.auto(model.eval(), images, labels, epsilon=EPSILON)) <= truth + within


def test_two_classes_are_enough(digits: Batch) -> None:
    is_pair = digits.labels < 2
    images, labels = digits.images[is_pair][:10], digits.labels[is_pair][:10]
    model = nn.Sequential(trained(False), nn.Linear(10, 2, bias=False)).eval()
    model[1].weight.data = torch.eye(2, 10)
    for loss in ("dlr", "targeted"):
        assert attacks.apgd(model, images, labels, epsilon=0.3, loss=loss).success.any()
    assert attacks.auto(model, images, labels, epsilon=0.4).success.any()


@pytest.mark.parametrize(
    ("attack", "options", "line"),
    [
        (attacks.apgd, {"epsilon": 2}, r"epsilon must be in 0..1, got 2"),
        (attacks.apgd, {"epsilon": 0.1, "norm": "l1"}, "norm must be linf or l2, got l1"),
        (attacks.apgd, {"epsilon": 0.1, "loss": "cw"}, "loss must be ce, dlr or targeted, got cw"),
        (attacks.apgd, {"epsilon": 0.1, "steps": 0}, "steps must be at least 1, got 0"),
        (attacks.square, {"epsilon": 0.1, "queries": 0}, "queries must be at least 1, got 0"),
        (attacks.fab, {"epsilon": -1}, r"epsilon must be in 0..1, got -1"),
        (attacks.auto, {"epsilon": 0.1, "norm": "linf2"}, "norm must be linf or l2"),
    ],
)
def test_options_out_of_range_are_named(attack: Any, options: dict[str, Any], line: str, digits: Batch) -> None:
    with pytest.raises(ValueError, match=line):
        attack(trained(False), *digits_of(digits, 2), **options)


@pytest.mark.parametrize("attack", [attacks.apgd, attacks.fab, attacks.square, attacks.auto])
def test_without_a_budget_images_stay_as_they_are(attack: Any, digits: Batch) -> None:
    images, labels = digits_of(digits, 6)
    found = attack(trained(False), images, labels, epsilon=0)
    assert torch.equal(found.images, images)
