"""Properties of distorted images."""

import pytest
import torch
from torch import Tensor

from cnn_mnist.data.batches import Batch
from cnn_mnist.training.augmentation import augmented, cooled_down, distorted, rewritten


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def centre(image: Tensor) -> Tensor:
    """Centre of mass in pixels, (row, column), of an image (1, H, W)."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    return torch.stack([(image[0] * rows).sum(), (image[0] * columns).sum()]) / image.sum()


def test_no_distortion_changes_nothing(digits: Batch) -> None:
    same = distorted(digits.images[:20], distortion=0.0, generator=generator())
    torch.testing.assert_close(same, digits.images[:20], atol=1e-5, rtol=0)


def test_sizes_of_zero_change_nothing_at_all(digits: Batch) -> None:
    sizes = {"distortion": 0.0, "elastic": 0.0, "stroke": 0.0}
    assert augmented(digits.images, **sizes, generator=generator()) is digits.images
    for name in sizes:
        assert not torch.equal(augmented(digits.images, **sizes | {name: 0.3}, generator=generator()), digits.images)


def test_it_shrinks_evenly_over_the_last_epochs() -> None:
    assert [cooled_down(left, 4.0) for left in (9.5, 4, 3, 0.5, 0)] == [1, 1, 0.75, 0.125, 0]
    assert [cooled_down(left, 0.0) for left in (9, 0)] == [1, 1]


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


def test_an_elastic_map_moves_pixels_by_about_as_much_as_is_asked_for() -> None:
    column = torch.arange(28.0).expand(300, 1, 28, 28) / 28  # grey values tell where a pixel came from
    found = distorted(column, distortion=0.0, elastic=0.5, generator=generator())
    inside = slice(4, 24)
    moved = (found - column)[..., inside, inside] * 28
    assert 0.25 < moved.std() < 0.5  # between the points at which it is drawn it is less
    assert moved.mean().abs() < 0.05
    neighbours = torch.corrcoef(torch.stack([moved[..., 1:].flatten(), moved[..., :-1].flatten()]))[0, 1]
    assert neighbours > 0.9  # smooth
    assert torch.equal(found, distorted(column, distortion=0.0, elastic=0.5, generator=generator()))


def test_strokes_get_thicker_and_thinner_and_stay_as_black() -> None:
    stroke = torch.zeros(400, 1, 28, 28)
    stroke[:, :, 4:24, 12:16] = 1  # 20 x 4
    found = rewritten(stroke, stroke=1.0, generator=generator())
    mass = found.sum((1, 2, 3))
    assert mass.max() == pytest.approx(22 * 6, rel=0.02)
    assert 20 * 4 * 0.55 < mass.min() < 20 * 4 * 0.8  # half as far inwards
    assert (mass > 80).double().mean() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(found.amax((1, 2, 3)), torch.ones(400))
    assert found.min() >= 0
    blank = torch.zeros(3, 1, 28, 28)
    assert torch.equal(rewritten(blank, stroke=1.0, generator=generator()), blank)
    torch.testing.assert_close(rewritten(stroke, stroke=0.0, generator=generator()), stroke)
