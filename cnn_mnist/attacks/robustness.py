"""Robust accuracy, and signs of gradient masking."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.pgd import fgsm, pgd
from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.checks import examined, seeded

MARGIN = 0.01  # differences of accuracies below this are ignored


class RobustAccuracy(NamedTuple):
    """Accuracy under attack against the attack's budget.

    Attributes:
        epsilon: The budgets, (E,).
        accuracy: Share of the images classified correctly under the attack, (E,).
        by_class: The same for each true class, (E, C); NaN for a class without images.
    """

    epsilon: Tensor
    accuracy: Tensor
    by_class: Tensor


def robust_accuracy(
    attack: Callable[[float], AttackResult], labels: Tensor, epsilons: Iterable[float], *, num_classes: int = 10
) -> RobustAccuracy:
    """Accuracy under an attack with each budget; with restarts, an image is robust if all of them fail.

    Args:
        attack: From a budget to the result on the images of `labels`; any untargeted attack.
        labels: True classes, int64 (N,).
        epsilons: Budgets.
        num_classes: Number of classes.
    """
    budgets, accuracy, by_class = [], [], []
    for epsilon in epsilons:
        budgets.append(epsilon)
        is_right = ~attack(epsilon).success
        accuracy.append(is_right.double().mean())
        right = labels[is_right].bincount(minlength=num_classes)
        by_class.append(right / labels.bincount(minlength=num_classes))
    return RobustAccuracy(
        torch.tensor(budgets, dtype=torch.float64), torch.stack(accuracy).cpu(), torch.stack(by_class).cpu()
    )


class Masking(NamedTuple):
    """Accuracies that distinguish a robust model from one that masks its gradient.

    Attributes:
        one_step: Accuracy under FGSM.
        many_steps: Accuracy under PGD with the same budget.
        random: Accuracy with every pixel changed by the whole budget, up or down at random.
        huge: Accuracy under PGD with a budget of 1, within which every image can become any other.
        flat: Share of the images on which the gradient is zero everywhere.
        steps: Steps of PGD.
        num_images: On how many images.
        chance: The accuracy of guessing.
        signs: A clause for each sign of gradient masking, a format string over the other fields.
    """

    one_step: float
    many_steps: float
    random: float
    huge: float
    flat: float
    steps: int
    num_images: int
    chance: float
    signs: list[str]

    @property
    def warnings(self) -> list[str]:
        """The signs with their numbers."""
        return [words.format(**self._asdict()) for words in self.signs]


def gradient_masking(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step_size: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Masking:
    """Look for signs that attacks fail because the gradient is masked, and not because the model is robust.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (N, 1, H, W) in [0, 1].
        labels: True classes, int64 (N,).
        epsilon: Largest change of a pixel.
        step_size: Of PGD.
        steps: Of PGD.
        generator: Draws starts and random noise; None: one with seed 0.

    Raises:
        ValueError: As `checks.examined`.

    Source: Athalye, Carlini and Wagner 2018; Carlini et al. 2019, "On evaluating adversarial robustness".
    """

    def accuracy(result: AttackResult) -> float:
        return 1 - result.success.double().mean().item()

    generator = seeded(generator)
    first = fgsm(model, images, labels, epsilon=epsilon)
    with examined(model, images, labels) as (logits_of, images, labels):
        drawn = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
        moved = (images + epsilon * (drawn - 0.5).sign()).clamp(0, 1)
        random = (predict(logits_of, moved).argmax(1) == labels).double().mean().item()
        chance = 1 / logits_of(images[:1]).shape[1]
    many = pgd(model, images, labels, epsilon=epsilon, step_size=step_size, steps=steps, generator=generator)
    huge = pgd(
        model, images, labels, epsilon=1, step_size=max(step_size, 2.5 / steps), steps=steps, generator=generator
    )
    flat = (first.perturbation == 0).flatten(1).all(1).double().mean().item()
    found = Masking(accuracy(first), accuracy(many), random, accuracy(huge), flat, steps, len(images), chance, [])
    signs = {
        "one step fools more than {steps} (accuracy {one_step:.1%} against {many_steps:.1%})": (
            found.one_step < found.many_steps - MARGIN
        ),
        "random noise fools more than the attack (accuracy {random:.1%} against {many_steps:.1%})": (
            random < found.many_steps - MARGIN
        ),
        "with the budget in which any image is allowed, {huge:.1%} are classified correctly (chance {chance:.0%})": (
            found.huge > chance + MARGIN
        ),
        "the gradient is zero everywhere on {flat:.1%} of the images": flat > 0,
    }
    return found._replace(signs=[words for words, is_seen in signs.items() if is_seen])
