"""Gradient ascent on images, the one loop behind all attacks and class images.

    x <- move(x, gradient of the objective at x)

The move of most attacks is `fixed_step`: project(x + step_size * direction(gradient)). All images are optimised at
once, each on its own cost, and each leaves the batch as soon as it is done.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class ObjectiveValue(NamedTuple):
    """The value of an objective for some images.

    Attributes:
        cost: To be increased, (b,), with a gradient; each depends on its own image alone.
        is_done: bool (b,): the image needs no further step. None: no image ends early.
        score: (b,): the image with the highest score is kept. None: the last image is.
        shown: Recorded in the trace instead of the cost, (b,).
    """

    cost: Tensor
    is_done: Tensor | None = None
    score: Tensor | None = None
    shown: Tensor | None = None


class Ascent(NamedTuple):
    """The result of a gradient ascent.

    Attributes:
        images: (N, 1, H, W).
        steps: Steps that each image took, int64 (N,).
        trace: The cost before each step and, with `evaluate_last`, after the last, (steps + 1, N); NaN once an image is
            done.
        zero_gradient: bool (N,): the first gradient was zero everywhere, though the image was not done.
    """

    images: Tensor
    steps: Tensor
    trace: Tensor
    zero_gradient: Tensor


NO_GRADIENT = "the model's answer has no gradient with respect to the images"

Objective = Callable[[Tensor, Tensor], ObjectiveValue]  # images (b, 1, H, W), their indices int64 (b,) among the N
Direction = Callable[[Tensor, Tensor], Tensor]  # gradient and images -> the step, all (b, 1, H, W)
Project = Callable[[Tensor, Tensor], Tensor]  # images and their indices -> allowed images
Move = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, gradient, their indices -> the next images
Progress = Callable[[range], Iterable[int]]  # wraps the iterator over the steps, to show progress


def ascend(
    objective: Objective,
    start: Tensor,
    *,
    steps: int,
    move: Move,
    progress: Progress = iter,
    evaluate_last: bool = True,
) -> Ascent:
    """Increase an objective from `start` (N, 1, H, W), by at most `steps` steps.

    The caller freezes the model behind the objective and puts it into eval mode. The batch size depends on the device
    and does not affect the result.

    Args:
        objective: To be increased.
        start: Images to start from.
        steps: Maximum number of steps.
        move: From images and gradient to the next images: `fixed_step`, or a step with a memory of its own.
        progress: Wraps the iterator over the steps, to show progress.
        evaluate_last: Whether to evaluate the objective once more after the last step. Otherwise the trace ends before
            it, and no score sees it.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("there are no gradients to climb in torch.inference_mode()")
    images, best = start.detach().clone(), start.new_full((len(start),), -torch.inf)
    kept = images.clone()
    taken = torch.zeros(len(start), dtype=torch.long, device=start.device)
    trace = start.new_full((steps + evaluate_last, len(start)), torch.nan)
    zero_gradient = torch.zeros_like(taken, dtype=torch.bool)
    active = torch.arange(len(start), device=start.device)
    with torch.enable_grad():
        for step in progress(range(steps + evaluate_last)):
            left = [active[:0]]
            for part in active.split(batch_size(start.device)):
                x = images.index_select(0, part).requires_grad_()  # whole rows: images[part] goes pixel by pixel
                judged = objective(x, part)
                trace[step, part] = (judged.cost if judged.shown is None else judged.shown).detach()
                if judged.score is not None:
                    is_better = judged.score > best[part]
                    better = part[is_better]
                    kept[better], best[better] = x.detach()[is_better], judged.score.detach()[is_better]
                if step == steps:
                    continue
                if not judged.cost.requires_grad:
                    raise ValueError(NO_GRADIENT)
                (gradient,) = torch.autograd.grad(judged.cost.sum(), x)  # the sum: images stay independent
                x = x.detach()
                if judged.is_done is not None:
                    part, x, gradient = (t[~judged.is_done] for t in (part, x, gradient))
                    if not len(part):
                        continue
                if step == 0:
                    zero_gradient[part] = (gradient == 0).flatten(1).all(1)
                images.index_copy_(0, part, move(x, gradient, part))
                taken[part] += 1
                left.append(part)
            if step < steps:
                active = torch.cat(left)
            if not len(active):
                break
    return Ascent(images if judged.score is None else kept, taken, trace, zero_gradient)


def fixed_step(step_size: float, direction: Direction, project: Project) -> Move:
    """A step of the same length each time, back to the allowed images: what most attacks do."""

    def move(x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        return project(x + step_size * direction(gradient, x), index)

    return move


def batch_size(device: torch.device) -> int:
    """Images in a batch: on a CPU as many as fit its caches, elsewhere as many as fill the device."""
    return 256 if device.type == "cpu" else 4096


def inside(gradient: Tensor, images: Tensor) -> Tensor:
    """The gradient of the pixels that are free to change; those at their limit would use up the step."""
    return gradient.masked_fill(((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0)), 0)


def sign(gradient: Tensor, images: Tensor) -> Tensor:
    """The steepest direction in the Linf norm."""
    return gradient.sign()


def unit(gradient: Tensor, images: Tensor) -> Tensor:
    """The steepest direction in the L2 norm, of norm 1."""
    tiny = torch.finfo(gradient.dtype).tiny
    gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)  # squares of 1e-20 would vanish
    return gradient / l2(gradient).clamp_min(tiny)


def unit_inside(gradient: Tensor, images: Tensor) -> Tensor:
    """`unit` over the pixels that are free to change."""
    return unit(inside(gradient, images), images)


def standardised(gradient: Tensor, images: Tensor) -> Tensor:
    """The gradient divided by the standard deviation of its pixels, as in the lab report."""
    return gradient / (gradient.std((1, 2, 3), keepdim=True) + 1e-8)


def l2(images: Tensor) -> Tensor:
    """The L2 norm of each image, (N, 1, 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return norm
