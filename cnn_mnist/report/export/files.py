"""Export the network as a file for other programs, checked against PyTorch, with a model card."""

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram

from cnn_mnist import attacks
from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.attacks.gradient_ascent import batch_size
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.cli import console
from cnn_mnist.option_types import Count
from cnn_mnist.report.section import Answer, Section
from cnn_mnist.report.subject import Subject

TOLERANCE = 1e-4  # largest difference of a logit; float32 sums in another order differ by 1e-5
EPSILONS = (0.1, 0.2, 0.3)
PGD_STEPS = 40

Run = Callable[[Tensor], Tensor]  # images (B, 1, 28, 28) to logits (B, C), on the CPU


def onnx(subject: Subject, *, num_images: Count) -> Section:
    """Export to ONNX, which ONNX Runtime and many others run; any number of images at once.

    Raises:
        ValueError: The exported network computes other logits than PyTorch.
    """
    import onnxruntime  # the extra `export`

    program = torch.onnx.export(
        _exported(subject.network), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
    )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # paths of this machine
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    use = """\
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
(logits,) = session.run(None, {"images": images})  # NumPy arrays"""
    return _part(subject, "network.onnx", content, run, use, num_images)


def torch_program(subject: Subject, *, num_images: Count) -> Section:
    """Export to a program that `torch.export.load` reads without this project; any number of images at once.

    Raises:
        ValueError: The exported network computes other logits than PyTorch.
    """
    written = io.BytesIO()
    torch.export.save(_exported(subject.network), written)
    content = written.getvalue()
    run = torch.export.load(io.BytesIO(content)).module()
    use = """\
import torch

network = torch.export.load("network.pt2").module()
logits = network(images)"""
    return _part(subject, "network.pt2", content, run, use, num_images)


def _exported(network: nn.Module) -> ExportedProgram:
    """The graph of the network in eval mode, for any number of images.

    Raises:
        ValueError: It can be had for one number of images alone.
    """
    network = copy.deepcopy(network).cpu()
    image = torch.zeros(2, 1, 28, 28)
    try:
        program = torch.export.export(network, (image,), dynamic_shapes=({0: Dim("batch")},))
    except UserError as error:
        if "Constraints violated" not in str(error):
            raise
        raise ValueError(
            "torch.export cannot leave the number of images open: in the network, write images.shape[0] for len(images)"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _part(subject: Subject, file: str, content: bytes, run: Run, use: str, num_images: Count) -> Section:
    """Compare the exported network with PyTorch, and write it with its model card."""
    assert subject.test is not None
    images, labels = subject.test[subject.test.evenly_spaced(num_images)]
    with torch.no_grad():
        expected = subject.network(images.to(subject.device)).cpu()
        logits = torch.cat([run(part) for part in images.split(batch_size(torch.device("cpu")))])
    difference = (logits - expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(f"{file} computes logits that differ from PyTorch's by up to {difference:g}: do not use it")
    findings: dict[str, Any] = {
        "file": file,
        "num_bytes": len(content),
        "num_images": len(images),
        "max_difference": difference,
        "tolerance": TOLERANCE,
        "num_same_class": int((logits.argmax(1) == expected.argmax(1)).sum()),
        "num_test_images": len(subject.test),
        "test_accuracy": (subject.probability.argmax(1) == subject.test.labels).double().mean().item(),
        "robust_accuracy": {
            "epsilon": list(EPSILONS),
            "robust_acc": [_robust(subject, images, labels, budget) for budget in EPSILONS],
            "steps": PGD_STEPS,
            "restarts": 1,
            "num_images": len(images),
        },
    }
    says = [
        "{file}, {num_bytes} bytes: its logits differ from PyTorch's by at most {max_difference:.1e} on {num_images} "
        "test images, and {num_same_class} of its classes are the same."
    ]
    card = _card(subject, findings, use).encode()
    answer = Answer("Does the file compute the same?", [], says)
    return Section(findings, [answer], {}, {}, {file: content, "MODEL_CARD.md": card})


def _robust(subject: Subject, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """The accuracy under PGD."""
    result = attacks.pgd(
        subject.network,
        images.to(subject.device),
        labels.to(subject.device),
        epsilon=epsilon,
        step_size=default_step_size(None, epsilon, PGD_STEPS),
        steps=PGD_STEPS,
        generator=torch.Generator().manual_seed(0),
        progress=lambda taken: console.track(taken, f"model card: pgd, epsilon {epsilon:g}"),
    )
    return 1 - result.success.double().mean().item()


def _index(subject: Subject, findings: dict[str, Any]) -> dict[str, Any]:
    """What sites that collect models read at the top of a card: `model-index`, and keys to find it by."""
    robust = findings["robust_accuracy"]
    metrics = [{"type": "accuracy", "name": "accuracy", "value": findings["test_accuracy"]}]
    metrics += [
        {"type": "accuracy", "name": f"accuracy under PGD, Linf {epsilon}", "value": share}
        for epsilon, share in zip(robust["epsilon"], robust["robust_acc"], strict=True)
    ]
    results = {
        "task": {"type": "image-classification"},
        "dataset": {"name": subject.dataset, "type": subject.dataset, "split": "test"},
        "metrics": metrics,
    }
    return {
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "datasets": [subject.recipe.get("dataset", subject.dataset)],
        "metrics": ["accuracy"],
        "model-index": [{"name": f"cnn_mnist {type(subject.network).__name__}", "results": [results]}],
    }


def _card(subject: Subject, findings: dict[str, Any], use: str) -> str:
    environment = Environment(  # for Markdown: nothing to escape
        loader=PackageLoader("cnn_mnist.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("model_card.md")
    layers = architecture(subject.network)
    shown = [layer for layer in layers if layer.output and layer.kind != "softmax"]  # it returns logits
    return template.render(
        index=yaml.safe_dump(_index(subject, findings), sort_keys=False),
        found=findings,
        run=subject.run,
        recipe=subject.recipe,
        name=type(subject.network).__name__,
        num_parameters=total(layers).num_parameters,
        layers=", ".join(f"{layer.name} ({' x '.join(map(str, layer.output))})" for layer in shown),
        is_normalised=subject.is_normalised,
        num_classes=subject.num_classes,
        use=use,
    )
