"""Data augmentation: random affine distortion of training images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distorted(images: Tensor, *, distortion: float, generator: torch.Generator) -> Tensor:
    """Images (B, 1, H, W), each through its own random affine map: rotated, scaled, sheared and moved.

    Args:
        images: (B, 1, H, W); pixels from outside are 0, empty paper.
        distortion: Largest deviation of each of the six numbers of the map from the identity, drawn uniformly: with 0.1
            lengths change by up to a tenth, angles by up to about 6 degrees, and positions by up to a twentieth of
            the image's size.
        generator: Draws the maps.
    """
    drawn = torch.rand(len(images), 2, 3, generator=generator, device=generator.device).to(images)
    maps = torch.eye(2, 3).to(images) + distortion * (2 * drawn - 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
