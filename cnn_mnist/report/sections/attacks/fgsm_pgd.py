"""The field's first attacks: FGSM and PGD."""

from typing import Literal

import torch
from torch import Tensor

from cnn_mnist import attacks
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.attacks.result import AttackResult, judge
from cnn_mnist.cli import console
from cnn_mnist.option_types import Budget, Class, Count, Fraction, Positive, Seed
from cnn_mnist.report.section import Section, needs
from cnn_mnist.report.sections.attacks.accuracy_under_attack import evaluate
from cnn_mnist.report.subject import Subject


@needs(images=False, sample=True)
def fgsm(
    subject: Subject,
    *,
    epsilon: Fraction,
    target: Class | None,
    num_images: Count,
    epsilons: list[Fraction] | None,
) -> Section:
    """How much accuracy is left under FGSM, a single step of the gradient's sign?

    Args:
        subject: The network and its test images.
        epsilon: Largest change of a pixel, 0..1; the size of the one step.
        target: Class aimed at; None: any wrong class.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon, without a target. None: eight from 0 to 0.4.
    """
    signs: list[Tensor] = []  # of the gradient, the same for every budget of the curve

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        if budget == epsilon:
            return attacks.fgsm(subject.network, images, classes, epsilon=budget, targeted=target is not None)
        if not signs:
            signs.append(attacks.fgsm(subject.network, images, classes, epsilon=1).perturbation.sign())
        return judge(subject.network, images, (images + budget * signs[0]).clamp(0, 1), classes)

    return evaluate("fgsm", subject, attack, epsilon, num_images=num_images, target=target, epsilons=epsilons)


@needs(images=False, sample=True)
def pgd(
    subject: Subject,
    *,
    epsilon: Budget,
    step_size: Positive | None,
    steps: Count,
    restarts: Count,
    norm: Literal["linf", "l2"],
    early_stop: bool,
    target: Class | None,
    num_images: Count,
    epsilons: list[Budget] | None,
    seed: Seed,
) -> Section:
    """How much accuracy is left under PGD, many steps within a budget, from several random starts?

    Args:
        subject: The network and its test images.
        epsilon: Radius of the ball: the largest change of a pixel (`linf`, 0..1) or of the L2 norm (`l2`).
        step_size: Length of a step in the same norm; None: 2.5 * epsilon / steps.
        steps: Steps from each start.
        restarts: Starts; an image is robust where every one of them failed.
        norm: `linf` or `l2`.
        early_stop: Whether an image is done at its first success; otherwise its last step is judged.
        target: Class aimed at; None: any wrong class.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon, without a target. None: eight, to 0.4 or 5.
        seed: Random seed of the starts.
    """

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        return attacks.pgd(
            subject.network,
            images,
            classes,
            epsilon=budget,
            step_size=default_step_size(step_size, budget, steps),
            steps=steps,
            restarts=restarts,
            norm=norm,
            targeted=target is not None,
            early_stop=early_stop,
            generator=torch.Generator().manual_seed(seed),
            progress=lambda taken: console.track(taken, f"pgd, epsilon {budget:g}"),
        )

    own_step = default_step_size(step_size, epsilon, steps)
    how = {"restarts": restarts, "steps": steps, "step_size": step_size}
    part = evaluate(
        "pgd", subject, attack, epsilon, num_images=num_images, target=target, epsilons=epsilons, norm=norm, how=how
    )
    if own_step * steps < epsilon:
        part.answers[0].says.append(
            "{steps} steps of {step_size_used:g} cannot cross a ball of radius {epsilon:g}: raise attack.step_size or "
            "attack.steps, or the accuracy is overestimated."
        )
    if early_stop and subject.other is not None and target is None:
        part.answers[-1].says.append(
            "An image is done at its first success here, just across the boundary, and usually carries less far than "
            "one that takes all steps (attack.early_stop=false)."
        )
    return part._replace(findings=part.findings | {"step_size_used": own_step})
