"""Any module from images to logits, and any input: a correct result, or a one-sentence error."""

import copy
import functools
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.analysis.occlusion import occlusion_map
from cnn_mnist.attacks import AttackWarning
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.checks import FEWEST_FOR_A_SIGMOID
from cnn_mnist.data.batches import Batch
from cnn_mnist.network import CNN
from tests.attacks.conftest import ALL, TARGETED
from tests.conftest import trained

N = 4
Look = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, ...]]
LOOKS: dict[str, Look] = {name: attack for name, attack in ALL.items() if name != "non_targeted"} | {
    "occlusion": lambda model, x, y: occlusion_map(model, x, y, window=14, stride=7)[:3],
    "universal": lambda model, x, y: attacks.universal(
        model, x, y, epsilon=0.3, steps=10, step_size=0.06, batch_size=8
    ),
}


@pytest.fixture(params=sorted(LOOKS))
def look(request: pytest.FixtureRequest) -> str:
    """Every attack on images, and occlusion."""
    return str(request.param)


@pytest.fixture
def classes(look: str, digits: Batch) -> Tensor:
    labels = digits.labels[:N]
    return (labels + 1) % 10 if look in TARGETED else labels


class Wrapped(nn.Module):
    """A trained network with something done to its input or output."""

    def __init__(self, before: Callable[[Tensor], Tensor] = torch.clone, after: Callable = torch.clone) -> None:
        super().__init__()
        self.network = trained(False)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> object:
        return self.after(self.network(self.before(x)))


def test_no_result_requires_grad_though_the_images_do(look: str, classes: Tensor, digits: Batch) -> None:
    images = digits.images[:N].clone().requires_grad_()
    assert not any(value.requires_grad for value in LOOKS[look](trained(False), images, classes))
    assert images.grad is None


def test_a_model_that_works_in_place_changes_nothing(look: str, classes: Tensor, digits: Batch) -> None:
    images = digits.images[:N].clone()
    found = LOOKS[look](Wrapped(before=lambda x: x.mul_(0.9)).eval(), images, classes)
    assert torch.equal(images, digits.images[:N])
    expected = LOOKS[look](Wrapped(before=lambda x: x * 0.9).eval(), images, classes)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True))


@functools.cache
def exported() -> nn.Module:
    """A trained network as `export=torch` writes it."""
    written = io.BytesIO()
    shape = {"images": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(trained(True), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=shape), written)
    return torch.export.load(io.BytesIO(written.getvalue())).module()


def test_the_projects_own_export_is_a_model(look: str, classes: Tensor, digits: Batch) -> None:
    found = LOOKS[look](exported(), digits.images[:N], classes)
    expected = LOOKS[look](trained(True), digits.images[:N], classes)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True) if a.dtype in (torch.bool, torch.long))
    torch.testing.assert_close(found[0], expected[0], atol=0.03, rtol=0)


@pytest.mark.parametrize(("images_as", "model_as"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_images_and_model_may_differ_in_precision(
    images_as: torch.dtype, model_as: torch.dtype, look: str, classes: Tensor, digits: Batch
) -> None:
    network = CNN()
    network.load_state_dict(trained(False).state_dict())
    found = LOOKS[look](network.to(model_as).eval(), digits.images[:N].to(images_as), classes)
    assert found[0].dtype == images_as
    expected = LOOKS[look](trained(False), digits.images[:N], classes)
    if look.startswith("boundary"):  # a decision at the boundary may differ, and leads elsewhere: as near, at least
        near, expected_near = (l2(one[1].float()).flatten().sort().values for one in (found, expected))
        torch.testing.assert_close(near.mean(), expected_near.mean(), rtol=0.2, atol=0)
        return
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True) if a.dtype == torch.bool)
    differences = (found[0].float() - expected[0].float()).abs()
    assert (differences > 0.03).double().mean() < 0.01  # a sign may differ where a gradient is at rounding level


