"""AutoAttack: the standard ensemble, and two of its attacks alone."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cnn_mnist import attacks
from cnn_mnist.attacks.autoattack.ensemble import STANDARD
from cnn_mnist.attacks.gradient_ascent import Progress
from cnn_mnist.attacks.result import AttackResult
from cnn_mnist.cli import console
from cnn_mnist.option_types import Budget, Count, Seed
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.sections.attacks.accuracy_under_attack import evaluate
from cnn_mnist.report.subject import Subject
from cnn_mnist.runs import files

NUM_TOGETHER = 500  # images that are attacked together, and kept when they are done
UNFINISHED = Path("outputs", "analyses", "unfinished")  # where
SEEN = 0.002  # share of the images that Square breaks after the gradient attacks, from which it is a sign of masking
TITLES = {
    "apgd_ce": "APGD on the cross-entropy",
    "apgd_targeted": "APGD on the ratio of logits, targeted",
    "fab_targeted": "FAB, targeted",
    "square": "Square",
}


@needs(images=False, sample=True)
def apgd(
    subject: Subject,
    *,
    epsilon: Budget,
    loss: Literal["ce", "dlr", "targeted"],
    steps: Count,
    restarts: Count,
    norm: Literal["linf", "l2"],
    num_images: Count,
    epsilons: list[Budget] | None,
    seed: Seed,
) -> Section:
    """How much accuracy is left under APGD, which chooses its own step sizes?

    Args:
        subject: The network and its test images.
        epsilon: Radius of the ball: the largest change of a pixel (`linf`, 0..1) or of the L2 norm (`l2`).
        loss: `ce`, `dlr` or `targeted`, see `attacks.apgd`.
        steps: Steps from each start.
        restarts: Starts, for `targeted` towards each class.
        norm: `linf` or `l2`.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon. None: eight, to 0.4 or 5.
        seed: Random seed of the starts.
    """

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        return attacks.apgd(
            subject.network,
            images,
            classes,
            epsilon=budget,
            loss=loss,
            steps=steps,
            restarts=restarts,
            norm=norm,
            generator=torch.Generator().manual_seed(seed),
            progress=_bar(f"apgd, epsilon {budget:g}"),
        )

    how = {"restarts": restarts, "steps": steps, "step_size": None}
    return evaluate("apgd", subject, attack, epsilon, num_images=num_images, epsilons=epsilons, norm=norm, how=how)


@needs(images=False, sample=True)
def square(
    subject: Subject,
    *,
    epsilon: Budget,
    queries: Count,
    norm: Literal["linf", "l2"],
    num_images: Count,
    epsilons: list[Budget] | None,
    seed: Seed,
) -> Section:
    """How much accuracy is left under Square, a random search that needs no gradient?

    Args:
        subject: The network and its test images.
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        queries: Changes tried on each image.
        norm: `linf` or `l2`.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon. None: eight, to 0.4 or 5.
        seed: Random seed of the squares.
    """

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        return attacks.square(
            subject.network,
            images,
            classes,
            epsilon=budget,
            queries=queries,
            norm=norm,
            generator=torch.Generator().manual_seed(seed),
            progress=_bar(f"square, epsilon {budget:g}"),
        )

    how = {"restarts": 1, "steps": queries, "step_size": None}
    return evaluate("square", subject, attack, epsilon, num_images=num_images, epsilons=epsilons, norm=norm, how=how)


@needs(images=False, sample=True, tables=True)
def auto(
    subject: Subject,
    *,
    epsilon: Budget,
    norm: Literal["linf", "l2"],
    num_images: Count,
    epsilons: list[Budget] | None,
    seed: Seed,
) -> Section:
    """How much accuracy is left under AutoAttack, the ensemble that robustness is measured with?

    Images are attacked 500 at a time. What is done is kept, so that the same command resumes where it was interrupted.

    Args:
        subject: The network and its test images.
        epsilon: Largest change of a pixel (`linf`, 0..1), or of the L2 norm (`l2`).
        norm: `linf` or `l2`.
        num_images: Test images attacked, evenly spaced over the test set.
        epsilons: Budgets of the curve of accuracy against epsilon. None: eight, to 0.4 or 5.
        seed: Random seed of the starts and squares.
    """
    used: list[Path] = []
    seconds: dict[float, float] = {}  # of each budget, whichever command spent them
    earlier: list[float] = []  # spent by commands that were interrupted

    def attack(images: Tensor, classes: Tensor, budget: float) -> AttackResult:
        folder = UNFINISHED / f"auto-{_fingerprint(subject, images, classes, budget, norm, seed)}"
        used.append(folder)
        with files.claimed(folder):
            return attacked(images, classes, budget, folder)

    def attacked(images: Tensor, classes: Tensor, budget: float, folder: Path) -> AttackResult:
        seconds[budget] = 0.0
        parts = list(zip(images.split(NUM_TOGETHER), classes.split(NUM_TOGETHER), strict=True))
        if num_done := sum((folder / f"{number}.npz").is_file() for number in range(len(parts))):
            print(f"  epsilon {budget:g}: {num_done} of {len(parts)} parts are done already")
        found: list[AttackResult] = []
        for number, (some, labels) in enumerate(parts):
            file = folder / f"{number}.npz"
            is_done = file.is_file()
            if not is_done:
                done = f"{number * NUM_TOGETHER:,} of {len(images):,} images done"
                start = time.perf_counter()
                result = attacks.auto(
                    subject.network,
                    some,
                    labels,
                    epsilon=budget,
                    norm=norm,
                    generator=torch.Generator().manual_seed(seed),
                    progress=lambda name, left, done=done: _bar(f"{done}, {name}, {left:.1%} of these left"),  # type: ignore[misc]
                )
                kept = {name: value.cpu().numpy() for name, value in result._asdict().items()}
                with files.replacing(file) as scratch, scratch.open("wb") as stream:
                    np.savez(stream, seconds=time.perf_counter() - start, **kept)
            with np.load(file) as saved:
                spent = float(saved.get("seconds", 0))  # parts of former versions have none
                seconds[budget] += spent
                earlier.append(is_done * spent)
                found.append(AttackResult(**{name: torch.from_numpy(saved[name]) for name in AttackResult._fields}))
        return AttackResult(*(torch.cat(values, int(name == "trace")) for name, values in _columns(found).items()))

    how = {"restarts": 1, "steps": 100, "step_size": None}
    part = evaluate("auto", subject, attack, epsilon, num_images=num_images, epsilons=epsilons, norm=norm, how=how)
    saved = part.tensors["auto"]
    broken_by = saved["trace"].isfinite().sum(0)  # 0: misclassified without an attack
    findings: dict[str, Any] = {
        "seconds": round(seconds[epsilon], 3),
        "left": {
            member.name: 1 - (saved["success"] & (broken_by <= number)).double().mean().item()
            for number, member in enumerate(STANDARD, 1)
        },
    }
    rows = [["no attack", "{accuracy_before:.2%}"], *([TITLES[m.name], f"{{left.{m.name}:.2%}}"] for m in STANDARD)]
    table = Table(
        "Accuracy left of all images; each attack is given those that the ones before did not break",
        ["attack", "accuracy"],
        rows,
    )
    part.answers[0] = part.answers[0]._replace(tables=[table])
    findings["broken_by_square"] = findings["left"]["fab_targeted"] - findings["left"]["square"]
    if findings["broken_by_square"] >= SEEN:
        says = (
            "A sign of gradient masking: Square, which uses no gradient, breaks another {broken_by_square:.1%} of the "
            "images after the attacks that do."
        )
        part.answers.append(Answer("Does the attack without a gradient find more?", [], [says]))
    for folder in used:
        shutil.rmtree(folder, ignore_errors=True)
    return part._replace(findings=part.findings | findings, earlier_seconds=sum(earlier))


def _bar(words: str) -> Progress:
    return lambda taken: console.track(taken, words)


def _columns(found: list[AttackResult]) -> dict[str, list[Tensor]]:
    return {name: [getattr(one, name) for one in found] for name in AttackResult._fields}


def _fingerprint(subject: Subject, images: Tensor, classes: Tensor, *options: object) -> str:
    """What identifies an attack: weights, images and options."""
    found = hashlib.sha256(repr((NUM_TOGETHER, options, repr(subject.network))).encode())
    for tensor in (*subject.network.state_dict().values(), images, classes):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
