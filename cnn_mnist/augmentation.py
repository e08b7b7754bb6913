"""Training images that differ a little each time they are seen."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distorted(images: Tensor, *, distortion: float, generator: torch.Generator) -> Tensor:
    """Images (B, 1, H, W), each through an affine map of its own: turned, stretched, slanted and moved.

    Args:
        images: (B, 1, H, W); what comes in from beyond the rim is 0, empty paper.
        distortion: Each of the six numbers of the map departs from the identity's by at most this, evenly drawn: with
            0.1 lengths change by up to a tenth, angles by up to about 6 degrees, and places by up to a twentieth
            of the image's size.
        generator: Of the maps.
    """
    drawn = torch.rand(len(images), 2, 3, generator=generator, device=generator.device).to(images)
    maps = torch.eye(2, 3).to(images) + distortion * (2 * drawn - 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
