"""What every attack returns."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_mnist.ascent import Ascent, batch_size
from cnn_mnist.guard import ModelWarning, check_logits


class AttackResult(NamedTuple):
    """N attacked images.

    Attributes:
        images: float32 (N, 1, H, W) in [0, 1].
        perturbation: What was added to the images attacked, (N, 1, H, W).
        target: The class aimed at, int64 (N,); -1 where any wrong class will do.
        predicted: The class that the model sees now, int64 (N,).
        confidence: The probability of the target, or of the predicted class where there is none, (N,).
        success: bool (N,): the target was reached, or a wrong class where there is none. Rates leave out the images
            that the model saw in the target class before.
        steps: Steps that each image took, int64 (N,).
        trace: The cost before each step, and after the last where the attack looks at it, (iterations, N); NaN once an
            image is done.
    """

    images: Tensor
    perturbation: Tensor
    target: Tensor
    predicted: Tensor
    confidence: Tensor
    success: Tensor
    steps: Tensor
    trace: Tensor

    def cpu(self) -> "AttackResult":
        """The same in main memory."""
        return AttackResult(*(value.cpu() for value in self))

    def rows(self, index: Tensor) -> "AttackResult":
        """Those of some images, int64 (M,)."""
        return AttackResult(*(value[..., index] if value is self.trace else value[index] for value in self))

    @classmethod
    def joined(cls, pieces: "Sequence[AttackResult]") -> "AttackResult":
        """The results of one set of images that was attacked piece by piece."""
        longest = max(len(piece.trace) for piece in pieces)
        ended = ((0, 0, 0, longest - len(piece.trace)) for piece in pieces)
        traces = (F.pad(piece.trace, rows, value=torch.nan) for piece, rows in zip(pieces, ended, strict=True))
        fields = zip(*(piece[:-1] for piece in pieces), strict=True)
        return cls._make([*map(torch.cat, fields), torch.cat(list(traces), 1)])

    def summary(self) -> dict[str, float]:
        """Means over all N images, successes or not: norms of what was added, in units of the grey value."""
        moved = self.perturbation.double()
        means = {
            "success_rate": self.success,
            "mean_confidence": self.confidence,
            "mean_linf": moved.abs().amax((1, 2, 3)),
            "mean_l2": moved.square().sum((1, 2, 3)).sqrt(),
            "mean_mse": moved.square().mean((1, 2, 3)),
            "mean_steps": self.steps,
        }
        return {name: value.double().mean().item() for name, value in means.items()}


def check_number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ValueError for a number outside low..high."""
    if not (low <= value <= high and math.isfinite(value)):
        limits = f"in {low:g}..{high:g}" if high < math.inf else f"at least {low:g}"
        raise ValueError(f"{name} must be {limits}, got {value:g}: set attack.{name}")


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, C), batch by batch."""
    return torch.cat([model(part) for part in images.split(batch_size(images.device))])


def conclude(
    model: nn.Module,
    original: Tensor,
    climbed: Ascent,
    classes: Tensor,
    *,
    targeted: bool = True,
    confidence: float = 0.0,
) -> AttackResult:
    """Look once more at where the images have come to.

    Args:
        model: The model, guarded.
        original: The images attacked, (N, 1, H, W).
        climbed: The images now.
        classes: Those to reach, int64 (N,), or those to get away from.
        targeted: Which of the two.
        confidence: The least probability of a target, once it is predicted, that is a success.
    """
    if climbed.is_flat.any():
        message = (
            f"the gradient is zero everywhere on {int(climbed.is_flat.sum())} of {len(original)} images: an attack "
            "that follows the gradient cannot move them, which does not make the model robust"
        )
        warnings.warn(message, ModelWarning, stacklevel=3)
    logits = predict(model, climbed.images)
    check_logits(logits)
    probability = logits.softmax(1)
    highest, predicted = probability.max(1)
    if targeted:
        target, highest = classes, probability.gather(1, classes[:, None])[:, 0]
        success = (predicted == classes) & (highest >= confidence)
    else:
        target, success = torch.full_like(classes, -1), predicted != classes
    perturbation = climbed.images - original
    return AttackResult(climbed.images, perturbation, target, predicted, highest, success, climbed.steps, climbed.trace)
