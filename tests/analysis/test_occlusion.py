"""Occlusion: maps computed by hand, the fast path against the plain one, and captum."""

import math
from collections.abc import Callable

import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torch.nn.utils import prune

from cnn_mnist import checks
from cnn_mnist.analysis import occlusion
from cnn_mnist.analysis.occlusion import OcclusionMap, class_probabilities, mean_drop, occlusion_map, resistance
from cnn_mnist.data.batches import Batch
from cnn_mnist.network import CNN
from tests.conftest import trained


class Ink(nn.Module):
    """Logits: the ink in the left half, the ink in the right half."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([half.sum((1, 2, 3)) for half in images.chunk(2, 3)], 1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def corners() -> Tensor:
    """A 4x4 image: a pixel of ink on the upper left, one of half grey on the lower right."""
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1.0
    image[0, 0, 3, 3] = 0.5
    return image


def test_a_map_worked_out_by_hand(corners: Tensor) -> None:
    found = occlusion_map(Ink().eval(), corners, torch.tensor([0]), window=2, stride=2, fill=0.25)
    # left minus right: the patch lays 4 * 0.25 of ink on its half, after taking what was there
    margins = [[1.0 - 0.5, 1.0 - 1.5], [2.0 - 0.5, 1.0 - 1.0]]
    torch.testing.assert_close(found.probability, torch.tensor([[[sigmoid(m) for m in row] for row in margins]]))
    assert found.predicted.tolist() == [[[0, 1], [0, 0]]]
    torch.testing.assert_close(found.clean, torch.tensor([sigmoid(0.5)]))
    assert (found.window, found.stride, found.fill) == (2, 2, 0.25)


def test_the_last_positions_that_fit_are_kept_and_no_others(corners: Tensor) -> None:
    for window, stride, grid in ((3, 1, 2), (3, 2, 1), (1, 3, 2), (4, 1, 1)):
        found = occlusion_map(Ink().eval(), corners, torch.tensor([1]), window=window, stride=stride)
        assert found.probability.shape == found.predicted.shape == (1, grid, grid)


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("window", [1, 4, 7, 8, 14, 28])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_fast_path_equals_the_plain_one(batchnorm: bool, window: int, stride: int, digits: Batch) -> None:
    compare(trained(batchnorm), digits, window, stride, fill=0.5)


@pytest.mark.parametrize(("kernel_size", "fill"), [(3, 0.0), (3, 1.0), (7, 0.5), (11, 0.3)])
def test_the_fast_path_equals_the_plain_one_for_other_filters_and_fills(
    kernel_size: int, fill: float, digits: Batch
) -> None:
    compare(trained(True, kernel_size), digits, 5, 3, fill)


def compare(network: nn.Module, digits: Batch, window: int, stride: int, fill: float) -> None:
    images, labels = digits.images[:3], digits.labels[:3]
    fast = occlusion_map(network, images, labels, window=window, stride=stride, fill=fill)
    with torch.no_grad():
        plain = class_probabilities(network, images, window=window, stride=stride, fill=fill)
    expected = torch.stack([plain[n, ..., label] for n, label in enumerate(labels.tolist())])
    torch.testing.assert_close(fast.probability, expected, atol=1e-5, rtol=0)
    assert expected.min() < expected.max() or window == 28  # the patch matters
    first, second = plain.topk(2).values.unbind(3)
    is_clear = first - second > 1e-5
    assert torch.equal(fast.predicted[is_clear], plain.argmax(3)[is_clear])


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(8, 1), (7, 1), (8, 2), (7, 3), (4, 4), (14, 14), (28, 1)])
def test_the_mean_drop_is_captums_attribution(batchnorm: bool, window: int, stride: int, digits: Batch) -> None:
    network = trained(batchnorm)
    images, labels = digits.images[:2], digits.labels[:2]
    found = mean_drop(occlusion_map(network, images, labels, window=window, stride=stride, fill=0.5))
    expected = Occlusion(lambda x: network(x).softmax(1)).attribute(
        images,
        target=labels,
        sliding_window_shapes=(1, window, window),
        strides=(1, stride, stride),
        baselines=0.5,
        perturbations_per_eval=32,
    )
    torch.testing.assert_close(found, expected[:, 0].float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (5, 4), (27, 5)])
def test_where_the_last_patch_does_not_fit_the_mean_drop_is_that_of_the_patches_there_are(
    window: int, stride: int, digits: Batch
) -> None:
    network = trained(False)
    images, labels = digits.images[:2], digits.labels[:2]
    maps = occlusion_map(network, images, labels, window=window, stride=stride)
    total, count = torch.zeros(2, 28, 28), torch.zeros(28, 28)
    for i, row in enumerate(range(0, 28 - window + 1, stride)):
        for j, column in enumerate(range(0, 28 - window + 1, stride)):
            place = (slice(row, row + window), slice(column, column + window))
            total[(slice(None), *place)] += (maps.clean - maps.probability[:, i, j])[:, None, None]
            count[place] += 1
    torch.testing.assert_close(mean_drop(maps), total / count, atol=1e-5, rtol=0, equal_nan=True)
    # captum's last patch hangs over the edge; away from it the two are one
    theirs = Occlusion(lambda x: network(x).softmax(1)).attribute(
        images, target=labels, sliding_window_shapes=(1, window, window), strides=(1, stride, stride), baselines=0.5
    )
    hangs_over = (28 - window) // stride * stride + stride
    torch.testing.assert_close(
        mean_drop(maps)[:, :hangs_over, :hangs_over],
        theirs[:, 0, :hangs_over, :hangs_over].float(),
        atol=1e-4,
        rtol=0,
        equal_nan=True,
    )


def test_the_mean_drop_of_images_that_are_not_square_is_captums() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12 * 20, 3)).eval()
    images, labels = torch.rand(2, 1, 12, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])
    found = mean_drop(occlusion_map(model, images, labels, window=4, stride=2), size=(12, 20))
    theirs = Occlusion(lambda x: model(x).softmax(1)).attribute(
        images, target=labels, sliding_window_shapes=(1, 4, 4), strides=(1, 2, 2), baselines=0.5
    )
    torch.testing.assert_close(found, theirs[:, 0].float(), atol=1e-5, rtol=0)


class Turned(CNN):
    """A subclass of the network that sees the image upside down."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.flip(2))


