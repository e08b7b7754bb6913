"""Data augmentation: training images moved, bent and written with other pens, each in its own way."""

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE = 5  # displacements are drawn on a grid of 5x5 points and interpolated
THINNEST = 0.5  # share of `stroke` by which ink is worn off: all of it would erase MNIST's thin strokes


def augmented(
    images: Tensor, *, distortion: float, elastic: float, stroke: float, generator: torch.Generator
) -> Tensor:
    """Images (B, 1, H, W), `distorted` and `rewritten` where the sizes are not 0."""
    if distortion or elastic:
        images = distorted(images, distortion=distortion, elastic=elastic, generator=generator)
    return rewritten(images, stroke=stroke, generator=generator) if stroke else images


def cooled_down(epochs_left: float, cooldown_epochs: float) -> float:
    """The share of the augmentation that is left: it shrinks linearly to 0 over the last `cooldown_epochs`."""
    return min(1.0, epochs_left / cooldown_epochs) if cooldown_epochs > 0 else 1.0


def distorted(images: Tensor, *, distortion: float, generator: torch.Generator, elastic: float = 0.0) -> Tensor:
    """Images (B, 1, H, W), each through its own random map: rotated, scaled, sheared, moved and bent.

    Args:
        images: (B, 1, H, W); pixels from outside are 0, empty paper.
        distortion: Largest deviation of each of the six numbers of an affine map from the identity, drawn uniformly:
            with 0.1 lengths change by up to a tenth, angles by up to about 6 degrees, and positions by up to a
            twentieth of the image's size.
        generator: Draws the maps.
        elastic: Standard deviation, in pixels, of the random displacements of 5x5 points, between which those of all
            pixels are interpolated.

    Source: Simard, Steinkraus and Platt 2003; the coarse grid as Ronneberger, Fischer and Brox 2015.
    """
    drawn = torch.rand(len(images), 2, 3, generator=generator, device=generator.device).to(images)
    maps = torch.eye(2, 3).to(images) + distortion * (2 * drawn - 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    if elastic:
        height, width = images.shape[2:]
        moves = torch.randn(len(images), 2, COARSE, COARSE, generator=generator, device=generator.device).to(images)
        smooth = F.interpolate(moves, size=(height, width), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
        grid = grid + elastic * smooth * torch.tensor([2 / width, 2 / height]).to(images)
    return F.grid_sample(images, grid, align_corners=False)


def rewritten(images: Tensor, *, stroke: float, generator: torch.Generator) -> Tensor:
    """Images (B, 1, H, W) in [0, 1], each with its strokes thicker or thinner, as by another pen.

    Args:
        images: (B, 1, H, W), bright ink on 0.
        stroke: Largest change on each side of a stroke, in pixels, drawn uniformly; half of it where ink is worn off.
        generator: Draws the changes.
    """
    change = stroke * (2 * torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device) - 1)
    change = change.to(images)
    thick, thin = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    found = torch.where(
        change > 0, torch.lerp(images, thick, change.abs()), torch.lerp(images, thin, THINNEST * change.abs())
    )
    brightest = found.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)
    return found * (images.amax((1, 2, 3), keepdim=True) / brightest)  # thin ink is as black as thick ink
