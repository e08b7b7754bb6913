"""Copies of a network that are sure to have adversarial examples: an attack that finds none there proves nothing."""

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.result import check_number, predict
from cnn_mnist.checks import Logits, examined, seeded

NUM_INNER, NUM_CORNERS = 100, 200  # random changes of each image that stay its own class; among which the other is


class Breakable(nn.Module):
    """A binary classifier that reads a network's logits: 0 for an image and nearly all of its surroundings.

    Args:
        model: Images to logits (B, C).
        direction: Weights of the logits, (C,).
        threshold: Their weighted sum from which the class is 1.
    """

    def __init__(self, model: nn.Module, direction: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.model = model
        self.direction, self.threshold = direction, threshold  # no buffers: the model alone says in which precision

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2), of opposite signs."""
        ahead = (self.model(images).to(self.direction) @ self.direction - self.threshold) / 2
        return torch.stack([-ahead, ahead], 1)


@torch.no_grad()
def breakable(
    model: nn.Module, images: Tensor, *, epsilon: float, generator: torch.Generator | None = None
) -> list[Breakable | None]:
    """For each image a copy of the network that has an adversarial example within epsilon, and hardly any by chance.

    Of many random images in whose every pixel the whole budget is used, one is made class 1: the one whose logits are
    furthest from those of the others. All the others, and those within a smaller distance, stay class 0 with the image.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, C, H, W) in [0, 1].
        epsilon: Largest change of a pixel.
        generator: Draws the changes; None: one with seed 0.

    Returns:
        N classifiers into the classes 0 and 1; None where the logits of the random images do not set one apart.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Zimmermann, Brendel, Tramer and Carlini 2022, which reads the features before the last layer.
    """
    check_number("epsilon", epsilon, 0, 1)
    generator = seeded(generator)
    with examined(model, images, 0) as (logits_of, images, _):
        drawn = torch.rand(NUM_INNER + NUM_CORNERS, *images.shape[1:], generator=generator, device=generator.device)
        moved = (2 * drawn - 1).to(images)
        moved[NUM_INNER:] = moved[NUM_INNER:].sign()
        return [_copy(logits_of, image, epsilon * moved) for image in images]


def _copy(model: Logits, image: Tensor, moved: Tensor) -> Breakable | None:
    points = torch.cat([image[None], (image + moved).clamp(0, 1)])
    logits = predict(model, points).double()
    centred = logits - logits.mean(0)
    spread = centred.T @ centred / len(centred)
    spread = spread + 1e-6 * spread.diagonal().mean() * torch.eye(len(spread)).to(spread)
    if not spread.any():
        return None
    towards = torch.linalg.solve(spread, centred.T).T  # (K, C): with it, a point is as far from the mean as can be
    furthest = NUM_INNER + 1 + int((towards * centred)[NUM_INNER + 1 :].sum(1).argmax())
    direction = towards[furthest]
    ahead = logits @ direction
    is_chosen = torch.arange(len(points), device=points.device) == furthest
    copy = Breakable(model, direction, (ahead[furthest] + ahead[~is_chosen].max()) / 2).eval()
    return copy if torch.equal(predict(copy, points).argmax(1).bool(), is_chosen) else None
