"""The live page: the network in a browser, where a digit is drawn, classified, inspected and attacked."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnn_mnist.attacks.result import predict
from cnn_mnist.network import CHANNELS, CNN, HIDDEN, folded
from cnn_mnist.option_types import Count
from cnn_mnist.report.dataset import SETS
from cnn_mnist.report.export.layers import LEVELS, Layers
from cnn_mnist.report.page import templates
from cnn_mnist.report.section import Answer, Section
from cnn_mnist.report.subject import Subject, name_of

TOLERANCE = 3e-4  # largest difference of a logit, as a share of the largest one: weights are rounded to 16 bits
NUM_SAMPLES = 2  # test images of each class to begin with
TEMPLATES = Path(__file__).parents[1] / "templates" / "play"


def play(subject: Subject, *, num_images: Count) -> Section:
    """Do the rounded weights of the live page compute the same?

    Args:
        subject: The network, and perhaps another one beside it.
        num_images: Test images on which the rounded weights are compared with PyTorch's.

    Returns:
        The section, with `play.html` among its files.

    Raises:
        ValueError: A network has a layer that the page does not know, or its rounded weights compute other logits.
    """
    assert subject.test is not None
    sides = [subject] if subject.other is None else [subject, subject.other]
    images = subject.test[subject.test.evenly_spaced(num_images)].images
    networks, differences, same = [], [], []
    for side in sides:
        rounded = Rounded(side.network) if type(side.network) is CNN else _layers(side)
        expected = predict(side.network, images.to(side.device)).cpu()
        logits = predict(rounded.rounded, images)
        differences.append((logits - expected).abs().max().item())
        largest = expected.abs().max().item()
        if not differences[-1] <= TOLERANCE * largest:
            raise ValueError(
                f"the page would be wrong about {side.name}: with its weights rounded to 16 bits and the operations "
                f"that it knows, logits change by {differences[-1]:g}, where the largest is {largest:g}"
            )
        same.append(int((logits.argmax(1) == expected.argmax(1)).sum()))
        accuracy = (side.probability.argmax(1) == subject.test.labels).double().mean().item()
        networks.append(
            {
                "name": side.name if subject.other is None else name_of(side, sides[side is subject]),
                "accuracy": accuracy,
                "maps": rounded.maps,
                "stride": rounded.stride,
                "description": rounded.description,
                "weights": base64.b64encode(rounded.content()).decode(),
            }
        )
    samples = subject.test.of_each_class(NUM_SAMPLES * subject.num_classes)
    page = _page(
        {
            "classes": subject.names,
            "dataset": subject.dataset,
            "num_test_images": len(subject.test),
            "samples": [
                {"label": int(subject.test.labels[index]), "pixels": base64.b64encode(_bytes(subject, index)).decode()}
                for index in samples.tolist()
            ],
            "networks": networks,
        }
    )
    findings: dict[str, Any] = {
        "file": "play.html",
        "num_bytes": len(page),
        "num_networks": len(sides),
        "num_images": len(images),
        "max_difference": max(differences),
        "tolerance": TOLERANCE,
        "num_same_class": min(same),
        "test_accuracy": [one["accuracy"] for one in networks],
    }
    says = [
        "{file}, {num_bytes:,} bytes: open it in a browser and draw a digit. Rounded to 16 bits, its weights change no "
        "logit by more than {max_difference:.1e} on {num_images:,} test images; the predicted class is the same for "
        "{num_same_class:,}."
    ]
    return Section(
        findings, [Answer("Do the rounded weights compute the same?", [], says)], {}, {}, {"play.html": page}
    )


def _layers(side: Subject) -> Layers:
    try:
        return Layers(side.network)
    except ValueError as error:
        raise ValueError(f"export=play cannot show {side.name}: {error}") from error


def _bytes(subject: Subject, index: int) -> bytes:
    assert subject.test is not None
    return (subject.test[index : index + 1].images * 255).round().to(torch.uint8).numpy().tobytes()


class Rounded:
    """The lab report's network as four affine maps, batch normalisation folded in, their weights rounded to int16.

    In `content` each map is a matrix (inputs, outputs) with a scale for each output; its inputs lie channels last, so
    that a browser adds up rows of it.
    """

    def __init__(self, network: CNN) -> None:
        self.kernel_size, self.num_classes = network.kernel_size, network.fc2.out_features
        layers = (
            _folded(network.conv1, network.norm1),
            _folded(network.conv2, network.norm2),
            _folded(network.fc1, network.norm3),
            _folded(network.fc2, nn.Identity()),
        )
        self.bias = [bias for _, bias in layers]
        self.scale, self.level = [], []
        for weight, _ in layers:
            scale = (weight.flatten(1).abs().amax(1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
            self.scale.append(scale)
            self.level.append((weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int16))

    @property
    def rounded(self) -> CNN:
        """The network that has the rounded weights: images (B, 1, 28, 28) to logits (B, C), in eval mode."""
        network = CNN(kernel_size=self.kernel_size, num_classes=self.num_classes).eval()
        with torch.no_grad():
            for layer, scale, level, bias in zip(
                (network.conv1, network.conv2, network.fc1, network.fc2), self.scale, self.level, self.bias, strict=True
            ):
                assert isinstance(layer, nn.Conv2d | nn.Linear)
                layer.weight.copy_(level * scale.view(-1, *[1] * (level.ndim - 1)))
                assert layer.bias is not None
                layer.bias.copy_(bias)
        return network

    @property
    def maps(self) -> list[dict[str, Any]]:
        """The feature maps to show."""
        sides = {"First": 14, "Second": 7}
        return [
            {
                "title": f"{name} convolution, {side} x {side}, after max-pooling",
                "channels": CHANNELS,
                "height": side,
                "width": side,
            }
            for name, side in sides.items()
        ]

    @property
    def stride(self) -> int:
        """The stride of the page's occlusion map: larger filters take longer."""
        return 1 if self.kernel_size == 3 else 2

    @property
    def description(self) -> dict[str, Any]:
        """What the page needs to read `content`."""
        return {"kernel": self.kernel_size, "numClasses": self.num_classes}

    def content(self) -> bytes:
        """Biases and scales of the four maps, (outputs,) in float32, then the matrices in int16, little-endian."""
        conv1, conv2, fc1, fc2 = self.level
        matrices = (
            conv1.permute(2, 3, 1, 0),
            conv2.permute(2, 3, 1, 0),
            fc1.view(HIDDEN, -1, 7, 7).permute(2, 3, 1, 0),
            fc2.T,
        )
        numbers = [tensor.float().numpy().astype("<f4").tobytes() for tensor in (*self.bias, *self.scale)]
        return b"".join([*numbers, *(one.contiguous().numpy().astype("<i2").tobytes() for one in matrices)])


