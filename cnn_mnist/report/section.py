"""A section of the report: findings, the questions that they answer, figures and tensors."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from cnn_mnist.attacks.result import AttackResult, predict
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.subject import Subject


class Table(NamedTuple):
    """A table whose cells are sentences over the section's findings; each row has as many cells as `columns`."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


class Answer(NamedTuple):
    """A question and its answer.

    Attributes:
        question: A question that a reader would ask.
        shows: Tags of the section's figures.
        says: Sentences over the section's findings, see `report.prose`.
        tables: Tables.
        on_demand: Tags of figures that the page opens on demand.
    """

    question: str
    shows: list[str]
    says: list[str]
    tables: Sequence[Table] = ()
    on_demand: Sequence[str] = ()


class Section(NamedTuple):
    """The result of a section.

    Attributes:
        findings: Numbers by name, as plain values.
        answers: Questions and answers, in the order of the report.
        tensors: By file and name.
        figures: By tag.
        files: Content of other files by name.
        unmet: What the section checked and found not to hold; the command then ends with 1.
        earlier_seconds: What interrupted commands have spent on it already.
    """

    findings: dict[str, Any]
    answers: list[Answer]
    tensors: dict[str, dict[str, Tensor]]
    figures: dict[str, Picture]
    files: Mapping[str, bytes] = MappingProxyType({})
    unmet: Sequence[str] = ()
    earlier_seconds: float = 0.0


class Needs(NamedTuple):
    """What a section needs beside a network.

    Attributes:
        data: Test images, and the training images.
        images: Among them those that the option `images` names.
        picture: A single picture of the user's own is enough.
        about: `picture` or `pictures`, where it is about one or about several of the user's own.
        other: A second network; the section is computed once for both.
        first: It is about the first network alone; a second one only serves it.
        package: An optional package.
        sample: `num_images` of its options counts test images.
        tables: Its tables are printed on the terminal, too.
    """

    data: bool = True
    images: bool = True
    picture: bool = False
    about: str = ""
    other: bool = False
    first: bool = False
    package: str = ""
    sample: bool = False
    tables: bool = False


Function = TypeVar("Function", bound=Callable[..., "Section"])


def needs(**what: Any) -> Callable[[Function], Function]:
    """Declare what a section needs, as `Needs`; undecorated, it needs test images."""

    def declare(function: Function) -> Function:
        function.needs = Needs(**what)  # type: ignore[attr-defined]
        return function

    return declare


def of_attack(
    name: str, subject: Subject, original: Tensor, labels: Tensor, result: AttackResult, seconds: float, part: Section
) -> Section:
    """Add to the section of an attack what every attack records: its measures and tensors.

    Args:
        name: The attack's name.
        subject: The network attacked; with another network, the images are tried on that, too.
        original: The images before, (N, 1, 28, 28).
        labels: Their classes, int64 (N,); -1 without a class.
        result: The attack's result, on the CPU.
        seconds: Time of the attack.
        part: The section so far.
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
                "Of {against.num_images} successful images that the other network did not classify as the target "
                "before, it now does so for {against.success_rate:.1%}."
                if is_aimed.any()
                else "Before the attack both networks classify {against.num_images} of the successful images "
                "correctly; {against.success_rate:.1%} of them fool the other network, too."
            )
            answers.append(Answer("Do the images fool the other network, too?", [], [says]))
    saved = {"original": original, "label": labels, **result._asdict()}
    del saved["perturbation"]
    return Section(findings, answers, {name: saved, **part.tensors}, part.figures)
