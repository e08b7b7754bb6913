"""Properties of every attack: a true result within bounds, and an unchanged model."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cnn_mnist.attacks import AttackResult, AttackWarning
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.data.batches import Batch
from tests.attacks.conftest import ALL, TARGETED
from tests.conftest import trained

N = 6


@pytest.fixture(scope="module")
def images(digits: Batch) -> Tensor:
    return digits.images[:N]


@pytest.fixture(scope="module")
def uneven(images: Tensor) -> Tensor:
    """The images without flat areas.

    After steps of one length in every pixel, patches of a flat area are still equal, and rounding decides which of them
    a max-pool passes the gradient to.
    """
    return 0.9 * images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classes(name: str, digits: Batch) -> Tensor:
    """Labels, or targets that are not the label."""
    labels = digits.labels[:N]
    return (labels + 1) % 10 if name in TARGETED else labels


def run(name: str, images: Tensor, classes: Tensor, model: nn.Module | None = None) -> AttackResult:
    return ALL[name](model or trained(False), images, classes)


FOUND: dict[str, AttackResult] = {}  # each attack's result on the images, made when it is first asked for


@pytest.fixture
def result(name: str, images: Tensor, classes: Tensor) -> AttackResult:
    if name not in FOUND:
        FOUND[name] = run(name, images, classes)
    return FOUND[name]


def test_the_record_is_what_the_model_says(name: str, images: Tensor, classes: Tensor, result: AttackResult) -> None:
    assert result.images.shape == result.perturbation.shape == images.shape
    assert result.images.dtype == torch.float32
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    with torch.no_grad():
        probability = trained(False)(result.images).softmax(1)
    assert torch.equal(result.predicted, probability.argmax(1))
    if name in TARGETED:
        expected = classes if name != "universal" else classes[:1].expand(N)
        assert torch.equal(result.target, expected)
        torch.testing.assert_close(result.confidence, probability.gather(1, expected[:, None])[:, 0])
        assert not (result.success & (result.predicted != expected)).any()
    else:
        assert (result.target == -1).all()
        torch.testing.assert_close(result.confidence, probability.amax(1))
        assert torch.equal(result.success, result.predicted != classes)
    assert result.success.any()
    if name not in ("non_targeted", "universal"):
        torch.testing.assert_close(result.images, images + result.perturbation)
    if name == "universal":
        assert (result.perturbation == result.perturbation[:1]).all()
        torch.testing.assert_close(result.images, (images + result.perturbation).clamp(0, 1))


def test_the_trace_is_as_long_as_the_steps(name: str, result: AttackResult) -> None:
    assert result.trace.shape[1] == N
    looks = (~result.trace.isnan()).sum(0)
    restarts = {"pgd": 2, "pgd_to_the_end": 2, "apgd_targeted_l2": 9, "fab": 9, "carlini_wagner": 3}.get(name, 1)
    if name == "auto":
        assert result.trace.shape[0] == 4  # one for each attack
        return
    if name.startswith("boundary"):
        assert (looks <= result.steps / 20).all()  # each round asks for many answers
        return
    if restarts == 1:
        after = 0 if name.startswith("fgsm") else 1  # a single step is not looked back at
        assert torch.equal(looks[result.steps > 0], result.steps[result.steps > 0] + after)
    else:  # one look more than steps from each start
        assert ((looks - result.steps >= 0) & (looks - result.steps <= restarts)).all()


def test_the_model_is_left_as_it_was(name: str, images: Tensor, classes: Tensor) -> None:
    model = trained(True)
    model.fc1.weight.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    model.norm2.eval()
    try:
        with pytest.warns(AttackWarning, match="in train mode"):
            run(name, images, classes, model)
        assert model.training
        assert not model.norm2.training
        assert not model.fc1.weight.requires_grad
        assert model.fc2.weight.requires_grad
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
    finally:
        model.eval()
        model.fc1.weight.requires_grad_(True)


def test_an_image_does_not_mind_its_batch(
    name: str, uneven: Tensor, classes: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision, where rounding is too small for any number of steps to make much of it."""
    if name == "universal":
        pytest.skip("its one noise is fitted on the whole batch")
    model = copy.deepcopy(trained(False)).double()
    whole = run(name, uneven.double(), classes, model)
    monkeypatch.setattr("cnn_mnist.attacks.gradient_ascent.batch_size", lambda device: 3)
    part = run(name, uneven[:5].double(), classes[:5], model)  # in other company, and three at a time
    assert torch.equal(part.success, whole.success[:5])
    assert torch.equal(part.steps, whole.steps[:5])
    torch.testing.assert_close(part.images, whole.images[:5], atol=1e-5, rtol=0)
    assert torch.equal(part.perturbation.sign().abs(), whole.perturbation[:5].sign().abs())


