"""Occlusion: which parts of the image the prediction depends on (lab report, section 3.2.3)."""

import functools
import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance, occlusion_map
from cnn_mnist.analysis.occlusion import resistance as look_at_resistance
from cnn_mnist.cli import console
from cnn_mnist.data.batches import EVAL_BATCH_SIZE
from cnn_mnist.figures import occlusion as draw_occlusion
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Fraction, Pixels, number
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject


@needs(picture=True, sample=True)
def occlusion(
    subject: Subject, *, window: Pixels, stride: Pixels, fill: Fraction, num_images: Annotated[int, number(int, 2)]
) -> Section:
    """Which parts of an image does the prediction depend on, which images resist, and what do the others become?

    Args:
        subject: The network and its images.
        window: Height and width of the patch in pixels.
        stride: Pixels from one position to the next.
        fill: Grey value of the patch: 0 is empty paper, 1 is ink.
        num_images: Test images for the statistics, evenly spaced over the test set.
    """
    maps = maps_of(subject, window, stride, fill)
    of = "true" if subject.test is not None else "predicted"
    figures: dict[str, Picture] = {
        "occlusion/probability": draw_occlusion.probability_maps(subject.images, subject.labels, maps, of=of),
        "occlusion/predicted": draw_occlusion.predicted_maps(subject.images, subject.labels, maps, of=of),
    }
    tensors = {"occlusion": _saved(maps, subject.indices, subject.labels)}
    findings: dict[str, Any] = {"window": window, "stride": stride, "fill": fill, "explained": of}
    if subject.test is None:
        answers = [Answer("Which parts of the image does the prediction depend on?", list(figures), [])]
        return Section(findings, answers, tensors, figures)

    chosen = subject.test.evenly_spaced(num_images)
    images, labels = subject.test[chosen]
    predicted = subject.probability[chosen].argmax(1)
    if not (predicted == labels).any():
        findings["num_images"] = len(chosen)
        says = "None of {num_images} test images is classified correctly without a patch: there is nothing to resist."
        return Section(findings, [Answer("How many images resist occlusion?", list(figures), [says])], tensors, figures)
    there = images.to(subject.device), labels.to(subject.device)
    whole = _in_batches(subject.network, *there, window=window, stride=stride, fill=fill)
    found = look_at_resistance(whole, images, labels, predicted, num_classes=subject.num_classes)
    figures |= {
        "occlusion/becomes": draw_occlusion.becomes(found),
        "occlusion/resistance": draw_occlusion.resistance(found),
    }
    tensors["test_images"] = _saved(whole, chosen, labels)
    findings |= _resistance_findings(found)
    findings["by_class"] = [
        {
            "name": subject.names[label],
            "wrong_share": share,
            "becomes": [subject.names[other] for other in findings["becomes"][str(label)]],
        }
        for label, share in enumerate(_wrong_share(found).tolist())
        if found.num_images[label]
    ]
    shares = [
        {"name": subject.names[label], "share": share}
        for label, (share, number) in enumerate(
            zip(findings["resistant_share_by_class"], found.num_images, strict=True)
        )
        if number
    ]
    findings["least_resistant"], findings["most_resistant"] = (
        choose(shares, key=lambda one: one["share"]) for choose in (min, max)
    )
    findings["most_changed"] = max(findings["by_class"], key=lambda one: one["wrong_share"])
    return Section(findings, _resistance_answers(findings), tensors, figures)


def _wrong_share(found: Resistance) -> Tensor:
    """Of each class, the share of patch positions at which its images are misclassified, (C,)."""
    total = found.confusion.sum(1)
    return (total - found.confusion.diag()) / total.clamp_min(1)


