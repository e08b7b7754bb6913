"""The targeted attack: the nearest image of another class (lab report, section 3.3.2)."""

import math
import time
from typing import Any

from cnn_mnist import attacks
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Class, Count, Fraction, NonNegative, Positive
from cnn_mnist.report.section import Answer, Section, needs, of_attack
from cnn_mnist.report.sections.attacks.common import (
    NUM_SHOWN,
    _likeness,
    attackable,
    course,
    course_in_words,
    not_counted,
    pairs,
    targets,
)
from cnn_mnist.report.subject import Subject


@needs(picture=True)
def targeted(
    subject: Subject,
    *,
    target: Class | None,
    beta: NonNegative,
    steps: Count,
    step_size: Positive,
    confidence: Fraction,
) -> Section:
    """How little must an image change to be misclassified as each other class? The lab report's grid of ten by ten.

    Args:
        subject: The network and its images.
        target: Class aimed at; None: each of the ten.
        beta: Weight of the mean squared difference, until the target is reached.
        steps: Number of steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target that counts as a success.
    """
    images, labels = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    row, aim, left_out = attackable(subject, images, labels, *pairs(len(images), targets(subject, target)))
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
    answers = [Answer("How little must an image change to be misclassified?", ["targeted/images"], says)]
    if looks := _likeness(subject, result.images, labels[row]):
        findings["likeness"] = looks
        says = [
            "{likeness.num_digits} of {num_images} are as near to a training image as real test images are, and the "
            "nearest one is of the class that the image was made from for {likeness.num_own}."
        ]
        answers.append(Answer("Do they look like numbers of the class they were made from?", [], says))
    says = [
        course_in_words("the target's logit less what the change costs"),
        "Once the target is reached the attack looks for a nearer image, at the expense of the logit. The curves are "
        "means for each target.",
    ]
    answers.append(Answer("Does the cost rise?", ["targeted/cost"], says))
    figures: dict[str, Picture] = {
        "targeted/images": draw.grid_of_targets(images, labels, result, row, num_classes=subject.num_classes),
        "targeted/cost": draw.mean_costs(result),
    }
    part = Section(findings, answers, {}, figures)
    return of_attack("targeted", subject, images[row], labels[row], result, seconds, part)