def _pruned(network: CNN) -> None:
    prune.random_unstructured(network.conv2, "weight", 0.5)


def _hooked(network: CNN) -> None:
    network.conv2.register_forward_hook(lambda layer, given, output: output * 2)


def _replaced(network: CNN) -> None:
    network.norm2 = nn.Tanh()


def _its_own_forward(network: CNN) -> None:
    network.forward = lambda images: CNN.forward(network, 1 - images)  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [None, _pruned, _hooked, _replaced, _its_own_forward])
def test_a_network_that_was_changed_takes_the_plain_path(change: Callable[[CNN], None] | None, digits: Batch) -> None:
    network = Turned() if change is None else CNN()
    network.load_state_dict(trained(False).state_dict())
    if change is not None:
        change(network)
    network.eval()
    images, labels = digits.images[:2], digits.labels[:2]
    found = occlusion_map(network, images, labels, window=10, stride=6)
    occluded = images.clone()
    occluded[:, :, 6:16, 12:22] = 0.5
    with torch.no_grad():
        expected = network(occluded).softmax(1)
    torch.testing.assert_close(found.probability[:, 1, 2], expected[torch.arange(2), labels], atol=1e-5, rtol=0)


def test_a_pixel_that_no_patch_covers_has_no_mean_drop() -> None:
    maps = OcclusionMap(torch.rand(1, 6, 6), torch.zeros(1, 6, 6).long(), torch.ones(1), window=2, stride=5, fill=0.0)
    drop = mean_drop(maps)[0]
    assert drop.shape == (28, 28)
    covered = torch.tensor([row % 5 < 2 for row in range(28)])
    assert torch.equal(drop.isfinite(), covered[:, None] & covered)
    torch.testing.assert_close(drop[5:7, 10:12], (1 - maps.probability[0, 1, 2]).expand(2, 2))


def test_the_mean_drop_is_of_images_of_the_size_that_is_said(corners: Tensor) -> None:
    maps = occlusion_map(Ink().eval(), corners, torch.tensor([0]), window=2)
    assert mean_drop(maps, size=4).shape == (1, 4, 4)
    with pytest.raises(ValueError, match="maps of 3 x 3 positions are not of images of 28 x 28 pixels: set size="):
        mean_drop(maps)


