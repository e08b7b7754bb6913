"""What every attack returns."""

import math
import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.gradient_ascent import Ascent, batch_size
from cnn_mnist.checks import ModelWarning, check_logits

Attempt = Callable[[Tensor], Ascent]  # indices int64 (b,) of the images to attack -> what became of them


class AttackResult(NamedTuple):
    """N attacked images.

    Attributes:
        images: float32 (N, 1, H, W) in [0, 1].
        perturbation: What was added to the images attacked, (N, 1, H, W).
        target: The class aimed at, int64 (N,); -1 where any wrong class will do.
        predicted: The class predicted after the attack, int64 (N,).
        confidence: The probability of the target, or of the predicted class without a target, (N,).
        success: bool (N,): the target was reached, or without a target any wrong class; so it is where the image was
            classified as that before the attack, too.
        steps: Steps that each image took, int64 (N,).
        trace: The cost before each step, and after the last where the attack evaluates it, (iterations, N); NaN once an
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
        """The same on the CPU."""
        return AttackResult(*(value.cpu() for value in self))

    def rows(self, index: Tensor) -> "AttackResult":
        """The results of some images, by index int64 (M,)."""
        return AttackResult(*(value[..., index] if value is self.trace else value[index] for value in self))

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


def check_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise ValueError for a number outside low..high."""
    is_number = isinstance(value, Real | Tensor)
    if not is_number:
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not (low <= value <= high and math.isfinite(value)):
        limits = f"in {low:g}..{high:g}" if high < math.inf else f"at least {low:g}"
        raise ValueError(f"{name} must be {limits}, got {value:g}")


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
    """Evaluate the attacked images.

    Args:
        model: The model, frozen and in eval mode.
        original: The images attacked, (N, 1, H, W).
        climbed: The result of the ascent.
        classes: Target classes, int64 (N,), or true classes to move away from.
        targeted: Whether `classes` are targets.
        confidence: Probability of the target from which an attack is a success.
    """
    logits = predict(model, climbed.images)
    check_logits(logits)
    probability = logits.softmax(1)
    highest, predicted = probability.max(1)
    if targeted:
        target, highest = classes, probability.gather(1, classes[:, None])[:, 0]
        success = (predicted == classes) & (highest >= confidence)
    else:
        target, success = torch.full_like(classes, -1), predicted != classes
    if num_flat := int((climbed.zero_gradient & ~success).sum()):
        message = (
            f"the gradient is zero everywhere on {num_flat} of {len(original)} images: an "
            "attack that follows the gradient cannot move them, which does not make the model robust"
        )
        warnings.warn(message, ModelWarning, stacklevel=3)
    perturbation = climbed.images - original
    return AttackResult(climbed.images, perturbation, target, predicted, highest, success, climbed.steps, climbed.trace)


def is_over(logits: Tensor, labels: Tensor, targeted: bool = False) -> Tensor:
    """Whether each image is where it should be, bool (B,): misclassified, or classified as the target."""
    return (logits.argmax(1) == labels) == targeted


@torch.no_grad()
def confirmed(model: nn.Module, images: Tensor, labels: Tensor, seems_over: Tensor) -> Tensor:
    """Which of the images that seem to be misclassified, bool (B,), the model itself misclassifies, bool (B,)."""
    found = seems_over.clone()
    if seems_over.any():
        found[seems_over] = is_over(model(images[seems_over]), labels[seems_over])
    return found


def lead(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the likeliest wrong class is ahead of the label, in logits, (B,)."""
    label = labels[:, None]
    return (logits.scatter(1, label, -torch.inf).amax(1, keepdim=True) - logits.gather(1, label))[:, 0]


def in_turn(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attempts: Sequence[Attempt],
    *,
    targeted: bool = False,
    early_stop: bool = True,
) -> AttackResult:
    """The result of several attempts, such as starts, of which one success is enough.

    An image that is misclassified before the attack is returned unchanged.

    Args:
        model: The model, frozen and in eval mode.
        images: (N, 1, H, W).
        labels: True classes, int64 (N,); with `targeted`, those aimed at.
        attempts: Each is given the images that are left.
        targeted: Whether to go towards `labels`.
        early_stop: Whether an image leaves at its first success. Otherwise every attempt is made on every image.
    """
    found, taken = images.clone(), torch.zeros_like(labels)
    zero_gradient = torch.ones_like(labels, dtype=torch.bool)  # at every start
    has_left = is_over(predict(model, images), labels, targeted)
    traces: list[Tensor] = []
    for attempt in attempts:
        left = (~has_left).nonzero()[:, 0] if early_stop else torch.arange(len(images), device=images.device)
        if not len(left):
            break
        climbed = attempt(left)
        still = ~has_left[left]
        found[left[still]] = climbed.images[still]
        if len(traces) + 1 < len(attempts):
            has_left[left] |= is_over(predict(model, climbed.images), labels[left], targeted)
        taken[left] += climbed.steps
        zero_gradient[left] &= climbed.zero_gradient
        trace = images.new_full((len(climbed.trace), len(images)), torch.nan)
        trace[:, left] = climbed.trace
        traces.append(trace)
    trace = torch.cat(traces) if traces else images.new_empty(0, len(images))
    zero_gradient &= ~trace.isnan().all(0)  # of the images that were attacked
    return conclude(model, images, Ascent(found, taken, trace, zero_gradient), labels, targeted=targeted)


def judge(
    model: nn.Module, original: Tensor, images: Tensor, classes: Tensor, *, targeted: bool = False
) -> AttackResult:
    """The result of any attack, given the images before and after it; for attacks that do not use `ascend`.

    Args:
        model: Images to logits (B, C), in eval mode.
        original: The images attacked, (N, 1, H, W) in [0, 1].
        images: The same after the attack.
        classes: True classes, int64 (N,); with `targeted`, those aimed at.
        targeted: Whether `classes` are those to reach.
    """
    nothing = torch.zeros_like(classes)
    there = Ascent(images, nothing, images.new_empty(0, len(images)), nothing.bool())
    return conclude(model, original, there, classes, targeted=targeted)
