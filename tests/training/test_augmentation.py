"""Properties of distorted images."""

import pytest
import torch
from torch import Tensor

from cnn_mnist.data.batches import Batch
from cnn_mnist.training.augmentation import distorted


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def centre(image: Tensor) -> Tensor:
    """Centre of mass in pixels, (row, column), of an image (1, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    return torch.stack([(image[0] * rows).sum(), (image[0] * columns).sum()]) / image.sum()


def test_no_distortion_changes_nothing(digits: Batch) -> None:
    same = distorted(digits.images[:20], distortion=0.0, generator=generator())
    torch.testing.assert_close(same, digits.images[:20], atol=1e-5, rtol=0)


def test_each_image_has_a_map_of_its_own_and_stays_in_range(digits: Batch) -> None:
    images = digits.images[:1].expand(50, -1, -1, -1)
    found = distorted(images, distortion=0.12, generator=generator())
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert len({tuple(image.flatten().tolist()) for image in found}) == 50
    again = distorted(images, distortion=0.12, generator=generator())
    assert torch.equal(found, again)


def test_a_digit_moves_by_no_more_than_is_promised() -> None:
    dot = torch.zeros(400, 1, 28, 28)
    dot[:, :, 13:15, 13:15] = 1  # in the middle, where only the move is felt
    moved = distorted(dot, distortion=0.1, generator=generator())
    shift = torch.stack([centre(image) for image in moved]) - 13.5
    assert shift.abs().max() <= 0.1 * 14 / 0.9 / 0.9 + 0.1  # half the size is the unit; the stretch adds its share
    assert shift.abs().max() > 0.1 * 14 * 0.8
    assert shift.mean(0).abs().max() < 0.15  # no way more than another


@pytest.mark.parametrize("axis", [2, 3])
def test_a_digit_is_stretched_either_way(axis: int) -> None:
    square = torch.zeros(400, 1, 28, 28)
    square[:, :, 9:19, 9:19] = 1
    found = distorted(square, distortion=0.1, generator=generator())
    mass = found.sum((1, 2, 3)) / 100
    assert mass.max() == pytest.approx(1 / 0.9**2, abs=0.05)
    assert mass.min() == pytest.approx(1 / 1.1**2, abs=0.05)
    assert (found.amax(5 - axis) > 0.5).float().sum(-1).unique().numel() > 1