@pytest.mark.parametrize("seed", range(3))
def test_a_result_does_not_depend_on_how_many_images_follow(name: str, seed: int) -> None:
    """The network is so steep that the attacks take different numbers of steps on different images."""
    if name == "universal":
        pytest.skip("its one noise is fitted on the whole batch")
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.double, generator=generator)
    images = torch.rand((N, 1, 8, 8), dtype=torch.double, generator=generator)
    classes = (model(images).argmax(1) + (name in TARGETED)) % 10
    whole = run(name, images, classes, model)
    for number in (1, 3):
        part = run(name, images[:number], classes[:number], model)
        assert torch.equal(part.steps, whole.steps[:number])
        torch.testing.assert_close(part.images, whole.images[:number], atol=1e-9, rtol=0)


def test_in_single_precision_rounding_is_all_that_a_batch_changes(
    name: str, images: Tensor, classes: Tensor, result: AttackResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "universal":
        pytest.skip("its one noise is fitted on the whole batch")
    monkeypatch.setattr("cnn_mnist.attacks.gradient_ascent.batch_size", lambda device: 3)
    part = run(name, images[:5], classes[:5])
    assert torch.equal(part.success, result.success[:5])
    assert torch.equal(part.steps, result.steps[:5])
    assert (part.images - result.images[:5]).abs().max() < 0.01
    norms, wholes = (l2(found.perturbation[:5])[:, 0, 0, 0] for found in (part, result))
    torch.testing.assert_close(norms, wholes, rtol=0.02, atol=1e-3)


def test_it_repeats_itself_and_leaves_the_global_generator_alone(
    name: str, images: Tensor, classes: Tensor, result: AttackResult
) -> None:
    state = torch.get_rng_state()
    again = run(name, images, classes)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(again, result, strict=True))


def test_fooling_images_need_a_class_and_logits_as_well(images: Tensor) -> None:
    """All that start from images are in `test_any_model`."""
    model = nn.Sequential(trained(False), nn.Softmax(1)).eval()
    with pytest.raises(ValueError, match="returns probabilities, whose gradients vanish: take its softmax off"):
        run("non_targeted", images, torch.arange(N), model)
    for wrong in (10, -1):
        with pytest.raises(ValueError, match=f"target must be a class, 0..9, got {wrong}"):
            run("non_targeted", images, torch.full((N,), wrong))


def test_a_model_without_a_gradient_is_pointed_out(name: str, images: Tensor) -> None:
    class Steep(nn.Module):
        """Sees black and white alone: a step function, flat everywhere."""

        def forward(self, x: Tensor) -> Tensor:
            seen = (x - 0.5).sign().clamp(0, 1) + 0 * x
            return seen.flatten(1) @ torch.randn(784, 10, generator=torch.Generator().manual_seed(0))

    if name == "universal" or name.startswith(("square", "boundary")):
        pytest.skip("its cost is a mean over the batch, or it uses no gradient")
    images = images[:2] if name == "auto" else images  # its square attack goes on to the end
    predicted = Steep()(images).argmax(1)
    with pytest.warns(AttackWarning, match="the gradient is zero everywhere on"):
        run(name, images, (predicted + 1) % 10 if name in TARGETED else predicted, Steep().eval())


@pytest.mark.gpu
def test_a_gpu_does_the_same(name: str, images: Tensor, classes: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as in analyze.py
    here = run(name, images, classes)
    model = copy.deepcopy(trained(False)).cuda()
    there = run(name, images.cuda(), classes.cuda(), model)
    assert all(value.is_cuda for value in there)
    assert torch.equal(there.cpu().success, here.success)
    assert ((there.cpu().images - here.images).abs() > 1e-3).double().mean() < 0.01