def test_a_model_in_double_precision_makes_fooling_images() -> None:
    network = CNN()
    network.load_state_dict(trained(False).state_dict())
    found = attacks.non_targeted(network.double().eval(), torch.arange(10), steps=60, step_size=0.2)
    usual = attacks.non_targeted(trained(False), torch.arange(10), steps=60, step_size=0.2)
    assert torch.equal(found.success, usual.success)
    assert found.images.dtype == torch.float32


def test_without_a_generator_the_seed_is_0(digits: Batch) -> None:
    images, labels = digits.images[:N], digits.labels[:N]
    seed = torch.Generator().manual_seed(0)
    options = {"epsilon": 0.1, "step_size": 0.03, "steps": 3}
    none, zero = (attacks.pgd(trained(False), images, labels, **options, generator=g) for g in (None, seed))
    assert torch.equal(none.images, zero.images)
    made = attacks.non_targeted(trained(False), 3, steps=2, step_size=0.2, generator=None)
    assert made.images.shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda x: x.numpy(), "images must be a torch.Tensor, got a ndarray: use torch.as_tensor"),
        (lambda x: x * 255, r"images must lie in \[0, 1\], got 0..255: these are grey values"),
        (lambda x: (x - 0.1307) / 0.3081, r"images must lie in \[0, 1\], got -0.42.*: undo their normalisation"),
        (lambda x: x * 1.0001, r"images must lie in \[0, 1\], got 0..1.0001"),
        (lambda x: x.index_fill(3, torch.tensor([4]), torch.nan), r"images must lie in \[0, 1\], got nan"),
        (lambda x: x.index_fill(3, torch.tensor([4]), torch.inf), r"images must lie in \[0, 1\], got"),
        (lambda x: x[:0], "there are no images"),
        (lambda x: x[:, 0], r"images must have the shape \(N, 1, H, W\), got"),
        (lambda x: (x * 255).byte(), "images must be floats"),
    ],
)
def test_wrong_images_are_named(spoil: Callable, line: str, look: str, classes: Tensor, digits: Batch) -> None:
    wrong = spoil(digits.images[:N])
    with pytest.raises(ValueError, match=line):
        LOOKS[look](trained(False), wrong, classes[: len(wrong)])


def test_rounding_beyond_the_limits_is_clamped(look: str, classes: Tensor, digits: Batch) -> None:
    images = digits.images[:N] / digits.images[:N].amax((1, 2, 3), keepdim=True)
    found = LOOKS[look](trained(False), images * 1.0000001, classes)
    expected = LOOKS[look](trained(False), (images * 1.0000001).clamp(0, 1), classes)
    assert torch.equal(found[0], expected[0])
    assert (images * 1.0000001).max() > 1


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (torch.full((N,), 10), "must be a class, 0..9, got 10"),
        (torch.full((N,), -1), "must be a class, 0..9, got -1"),
        (torch.zeros(N - 1, dtype=torch.long), f"{N} images need as many classes, got the shape"),
        (torch.zeros(N), "classes must be whole numbers, got torch.float32"),
    ],
)
def test_wrong_classes_are_named(labels: Tensor, line: str, look: str, digits: Batch) -> None:
    with pytest.raises(ValueError, match=line):
        LOOKS[look](trained(False), digits.images[:N], labels)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Wrapped(after=lambda y: (y, y)), "must return a tensor of logits .*, got a tuple: wrap it"),
        (Wrapped(after=lambda y: {"logits": y}), "must return a tensor of logits .*, got a dict"),
        (Wrapped(after=lambda y: y[:, :, None]), r"must return logits \(B, C\), got \(\d+, 10, 1\)"),
        (Wrapped(after=lambda y: y.softmax(1)), "returns probabilities"),
        (Wrapped(after=lambda y: y * torch.nan), "values that are not finite"),
        (Wrapped(after=lambda y: y[:, :1]), "must return a logit for each class, got one logit"),
    ],
)
def test_other_outputs_are_named(model: nn.Module, line: str, look: str, classes: Tensor, digits: Batch) -> None:
    with pytest.raises(ValueError, match=line):
        LOOKS[look](model.eval(), digits.images[:N], classes)


