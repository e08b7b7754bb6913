"""The report's section 3.3, attack by attack: each turns images against the network, draws, and says what it found."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist import attacks, console
from cnn_mnist.ascent import Ascent
from cnn_mnist.attacks.result import conclude, predict
from cnn_mnist.attacks.transfer import Transfer, transfer
from cnn_mnist.data import NUM_CLASSES
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.findings import Part, of_attack
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
    last = result.trace.gather(0, result.steps[None])[0]
    rises = (last > result.trace[0]).double().mean().item()
    sentences = [
        f"{int(result.success.sum())} of {len(aim)} classes reach p >= {confidence:g}, after {_range(result.steps)}.",
        f"The cost, the logit of the class, ends higher than it began for {rises:.0%} of the images.",
    ]
    figures = {
        "non_targeted/images": draw.fooling_images(result),
        "non_targeted/cost": cost_curves(result.trace, [f"class {c}" for c in aim.tolist()], "logit of the class"),
    }
    start, no_class = result.images - result.perturbation, torch.full_like(aim, -1)
    part = Part({"cost_rises_share": rises}, sentences, {}, figures)
    return of_attack("non_targeted", subject, start, no_class, result, seconds, part)


def targeted(
    subject: Subject, *, target: int | None, beta: float, steps: int, step_size: float, confidence: float
) -> Part:
    """How little must a digit change to be taken for each other one? The report's grid of ten by ten."""
    images, labels = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    row, aim, said = attackable(subject, images, labels, *pairs(len(images), targets(target)))
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
    means = f"; their mean squared difference: median {median:.4f}, 90th percentile {tail:.4f}" if len(mse) else ""
    counts = f"{int(result.success.sum())} of {len(aim)} attacks succeed (p >= {confidence:g}){means}."
    sentences = [*said, counts]
    figures = {
        "targeted/images": draw.grid_of_targets(images, labels, result, row),
        "targeted/cost": draw.mean_costs(result),
    }
    part = Part({"median_mse": median, "p90_mse": tail}, sentences, {}, figures)
    return of_attack("targeted", subject, images[row], labels[row], result, seconds, part)


def noise(
    subject: Subject,
    *,
    target: int | None,
    steps: int,
    step_size: float,
    confidence: float,
    epsilon: float | None,
    num_test_images: int,
    seed: int,
) -> Part:
    """Which noise makes one digit another, and what does it do to digits that it was not made for?"""
    shown, classes = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    aim = targets(target)
    row, aim, said = attackable(subject, shown, classes, torch.tensor([_source(classes, c) for c in aim.tolist()]), aim)
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
    names = [f"{label} as {c}" for label, c in zip(labels.tolist(), aim.tolist(), strict=True)]
    figures = {
        "noise/images": draw.sums(images, labels, result, "A digit, the noise learnt for it, and their sum"),
        "noise/cost": cost_curves(result.trace, names, "logit of the target"),
    }
    sentences = [
        *said,
        f"{int(result.success.sum())} of {len(aim)} noises reach p >= {confidence:g}, after {_range(result.steps)}.",
    ]
    part = Part({}, sentences, {}, figures)
    if subject.test is not None:
        few = _transfer(subject, subject.network, result.perturbation, aim, shown, seed)
        figures["noise/ten_examples"] = draw.transfer_grid(shown, classes, result.perturbation, aim, few.predicted)
        changed = int((few.predicted != few.clean).sum())
        part.tensors["ten_examples"] = {"target": aim, "label": classes, **few._asdict()}
        part.findings["ten_examples_changed"] = changed
        part.sentences.append(
            f"Added to {len(shown)} digits, the {len(aim)} noises change {changed} of {few.predicted.numel()} answers, "
            "those on the digits they were made for included."
        )
        _spread(part, "noise", subject, result.perturbation, aim, num_test_images, seed)
    return of_attack("noise", subject, images, labels, result, seconds, part)


