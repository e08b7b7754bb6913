"""What the sections about attacks share: targets, pairs of image and target, and the course of the cost."""

from typing import Any

import torch
from torch import Tensor

from cnn_mnist.analysis.nearest import likeness
from cnn_mnist.attacks.result import predict
from cnn_mnist.report.subject import Subject

NUM_SHOWN = 10  # images in a grid: the lab report's number of test examples


def targets(subject: Subject, target: int | None) -> Tensor:
    """The target classes: the given one, or all that the network tells apart.

    Raises:
        ValueError: It has no such class.
    """
    if target is not None and target >= subject.num_classes:
        raise ValueError(f"attack.target must be a class of the network, 0..{subject.num_classes - 1}, got {target}")
    return torch.arange(subject.num_classes) if target is None else torch.tensor([target])


def pairs(num_images: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """Every image with every target: the index of the image and the target of each attack, both int64 (N,)."""
    row, aim = torch.meshgrid(torch.arange(num_images), target, indexing="ij")
    return row.flatten(), aim.flatten()


def attackable(
    subject: Subject, images: Tensor, labels: Tensor, row: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """The attacks (index of an image, and target) that make sense.

    Left out, and counted, are images of the target's own class and images that are classified as the target without an
    attack; an image in its own column of the lab report's grid is not counted.

    Raises:
        ValueError: No attack is left.
    """
    predicted = predict(subject.network, images.to(subject.device)).argmax(1).cpu()[row]
    is_own = labels[row] == target
    is_seen = (predicted == target) & ~is_own
    counts = {"not_counted_seen": int(is_seen.sum())}
    if len(target.unique()) == 1:
        counts["not_counted_own"] = int(is_own.sum())
    kept = ~is_own & ~is_seen
    if not kept.any():
        raise ValueError(
            "every image is of the target's class, or classified as it without an attack: set attack.target or images="
        )
    return row[kept], target[kept], counts


def not_counted(counts: dict[str, int]) -> list[str]:
    """A sentence for each kind of attack left out."""
    words = {
        "not_counted_seen": "classified as the target without an attack",
        "not_counted_own": "of the target's own class",
    }
    return [f"Not counted: {{{key}}} {words[key]}." for key, count in counts.items() if count]


def _likeness(subject: Subject, images: Tensor, made_from: Tensor) -> dict[str, Any]:
    """How near images are to training images, and to those of their class; empty without training images."""
    if subject.train is None or subject.test is None:
        return {}
    train, labels = (tensor.to(subject.device) for tensor in subject.train[:])
    found = likeness(images.to(subject.device), train, labels, subject.usual_distance)
    return {
        "num_train": len(subject.train),
        "num_digits": int(found.is_digit.sum()),
        "num_own": int((found.label.cpu() == made_from).sum()),
        "median": found.distance.median().item(),
        "usual": found.typical,
        "limit": found.limit,
    }


def step_range(steps: Tensor) -> dict[str, int]:
    """The fewest and the most steps, of int64 (N,)."""
    return {"min_steps": int(steps.min()), "max_steps": int(steps.max())}


def course(trace: Tensor) -> dict[str, Any]:
    """The course of the cost (iterations, N), NaN once an image is done, averaged over the images.

    Returns:
        `start`, `highest` and `end`; `highest_at`, the median step at which it was highest; `rises_share`, the share of
        images that end above their start; and `ends_highest_share`, of those that are highest at their end.
    """
    last = trace.isfinite().cumsum(0).argmax(0)  # NaN follows it
    end = trace.gather(0, last[None])[0]
    highest, when = trace.nan_to_num(-torch.inf).max(0)
    return {
        "start": trace[0].mean().item(),
        "highest": highest.mean().item(),
        "highest_at": int(when.median()),
        "end": end.mean().item(),
        "rises_share": (end > trace[0]).double().mean().item(),
        "ends_highest_share": (end == highest).double().mean().item(),
    }


def course_in_words(what: str) -> str:
    """A sentence about `course`, for `report.prose`."""
    return (
        f"The cost, {what}, starts at {{cost.start:.1f}} on average, is highest at {{cost.highest:.1f}} (median step "
        "{cost.highest_at}) and ends at {cost.end:.1f}; for {cost.rises_share:.0%} of the images it ends higher "
        "than it began."
    )
