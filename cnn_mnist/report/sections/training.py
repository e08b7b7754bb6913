"""Training: the data, the layers and the curves (lab report, section 3.1)."""

from typing import Any

from cnn_mnist.analysis.architecture import Layer, architecture, total
from cnn_mnist.figures import training as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject
from cnn_mnist.runs.metrics import read_curves

NUM_SAMPLES = 60  # training images in the lab report's figure of samples
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


@needs(images=False)
def training(subject: Subject) -> Section:
    """What was the network trained on, what is it made of, and how did it learn?"""
    layers = architecture(subject.network)
    findings: dict[str, Any] = {
        **{key: subject.run[key] for key in ON_RECORD if key in subject.run},
        "recipe_options": subject.recipe,
        **_sizes(layers),
    }
    figures: dict[str, Picture] = {}
    tensors = {}
    answers = []
    if subject.train is not None:
        images, labels = subject.train[:NUM_SAMPLES]
        figures["training/samples"] = draw.sample_grid(images, labels)
        tensors["samples"] = {"images": images, "labels": labels}
        answers.append(Answer("What does it learn from?", ["training/samples"], []))
    if classes := subject.recipe.get("classes"):
        names = ", ".join(f"{number} ({{recipe_options.classes.{number}}})" for number in range(len(classes)))
        answers.append(Answer("What are the classes?", [], [f"They are {names}."]))
    answers.append(_architecture_answer(layers))
    curves = {name.replace(".", "_"): values for name, values in read_curves(subject.folder / "metrics.csv").items()}
    says = ["There is no record of the training beside this checkpoint: neither its curves nor its times are known."]
    tables: list[Table] = []
    if "fit_seconds" in findings:
        noun = "epoch" if findings["epochs"] == 1 else "epochs"
        says = [
            f"{{epochs}} {noun} over {{num_train}} training images took {{fit_seconds:.0f}} s, "
            "{train_images_per_second:,.0f} images a second."
        ]
    if curves:
        findings["curves"] = curves
        figures |= {f"training/{name}": chart for name, chart in draw.curves(curves).items()}
        measured = [name for name in curves if name != "epoch"]
        if held_out := next((name for name in ("test/loss", "val/loss") if name in curves), None):
            points = zip(curves[held_out], curves["epoch"], strict=True)
            losses = [(loss, epoch) for loss, epoch in points if loss is not None]
            lowest, last = min(losses), losses[-1]
            findings["lowest_loss"] = {"epoch": lowest[1], "value": lowest[0], "last": last[0]}
            says.append(
                f"{held_out} is lowest after epoch {{lowest_loss.epoch}}, {{lowest_loss.value:.4f}}"
                + ("." if lowest == last else ", and {lowest_loss.last:.4f} after the last.")
            )
        rows = [
            [f"{{curves.epoch.{k}}}", *(f"{{curves.{name}.{k}:{_digits(name)}}}" for name in measured)]
            for k in range(len(curves["epoch"]))
        ]
        tables.append(Table("After each epoch", ["epoch", *measured], rows))
    answers.append(Answer("How did it learn?", [tag for tag in figures if tag != "training/samples"], says, tables))
    return Section(findings, answers, tensors, figures)


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
            "parameter_share": part.num_parameters / max(1, everything.num_parameters),
            "neuron_share": part.num_neurons / max(1, everything.num_neurons),
        }
    return sizes


def _architecture_answer(layers: list[Layer]) -> Answer:
    rows = []
    for k, layer in enumerate(layers):
        shape = "x".join(f"{{architecture.{k}.output.{d}:d}}" for d in range(len(layer.output)))
        counts = [f"{{architecture.{k}.{name}:,}}" for name in ("num_parameters", "num_neurons")]
        each = f"{{architecture.{k}.parameters_per_neuron:,.2f}}" if layer.num_neurons else ""
        rows.append([layer.label, shape, *counts, each])
    rows.append(["all", "", "{num_parameters:,}", "{num_neurons:,}", ""])
    says = [
        "Of {num_parameters:,} parameters, {conv.parameter_share:.2%} are in the convolutions and "
        "{fc.parameter_share:.2%} in the fully connected layers; of {num_neurons:,} neurons (values that a layer "
        "computes), {conv.neuron_share:.2%} are in the convolutions and {fc.neuron_share:.2%} in the others."
    ]
    if total(layers, "norm").num_parameters:
        says.append("Normalisation has {norm.num_parameters:,} parameters.")
    columns = ["layer", "output", "parameters", "neurons", "parameters per neuron"]
    return Answer("What is it made of?", [], says, [Table("Layers", columns, rows)])


def _digits(name: str) -> str:
    return ".2%" if name.endswith("acc") else ".4f"
