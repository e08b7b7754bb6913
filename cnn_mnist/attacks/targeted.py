"""The targeted attack: the nearest image that is classified as another class."""

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import ObjectiveValue, ascend, fixed_step, unit_inside
from cnn_mnist.attacks.noise import check_steps
from cnn_mnist.attacks.projection import to_grey_values
from cnn_mnist.attacks.result import AttackResult, check_number, conclude
from cnn_mnist.checks import examined

GROWTH = 1.2  # of beta in a step, once the target is reached


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
    """The nearest image to each one that is classified as the target.

    Increases logit[target] - beta * MSE from the image itself, as the report does, until the target is reached. From
    then on it searches for a nearer image: it increases the margin of the target's logit over the largest other one
    instead, and each image has its own beta, which grows while the target is predicted and shrinks while it is not. The
    success with the lowest MSE is kept; without one, the image with the highest probability of the target. The trace
    shows the lab report's cost throughout.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1]; what the report calls target images.
        target: The classes aimed at, int64 (N,).
        beta: Weight of the mean squared difference until the target is reached.
        steps: Number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target from which an attack is a success, 0..1.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: lab report 2.5 and 3.3.2; the search for the weight after Carlini and Wagner 2017 and Rony et al. 2019.
    """
    check_steps(steps, step_size, confidence)
    check_number("beta", beta, 0)
    with examined(model, images, target, name="target") as (logits_of, images, target):
        weight = torch.full((len(images),), float(max(1, beta)), device=images.device)  # of the search: 0 cannot grow
        was_reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)

        def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
            logits, aim = logits_of(x), target[index][:, None]
            logit = logits.gather(1, aim)[:, 0]
            runner_up = logits.scatter(1, aim, -torch.inf).amax(1)
            probability = logits.detach().softmax(1).gather(1, aim)[:, 0]
            mse = (x - images[index]).square().mean((1, 2, 3))
            holds = (probability >= confidence) & (logit > runner_up)
            was_reached[index] |= holds
            searches = was_reached[index]
            weight[index] *= torch.where(searches, torch.where(holds, GROWTH, 1 / GROWTH), 1)
            return ObjectiveValue(
                cost=torch.where(searches, logit - runner_up - weight[index] * mse, logit - beta * mse),
                is_done=holds & (mse == 0),  # classified as the target before the attack
                score=torch.where(holds, 1 - mse, logits.log_softmax(1).gather(1, aim)[:, 0]),
                shown=logit - beta * mse,
            )

        climbed = ascend(judge, images, steps=steps, move=fixed_step(step_size, unit_inside, to_grey_values))
        return conclude(logits_of, images, climbed, target, confidence=confidence)
