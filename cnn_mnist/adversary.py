"""The report's sections 3.3.1 and 3.3.2: images made from noise, and digits changed a little, that fool the network."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from cnn_mnist import attacks
from cnn_mnist.analysis.likeness import likeness
from cnn_mnist.attacks.result import predict
from cnn_mnist.data import NUM_CLASSES
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.part import Answer, Part, of_attack
from cnn_mnist.subject import Subject

NUM_SHOWN = 10  # images in a grid: the report's number of test examples


def non_targeted(
    subject: Subject, *, target: int | None, steps: int, step_size: float, confidence: float, seed: int
) -> Part:
    """Can noise be made into what the network is sure is a digit? One image for each class."""
    aim = targets(target)
    clock = time.perf_counter()
    result = attacks.non_targeted(
        subject.network,
        aim,
        steps=steps,
        step_size=step_size,
        confidence=confidence,
        generator=torch.Generator().manual_seed(seed),
    ).cpu()
    seconds = time.perf_counter() - clock
    findings: dict[str, Any] = {
        "num_success": int(result.success.sum()),
        "cost": course(result.trace),
        **step_range(result.steps),
    }
    figures = {
        "non_targeted/images": draw.fooling_images(result),
        "non_targeted/cost": cost_curves(result.trace, [f"class {c}" for c in aim.tolist()], "logit of the class"),
    }
    answers = [
        Answer(
            "Can noise be made into what the network is sure is a digit?",
            ["non_targeted/images"],
            [
                "{num_success} of {num_images} classes reach p >= {confidence:g}, after {min_steps} to {max_steps} "
                "steps."
            ],
        ),
        Answer(
            "Does the cost rise?",
            ["non_targeted/cost"],
            [course_in_words("the logit of the class")],
        ),
    ]
    if looks := _likeness(subject, result.images, aim):
        findings["likeness"] = looks
        says = (
            "{likeness.num_digits} of {num_images} do. Measured by the distance to the nearest of "
            "{likeness.num_train} training images: it is {likeness.median:.1f} (L2, median) from these, "
            "{likeness.usual:.1f} from real test digits, of which ninety-nine in a hundred are nearer than "
            "{likeness.limit:.1f}."
        )
        answers.append(Answer("Do the generated images look like digits?", [], [says]))
    start, no_class = result.images - result.perturbation, torch.full_like(aim, -1)
    part = Part(findings, answers, {}, figures)
    return of_attack("non_targeted", subject, start, no_class, result, seconds, part)


def targeted(
    subject: Subject, *, target: int | None, beta: float, steps: int, step_size: float, confidence: float
) -> Part:
    """How little must a digit change to be taken for each other one? The report's grid of ten by ten."""
    images, labels = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    row, aim, left_out = attackable(subject, images, labels, *pairs(len(images), targets(target)))
    clock = time.perf_counter()
    result = attacks.targeted(
        subject.network,
        images[row].to(subject.device),
        aim.to(subject.device),
        beta=beta,
        steps=steps,
        step_size=step_size,
        confidence=confidence,
    ).cpu()
    seconds = time.perf_counter() - clock
    mse = result.perturbation.square().mean((1, 2, 3))[result.success].double()
    median, tail = (mse.quantile(q).item() if len(mse) else math.nan for q in (0.5, 0.9))
    findings: dict[str, Any] = {
        "num_success": int(result.success.sum()),
        "median_mse": median,
        "p90_mse": tail,
        "cost": course(result.trace),
        **left_out,
    }
    says = [*not_counted(left_out), "{num_success} of {num_images} attacks succeed (p >= {confidence:g})."]
    if len(mse):
        says.append(
            "The mean squared difference of the successes has a median of {median_mse:.4f}; for nine in ten it is at "
            "most {p90_mse:.4f}."
        )
    answers = [Answer("How little must a digit change to be taken for another?", ["targeted/images"], says)]
    if looks := _likeness(subject, result.images, labels[row]):
        findings["likeness"] = looks
        says = [
            "{likeness.num_digits} of {num_images} are as near to a training image as real test digits are, and the "
            "nearest one is of the class that the image was made from for {likeness.num_own}."
        ]
        answers.append(Answer("Do they look like numbers of the class they were made from?", [], says))
    says = [
        course_in_words("the target's logit less what the change costs"),
        "Once the target is reached the attack looks for a nearer image, at the expense of the logit. The curves are "
        "means for each target.",
    ]
    answers.append(Answer("Does the cost rise?", ["targeted/cost"], says))
    figures = {
        "targeted/images": draw.grid_of_targets(images, labels, result, row),
        "targeted/cost": draw.mean_costs(result),
    }
    part = Part(findings, answers, {}, figures)
    return of_attack("targeted", subject, images[row], labels[row], result, seconds, part)


def targets(target: int | None) -> Tensor:
    """The classes to aim at: the one that is named, or all."""
    return torch.arange(NUM_CLASSES) if target is None else torch.tensor([target])


def pairs(num_images: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """Every image with every target: the image's place and the target of each attack, both int64 (N,)."""
    row, aim = torch.meshgrid(torch.arange(num_images), target, indexing="ij")
    return row.flatten(), aim.flatten()


def attackable(
    subject: Subject, images: Tensor, labels: Tensor, row: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Attacks, each an image's place and a target, without those that have nothing to do.

    Left out are images of the target's own class, and others that the network takes for it without any attack. They are
    counted, except for a digit in its own column of the report's grid.

    Raises:
        ValueError: None are left.
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
            "every image is of the target's class, or seen as it, already: set attack.target or images=..."
        )
    return row[kept], target[kept], counts


def not_counted(counts: dict[str, int]) -> list[str]:
    """A sentence for each kind of attack that was left out."""
    words = {
        "not_counted_seen": "seen as the target without an attack",
        "not_counted_own": "of the target's own class",
    }
    return [f"Not counted: {{{key}}} {words[key]}." for key, count in counts.items() if count]


def _likeness(subject: Subject, images: Tensor, made_from: Tensor) -> dict[str, Any]:
    """Whether images look like digits, of the classes int64 (B,); nothing where there are no digits to compare with."""
    if subject.train is None:
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
    """How the cost of each image went, (iterations, N), NaN once it is done: means over the images.

    Returns:
        `start`, `highest` and `end`, the median step at which it was highest, and the share that ends above its start.
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
    }


def course_in_words(what: str) -> str:
    """A sentence about `course`, for `report.prose`."""
    return (
        f"The cost, {what}, starts at {{cost.start:.1f}} on average, is highest at {{cost.highest:.1f}} (median step "
        "{cost.highest_at}) and ends at {cost.end:.1f}; for {cost.rises_share:.0%} of the images it ends higher "
        "than it began."
    )
