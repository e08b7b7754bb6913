"""The lab report's attacks: an image from noise, a digit seen as another, learnt noise, one noise for all digits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.ascent import (
    Direction,
    Judged,
    Project,
    ascend,
    linf_ball,
    sign,
    standardised,
    to_grey_values,
    unit_inside,
)
from cnn_mnist.attacks.result import AttackResult, check_number, conclude
from cnn_mnist.guard import checked_images, examined, seeded

GROWTH = 1.2  # of beta in a step, once the target is reached


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
    """Images made from noise that the model takes for a class; the field calls them fooling images.

    Starts from Gaussian noise of mean 0.5 and deviation 0.1 and climbs logit[target]. The perturbation is what was
    added to the noise.

    Args:
        model: Images to logits (B, C); left as it was.
        target: A class for each image, int64 (N,).
        steps: Most steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target at which an image is done, 0..1.
        generator: Of the noise; None: one with seed 0.
        shape: Of an image.

    Raises:
        ValueError: As `examined` says, or an option out of range.

    Source: lab report 2.5 and 3.3.1; Nguyen, Yosinski and Clune 2015.
    """
    _check(steps, step_size, confidence)
    target = torch.as_tensor(target, dtype=torch.long).reshape(-1)
    if not len(target):
        raise ValueError("there are no classes to aim at: target is empty")
    generator = seeded(generator)
    drawn = torch.randn(len(target), *shape, generator=generator, device=generator.device)
    device = next(model.parameters(), drawn).device
    start, target = (0.5 + 0.1 * drawn).clamp(0, 1).to(device), target.to(device)
    return _climb_logit(model, start, target, steps, step_size, confidence, unit_inside, to_grey_values)


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
    """A noise matrix for each image, which starts at zero and grows until the sum is taken for the target.

    Climbs logit[target] by the gradient over its standard deviation; the sum stays in [0, 1]. The field calls it a
    targeted perturbation of one image; see `universal` for one that serves many.

    Args:
        model: Images to logits (B, C); left as it was.
        images: (N, 1, H, W) in [0, 1].
        target: The classes aimed at, int64 (N,).
        steps: Most steps.
        step_size: Standard deviation of a step over the pixels, in units of the grey value.
        confidence: Probability of the target at which an image is done, 0..1.
        epsilon: Budget: the largest change of a pixel, 0..1. None: there is none.

    Raises:
        ValueError: As `examined` says, or an option out of range.

    Source: lab report 3.3.3.
    """
    _check(steps, step_size, confidence)
    check_number("epsilon", 1 if epsilon is None else epsilon, 0, 1)
    project = to_grey_values if epsilon is None else linf_ball(checked_images(images), epsilon).project
    return _climb_logit(model, images, target, steps, step_size, confidence, standardised, project)


def targeted(
    model: nn.Module,
    images: Tensor,
    target: Tensor | int,
    *,
    beta: float,
    steps: int,
    step_size: float,
    confidence: float = 0.5,
) -> AttackResult:
    """The image nearest to each one that the model takes for the target.

    Climbs logit[target] - beta * MSE from the image itself, as the report does, until the target is reached. From then
    on it looks for a nearer image: the logit gives way to its lead over the runner-up's, since it also grows where all
    logits do, and each image has a beta of its own, which grows from the given one while the target holds and shrinks
    while it does not. The success with the lowest MSE is kept; without one, the image with the highest probability of
    the target. The trace shows the report's cost throughout.

    Args:
        model: Images to logits (B, C); left as it was.
        images: (N, 1, H, W) in [0, 1]; what the report calls target images.
        target: The classes aimed at, int64 (N,).
        beta: Weight of the mean squared difference until the target is reached.
        steps: Number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target that is a success, 0..1.

    Raises:
        ValueError: As `examined` says, or an option out of range.

    Source: lab report 2.5 and 3.3.2; the search for the weight after Carlini and Wagner 2017 and Rony et al. 2019.
    """
    _check(steps, step_size, confidence)
    check_number("beta", beta, 0)
    with examined(model, images, target, name="target") as (logits_of, images, target):
        weight = torch.full((len(images),), float(max(1, beta)), device=images.device)  # of the search: 0 cannot grow
        was_reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)

        def judge(x: Tensor, index: Tensor) -> Judged:
            logits, aim = logits_of(x), target[index][:, None]
            logit = logits.gather(1, aim)[:, 0]
            runner_up = logits.scatter(1, aim, -torch.inf).amax(1)
            probability = logits.detach().softmax(1).gather(1, aim)[:, 0]
            mse = (x - images[index]).square().mean((1, 2, 3))
            holds = (probability >= confidence) & (logit > runner_up)
            was_reached[index] |= holds
            searches = was_reached[index]
            weight[index] *= torch.where(searches, torch.where(holds, GROWTH, 1 / GROWTH), 1)
            return Judged(
                cost=torch.where(searches, logit - runner_up - weight[index] * mse, logit - beta * mse),
                is_done=holds & (mse == 0),  # it was seen as the target from the first
                score=torch.where(holds, 1 - mse, logits.log_softmax(1).gather(1, aim)[:, 0]),
                shown=logit - beta * mse,
            )

        climbed = ascend(judge, images, steps=steps, step_size=step_size, direction=unit_inside, project=to_grey_values)
        return conclude(logits_of, images, climbed, target, confidence=confidence)


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
    """One noise matrix that, added to whatever image, makes it the target; fitted on many.

    Climbs the mean log probability of the target over images drawn anew for each step. Every image of the result
    has the same perturbation, before the sum is clipped to [0, 1]; the trace is the same for all of them.

    Args:
        model: Images to logits (B, C); left as it was.
        images: The set fitted on, (N, 1, H, W) in [0, 1].
        target: The class aimed at; or one for each image, int64 (N,).
        epsilon: Largest change of a pixel, 0..1.
        step_size: Change of every pixel in a step.
        steps: Number of steps.
        batch_size: Images drawn for a step.
        generator: Draws them; None: one with seed 0.

    Raises:
        ValueError: As `examined` says, or an option out of range.

    Source: lab report 3.3.3; Moosavi-Dezfooli, Fawzi, Fawzi and Frossard 2017.
    """
    _check(steps, step_size, 1)
    check_number("epsilon", epsilon, 0, 1)
    check_number("batch_size", batch_size, 1)
    generator = seeded(generator)
    with examined(model, images, target, name="target") as (logits_of, images, classes):

        def mean_log_probability(matrix: Tensor, index: Tensor) -> Judged:
            drawn = torch.randint(len(images), (batch_size,), generator=generator, device=generator.device)
            chosen = drawn.to(images.device)
            logits = logits_of((images[chosen] + matrix).clamp(0, 1))
            return Judged(-F.cross_entropy(logits, classes[chosen])[None])

        climbed = ascend(
            mean_log_probability,
            torch.zeros_like(images[:1]),
            steps=steps,
            step_size=step_size,
            direction=sign,
            project=lambda matrix, index: matrix.clamp(-epsilon, epsilon),
        )
        matrix = climbed.images.expand_as(images)
        shared = climbed._replace(
            images=(images + matrix).clamp(0, 1),
            steps=climbed.steps.expand(len(images)),
            trace=climbed.trace.expand(-1, len(images)),
            is_flat=climbed.is_flat.expand(len(images)),
        )
        return conclude(logits_of, images, shared, classes)._replace(perturbation=matrix)


def _climb_logit(
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

        def judge(x: Tensor, index: Tensor) -> Judged:
            logits, aim = logits_of(x), target[index][:, None]
            reached = logits.softmax(1).gather(1, aim)[:, 0] >= confidence
            return Judged(logits.gather(1, aim)[:, 0], reached)

        climbed = ascend(judge, start, steps=steps, step_size=step_size, direction=direction, project=project)
        return conclude(logits_of, start, climbed, target, confidence=confidence)


def _check(steps: int, step_size: float, confidence: float) -> None:
    check_number("steps", steps, 1)
    check_number("step_size", step_size, 0)
    check_number("confidence", confidence, 0, 1)