def test_an_images_map_does_not_depend_on_its_batch(digits: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits.images[:7], digits.labels[:7]
    together = occlusion_map(trained(True), images, labels, window=9, stride=4)
    alone = occlusion_map(trained(True), images[5:6], labels[5:6], window=9, stride=4)
    torch.testing.assert_close(together.probability[5:6], alone.probability, atol=1e-6, rtol=0)
    monkeypatch.setattr(occlusion.incremental_occlusion, "IMAGES_AT_ONCE", 3)
    torch.testing.assert_close(
        occlusion_map(trained(True), images, labels, window=9, stride=4).probability,
        together.probability,
        atol=1e-6,
        rtol=0,
    )


def test_any_other_model_sees_no_more_at_once_than_memory_bears(corners: Tensor) -> None:
    seen = []
    model = nn.Sequential(Ink(), nn.Linear(2, 2)).eval()
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    images = corners.expand(300, 1, 4, 4)
    found = occlusion_map(model, images, torch.zeros(300, dtype=torch.long), window=1)
    assert found.probability.shape == (300, 4, 4)
    assert max(seen) <= occlusion.OCCLUDED_AT_ONCE
    assert sum(seen) == 300 * 16 + 300 + occlusion_checks(300)


def occlusion_checks(num_images: int) -> int:
    """Images that are seen once more while the model is checked."""
    return min(num_images, checks.NUM_PROBED) + checks.NUM_ALONE


def test_the_model_is_left_as_it_was(digits: Batch) -> None:
    network = trained(True)
    network.norm1.train()
    network.fc1.weight.requires_grad_(False)
    try:
        with pytest.warns(checks.ModelWarning, match="the model was in train mode"):
            occlusion_map(network, digits.images[:1], digits.labels[:1])
        assert network.norm1.training
        assert not network.norm2.training
        assert not network.fc1.weight.requires_grad
        assert network.fc2.weight.requires_grad
    finally:
        network.norm1.eval()
        network.fc1.weight.requires_grad_(True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 29}, "window must be 1..28 pixels, got 29"),
        ({"window": 0}, "window must be 1..28 pixels, got 0"),
        ({"stride": 0}, "stride must be at least 1 pixel, got 0"),
        ({"fill": 1.5}, "fill must be from 0 to 1, got 1.5"),
        ({"fill": float("nan")}, "fill must be from 0 to 1, got nan"),
    ],
)
def test_a_patch_that_cannot_be_is_refused(options: dict[str, float], words: str, digits: Batch) -> None:
    with pytest.raises(ValueError, match=words):
        occlusion_map(trained(False), digits.images[:1], digits.labels[:1], **options)


def test_what_maps_say_together_worked_out_by_hand() -> None:
    images = torch.zeros(4, 1, 4, 4)
    images[:, 0, 0, 0] = 1.0  # under the first of four patches
    labels, clean = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 0])  # the last is wrong anyway
    probability = torch.tensor(
        [[[0.2, 0.9], [1.0, 0.9]], [[0.6, 1.0], [1.0, 1.0]], [[0.1, 0.5], [0.5, 0.5]], [[0.0] * 2] * 2]
    )
    predicted = torch.tensor([[[2, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 1], [2, 1]], [[0] * 2] * 2])
    maps = OcclusionMap(probability, predicted, torch.tensor([1.0, 1.0, 0.5, 0.0]), window=2, stride=2, fill=0.5)
    found = resistance(maps, images, labels, clean, num_classes=3)
    assert found.num_images.tolist() == [2, 1, 0]
    assert found.num_resistant.tolist() == [1, 0, 0]
    assert found.confusion.tolist() == [[7, 0, 1], [1, 2, 1], [0, 0, 0]]
    assert found.drop_on_ink == pytest.approx((0.8 + 0.4 + 0.4) / 3)
    assert found.drop_on_paper == pytest.approx((0.1 + 0.0 + 0.1) / 9)
    assert found.same_digit == pytest.approx((0.4 + 0.1 + 0.0 + 0.1) / 4)
    assert found.other_digit == pytest.approx((0.1 + 0.4 + 0.5 + 0.4 + 0.5 + 0.5 + 0.5 + 0.5) / 8)
    with pytest.raises(ValueError, match="misclassified without a patch"):
        resistance(maps, images, labels, 2 - labels + 1, num_classes=3)
