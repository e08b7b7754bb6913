"""What a part of the report found: numbers, questions answered by them, and the figures and tensors behind them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.subject import Subject


class Table(NamedTuple):
    """A table whose cells are sentences over the part's findings: `columns` the headings, `rows` as many cells each."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


class Answer(NamedTuple):
    """A question, and what answers it.

    Attributes:
        question: As a reader would ask it.
        shows: Tags of the part's figures.
        says: Sentences over the part's findings, see `report.prose`.
        tables: What is better read in rows.
    """

    question: str
    shows: list[str]
    says: list[str]
    tables: Sequence[Table] = ()


class Part(NamedTuple):
    """What a part found.

    Attributes:
        findings: Numbers by name, as plain values.
        answers: What they mean, in the order of the report.
        tensors: By file and name.
        figures: By tag.
        files: Content of other files by name.
    """

    findings: dict[str, Any]
    answers: list[Answer]
    tensors: dict[str, dict[str, Tensor]]
    figures: dict[str, Figure]
    files: Mapping[str, bytes] = MappingProxyType({})


def of_attack(
    name: str, subject: Subject, original: Tensor, labels: Tensor, result: AttackResult, seconds: float, part: Part
) -> Part:
    """Complete what an attack found by what every attack leaves: its measures and its tensors.

    Args:
        name: The attack's.
        subject: What was attacked; beside another subject, whose network then sees the images too.
        original: The images before, (N, 1, 28, 28).
        labels: Their classes, int64 (N,); -1 where they have none.
        result: The attack's own record, on the CPU.
        seconds: What the attack took.
        part: What else there is to say.
    """
    findings = {"num_images": len(labels), **result.summary(), "seconds": round(seconds, 3), **part.findings}
    answers = list(part.answers)
    if subject.other is not None:
        own, clean, seen = (
            predict(network, images.to(subject.device)).argmax(1).cpu()
            for network, images in (
                (subject.network, original),
                (subject.other.network, original),
                (subject.other.network, result.images),
            )
        )
        is_aimed = result.target >= 0
        was_right = torch.where(is_aimed, clean != result.target, (clean == labels) & (own == labels))
        is_fooled = torch.where(is_aimed, seen == result.target, seen != labels)[result.success & was_right]
        rate = is_fooled.double().mean().item()
        findings["against"] = {"success_rate": rate, "num_images": len(is_fooled)}
        if len(is_fooled):
            says = (
                "Of {against.num_images} successes, {against.success_rate:.1%} fool the other network, which was right "
                "before."
            )
            answers.append(Answer("Do the images fool the other network, too?", [], [says]))
    saved = {"original": original, "label": labels, **result._asdict()}
    del saved["perturbation"]
    return Part(findings, answers, {name: saved, **part.tensors}, part.figures)