def _resistance_findings(found: Resistance) -> dict[str, Any]:
    changed = found.confusion.clone().fill_diagonal_(0)
    return {
        "num_images": int(found.num_images.sum()),
        "resistant_share": (found.num_resistant.sum() / found.num_images.sum()).item(),
        "resistant_share_by_class": (found.num_resistant / found.num_images).tolist(),  # NaN without images
        "drop_on_ink": found.drop_on_ink,
        "drop_on_paper": found.drop_on_paper,
        "drop_ratio": found.drop_on_ink / found.drop_on_paper if found.drop_on_paper > 1e-4 else math.nan,
        "becomes": {
            str(label): [int(other) for other in row.argsort(descending=True)[:2] if row[other] > 0]
            for label, row in enumerate(changed)
        },
        "taken_for": found.confusion.tolist(),
        "same_digit_difference": found.same_digit,
        "other_digit_difference": found.other_digit,
    }


def _resistance_answers(findings: dict[str, Any]) -> list[Answer]:
    drops = (
        "The probability of the true class falls by {drop_on_ink:.3f} on average where the patch touches ink, and by "
        "{drop_on_paper:.3f} where it covers empty paper alone"
    )
    drops += ": {drop_ratio:.1f} times as much." if math.isfinite(findings["drop_ratio"]) else "."
    becomes = "No class is ever misclassified because of the patch."
    tables = []
    if findings["most_changed"]["becomes"]:
        becomes = (
            "Images of class {most_changed.name} are misclassified most often, at {most_changed.wrong_share:.1%} of "
            "the positions, and mostly as {most_changed.becomes}."
        )
        rows = [
            [f"{{by_class.{k}.name}}", f"{{by_class.{k}.wrong_share:.1%}}", f"{{by_class.{k}.becomes}}"]
            for k in range(len(findings["by_class"]))
        ]
        tables.append(Table("Under the patch", ["class", "positions misclassified", "mostly as"], rows))
    resists = [
        "Of {num_images} images that are classified correctly without a patch, {resistant_share:.1%} are classified "
        "correctly at every position of a patch of {window} x {window} pixels, grey {fill:g}."
    ]
    if findings["least_resistant"]["share"] < findings["most_resistant"]["share"]:
        resists.append(
            "It depends on the class: from {least_resistant.share:.0%} of class {least_resistant.name} to "
            "{most_resistant.share:.0%} of class {most_resistant.name}."
        )
    if math.isfinite(findings["same_digit_difference"]):
        resists.append(
            "Two images of one class still differ by {same_digit_difference:.3f} in the probability at a position, on "
            "average; of different classes by {other_digit_difference:.3f}."
        )
    return [
        Answer("How much more does ink matter than background?", ["occlusion/probability"], [drops]),
        Answer("What does an occluded image become?", ["occlusion/predicted", "occlusion/becomes"], [becomes], tables),
        Answer("How many images resist occlusion?", ["occlusion/resistance"], resists),
    ]


@functools.lru_cache(maxsize=4)
def maps_of(subject: Subject, window: int, stride: int, fill: float) -> OcclusionMap:
    """The maps of the subject's few images; computed once for all sections."""
    return _in_batches(subject.network, *subject.on_device(), window=window, stride=stride, fill=fill)


def _in_batches(
    network: nn.Module, images: Tensor, labels: Tensor, *, window: int, stride: int, fill: float
) -> OcclusionMap:
    """The maps of many images on the network's device, batch by batch; returned on the CPU."""
    batches = console.track(torch.arange(len(images)).split(EVAL_BATCH_SIZE), "occlusion")
    parts = [
        occlusion_map(network, images[index], labels[index], window=window, stride=stride, fill=fill).cpu()
        for index in batches
    ]
    return parts[0]._replace(
        probability=torch.cat([part.probability for part in parts]),
        predicted=torch.cat([part.predicted for part in parts]),
        clean=torch.cat([part.clean for part in parts]),
    )


def _saved(maps: OcclusionMap, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
    numbers = {name: torch.tensor(getattr(maps, name)) for name in ("window", "stride", "fill")}
    fields = {name: getattr(maps, name) for name in ("probability", "predicted", "clean")}
    return {"indices": indices, "labels": labels, **fields, **numbers}
