"""The report's section 3.1: what the network is, how it learnt, and how well it does on images it has not seen."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from cnn_mnist.analysis.architecture import Layer, architecture, total
from cnn_mnist.data import NUM_CLASSES
from cnn_mnist.figures import training as draw
from cnn_mnist.part import Answer, Part, Table
from cnn_mnist.subject import Subject, differences, in_words

NUM_SAMPLES = 60  # training images in the report's figure of samples
NUM_PREDICTIONS = 24
NUM_MISTAKES = 24
LAB_REPORT = {  # with batch normalisation or without: accuracy, seconds; one run each
    False: {"accuracy": 0.9894, "fit_seconds": 786},
    True: {"accuracy": 0.9918, "fit_seconds": 1391},
}
LAB_RECIPE = {  # what it was trained with
    "dataset": "mnist",
    "epochs": 6,
    "lr": 1e-3,
    "schedule": None,
    "batch_size": 100,
    "kernel_size": 3,
    "val_size": 0,
    "distortion": 0.0,
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "epsilon": 0.0,
}
SURE = 0.9  # probability from which on a mistake is called a confident one
MEASURED = ("loss", "acc", "fgsm_acc", "robust_acc")
CURVES = tuple(f"{data}/{metric}" for metric in MEASURED for data in ("train", "test", "val"))
ON_RECORD = (
    "recipe",
    "overrides",
    "seed",
    "batchnorm",
    "epochs",
    "num_train",
    "num_val",
    "fit_seconds",
    "train_images_per_second",
)


def training(subject: Subject) -> Part:
    """What was the network trained on, what is it made of, and how did it learn?"""
    layers = architecture(subject.network)
    findings: dict[str, Any] = {
        **{key: subject.run[key] for key in ON_RECORD if key in subject.run},
        "recipe_options": subject.recipe,
        **_sizes(layers),
    }
    figures, tensors = {}, {}
    answers = []
    if subject.train is not None:
        images, labels = subject.train[:NUM_SAMPLES]
        figures["training/samples"] = draw.sample_grid(images, labels)
        tensors["samples"] = {"images": images, "labels": labels}
        answers.append(Answer("What does it learn from?", ["training/samples"], []))
    answers.append(_architecture_answer(layers))
    curves = curves_of(subject.folder / "metrics.csv")
    says = ["There is no record of the training beside this checkpoint: neither its curves nor its times are known."]
    tables: list[Table] = []
    if "fit_seconds" in findings:
        says = [
            "{epochs} epochs over {num_train} training images took {fit_seconds:.0f} s, {train_images_per_second:.0f} "
            "images a second."
        ]
    if curves:
        findings["curves"] = curves
        figures["training/curves"] = draw.curves(curves)
        measured = [name for name in CURVES if name in curves]
        rows = [
            [f"{{curves.epoch.{k}}}", *(f"{{curves.{name}.{k}:{_digits(name)}}}" for name in measured)]
            for k in range(len(curves["epoch"]))
        ]
        tables.append(Table("After each epoch", ["epoch", *measured], rows))
    answers.append(Answer("How did it learn?", [tag for tag in figures if tag == "training/curves"], says, tables))
    return Part(findings, answers, tensors, figures)


def predictions(subject: Subject) -> Part:
    """How well does it do on the test set, which classes are hard, and which mistakes is it sure of?"""
    assert subject.test is not None
    labels, probability = subject.test.labels, subject.probability
    confidence, predicted = probability.max(1)
    counts = multiclass_confusion_matrix(predicted, labels, NUM_CLASSES)
    is_wrong = predicted != labels
    wrong = is_wrong.nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:NUM_MISTAKES]
    by_class = counts.diag() / counts.sum(1).clamp_min(1)
    mistakes = counts.clone().fill_diagonal_(0)
    label, taken_for = divmod(int(mistakes.argmax()), NUM_CLASSES)
    error = multiclass_calibration_error(probability, labels, NUM_CLASSES, n_bins=15)
    findings: dict[str, Any] = {
        "num_images": len(labels),
        "num_right": int((~is_wrong).sum()),
        "num_wrong": len(wrong),
        "accuracy": (~is_wrong).double().mean().item(),
        "accuracy_by_class": by_class.tolist(),
        "hardest_class": int(by_class.argmin()),
        "hardest_class_accuracy": by_class.min().item(),
        "most_common_mistake": {"label": label, "predicted": taken_for, "count": int(mistakes.max())},
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
    figures = {
        "predictions/random": draw.predictions(subject.test[drawn].images, labels[drawn], probability[drawn]),
        "predictions/confusion_matrix": draw.confusion_matrix(counts, f"{len(labels):,} test images"),
    }
    says = [
        "{num_right} of {num_images} test images are right: {accuracy:.2%}. Its confidence is off by "
        "{calibration_error:.2%} on average (expected calibration error)."
    ]
    if subject.dataset == "mnist":
        findings["lab_report"] = LAB_REPORT[subject.network.batchnorm]
        findings["differs_from_lab_report"] = differences(subject.recipe, LAB_RECIPE)
        says.append(_beside_the_lab_report(findings["differs_from_lab_report"]))
    answers = [Answer("How well does it do?", ["predictions/random"], says)]
    if len(wrong):
        figures["predictions/mistakes"] = draw.predictions(
            subject.test[worst].images, labels[worst], probability[worst]
        )
        answers += [
            Answer(
                "Which mistakes is it most sure of?",
                ["predictions/mistakes"],
                [
                    "Of {num_wrong} mistakes, {num_sure_mistakes} are made with a probability of at least "
                    "{sure_from:.1f}."
                ],
            ),
            Answer(
                "Which classes are hard?",
                ["predictions/confusion_matrix"],
                [
                    "The hardest class is {hardest_class} ({hardest_class_accuracy:.1%} right). No mistake is more "
                    "common than a {most_common_mistake.label} taken for a {most_common_mistake.predicted}, "
                    "{most_common_mistake.count} times."
                ],
            ),
        ]
    tensors = {
        "predictions": {"labels": labels, "probability": probability, "confusion_matrix": counts, "random": drawn}
    }
    return Part(findings, answers, tensors, figures)


def _beside_the_lab_report(differing: list[dict[str, Any]]) -> str:
    """The report's figure, or why it cannot be compared."""
    if not differing:
        return (
            "The lab report had {lab_report.accuracy:.2%} with the same layers and the same training, which took "
            "{lab_report.fit_seconds} s on another machine."
        )
    return (
        "The lab report's {lab_report.accuracy:.2%} is not comparable: this training and the report's differ in "
        f"{in_words(differing, 'differs_from_lab_report')}."
    )


