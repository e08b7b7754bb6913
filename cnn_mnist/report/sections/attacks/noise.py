"""Adding noise: a perturbation learnt for one image, and a universal one (lab report, section 3.3.3)."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist import attacks
from cnn_mnist.attacks.gradient_ascent import Ascent
from cnn_mnist.attacks.result import conclude
from cnn_mnist.attacks.transfer import Transfer, transfer
from cnn_mnist.cli import console
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures import class_names
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Class, Count, Fraction, Positive, Seed
from cnn_mnist.report.section import Answer, Section, needs, of_attack
from cnn_mnist.report.sections.attacks.common import (
    NUM_SHOWN,
    attackable,
    course,
    course_in_words,
    not_counted,
    pairs,
    step_range,
    targets,
)
from cnn_mnist.report.subject import Subject


@needs(picture=True)
def noise(
    subject: Subject,
    *,
    target: Class | None,
    steps: Count,
    step_size: Positive,
    confidence: Fraction,
    epsilon: Fraction | None,
    num_test_images: Count,
    seed: Seed,
) -> Section:
    """Which noise changes the class of one image, and what does it do to other images?

    Args:
        subject: The network and its images.
        target: Class aimed at; None: each of the ten.
        steps: Most steps.
        step_size: Standard deviation of a step over the pixels, in units of the grey value.
        confidence: Probability of the target at which a noise is done.
        epsilon: Largest change of a pixel, 0..1; None: unlimited.
        num_test_images: Test images that each noise is added to, evenly spaced over the test set.
        seed: Random seed of the random noise beside it.
    """
    shown, classes = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    aim = targets(subject, target)
    row, aim, left_out = attackable(
        subject, shown, classes, torch.tensor([_source(classes, c) for c in aim.tolist()]), aim
    )
    images, labels = shown[row], classes[row]
    clock = time.perf_counter()
    result = attacks.noise(
        subject.network,
        images.to(subject.device),
        aim.to(subject.device),
        steps=steps,
        step_size=step_size,
        confidence=confidence,
        epsilon=epsilon,
    ).cpu()
    seconds = time.perf_counter() - clock
    names = [
        f"{class_names.name(label)} as {class_names.name(c)}"
        for label, c in zip(labels.tolist(), aim.tolist(), strict=True)
    ]
    figures: dict[str, Picture] = {
        "noise/images": draw.sums(images, labels, result, "An image, the noise learnt for it, and their sum"),
        "noise/cost": cost_curves(result.trace, names, "logit of the target"),
    }
    findings: dict[str, Any] = {
        "num_success": int(result.success.sum()),
        "cost": course(result.trace),
        **step_range(result.steps),
        **left_out,
    }
    says = [
        *not_counted(left_out),
        "{num_success} of {num_images} noises reach p >= {confidence:g}, after {min_steps} to {max_steps} steps.",
        course_in_words("the logit of the target"),
    ]
    answers = [Answer("Which noise changes the class of an image?", ["noise/images", "noise/cost"], says)]
    part = Section(findings, answers, {}, figures)
    if subject.test is not None:
        few = _transfer(subject, subject.network, result.perturbation, aim, shown, seed)
        figures["noise/ten_examples"] = draw.transfer_grid(shown, classes, result.perturbation, aim, few.predicted)
        part.tensors["ten_examples"] = {"target": aim, "label": classes, **few._asdict()}
        is_other = torch.arange(len(shown)) != row[:, None]  # not the image that the noise was made for
        is_changed = (few.predicted != few.clean) & is_other
        findings["ten_examples"] = {
            "num_images": int(is_other.sum()),
            "num_changed": int(is_changed.sum()),
            "num_reached": int((is_changed & (few.predicted == aim[:, None])).sum()),
            "num_unstable": int(is_changed.any(0).sum()),
        }
        says = [
            "Each noise added to the images that it was not made for, {ten_examples.num_images} sums in all: "
            "{ten_examples.num_changed} answers change, on {ten_examples.num_unstable} of the images, and "
            "{ten_examples.num_reached} of them to the noise's own class."
        ]
        if not is_other.any():  # there is one image alone
            says = []
        answers.append(Answer("How far does one image's noise carry to others?", ["noise/ten_examples"], says))
        _spread(part, "noise", subject, result.perturbation, aim, num_test_images, seed)
    return of_attack("noise", subject, images, labels, result, seconds, part)


def universal(
    subject: Subject,
    *,
    target: Class | None,
    epsilon: Fraction,
    step_size: Positive,
    steps: Count,
    batch_size: Count,
    num_train_images: Count,
    num_test_images: Count,
    seed: Seed,
) -> Section:
    """Is there one noise with which every image is classified as the target?

    Args:
        subject: The network and its images.
        target: Class aimed at; None: each of the ten, one noise for each.
        epsilon: Largest change of a pixel, 0..1.
        step_size: Change of every pixel in a step.
        steps: Number of steps.
        batch_size: Training images in a step.
        num_train_images: Training images that the noise is fitted on.
        num_test_images: Test images that it is evaluated on.
        seed: Random seed of the batches.
    """
    assert subject.train is not None
    assert subject.test is not None
    fitted = subject.train[subject.train.evenly_spaced(num_train_images)].images.to(subject.device)
    aims = targets(subject, target)
    shown, classes = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    row, aim, left_out = attackable(subject, shown, classes, *pairs(len(shown), aims))
    clock = time.perf_counter()
    fits = [
        attacks.universal(
            subject.network,
            fitted,
            int(c),
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(seed),
        )
        for c in console.track(aims.tolist(), "universal noise")
    ]
    seconds = time.perf_counter() - clock
    noises, trace = torch.stack([f.perturbation[0] for f in fits]).cpu(), torch.stack([f.trace[:, 0] for f in fits], 1)

    images, labels, which = shown[row], classes[row], torch.searchsorted(aims, aim)
    summed = (images + noises[which]).clamp(0, 1)
    summed_up = Ascent(
        summed, torch.full_like(aim, steps), trace.cpu()[:, which], torch.zeros_like(aim, dtype=torch.bool)
    )
    there = Ascent(*(tensor.to(subject.device) for tensor in summed_up))
    result = conclude(subject.network, images.to(subject.device), there, aim.to(subject.device)).cpu()
    result = result._replace(perturbation=noises[which])  # before clipping the sum
    names = [f"as {class_names.name(c)}" for c in aims.tolist()]
    figures: dict[str, Picture] = {
        "universal/images": draw.grid_of_targets(shown, classes, result, row, num_classes=subject.num_classes),
        "universal/noise": draw.noises(noises, names),
        "universal/cost": cost_curves(trace.cpu(), names, "mean log probability of the target"),
    }
    answers = [
        Answer(
            "Is there one noise that makes every image the same?",
            list(figures),
            [
                *not_counted(left_out),
                "Of the {num_images} sums of an image and a noise that are drawn, {success_rate:.1%} are classified as "
                "the target of the noise.",
            ],
        )
    ]
    part = Section({**left_out}, answers, {}, figures)
    _spread(part, "universal", subject, noises, aims, num_test_images, seed)
    return of_attack("universal", subject, images, labels, result, seconds, part)


def _transfer(
    subject: Subject, model: nn.Module, noises: Tensor, target: Tensor, images: Tensor, seed: int
) -> Transfer:
    """`transfer` on the subject's device."""
    there = (tensor.to(subject.device) for tensor in (noises, target, images))
    return transfer(model, *there, generator=torch.Generator().manual_seed(seed)).cpu()


