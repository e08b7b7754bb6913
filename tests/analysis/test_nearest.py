"""The distance to the nearest training image."""

import pytest
import torch

from cnn_mnist.analysis.nearest import likeness, nearest, neighbours
from cnn_mnist.data.datamodule import DataModule


def test_the_nearest_image_by_hand() -> None:
    train = torch.zeros(3, 1, 2, 2)
    train[1, 0, 0, 0] = 1
    train[2] = 1
    images = torch.zeros(2, 1, 2, 2)
    images[0, 0, 0, 0] = 0.9
    images[1] = 0.5
    images[1, 0, 0, 0] = 1
    distance, place = nearest(images, train)
    assert place.tolist() == [1, 1]
    assert distance.tolist() == pytest.approx([0.1, 0.75**0.5])


def test_it_is_the_brute_force_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    images, train = (torch.rand(n, 1, 28, 28, generator=generator) for n in (300, 700))
    distance, place = nearest(images, train)
    expected = torch.cdist(images.flatten(1).double(), train.flatten(1).double()).min(1)
    assert torch.equal(place, expected.indices)
    torch.testing.assert_close(distance.double(), expected.values, atol=1e-5, rtol=0)
    far, places = neighbours(images, train, 3)
    assert torch.equal(places[:, 0], place)
    torch.testing.assert_close(far[:, 0], distance, atol=1e-4, rtol=0)
    assert (far[:, 1:] >= far[:, :-1]).all()


def test_digits_look_like_digits_and_noise_does_not() -> None:
    data = DataModule("digits")
    data.setup()
    train, real = data.train[:], data.test[:]
    usual = nearest(real.images[::2], train.images)[0]
    digits = likeness(real.images[1::2], train.images, train.labels, usual)
    assert digits.is_digit.double().mean() > 0.9
    assert (digits.label == real.labels[1::2]).double().mean() > 0.9
    noise = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not likeness(noise, train.images, train.labels, usual).is_digit.any()
    assert digits.typical < digits.limit