def _sizes(layers: list[Layer]) -> dict[str, Any]:
    """The table of layers, and the shares of the kinds of layer."""
    everything = total(layers)
    sizes: dict[str, Any] = {**everything._asdict(), "architecture": [layer._asdict() for layer in layers]}
    for row, layer in zip(sizes["architecture"], layers, strict=True):
        row["input"], row["output"] = list(layer.input), list(layer.output)
        if layer.num_neurons:
            row["parameters_per_neuron"] = layer.num_parameters / layer.num_neurons
    for kind in ("conv", "fc", "norm"):
        part = total(layers, kind)
        sizes[kind] = {
            **part._asdict(),
            "parameter_share": part.num_parameters / everything.num_parameters,
            "neuron_share": part.num_neurons / everything.num_neurons,
        }
    return sizes


def _architecture_answer(layers: list[Layer]) -> Answer:
    rows = []
    for k, layer in enumerate(layers):
        shapes = [
            " x ".join(f"{{architecture.{k}.{side}.{d}:d}}" for d in range(len(getattr(layer, side))))
            for side in ("input", "output")
        ]
        counts = [f"{{architecture.{k}.{name}:,}}" for name in ("num_parameters", "num_neurons")]
        each = f"{{architecture.{k}.parameters_per_neuron:,.2f}}" if layer.num_neurons else ""
        rows.append([layer.name, *shapes, *counts, each])
    rows.append(["all", "", "", "{num_parameters:,}", "{num_neurons:,}", ""])
    says = [
        "Of {num_parameters:,} parameters, {conv.parameter_share:.2%} are in the convolutions and "
        "{fc.parameter_share:.2%} in the fully connected layers; of {num_neurons:,} neurons, {conv.neuron_share:.2%} "
        "and {fc.neuron_share:.2%}."
    ]
    if total(layers, "norm").num_parameters:
        says.append("Batch normalisation has {norm.num_parameters:,} parameters.")
    columns = ["layer", "input", "output", "parameters", "neurons", "parameters per neuron"]
    return Answer("What is it made of?", [], says, [Table("Layers", columns, rows)])


def curves_of(path: Path) -> dict[str, list[float | int | None]]:
    """What metrics.csv says of every epoch of training: the last value in it, of the training loss the mean.

    Empty without a file.
    """
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch")]  # the final test is of no epoch
    values: dict[str, dict[int, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    before = 0
    for row in rows:
        step = int(row["step"])
        for name in CURVES:
            if row.get(name):
                values[name][int(row["epoch"])].append((float(row[name]), step - before))
        if row.get("train/loss"):
            before = step
    trained = values["train/loss"] or {epoch: [] for column in values.values() for epoch in column}
    epochs = sorted(trained)
    curves: dict[str, list[float | int | None]] = {"epoch": [epoch + 1 for epoch in epochs]}
    for name in CURVES:
        take = _mean if name == "train/loss" else _last
        curve = [take(values[name][epoch]) if values[name][epoch] else None for epoch in epochs]
        if any(value is not None for value in curve):
            curves[name] = curve
    return curves


def _mean(points: list[tuple[float, int]]) -> float:
    """The mean of points that are each a mean over so many steps."""
    return round(sum(value * steps for value, steps in points) / max(1, sum(steps for _, steps in points)), 7)


def _last(points: list[tuple[float, int]]) -> float:
    return points[-1][0]


def _digits(name: str) -> str:
    return ".2%" if name.endswith("acc") else ".4f"


def _rows(*columns: Tensor) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))
