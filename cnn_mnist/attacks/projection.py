"""Projections onto the allowed images: grey values, and balls in the Linf and L2 norms."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_mnist.attacks.gradient_ascent import Direction, Project, l2, sign, unit
from cnn_mnist.attacks.result import check_number


def to_grey_values(images: Tensor, index: Tensor) -> Tensor:
    """Clamp to [0, 1]."""
    return images.clamp(0, 1)


class Ball(NamedTuple):
    """The images within a distance of others: steepest direction, random start and projection."""

    direction: Direction
    random_start: Callable[[torch.Generator], Tensor]
    project: Project


def linf_ball(images: Tensor, epsilon: float) -> Ball:
    """Every pixel within `epsilon` of the same pixel of `images`; starts are uniform over the ball."""
    low, high = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)

    def project(x: Tensor, index: Tensor) -> Tensor:
        return x.clamp(low.index_select(0, index), high.index_select(0, index))

    def random_start(generator: torch.Generator) -> Tensor:
        drawn = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
        return (images + epsilon * (2 * drawn - 1)).clamp(0, 1)

    return Ball(sign, random_start, project)


def l2_ball(images: Tensor, epsilon: float) -> Ball:
    """An L2 distance of at most `epsilon`; starts lie on the sphere, as nearly all of a ball of 784 dimensions does."""

    def project(x: Tensor, index: Tensor) -> Tensor:
        centre = images.index_select(0, index)
        moved = x - centre
        return (centre + moved * (epsilon / l2(moved).clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)

    def random_start(generator: torch.Generator) -> Tensor:
        num_pixels = images[0].numel()
        whole = -(-num_pixels // 16) * 16  # torch.randn draws 16 numbers at a time, and the last ones otherwise
        drawn = torch.randn(len(images), whole, generator=generator, device=generator.device)
        drawn = drawn[:, :num_pixels].reshape(images.shape)
        return (images + epsilon * (drawn / l2(drawn)).to(images)).clamp(0, 1)

    return Ball(unit, random_start, project)


def onto_hyperplane(images: Tensor, normal: Tensor, amount: Tensor, norm: str) -> Tensor:
    """The smallest change of each image, within the grey values, with which `normal` times the change is `amount`.

    Where the grey values do not allow that much, the change goes as far as they allow. Every pixel moves in proportion
    to a speed, at most to its limit: in the Linf norm all speeds are 1, in the L2 norm they are those of the normal.
    How far is found by Newton's method on a concave, piecewise linear function, which ends after finitely many steps.

    Args:
        images: (B, 1, H, W) in [0, 1].
        normal: (B, 1, H, W).
        amount: (B,).
        norm: `linf` or `l2`.

    Source: Croce and Hein 2020, "Minimally distorted adversarial examples".
    """
    size = normal.abs()
    direction = normal.sign() * amount.sign().view(-1, 1, 1, 1)
    room = torch.where(direction > 0, 1 - images, images)
    speed = torch.ones_like(size) if norm == "linf" else size
    wanted, reach = amount.abs(), torch.zeros_like(amount)
    for _ in range(MOST_KINKS):
        moved = torch.minimum(speed * reach.view(-1, 1, 1, 1), room)
        slope = (size * speed * (moved < room)).sum((1, 2, 3))
        missing = wanted - (size * moved).sum((1, 2, 3))
        is_left = (slope > 0) & (missing > 1e-6 * wanted)
        if not is_left.any():
            break
        reach = torch.where(is_left, reach + missing / slope, reach)  # an image that is done stays
    return direction * torch.minimum(speed * reach.view(-1, 1, 1, 1), room)


MOST_KINKS = 50  # more than any image of grey values needs
BALLS = {"linf": linf_ball, "l2": l2_ball}


def check_budget(epsilon: float, norm: str) -> None:
    """Raise ValueError for a norm that is not known, or a radius out of range."""
    if norm not in BALLS:
        raise ValueError(f"norm must be linf or l2, got {norm}")
    check_number("epsilon", epsilon, 0, 1 if norm == "linf" else math.inf)


def length(moved: Tensor, norm: str) -> Tensor:
    """The norm of each change, (B, 1, 1, 1), for changes (B, C, H, W)."""
    norms: Tensor = torch.linalg.vector_norm(moved, torch.inf if norm == "linf" else 2, (1, 2, 3), keepdim=True)
    return norms