def test_a_sigmoid_is_pointed_out(look: str, digits: Batch) -> None:
    images, labels = digits.images[:FEWEST_FOR_A_SIGMOID], digits.labels[:FEWEST_FOR_A_SIGMOID]
    classes = (labels + 1) % 10 if look in TARGETED else labels
    with pytest.warns(AttackWarning, match=r"outputs all lie in \[0, 1\]: if it ends in a sigmoid"):
        LOOKS[look](Wrapped(after=torch.sigmoid).eval(), images, classes)


def test_batch_statistics_in_eval_mode_are_pointed_out(look: str, classes: Tensor, digits: Batch) -> None:
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(784, 10)).eval()
    with pytest.warns(AttackWarning, match=r"differ by up to .* between a batch of \d and the image alone"):
        LOOKS[look](model, digits.images[:N], classes)


def test_a_model_that_needs_a_batch_is_refused(look: str, classes: Tensor, digits: Batch) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784, track_running_stats=False), nn.Linear(784, 10)).eval()
    with pytest.raises(ValueError, match=r"cannot evaluate an image alone \(Expected more than 1 value per channel"):
        LOOKS[look](model, digits.images[:N], classes)


def test_an_honest_model_is_not_warned_of(look: str, classes: Tensor, digits: Batch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LOOKS[look](trained(True), digits.images[:N], classes)


@pytest.mark.parametrize("targeted", [False, True])
def test_a_step_of_a_confident_model_is_that_of_double_precision(targeted: bool, digits: Batch) -> None:
    """Where float32 takes the label's probability for 1, its cross-entropy has lost half of its gradient."""
    model = Wrapped(after=lambda y: 3 * y).eval()
    images, labels = digits.images[:60], digits.labels[:60]
    classes = (labels + 1) % 10 if targeted else labels
    found = attacks.fgsm(model, images, classes, epsilon=0.1, targeted=targeted)
    exact = copy.deepcopy(model).double()
    x = images.double().requires_grad_()
    cost = F.cross_entropy(exact(x), classes, reduction="sum")
    (gradient,) = torch.autograd.grad(cost, x)
    moved = (images + 0.1 * gradient.float().sign() * (-1 if targeted else 1)).clamp(0, 1)
    with torch.no_grad():
        is_one, is_one_still = (
            network(seen).softmax(1).gather(1, labels[:, None])[:, 0] == 1
            for network, seen in ((model, images), (exact, x))
        )
    compared = ~is_one_still
    assert ((moved - found.images)[compared].abs() > 1e-6).double().mean() < 0.002
    assert (is_one & compared).sum() >= 5


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_confident_logits_hide_no_gradient(scale: float, digits: Batch) -> None:
    """Ten thousand times the logits: float32's cross-entropy is zero, and its gradient."""
    images, labels = digits.images[:100], digits.labels[:100]
    model = Wrapped(after=lambda y: y * scale).eval()
    options = {"epsilon": 0.15, "step_size": 0.02, "steps": 20}
    for attack in (
        lambda m: attacks.fgsm(m, images, labels, epsilon=0.1),
        lambda m: attacks.pgd(m, images, labels, **options),
    ):
        found, usual = attack(model).success.double().mean(), attack(trained(False)).success.double().mean()
        assert found >= usual - 0.03
    targets = (labels + 1) % 10
    found = attacks.pgd(model, images, targets, **options | {"epsilon": 0.3}, targeted=True)
    assert found.success.double().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"model": lambda images: images.flatten(1)}, "the model must be a torch.nn.Module, got a function: wrap it"),
        ({"epsilon": "0.3"}, "epsilon must be a number, got '0.3'"),
        ({"generator": 0}, r"generator must be a torch.Generator, got 0: torch.Generator\(\).manual_seed\(0\)"),
    ],
)
def test_other_arguments_are_named(options: dict[str, Any], line: str, digits: Batch) -> None:
    given = {"model": trained(False), "epsilon": 0.3, "step_size": 0.1, "steps": 1, **options}
    with pytest.raises(ValueError, match=line):
        attacks.pgd(images=digits.images[:2], labels=digits.labels[:2], **given)
