"""Adversarial training: the network learns from adversarial examples.

A single step per batch (FGSM training) is not enough for this network: with the published settings it learns to mask
its gradient, and an accuracy of 98 % under one step is 0 % under several. A few smaller steps in a ball that grows
during the first epochs do not collapse.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import ObjectiveValue, ascend, fixed_step
from cnn_mnist.attacks.projection import linf_ball
from cnn_mnist.checks import untouched

REACH = 5 / 3  # length of all steps together, in radii of the ball


def adversarial_examples(
    model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Adversarial examples (B, 1, H, W): a few steps of PGD, with the model in eval mode.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        images: (B, 1, H, W) in [0, 1].
        labels: Their classes, int64 (B,).
        epsilon: Largest change of a pixel.
        steps: Number of steps.
        generator: Draws the random start within the ball.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu 2018.
    """

    def cross_entropy(x: Tensor, index: Tensor) -> ObjectiveValue:
        return ObjectiveValue(F.cross_entropy(model(x), labels[index], reduction="none"))

    ball = linf_ball(images, epsilon)
    with untouched(model):
        climbed = ascend(
            cross_entropy,
            ball.random_start(generator),
            steps=steps,
            move=fixed_step(REACH * epsilon / steps, ball.direction, ball.project),
            evaluate_last=False,
        )
    return climbed.images


def warmed_up(epsilon: float, epoch: float, warmup_epochs: float) -> float:
    """The radius after `epoch` epochs (fractions allowed): it grows linearly from 0 over the first `warmup_epochs`."""
    return epsilon * min(1.0, epoch / warmup_epochs) if warmup_epochs > 0 else epsilon
