"""Transfer: does noise learnt on one image, or one network, fool others?"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.attacks.result import predict
from cnn_mnist.checks import examined


class Transfer(NamedTuple):
    """The effect of T noise matrices on N images that they were not learnt on.

    Attributes:
        clean: The class predicted without noise, int64 (N,).
        predicted: The class predicted with each noise, int64 (T, N).
        fooling_rate: Share of the images whose predicted class changes, (T,).
        success_rate: Share predicted as the noise's target, of those that were not before, (T,).
        random_fooling_rate: The same as `fooling_rate` for Gaussian noise of the same L2 norm, (T,).
        random_success_rate: The same as `success_rate`, for that noise, (T,).
    """

    clean: Tensor
    predicted: Tensor
    fooling_rate: Tensor
    success_rate: Tensor
    random_fooling_rate: Tensor
    random_success_rate: Tensor

    def cpu(self) -> "Transfer":
        """The same on the CPU."""
        return Transfer(*(value.cpu() for value in self))


def transfer(
    model: nn.Module, noises: Tensor, target: Tensor, images: Tensor, *, generator: torch.Generator
) -> Transfer:
    """Add every noise to every image, clip to [0, 1] and predict.

    Args:
        model: Images to logits (B, C); unchanged afterwards.
        noises: (T, 1, H, W).
        target: The target of each, int64 (T,).
        images: (N, 1, H, W) in [0, 1].
        generator: Draws the random noise.

    Raises:
        ValueError: As `checks.examined`.

    Source: lab report 3.3.3, figure 11.
    """
    drawn = torch.randn(noises.shape, generator=generator, device=generator.device).to(noises)
    with examined(model, images, target[:1].expand(len(images)), name="target") as (logits_of, images, _):
        clean = predict(logits_of, images).argmax(1)
        learnt, random = (
            torch.stack([predict(logits_of, (images + matrix).clamp(0, 1)).argmax(1) for matrix in matrices])
            for matrices in (noises, drawn * l2(noises) / l2(drawn))
        )

    def rates(predicted: Tensor) -> tuple[Tensor, Tensor]:
        is_open = clean != target[:, None]
        reached = (predicted == target[:, None]) & is_open
        return (predicted != clean).double().mean(1), reached.sum(1) / is_open.sum(1)

    return Transfer(clean, learnt, *rates(learnt), *rates(random))