def _folded(layer: nn.Conv2d | nn.Linear, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with its batch normalisation, on the CPU."""
    weight, bias = folded(layer, norm)
    return weight.detach().cpu(), bias.detach().cpu()


def _page(content: dict[str, Any]) -> bytes:
    """The page, self-contained: its policy allows this script, this style and a worker made from text, nothing else."""
    style = _text("play.css")
    worker = "\n".join(map(_text, ("worker.js", "layers.js", "answer.js")))
    script = "\n".join(map(_text, ("network.js", "paper.js", "page.js")))
    html = (
        templates()
        .get_template("play/play.html")
        .render(
            **content,
            accuracy=_accuracy(content),
            style=style,
            script=script,
            worker=worker,
            content=json.dumps(content).replace("<", "\\u003c"),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    return html.encode()


def _accuracy(content: dict[str, Any]) -> str:
    """A sentence on the accuracy of each network."""
    dataset, num_images = SETS.get(content["dataset"], content["dataset"]), content["num_test_images"]
    first, *others = content["networks"]
    name = first["name"][:1].upper() + first["name"][1:] if others else "It"
    says = f"{name} classifies {100 * first['accuracy']:.2f} % of {num_images:,} test images of {dataset} correctly"
    return "".join([says, *(f", {one['name']} {100 * one['accuracy']:.2f} %" for one in others), "."])


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
