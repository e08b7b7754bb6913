"""Attacks on linear models, where the optimum is known, and beside foolbox on a trained network."""

import copy

import foolbox
import pytest
import torch
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.data.batches import Batch
from tests.attacks.conftest import WEIGHT, linear
from tests.conftest import trained

GREY = torch.full((1, 1, 2, 2), 0.5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two_classes(direction: Tensor, bias: float) -> nn.Module:
    """Logits (-m, m) / 2 with m = direction . x + bias: the boundary is a plane."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data = torch.stack([-direction, direction]) / 2
    model[1].bias.data = torch.tensor([-bias, bias]) / 2
    return model.eval()


def test_fgsm_moves_every_pixel_by_the_sign_of_its_weight() -> None:
    model = two_classes(torch.tensor([2.0, -1.0, 0.5, 0.0]), -3)
    result = attacks.fgsm(model, GREY, torch.tensor([0]), epsilon=0.2)
    torch.testing.assert_close(result.perturbation.flatten(), torch.tensor([0.2, -0.2, 0.2, 0.0]))
    towards = attacks.fgsm(model, GREY, 0, epsilon=0.7, targeted=True)
    torch.testing.assert_close(towards.images.flatten(), torch.tensor([0.0, 1.0, 0.0, 0.5]))
    assert towards.target.tolist() == [0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_ends_in_the_best_corner_of_its_ball(norm: str) -> None:
    direction = torch.tensor([2.0, -1.0, 0.5, 1.0])
    result = attacks.pgd(
        two_classes(direction, -9), GREY, 0, epsilon=0.2, step_size=0.1, steps=20, norm=norm, generator=generator()
    )
    best = 0.2 * (direction.sign() if norm == "linf" else direction / direction.norm())
    torch.testing.assert_close(result.perturbation.flatten(), best, atol=5e-4, rtol=0)
    assert not result.success.any()


def test_pgd_returns_an_image_that_is_wrong_already_as_it_is() -> None:
    model = two_classes(torch.tensor([1.0, 1.0, 1.0, 1.0]), -1)  # 0.5 everywhere is of class 1
    result = attacks.pgd(
        model,
        GREY.expand(2, -1, -1, -1),
        torch.tensor([0, 1]),
        epsilon=0.1,
        step_size=0.05,
        steps=3,
        generator=generator(),
    )
    assert result.success.tolist() == [True, False]
    assert result.steps.tolist() == [0, 3]
    assert result.perturbation[0].abs().max() == 0


def test_pgd_takes_the_shortest_way_out_when_it_stops_early() -> None:
    model = two_classes(torch.tensor([1.0, 0.0, 0.0, 0.0]), -0.65)  # wrong from the first pixel's 0.65 on
    options = {"epsilon": 0.3, "step_size": 0.1, "steps": 10}
    early = attacks.pgd(model, GREY, 0, **options, generator=generator())
    late = attacks.pgd(model, GREY, 0, **options, early_stop=False, generator=generator())
    assert early.success.all()
    assert late.success.all()
    assert early.images[0, 0, 0, 0] < 0.76
    assert late.images[0, 0, 0, 0] == pytest.approx(0.8)
    assert early.steps < late.steps == 10


def test_restarts_find_what_one_start_misses() -> None:
    class Well(nn.Module):
        """Wrong where the first pixel is far from grey, so that the start decides."""

        def forward(self, x: Tensor) -> Tensor:
            far = (x[:, 0, 0, 0] - 0.5).abs() - 0.09
            return torch.stack([torch.zeros_like(far), far], 1) * 100

    x = GREY.expand(40, -1, -1, -1)
    counts = [
        int(
            attacks.pgd(
                Well().eval(), x, 0, epsilon=0.1, step_size=1e-4, steps=1, restarts=n, generator=generator()
            ).success.sum()
        )
        for n in (1, 5, 40)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_deepfool_goes_straight_over_the_boundary() -> None:
    direction = torch.tensor([0.3, -0.4, 0.0, 0.0])
    result = attacks.deepfool(two_classes(direction, -0.05), GREY, 0, overshoot=0.02)
    distance = (0.05 + 0.05) / 0.5  # |m| / |gradient of m|, m = 0.15 - 0.2 - 0.05
    torch.testing.assert_close(result.perturbation.flatten(), 1.02 * distance * direction / 0.5, atol=1e-6, rtol=0)
    assert result.steps.tolist() == [1]
    assert result.success.all()


def test_deepfool_aimed_at_a_class_goes_over_its_boundary_and_no_nearer_one() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0]]))
        model[1].bias.copy_(torch.tensor([0.55, 0.0, 0.15]))  # at grey: 0.55, 0.5, 0.4
    result = attacks.deepfool(model, GREY, 2, targeted=True)
    assert result.target.tolist() == result.predicted.tolist() == [2]
    change = torch.tensor([0.0, 0.15 / 0.5 * 1.02, 0.0, 0.0])  # 0.15 behind the highest, along its own slope of 0.5
    torch.testing.assert_close(result.perturbation.flatten(), change, atol=1e-6, rtol=0)
    assert attacks.deepfool(model, GREY, 0).predicted.tolist() == [1]  # not aimed: the nearest


def test_targeted_ends_beside_the_boundary() -> None:
    direction = torch.tensor([3.0, -4.0, 0.0, 0.0])
    model = two_classes(direction, -0.5)  # m = -1 at grey: 0.2 away
    result = attacks.targeted(model, GREY, 1, beta=1.0, steps=200, step_size=0.01, confidence=0.5)
    assert result.success.all()
    assert l2(result.perturbation).item() == pytest.approx(0.2, rel=0.1)
    already = attacks.targeted(model, GREY, 0, beta=1.0, steps=200, step_size=0.01, confidence=0.5)
    assert already.perturbation.abs().max() == 0
    assert already.steps.tolist() == [0]
    cost = model(GREY)[0, 1].item()  # the report's: the logit, and no difference yet
    assert result.trace[0].item() == pytest.approx(cost)


def test_targeted_keeps_the_most_probable_image_where_none_succeeds() -> None:
    model = two_classes(torch.tensor([1.0, 1.0, 0.0, 0.0]), -9)
    result = attacks.targeted(model, GREY, 1, beta=0.0, steps=20, step_size=0.1)
    assert not result.success.any()
    torch.testing.assert_close(result.images.flatten(), torch.tensor([1.0, 1.0, 0.5, 0.5]))


def test_noise_grows_along_the_weights_within_its_budget() -> None:
    free = attacks.noise(linear(), GREY, 1, steps=1, step_size=0.01, confidence=1.0)
    expected = 0.01 * WEIGHT[1] / WEIGHT[1].std()
    torch.testing.assert_close(free.perturbation.flatten(), expected, atol=1e-6, rtol=0)
    held = attacks.noise(linear(), GREY, 1, steps=50, step_size=0.01, confidence=1.0, epsilon=0.1)
    torch.testing.assert_close(held.perturbation.flatten(), 0.1 * WEIGHT[1].sign(), atol=1e-6, rtol=0)


def test_universal_noise_is_the_same_for_all_and_within_its_budget() -> None:
    images = torch.rand(30, 1, 2, 2, generator=generator())
    result = attacks.universal(
        linear(), images, 2, epsilon=0.3, steps=40, step_size=0.02, batch_size=10, generator=generator()
    )
    assert result.perturbation[7].flatten()[2:].tolist() == pytest.approx([0.3, -0.3])
    before = linear()(images).argmax(1) == 2
    assert result.success.sum() > before.sum()


@pytest.mark.parametrize("batchnorm", [False, True])
def test_fgsm_is_foolboxs(batchnorm: bool, digits: Batch) -> None:
    network = trained(batchnorm)
    images, labels = digits.images[:100], digits.labels[:100]
    _, theirs, fooled = foolbox.attacks.LinfFastGradientAttack()(
        foolbox.PyTorchModel(network, bounds=(0, 1)), images, labels, epsilons=0.15
    )
    ours = attacks.fgsm(network, images, labels, epsilon=0.15)
    assert ((ours.images - theirs).abs() < 1e-5).double().mean() > 0.999
    assert torch.equal(ours.success, fooled)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_leaves_as_much_accuracy_as_foolboxs(norm: str, digits: Batch) -> None:
    network = trained(False)
    images, labels = digits.images[:200], digits.labels[:200]
    epsilon, step_size, kind = {"linf": (0.08, 0.01, "LinfPGD"), "l2": (1.0, 0.15, "L2PGD")}[norm]
    attack = getattr(foolbox.attacks, kind)(abs_stepsize=step_size, steps=20)
    peer = foolbox.PyTorchModel(network, bounds=(0, 1))
    seeds = range(3)  # both start at random: single ones differ by an image or three
    theirs = []
    for seed in seeds:
        torch.manual_seed(seed)
        theirs.append(attack(peer, images, labels, epsilons=epsilon)[2].double().mean().item())
    options = {"epsilon": epsilon, "step_size": step_size, "steps": 20, "norm": norm}
    for early_stop in (True, False):
        found = (
            attacks.pgd(
                network, images, labels, early_stop=early_stop, generator=torch.Generator().manual_seed(seed), **options
            )
            for seed in seeds
        )
        ours = [result.success.double().mean().item() for result in found]
        assert sum(ours) / 3 == pytest.approx(sum(theirs) / 3, abs=0.007), (ours, theirs)
    assert 0.1 < sum(theirs) / 3 < 0.9  # else both would agree on nothing


def test_deepfool_is_about_as_near_as_foolboxs(digits: Batch) -> None:
    network = trained(False)
    images, labels = digits.images[:40], digits.labels[:40]
    _, theirs, fooled = foolbox.attacks.L2DeepFoolAttack()(
        foolbox.PyTorchModel(network, bounds=(0, 1)), images, labels, epsilons=None
    )
    ours = attacks.deepfool(network, images, labels)
    assert fooled.all()
    assert ours.success.all()
    assert l2(ours.perturbation).mean() <= 1.15 * l2(theirs - images).mean()


def test_targeted_is_about_as_near_as_carlini_and_wagners(digits: Batch) -> None:
    network = trained(False)
    images, target = digits.images[:5], (digits.labels[:5] + 3) % 10
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=150, stepsize=0.05, initial_const=1.0)
    _, theirs, fooled = attack(
        foolbox.PyTorchModel(network, bounds=(0, 1)),
        images,
        foolbox.criteria.TargetedMisclassification(target),
        epsilons=None,
    )
    ours = attacks.targeted(network, images, target, beta=6.5, steps=200, step_size=0.1, confidence=0.5)
    assert fooled.all()
    assert ours.success.all()
    assert l2(ours.perturbation).mean() <= 1.15 * l2(theirs - images).mean()


def test_non_targeted_raises_every_class_out_of_noise() -> None:
    result = attacks.non_targeted(trained(True), torch.arange(10), steps=300, step_size=0.2, generator=generator())
    assert result.success.all()
    assert (result.confidence >= 0.999).all()
    last = result.trace.gather(0, result.steps[None])[0]
    has_climbed = result.steps > 0  # the noise itself may be a class already
    assert (last > result.trace[0])[has_climbed].all()
    assert has_climbed.sum() >= 5
    start = result.images - result.perturbation
    assert start.mean().item() == pytest.approx(0.5, abs=0.01)
    assert start.std().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"epsilon": -0.1}, r"epsilon must be in 0..1, got -0.1"),
        ({"epsilon": 1.1}, r"epsilon must be in 0..1, got 1.1"),
        ({"epsilon": float("nan")}, r"epsilon must be in 0..1, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"step_size": -1}, "step_size must be at least 0, got -1"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"norm": "l1"}, "norm must be linf or l2, got l1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], line: str) -> None:
    sound = {"epsilon": 0.1, "steps": 3, "step_size": 0.1, "generator": generator()}
    with pytest.raises(ValueError, match=line):
        attacks.pgd(linear(), GREY, 0, **(sound | options))


def test_classes_must_be_as_many_as_images() -> None:
    with pytest.raises(ValueError, match=r"1 images need as many classes, got the shape \(2,\)"):
        attacks.fgsm(linear(), GREY, torch.tensor([0, 1]), epsilon=0.1)
    with pytest.raises(ValueError, match="beta must be at least 0, got -1"):
        attacks.targeted(linear(), GREY, 1, beta=-1, steps=1, step_size=0.1)


def test_what_would_spoil_an_answer_is_refused() -> None:
    class Nan(nn.Module):
        """Not a number where it is bright."""

        def forward(self, x: Tensor) -> Tensor:
            height = x.mean((1, 2, 3))
            return torch.stack([height, 2 - height], 1) / (height < 0.55)[:, None]

    with pytest.raises(ValueError, match="the model returns values that are not finite"):
        attacks.fgsm(Nan().eval(), GREY, 1, epsilon=0.2)
    with pytest.raises(ValueError, match="epsilon must be in 0..1, got -0.1"):
        attacks.noise(linear(), GREY, 1, steps=1, epsilon=-0.1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        attacks.universal(linear(), GREY, 1, epsilon=0.1, batch_size=0)
    with pytest.raises(ValueError, match="epsilon must be at least 0, got inf"):
        attacks.pgd(linear(), GREY, 1, epsilon=torch.inf, step_size=1, steps=1, norm="l2", generator=generator())

    class Cut(nn.Module):
        """Without a way back to the image."""

        def forward(self, x: Tensor) -> Tensor:
            return linear()(x.detach()).detach()

    for attack in (attacks.deepfool, lambda *given: attacks.fgsm(*given, epsilon=0.1)):
        with pytest.raises(ValueError, match="the model's answer has no gradient with respect to the images"):
            attack(Cut().eval(), GREY, 0)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"no gradients to climb in torch.inference_mode\(\)"):
        attacks.fgsm(linear(), GREY, 0, epsilon=0.1)


def test_twice_the_numbers_will_do(digits: Batch) -> None:
    network = copy.deepcopy(trained(False)).double()
    result = attacks.pgd(
        network,
        digits.images[:4].double(),
        digits.labels[:4],
        epsilon=0.1,
        step_size=0.02,
        steps=5,
        generator=generator(),
    )
    assert result.images.dtype == torch.float64


def test_a_gradient_however_small_is_followed_in_full() -> None:
    model = two_classes(torch.tensor([3e-30, 4e-30, 0.0, 0.0]), -1)
    result = attacks.pgd(model, GREY, 0, epsilon=0.4, step_size=0.4, steps=1, norm="l2", generator=generator())
    assert l2(result.perturbation).item() == pytest.approx(0.4, rel=0.01)


def test_half_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="classes must be whole numbers, got torch.float32"):
        attacks.non_targeted(trained(False), torch.tensor([3.7]), steps=1, step_size=0.1)
