"""Adversarial training: the network learns from images that have been turned against it.

A single step a batch (fast gradient sign training) is not enough for this network: with the published settings it
learns to hide its gradient, and what was 98 % right falls to 0 % under more steps. A few smaller steps in a ball that
grows during the first epochs do not collapse.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.ascent import Judged, ascend, linf_ball
from cnn_mnist.guard import untouched

REACH = 5 / 3  # the steps together may go so many times the radius of the ball


def adversarial_examples(
    model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Images (B, 1, H, W) near others that the model finds harder: a few steps of PGD, with the model in eval mode.

    Args:
        model: Images to logits (B, C); left as it was.
        images: (B, 1, H, W) in [0, 1].
        labels: Their classes, int64 (B,).
        epsilon: Largest change of a pixel.
        steps: Number of steps.
        generator: Of the random start within the ball.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu 2018.
    """

    def cross_entropy(x: Tensor, index: Tensor) -> Judged:
        return Judged(F.cross_entropy(model(x), labels[index], reduction="none"))

    ball = linf_ball(images, epsilon)
    with untouched(model):
        climbed = ascend(
            cross_entropy,
            ball.random_start(generator, 0),
            steps=steps,
            step_size=REACH * epsilon / steps,
            direction=ball.direction,
            project=ball.project,
            look_back=False,
        )
    return climbed.images


def warmed_up(epsilon: float, epoch: float, warmup_epochs: float) -> float:
    """The radius after so many epochs, fractions included: it grows evenly from 0 over the first `warmup_epochs`."""
    return epsilon * min(1.0, epoch / warmup_epochs) if warmup_epochs > 0 else epsilon
