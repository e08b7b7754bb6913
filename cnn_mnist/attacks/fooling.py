"""The non-targeted attack: fooling images made from noise."""

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import unit_inside
from cnn_mnist.attacks.noise import check_steps, climb_logit
from cnn_mnist.attacks.projection import to_grey_values
from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.checks import seeded


def non_targeted(
    model: nn.Module,
    target: Tensor | int,
    *,
    steps: int,
    step_size: float,
    confidence: float = 0.999,
    generator: torch.Generator | None = None,
    shape: tuple[int, int, int] = (1, 28, 28),
) -> AttackResult:
    """Fooling images: made from noise, and classified as the target with high confidence.

    Starts from Gaussian noise of mean 0.5 and deviation 0.1 and increases logit[target]. The perturbation is what
    was added to the noise.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        target: A class for each image, int64 (N,).
        steps: Maximum number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target at which an image is done, 0..1.
        generator: Draws the noise; None: one with seed 0.
        shape: Of an image.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: lab report 2.5 and 3.3.1; Nguyen, Yosinski and Clune 2015.
    """
    check_steps(steps, step_size, confidence)
    target = torch.as_tensor(target).reshape(-1)
    if not len(target):
        raise ValueError("there are no classes to aim at: target is empty")
    generator = seeded(generator)
    drawn = torch.randn(len(target), *shape, generator=generator, device=generator.device)
    device = next(model.parameters(), drawn).device
    start, target = (0.5 + 0.1 * drawn).clamp(0, 1).to(device), target.to(device)
    return climb_logit(model, start, target, steps, step_size, confidence, unit_inside, to_grey_values)
