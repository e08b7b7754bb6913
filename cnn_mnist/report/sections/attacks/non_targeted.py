"""The non-targeted attack: fooling images made from noise (lab report, section 3.3.1)."""

import time
from typing import Any

import torch

from cnn_mnist import attacks
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Class, Count, Fraction, Positive, Seed
from cnn_mnist.report.section import Answer, Section, needs, of_attack
from cnn_mnist.report.sections.attacks.common import _likeness, course, course_in_words, step_range, targets
from cnn_mnist.report.subject import Subject


@needs(images=False)
def non_targeted(
    subject: Subject,
    *,
    target: Class | None,
    steps: Count,
    step_size: Positive,
    confidence: Fraction,
    seed: Seed,
) -> Section:
    """Can noise be turned into an image that the network classifies with high confidence?

    Args:
        subject: The network.
        target: Class to maximise; None: each of the ten.
        steps: Most steps.
        step_size: L2 norm of a step, in units of the grey value.
        confidence: Probability of the target at which an image is done.
        seed: Random seed of the noise.
    """
    aim = targets(subject, target)
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
    figures: dict[str, Picture] = {
        "non_targeted/images": draw.fooling_images(result),
        "non_targeted/cost": cost_curves(result.trace, [f"class {c}" for c in aim.tolist()], "logit of the class"),
    }
    answers = [
        Answer(
            "Can noise be turned into an image that the network classifies with high confidence?",
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
            "{likeness.num_digits} of {num_images} do, measured by the distance to the nearest of {likeness.num_train} "
            "training images: it is {likeness.median:.1f} (L2, median) from these, {likeness.usual:.1f} from real test "
            "images, of which ninety-nine in a hundred are nearer than {likeness.limit:.1f}. That is a distance of "
            "pixels: look at the figure, too."
        )
        answers.append(Answer("Do the generated images look like real ones?", [], [says]))
    start, no_class = result.images - result.perturbation, torch.full_like(aim, -1)
    part = Section(findings, answers, {}, figures)
    return of_attack("non_targeted", subject, start, no_class, result, seconds, part)
