"""What the channels of a layer respond to: which are dead, which copy the digit, and how sharply."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.analysis import layers
from cnn_mnist.checks import untouched

BLURS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # standard deviations of a Gaussian, in pixels of the 28x28 image


class ChannelStatistics(NamedTuple):
    """One layer's channels over a set of images, after the activation function; every field (C,).

    `dead`: always zero. `zero_share` in [0, 1]: how many of its values are exactly zero. `background`: its value
    on empty paper. `largest`: its largest absolute value. `correlation` in [-1, 1] and `blur` in pixels:
    Pearson's correlation over all pixels of all images with the image blurred by that much, at whichever of `BLURS`
    maximises its absolute value: positive where the channel copies it, negative where it inverts it, 0 where constant.
    A linear layer's units have no place on the image, and a correlation of NaN.
    """

    dead: Tensor
    zero_share: Tensor
    background: Tensor
    largest: Tensor
    correlation: Tensor
    blur: Tensor


class Activations(NamedTuple):
    """The statistics of each layer, and the number of images they are over."""

    layers: dict[str, ChannelStatistics]
    num_images: int


def statistics(network: nn.Module, batches: Iterable[Tensor], names: Sequence[str]) -> Activations:
    """Each channel's statistics over a data set.

    Args:
        network: Images (B, 1, H, W) to logits; unchanged afterwards.
        batches: Images (B, 1, H, W) in [0, 1], on the network's device.
        names: Its layers to look at: convolutions, or linear layers.

    Raises:
        ValueError: There are no images.

    Source: lab report 3.2.2.
    """
    sums: dict[str, _Sums] = {}
    num_images = 0
    with torch.no_grad(), untouched(network):
        for images in batches:
            if not sums:
                blank = layers.outputs(network, torch.zeros_like(images[:1]), names)
                sums = {name: _Sums(_as_maps(output.after)) for name, output in blank.items()}
            blurred = torch.cat([_blurred(images, sigma) for sigma in BLURS], 1)  # (B, len(BLURS), H, W)
            for name, output in layers.outputs(network, images, names).items():
                maps = _as_maps(output.after)
                sums[name].add(maps, F.adaptive_avg_pool2d(blurred, (maps.shape[2], maps.shape[3])))
            num_images += len(images)
    if not num_images:
        raise ValueError("there are no images")
    return Activations({name: one.statistics() for name, one in sums.items()}, num_images)


def _as_maps(values: Tensor) -> Tensor:
    """A layer's output as maps (B, C, H, W): of a linear layer, one value each (B, C, 1, 1)."""
    return values if values.ndim == 4 else values.reshape(len(values), -1, 1, 1)


class _Sums:
    """Running sums of one layer's values and of their products with the blurred images; float64 from batch to batch."""

    def __init__(self, blank: Tensor) -> None:
        num_channels, height, width = blank.shape[1:]
        self.has_places = height * width > 1
        self.background = blank[0, :, height // 2, width // 2].clone()
        self.largest = blank.new_zeros(num_channels)
        self.num_zeros = blank.new_zeros(num_channels, dtype=torch.float64)
        self.count = 0
        self.value = blank.new_zeros(num_channels, dtype=torch.float64)
        self.square = torch.zeros_like(self.value)
        self.image = blank.new_zeros(len(BLURS), dtype=torch.float64)
        self.image_square = torch.zeros_like(self.image)
        self.product = blank.new_zeros(num_channels, len(BLURS), dtype=torch.float64)

    def add(self, maps: Tensor, blurred: Tensor) -> None:
        """Add maps (B, C, H, W) and images (B, len(BLURS), H, W)."""
        maps, blurred = (x.transpose(0, 1).flatten(1) for x in (maps, blurred))  # (C, B*H*W)
        self.largest = torch.maximum(self.largest, maps.abs().amax(1))
        self.num_zeros += (maps == 0).sum(1)
        maps = maps - self.background[:, None]  # a large constant would drown what varies
        self.count += maps.shape[1]
        self.value += maps.sum(1)
        self.square += (maps * maps).sum(1)
        self.image += blurred.sum(1)
        self.image_square += (blurred * blurred).sum(1)
        self.product += maps @ blurred.T

    def statistics(self) -> ChannelStatistics:
        """Means, shares and correlations of the values added."""
        covariance = self.product / self.count - (self.value[:, None] / self.count) * (self.image / self.count)
        spread = (self.square / self.count - (self.value / self.count) ** 2).clamp_min(0).sqrt()
        image_spread = (self.image_square / self.count - (self.image / self.count) ** 2).clamp_min(0).sqrt()
        correlation = (covariance / (spread[:, None] * image_spread).clamp_min(1e-12)).clamp(-1, 1)
        correlation[spread <= 1e-6 * self.largest] = 0  # constant, but for rounding
        if not self.has_places:
            correlation[:] = torch.nan
        best = correlation.abs().argmax(1)
        dead = self.largest == 0
        return ChannelStatistics(
            dead=dead,
            zero_share=self.num_zeros / self.count,
            background=self.background.double(),
            largest=self.largest.double(),
            correlation=correlation.gather(1, best[:, None])[:, 0].masked_fill(dead, 0),
            blur=torch.tensor(BLURS, dtype=torch.float64, device=best.device)[best].masked_fill(dead, 0),
        )


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, 1, H, W) under a Gaussian of `sigma` pixels; empty paper all around."""
    if sigma == 0:
        return images
    radius = round(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    gauss = torch.exp(-(x**2) / (2 * sigma**2))
    gauss /= gauss.sum()
    rows = F.conv2d(images, gauss.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(rows, gauss.view(1, 1, 1, -1), padding=(0, radius))
