"""The standard ensemble: four attacks, each on the images that the ones before it did not break."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.autoattack.apgd import apgd
from cnn_mnist.attacks.autoattack.fab import fab
from cnn_mnist.attacks.autoattack.square import square
from cnn_mnist.attacks.gradient_ascent import Progress
from cnn_mnist.attacks.projection import check_budget
from cnn_mnist.attacks.result import AttackResult, is_over, judge, lead, predict
from cnn_mnist.checks import examined, seeded


class Member(NamedTuple):
    """An attack of the ensemble: its name, and the function with the options that the ensemble gives it."""

    name: str
    attack: Callable[..., AttackResult]
    is_random: bool = True


STANDARD = (
    Member("apgd_ce", functools.partial(apgd, loss="ce")),
    Member("apgd_targeted", functools.partial(apgd, loss="targeted")),
    Member("fab_targeted", fab, is_random=False),
    Member("square", square),
)


def auto(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | int,
    *,
    epsilon: float,
    norm: str = "linf",
    generator: torch.Generator | None = None,
    progress: Callable[[str, float], Progress] = lambda name, accuracy: iter,
) -> AttackResult:
    """AutoAttack's standard ensemble: APGD on the cross-entropy, then on the ratio of logits, then FAB, then Square.

    An image that one attack has broken is not given to the next. The result's trace has a row for each attack: how far
    the likeliest wrong class is ahead of the label after it, in logits; NaN for images that the attack was not given,
    so that the last number of a broken image stands in the row of the attack that broke it.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: The true classes, int64 (N,).
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        norm: `linf` or `l2`.
        generator: Of all random draws; None: one with seed 0. The i-th image's do not depend on how many there are.
        progress: From an attack's name and the accuracy that is left to what goes through the attack's steps.

    Raises:
        ValueError: As `checks.examined`, or an option out of range.

    Source: Croce and Hein 2020, "Reliable evaluation of adversarial robustness".
    """
    check_budget(epsilon, norm)
    generator = seeded(generator)
    with examined(model, images, labels) as (logits_of, images, labels):
        found, taken = images.clone(), torch.zeros_like(labels)
        trace = images.new_full((len(STANDARD), len(images)), torch.nan)
        left = (~is_over(predict(logits_of, images), labels)).nonzero()[:, 0]
        for number, member in enumerate(STANDARD):
            if not len(left):
                break
            draws = {"generator": generator} if member.is_random else {}
            result = member.attack(
                model,
                images[left],
                labels[left],
                epsilon=epsilon,
                norm=norm,
                progress=progress(member.name, len(left) / len(images)),
                **draws,
            )
            found[left], taken[left] = result.images, taken[left] + result.steps
            trace[number, left] = lead(predict(logits_of, result.images), labels[left])
            left = left[~result.success]
        return judge(logits_of, images, found, labels)._replace(steps=taken, trace=trace)
