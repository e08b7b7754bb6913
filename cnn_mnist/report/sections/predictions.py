"""Predictions: accuracy, confusion matrix and confident mistakes on the test set (lab report, section 3.1)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from cnn_mnist.figures import training as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.published import LAB_RECIPE, LAB_REPORT
from cnn_mnist.report.differences import differences, in_words
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject

NUM_PREDICTIONS = 24
NUM_MISTAKES = 24
SURE = 0.9  # probability from which a mistake counts as confident


@needs(images=False)
def predictions(subject: Subject) -> Section:
    """How well does it do on the test set, which classes are hard, and which mistakes is it sure of?"""
    assert subject.test is not None
    labels, probability = subject.test.labels, subject.probability
    confidence, predicted = probability.max(1)
    counts = multiclass_confusion_matrix(predicted, labels, subject.num_classes)
    is_wrong = predicted != labels
    wrong = is_wrong.nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:NUM_MISTAKES]
    by_class = counts.diag() / counts.sum(1)  # NaN for a class without images
    mistakes = counts.clone().fill_diagonal_(0)
    label, mistaken_for = divmod(int(mistakes.argmax()), subject.num_classes)
    error = multiclass_calibration_error(probability, labels, subject.num_classes, n_bins=15)
    findings: dict[str, Any] = {
        "num_images": len(labels),
        "num_right": int((~is_wrong).sum()),
        "num_wrong": len(wrong),
        "accuracy": (~is_wrong).double().mean().item(),
        "accuracy_by_class": by_class.tolist(),
        "hardest_class": (hardest := int(by_class.nan_to_num(nan=torch.inf).argmin())),
        "hardest_class_name": subject.names[hardest],
        "hardest_class_accuracy": by_class[hardest].item(),
        "most_common_mistake": {
            "label": label,
            "predicted": mistaken_for,
            "label_name": subject.names[label],
            "predicted_name": subject.names[mistaken_for],
            "count": int(mistakes.max()),
        },
        "calibration_error": error.item(),
        "sure_from": SURE,
        "num_sure_mistakes": int((confidence[wrong] >= SURE).sum()),
        "mistakes": [
            {"index": i, "label": a, "predicted": b, "confidence": p}
            for i, a, b, p in _rows(worst, labels[worst], predicted[worst], confidence[worst])
        ],
        "confusion_matrix": counts.tolist(),
    }
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:NUM_PREDICTIONS]
    figures: dict[str, Picture] = {
        "predictions/random": draw.predictions(
            subject.test[drawn].images, labels[drawn], probability[drawn], "Test images drawn at random"
        ),
        "predictions/confusion_matrix": draw.confusion_matrix(counts, f"{len(labels):,} test images"),
    }
    says = [
        "{num_right} of {num_images} test images are classified correctly: {accuracy:.2%}. The network's "
        "confidence differs from its accuracy by {calibration_error:.2%} on average (expected calibration error)."
    ]
    if subject.dataset == "mnist":
        findings["lab_report"] = LAB_REPORT[subject.is_normalised]
        findings["differs_from_lab_report"] = differences(subject.run | subject.recipe, LAB_RECIPE)
        says.append(_beside_the_lab_report(findings["differs_from_lab_report"]))
    answers = [Answer("How well does it do?", ["predictions/random"], says)]
    if len(wrong):
        figures["predictions/mistakes"] = draw.predictions(
            subject.test[worst].images, labels[worst], probability[worst], "The most confident mistakes"
        )
        answers += [
            Answer(
                "Which mistakes are the most confident?",
                ["predictions/mistakes"],
                ["Of {num_wrong} mistakes, {num_sure_mistakes} have a confidence of at least {sure_from:.1f}."],
            ),
            Answer(
                "Which classes are hard?",
                ["predictions/confusion_matrix"],
                [
                    "The hardest class is {hardest_class_name}, with an accuracy of {hardest_class_accuracy:.1%}. The "
                    "most common mistake is {most_common_mistake.label_name} misclassified as "
                    "{most_common_mistake.predicted_name}, {most_common_mistake.count} times."
                ],
            ),
        ]
    tensors = {
        "predictions": {"labels": labels, "probability": probability, "confusion_matrix": counts, "random": drawn}
    }
    return Section(findings, answers, tensors, figures)


def _beside_the_lab_report(differing: list[dict[str, Any]]) -> str:
    """The lab report's figure, or why it cannot be compared."""
    if not differing:
        return (
            "The lab report had {lab_report.accuracy:.2%} with the same layers and the same training, which took "
            "{lab_report.fit_seconds} s on another machine."
        )
    return (
        "The lab report's {lab_report.accuracy:.2%} is not comparable: this training and the report's differ in "
        f"{in_words(differing, 'differs_from_lab_report')}."
    )


def _rows(*columns: Tensor) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))