def _spread(
    part: Section, name: str, subject: Subject, noises: Tensor, target: Tensor, num_images: int, seed: int
) -> None:
    """Add the effect of the noises on test images, and on another network's predictions."""
    assert subject.test is not None
    images = subject.test[subject.test.evenly_spaced(num_images)].images
    learnt = {"noise": "learnt on one image", "universal": "fitted on many images"}[name]
    networks = {"transfer": subject.network} | ({"transfer_against": subject.other.network} if subject.other else {})
    for key, network in networks.items():
        found = _transfer(subject, network, noises, target, images, seed)
        part.figures[f"{name}/{key}"] = draw.transfer_rates(found, target, learnt)
        part.tensors[key] = {"target": target, **found._asdict()}
        rates = {k: v for k, v in found._asdict().items() if k.endswith("rate")}
        part.findings[key] = {
            "num_images": len(images),
            "target": target.tolist(),
            **{k: v.tolist() for k, v in rates.items()},
            **{f"mean_{k}": v.mean().item() for k, v in rates.items()},
        }
        says = (
            f"{'On' if key == 'transfer' else 'For the other network, on'} {{{key}.num_images}} test images the "
            f"noises change the class of {{{key}.mean_fooling_rate:.1%}} (random noise of the same norm: "
            f"{{{key}.mean_random_fooling_rate:.1%}}), and that of {{{key}.mean_success_rate:.1%}} to their target "
            f"({{{key}.mean_random_success_rate:.1%}})."
        )
        whose = "" if key == "transfer" else ", classified by the other network"
        part.answers.append(Answer(f"What do the noises do to the whole test set{whose}?", [f"{name}/{key}"], [says]))


def _source(labels: Tensor, target: int) -> int:
    """The index of an image of another class than the target; by default of the next class."""
    order = [(target + 1 + k) % len(labels) for k in range(len(labels))]
    return next((k for k in order if int(labels[k]) != target), 0)
