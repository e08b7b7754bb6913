"""FGSM and PGD: one step, or many steps, within a budget."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import Ascent, Objective, ObjectiveValue, Progress, ascend, fixed_step, sign
from cnn_mnist.attacks.projection import BALLS, check_budget, to_grey_values
from cnn_mnist.attacks.result import AttackResult, check_number, conclude, in_turn, is_over
from cnn_mnist.checks import examined, seeded


def fgsm(
    model: nn.Module, images: Tensor, labels: Tensor | int, *, epsilon: float, targeted: bool = False
) -> AttackResult:
    """The fast gradient sign method: one step of `epsilon` in every pixel.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,); with `targeted`, the classes aimed at.
        epsilon: Largest change of a pixel, 0..1.
        targeted: Whether to go towards `labels` instead of away from them.

    Raises:
        ValueError: As `checks.examined`, or an epsilon out of range.

    Source: Goodfellow, Shlens and Szegedy 2015.
    """
    check_number("epsilon", epsilon, 0, 1)
    with examined(model, images, labels) as (logits_of, images, labels):
        climbed = ascend(
            log_odds(logits_of, labels, targeted=targeted, early_stop=False),
            images,
            steps=1,
            move=fixed_step(epsilon, sign, to_grey_values),
            evaluate_last=False,
        )
        return conclude(logits_of, images, climbed, labels, targeted=targeted)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    restarts: int = 1,
    norm: str = "linf",
    targeted: bool = False,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    progress: Progress = iter,
) -> AttackResult:
    """Projected gradient descent: steps up the cross-entropy within a ball, from a random start in it.

    An image that is misclassified before the attack is returned unchanged; with `early_stop` no step is taken on it.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,); with `targeted`, the classes aimed at.
        epsilon: Radius of the ball: the largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        step_size: Length of a step in the same norm.
        steps: Steps from each start.
        restarts: Starts. An image counts as robust only where every one of them failed.
        norm: `linf` or `l2`.
        targeted: Whether to go towards `labels` instead of away from them.
        early_stop: Whether an image is done at its first success. Otherwise every step of every start is taken, and an
            image is judged by its last step from each start, as other implementations do.
        generator: Of the starts, on the CPU; the i-th image's do not depend on how many there are. None: one with
            seed 0.
        progress: Goes through the steps of each start, to show how far it is.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu 2018.
    """
    check_budget(epsilon, norm)
    check_number("step_size", step_size, 0)
    check_number("steps", steps, 1)
    check_number("restarts", restarts, 1)
    generator = seeded(generator)
    num_starts = restarts if epsilon > 0 else 0  # without room to move, an image is what it is
    seeds = torch.randint(2**62, (num_starts,), generator=generator, device=generator.device).tolist()
    with examined(model, images, labels) as (logits_of, images, labels):
        direction, random_start, project = BALLS[norm](images, epsilon)

        def attempt(left: Tensor, seed: int) -> Ascent:
            return ascend(
                log_odds(logits_of, labels[left], targeted=targeted, early_stop=early_stop),
                random_start(torch.Generator(generator.device).manual_seed(seed))[left],
                steps=steps,
                move=fixed_step(step_size, direction, lambda moved, index: project(moved, left[index])),
                progress=progress,
                evaluate_last=early_stop,  # else the last step alone counts, and is seen below
            )

        attempts = [functools.partial(attempt, seed=seed) for seed in seeds]
        return in_turn(logits_of, images, labels, attempts, targeted=targeted, early_stop=early_stop)


def default_step_size(step_size: float | None, epsilon: float, steps: int) -> float:
    """The given step size, or one with which the steps together cover 2.5 times the radius."""
    return 2.5 * epsilon / steps if step_size is None else step_size


def log_odds(model: nn.Module, labels: Tensor, *, targeted: bool = False, early_stop: bool = True) -> Objective:
    """The log odds against the label, to grow; or against the target, to shrink. The trace has the cross-entropy.

    The log odds are m = log sum exp of the other classes' logits - the label's logit, and the cross-entropy is
    log(1 + e^m): its gradient has the same direction, but vanishes where float32 takes the probability of the label
    for 1.
    """

    def judge(x: Tensor, index: Tensor) -> ObjectiveValue:
        logits, label = model(x), labels[index][:, None]
        others = logits.scatter(1, label, -torch.inf).logsumexp(1)
        margin = others - logits.gather(1, label)[:, 0]
        cost = -margin if targeted else margin
        cross_entropy = F.cross_entropy(logits.detach(), labels[index], reduction="none")
        return ObjectiveValue(
            cost,
            is_over(logits, labels[index], targeted) if early_stop else None,
            shown=-cross_entropy if targeted else cross_entropy,
        )

    return judge
