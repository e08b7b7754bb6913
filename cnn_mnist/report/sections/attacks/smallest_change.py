"""Attacks that look for the smallest change: DeepFool, Carlini and Wagner's, and HopSkipJump."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnn_mnist import attacks
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.cli import console
from cnn_mnist.option_types import Budget, Count, NonNegative, Positive, Queries, Seed
from cnn_mnist.report.section import Section, needs
from cnn_mnist.report.sections.attacks.accuracy_under_attack import Attack, evaluate
from cnn_mnist.report.subject import Subject


def _computed_once(attack: Callable[[Tensor, Tensor], AttackResult]) -> Attack:
    """An attack without a budget: the smallest change that it finds holds for every budget of a curve."""
    found: list[AttackResult] = []

    def within(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        if not found:
            found.append(attack(images, classes))
        return found[0]._replace(success=found[0].success & (l2(found[0].perturbation)[:, 0, 0, 0] <= budget))

    return within


def _with_distance(part: Section) -> Section:
    """The section with the size of the changes that fooled the network."""
    (saved,) = part.tensors.values()
    moved = l2(saved["images"] - saved["original"])[:, 0, 0, 0]
    is_changed = saved["success"] & (moved > 0)
    if is_changed.any():
        part.answers[0].says.append(
            "Half of the changes that fool the network have an L2 norm of {median_l2:.2f} or less."
        )
        return part._replace(findings=part.findings | {"median_l2": moved[is_changed].median().item()})
    return part


@needs(images=False, sample=True)
def deepfool(
    subject: Subject,
    *,
    steps: Count,
    overshoot: NonNegative,
    num_images: Count,
    epsilons: list[NonNegative] | None,
) -> Section:
    """How near is the nearest decision boundary, by DeepFool?

    Args:
        subject: The network and its test images.
        steps: Most steps.
        overshoot: By how much a step is longer than the distance to the boundary.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: L2 norms of the curve of accuracy against epsilon. None: eight from 0 to 5.
    """
    attack = _computed_once(
        lambda images, classes: attacks.deepfool(subject.network, images, classes, steps=steps, overshoot=overshoot)
    )
    how = {"restarts": 1, "steps": steps, "step_size": None}  # as far as the boundary
    return _with_distance(
        evaluate("deepfool", subject, attack, math.inf, num_images=num_images, epsilons=epsilons, norm="l2", how=how)
    )


@needs(images=False, sample=True)
def carlini_wagner(
    subject: Subject,
    *,
    steps: Count,
    searches: Count,
    step_size: Positive,
    first_weight: Positive,
    confidence: NonNegative,
    num_images: Count,
    epsilons: list[NonNegative] | None,
) -> Section:
    """What is the smallest change that fools the network, by Carlini and Wagner's attack?

    Args:
        subject: The network and its test images.
        steps: Steps of each search, at most.
        searches: Searches, each with another weight between distance and class.
        step_size: Of Adam.
        first_weight: Weight of the class in the first search.
        confidence: How far ahead, in logits, the wrong class must be.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: L2 norms of the curve of accuracy against epsilon. None: eight from 0 to 5.
    """
    attack = _computed_once(
        lambda images, classes: attacks.carlini_wagner(
            subject.network,
            images,
            classes,
            steps=steps,
            searches=searches,
            step_size=step_size,
            first_weight=first_weight,
            confidence=confidence,
            progress=lambda taken: console.track(taken, "carlini_wagner"),
        )
    )
    how = {"restarts": 1, "steps": steps * searches, "step_size": step_size}
    name = "carlini_wagner"
    return _with_distance(
        evaluate(name, subject, attack, math.inf, num_images=num_images, epsilons=epsilons, norm="l2", how=how)
    )


@needs(images=False, sample=True)
def boundary(
    subject: Subject,
    *,
    epsilon: Budget,
    queries: Queries,
    norm: Literal["linf", "l2"],
    num_images: Count,
    epsilons: list[Budget] | None,
    seed: Seed,
) -> Section:
    """How much accuracy is left under HopSkipJump, which is told nothing but the predicted class?

    Args:
        subject: The network and its test images.
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`), within which an image is done.
        queries: Predictions asked for each image.
        norm: `linf` or `l2`.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon. None: eight, to 0.4 or 5.
        seed: Random seed of starts and changes.
    """

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        return attacks.boundary(
            subject.network,
            images,
            classes,
            epsilon=budget,
            queries=queries,
            norm=norm,
            generator=torch.Generator().manual_seed(seed),
            progress=lambda taken: console.track(taken, f"boundary, epsilon {budget:g}"),
        )

    how = {"restarts": 1, "steps": queries, "step_size": None}
    return evaluate("boundary", subject, attack, epsilon, num_images=num_images, epsilons=epsilons, norm=norm, how=how)