def universal(
    subject: Subject,
    *,
    target: int | None,
    epsilon: float,
    step_size: float,
    steps: int,
    batch_size: int,
    num_train_images: int,
    num_test_images: int,
    seed: int,
) -> Part:
    """Is there one noise that makes every digit the same? Fitted on training images, judged on test images."""
    assert subject.train is not None
    assert subject.test is not None
    fitted = subject.train[subject.train.spread(num_train_images)].images.to(subject.device)
    aims = targets(target)
    shown, classes = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    row, aim, said = attackable(subject, shown, classes, *pairs(len(shown), aims))
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
    result = result._replace(perturbation=noises[which])  # before the sum was clipped
    names = [f"as {c}" for c in aims.tolist()]
    figures = {
        "universal/images": draw.grid_of_targets(shown, classes, result, row),
        "universal/noise": draw.noises(noises, names),
        "universal/cost": cost_curves(trace.cpu(), names, "mean log probability of the target"),
    }
    part = Part({}, said, {}, figures)
    _spread(part, "universal", subject, noises, aims, num_test_images, seed)
    return of_attack("universal", subject, images, labels, result, seconds, part)


def targets(target: int | None) -> Tensor:
    """The classes to aim at: the one that is named, or all."""
    return torch.arange(NUM_CLASSES) if target is None else torch.tensor([target])


def pairs(num_images: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """Every image with every target: the image's place and the target of each attack, both int64 (N,)."""
    row, aim = torch.meshgrid(torch.arange(num_images), target, indexing="ij")
    return row.flatten(), aim.flatten()


def attackable(
    subject: Subject, images: Tensor, labels: Tensor, row: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, list[str]]:
    """Attacks, each an image's place and a target, without those that have nothing to do.

    Left out are images of the target's own class, and others that the network takes for it without any attack. The
    sentences that are returned say so, except for a digit in its own column of the report's grid.

    Raises:
        ValueError: None are left.
    """
    predicted = predict(subject.network, images.to(subject.device)).argmax(1).cpu()[row]
    is_own = labels[row] == target
    is_seen = (predicted == target) & ~is_own
    counts = {"seen as the target without an attack": is_seen, "of the target's own class": is_own}
    if len(target.unique()) > 1:
        del counts["of the target's own class"]
    said = [f"Not counted: {int(left.sum())} {words}." for words, left in counts.items() if left.any()]
    kept = ~is_own & ~is_seen
    if not kept.any():
        raise ValueError(
            "every image is of the target's class, or seen as it, already: set attack.target or images=..."
        )
    return row[kept], target[kept], said


def _transfer(
    subject: Subject, model: nn.Module, noises: Tensor, target: Tensor, images: Tensor, seed: int
) -> Transfer:
    """Noises, targets and images from the CPU, and the answer back."""
    there = (tensor.to(subject.device) for tensor in (noises, target, images))
    return transfer(model, *there, generator=torch.Generator().manual_seed(seed)).cpu()


def _spread(
    part: Part, name: str, subject: Subject, noises: Tensor, target: Tensor, num_images: int, seed: int
) -> None:
    """Add to a part what its noises do to test images, and to another network's view of them."""
    assert subject.test is not None
    images = subject.test[subject.test.spread(num_images)].images
    learnt = {"noise": "learnt on one image", "universal": "fitted on many images"}[name]
    networks = {"transfer": subject.network} | ({"transfer_against": subject.other} if subject.other else {})
    for key, network in networks.items():
        found = _transfer(subject, network, noises, target, images, seed)
        part.figures[f"{name}/{key}"] = draw.transfer_rates(found, target, learnt)
        part.tensors[key] = {"target": target, **found._asdict()}
        rates: dict[str, Any] = {k: v.tolist() for k, v in found._asdict().items() if k.endswith("rate")}
        part.findings[key] = {"num_images": len(images), "target": target.tolist(), **rates}
        part.sentences.append(
            f"{'On' if key == 'transfer' else 'Seen by the other network, on'} {len(images):,} test images the noises "
            f"change the class of {found.fooling_rate.mean():.1%} (random noise of the same norm: "
            f"{found.random_fooling_rate.mean():.1%}) and make {found.success_rate.mean():.1%} their own "
            f"({found.random_success_rate.mean():.1%})."
        )


def _source(labels: Tensor, target: int) -> int:
    """The place of an image of another class than the target; in the default set, of the class after it."""
    order = [(target + 1 + k) % len(labels) for k in range(len(labels))]
    return next((k for k in order if int(labels[k]) != target), 0)


def _range(steps: Tensor) -> str:
    return f"{int(steps.min())} to {int(steps.max())} steps"
