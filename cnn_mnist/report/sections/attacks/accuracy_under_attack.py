"""Accuracy under attack: what every section about a standard attack measures."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cnn_mnist import published
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.attacks.projection import length
from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.attacks.robustness import Masking, RobustAccuracy, gradient_masking, robust_accuracy
from cnn_mnist.checks import ROUNDING
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, Table, of_attack
from cnn_mnist.report.sections.attacks.common import NUM_SHOWN, attackable, not_counted, targets
from cnn_mnist.report.subject import Subject

EPSILONS = {"linf": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4), "l2": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)}
ONE_STEP: Mapping[str, Any] = MappingProxyType({"restarts": 1, "steps": 1, "step_size": None})
NUM_PROBED = 200  # images on which signs of gradient masking are looked for

Attack = Callable[[Tensor, Tensor, float], AttackResult]  # images, classes, epsilon


def evaluate(
    name: str,
    subject: Subject,
    attack: Attack,
    epsilon: float,
    *,
    num_images: int,
    target: int | None = None,
    epsilons: Sequence[float] | None = None,
    norm: str = "linf",
    how: Mapping[str, Any] = ONE_STEP,
) -> Section:
    """The section of an attack on the test set: accuracy before and after, and accuracy against the budget.

    Args:
        name: The attack's name.
        subject: The network and its test images.
        attack: From images (N, 1, H, W), classes int64 (N,) and a budget to the result.
        epsilon: The budget; infinite where the attack has none.
        num_images: Test images attacked, evenly spaced over the test set.
        target: Class aimed at; None: any wrong class.
        epsilons: Budgets of the curve, without a target. None: eight; none: no curve.
        norm: What the budget limits: `linf` or `l2`.
        how: `restarts`, `steps` and `step_size` for the record; a step size of None: the attack chooses its own.

    Raises:
        ValueError: The attack returns something else than an AttackResult, or images outside [0, 1] or the budget.
    """
    assert subject.test is not None
    index = subject.test.evenly_spaced(num_images)
    images, labels = subject.test[index]
    left_out: dict[str, int] = {}
    if target is not None:
        aim = targets(subject, target).expand(len(images))
        kept, _, left_out = attackable(subject, images, labels, torch.arange(len(images)), aim)
        images, labels = images[kept], labels[kept]
    classes = labels if target is None else aim[: len(labels)]
    clock = time.perf_counter()
    there = images.to(subject.device), classes.to(subject.device)
    result = _checked(name, attack(*there, epsilon), there[0], epsilon, norm).cpu()
    seconds = time.perf_counter() - clock

    first = torch.stack([(labels == c).nonzero()[0, 0] for c in labels.unique()])[:NUM_SHOWN]
    figures: dict[str, Picture] = {
        f"{name}/images": draw.sums(
            images[first], labels[first], result.rows(first), f"An image, what {name} adds, and their sum"
        )
    }
    budget = (
        "no pixel changed by more than {epsilon:g}" if norm == "linf" else "changes of an L2 norm up to {epsilon:g}"
    )
    within = f" ({budget})" if epsilon < float("inf") else ""
    findings: dict[str, Any] = {**left_out}
    if target is None:
        findings |= _before_and_after(
            predict(subject.network, images.to(subject.device)).argmax(1).cpu(), labels, result
        )
        says = (
            "Without the attack, {accuracy_before:.1%} of {num_images} test images are classified correctly; under it"
            f"{within}, {{accuracy_after:.1%}} are. It changes {{num_changed}} correct predictions."
        )
    else:
        says = f"Under the attack{within}, {{success_rate:.1%}} of {{num_images}} images are classified as {{target}}."
    part = Section(
        findings,
        [Answer("How many predictions does the attack change?", list(figures), [*not_counted(left_out), says])],
        {},
        figures,
    )
    if target is None:
        known = {epsilon: result}  # not computed again for the curve
        budgets = sorted(EPSILONS[norm] if epsilons is None else epsilons)
        if budgets:
            found = robust_accuracy(
                lambda budget: (
                    known.get(budget) or _checked(name, attack(*there, budget), there[0], budget, norm).cpu()
                ),
                labels,
                budgets,
                num_classes=subject.num_classes,
            )
            _add_curve(part, name, found, norm, subject.dataset, dict(how) | {"num_images": len(labels)})
        if norm == "linf" and epsilon > 0:
            _add_signs(part, subject, epsilon, how)
    return of_attack(name, subject, images, labels, result, seconds, part)


def _checked(name: str, result: AttackResult, images: Tensor, epsilon: float, norm: str) -> AttackResult:
    """The result, of which the section says that it keeps the grey values and the budget."""
    if not isinstance(result, AttackResult):
        raise ValueError(f"{name} must return an AttackResult, got {type(result).__name__}: see attacks.judge")
    low, high = result.images.min().item(), result.images.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must return images in [0, 1], got {low:.3g}..{high:.3g}: clamp them")
    broken = result.success.to(images.device)
    moved = (result.images - images)[broken]
    far = length(moved, norm).max().item() if len(moved) else 0
    if not far <= epsilon + (ROUNDING if norm == "linf" else ROUNDING * images[0].numel()):
        what = "a pixel" if norm == "linf" else "it, in the L2 norm,"
        raise ValueError(f"{name} broke an image by changing {what} by {far:.3g}, with an epsilon of {epsilon:g}")
    return result


def _before_and_after(clean: Tensor, labels: Tensor, result: AttackResult) -> dict[str, Any]:
    """Accuracy before and after an attack, and how many correct predictions it changed; classes int64 (N,)."""
    was_right, is_right = clean == labels, ~result.success
    return {
        "accuracy_before": was_right.double().mean().item(),
        "accuracy_after": is_right.double().mean().item(),
        "num_changed": int((was_right & ~is_right).sum()),
    }


def _add_curve(part: Section, name: str, found: RobustAccuracy, norm: str, dataset: str, how: dict[str, Any]) -> None:
    """Add the robust accuracy against the budget."""
    beside = published.beside(name, norm, dataset, **how)
    part.figures[f"{name}/robustness"] = draw.robustness(
        found, beside, attack=name, norm=norm, num_images=how["num_images"]
    )
    part.figures[f"{name}/robustness_by_class"] = draw.robustness_by_class(found, norm=norm)
    part.findings["robust_accuracy"] = {
        "epsilon": found.epsilon.tolist(),
        "robust_acc": found.accuracy.tolist(),
        "robust_acc_by_class": found.by_class.tolist(),
        "norm": norm,
        **how,
    }
    last = len(found.epsilon) - 1
    part.answers.append(
        Answer(
            "How does the accuracy fall with the strength of the attack?",
            [f"{name}/robustness", f"{name}/robustness_by_class"],
            [
                "With the attack the accuracy on {robust_accuracy.num_images} test images goes from "
                f"{{robust_accuracy.robust_acc.0:.1%}} at an epsilon of {{robust_accuracy.epsilon.0:g}} to "
                f"{{robust_accuracy.robust_acc.{last}:.1%}} at {{robust_accuracy.epsilon.{last}:g}}."
            ],
            [
                Table(
                    "Accuracy under attack",
                    ["epsilon", "accuracy"],
                    [
                        [f"{{robust_accuracy.epsilon.{k}:g}}", f"{{robust_accuracy.robust_acc.{k}:.1%}}"]
                        for k in range(len(found.epsilon))
                    ],
                )
            ],
        )
    )


def _add_signs(part: Section, subject: Subject, epsilon: float, how: Mapping[str, Any]) -> None:
    """Add the signs of gradient masking."""
    steps = max(40, how["steps"])  # also for FGSM, whose single step says little
    if how["step_size"] is None:  # as long as it needs to be, so that 100 are enough, after any number of queries
        steps = min(steps, 100)
    signs = _signs(subject, epsilon, default_step_size(how["step_size"], epsilon, steps), steps)
    part.findings["gradient_masking"] = {**signs._asdict(), "signs": signs.warnings}
    says = [f"A sign of gradient masking: {words.replace('{', '{gradient_masking.')}." for words in signs.signs]
    if not says:
        says = [
            "No sign of it on {gradient_masking.num_images} images: {gradient_masking.steps} steps leave "
            "{gradient_masking.many_steps:.1%} of them classified correctly, one step {gradient_masking.one_step:.1%}, "
            "random changes of the same size {gradient_masking.random:.1%}, and {gradient_masking.steps} steps with a "
            "budget of the whole range of grey values {gradient_masking.huge:.1%}."
        ]
    part.answers.append(Answer("Is the gradient masked?", [], says))


@functools.lru_cache(maxsize=4)
def _signs(subject: Subject, epsilon: float, step_size: float, steps: int) -> Masking:
    """Computed once for all attacks."""
    assert subject.test is not None
    images, labels = subject.test[subject.test.evenly_spaced(NUM_PROBED)]
    return gradient_masking(
        subject.network,
        images.to(subject.device),
        labels.to(subject.device),
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        generator=torch.Generator().manual_seed(0),
    )
