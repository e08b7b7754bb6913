"""Adding noise: a perturbation learnt for one image, and a universal one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import Direction, ObjectiveValue, Project, ascend, fixed_step, sign, standardised
from cnn_mnist.attacks.projection import linf_ball, to_grey_values
from cnn_mnist.attacks.result import AttackResult, check_number, conclude
from cnn_mnist.checks import checked_images, examined, seeded


def noise(
    model: nn.Module,
    images: Tensor,
    target: Tensor | int,
    *,
    steps: int,
    step_size: float = 1 / 255,
    confidence: float = 0.999,
    epsilon: float | None = None,
) -> AttackResult:
    """A noise matrix for each image, which starts at zero and grows until the sum is classified as the target.

    Increases logit[target] along the gradient divided by its standard deviation; the sum stays in [0, 1]. The field
    calls it a targeted perturbation; see `universal` for one that works on many images.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        target: The classes aimed at, int64 (N,).
        steps: Maximum number of steps.
        step_size: Standard deviation of a step over the pixels, in units of the grey value.
        confidence: Probability of the target at which an image is done, 0..1.
        epsilon: Budget: the largest change of a pixel, 0..1. None: no limit.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: lab report 3.3.3.
    """
    check_steps(steps, step_size, confidence)
    check_number("epsilon", 1 if epsilon is None else epsilon, 0, 1)
    project = to_grey_values if epsilon is None else linf_ball(checked_images(images), epsilon).project
    return climb_logit(model, images, target, steps, step_size, confidence, standardised, project)


def universal(
    model: nn.Module,
    images: Tensor,
    target: Tensor | int,
    *,
    epsilon: float,
    step_size: float = 0.01,
    steps: int = 100,
    batch_size: int = 100,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """One noise matrix with which any image is classified as the target, fitted on many images.

    Increases the mean log probability of the target over images drawn for each step. Every image of the result
    has the same perturbation, before the sum is clipped to [0, 1]; the trace is the same for all of them.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: Images to fit on, (N, 1, H, W) in [0, 1].
        target: The class aimed at; or one for each image, int64 (N,).
        epsilon: Largest change of a pixel, 0..1.
        step_size: Change of every pixel in a step.
        steps: Number of steps.
        batch_size: Images drawn for a step.
        generator: Draws them; None: one with seed 0.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: lab report 3.3.3; Moosavi-Dezfooli, Fawzi, Fawzi and Frossard 2017.
    """
    check_steps(steps, step_size, 1)
    check_number("epsilon", epsilon, 0, 1)
    check_number("batch_size", batch_size, 1)
    generator = seeded(generator)
    with examined(model, images, target, name="target") as (logits_of, images, classes):

        def mean_log_probability(matrix: Tensor, index: Tensor) -> ObjectiveValue:
            drawn = torch.randint(len(images), (batch_size,), generator=generator, device=generator.device)
            chosen = drawn.to(images.device)
            logits = logits_of((images[chosen] + matrix).clamp(0, 1))
            return ObjectiveValue(-F.cross_entropy(logits, classes[chosen])[None])

        climbed = ascend(
            mean_log_probability,
            torch.zeros_like(images[:1]),
            steps=steps,
            move=fixed_step(step_size, sign, lambda matrix, index: matrix.clamp(-epsilon, epsilon)),
        )
        matrix = climbed.images.expand_as(images)
        shared = climbed._replace(
            images=(images + matrix).clamp(0, 1),
            steps=climbed.steps.expand(len(images)),
            trace=climbed.trace.expand(-1, len(images)),
            zero_gradient=climbed.zero_gradient.expand(len(images)),
        )
        return conclude(logits_of, images, shared, classes)._replace(perturbation=matrix)


def climb_logit(
    model: nn.Module,
    start: Tensor,
    target: Tensor | int,
    steps: int,
    step_size: float,
    confidence: float,
    direction: Direction,
    project: Project,
) -> AttackResult:
    """Raise the logit of the target until its probability is high enough."""
    with examined(model, start, target, name="target") as (logits_of, start, target):

        def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
            logits, aim = logits_of(x), target[index][:, None]
            reached = logits.softmax(1).gather(1, aim)[:, 0] >= confidence
            return ObjectiveValue(logits.gather(1, aim)[:, 0], reached)

        climbed = ascend(judge, start, steps=steps, move=fixed_step(step_size, direction, project))
        return conclude(logits_of, start, climbed, target, confidence=confidence)


def check_steps(steps: int, step_size: float, confidence: float) -> None:
    """Raise ValueError for an option out of range."""
    check_number("steps", steps, 1)
    check_number("step_size", step_size, 0)
    check_number("confidence", confidence, 0, 1)
