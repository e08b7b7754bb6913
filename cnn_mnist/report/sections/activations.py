"""Activations: what each channel responds to (lab report, section 3.2.2)."""

from typing import Annotated, Any

import torch

from cnn_mnist.analysis import activations as look_at_activations
from cnn_mnist.analysis.activations import Activations
from cnn_mnist.cli import console
from cnn_mnist.data.batches import EVAL_BATCH_SIZE
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.option_types import number
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject

LAYERS = ("conv1", "conv2")
COPY = 0.8  # correlation with the digit from which a channel counts as a copy of it


@needs(picture=True, sample=True)
def activations(subject: Subject, *, num_images: Annotated[int, number(int, 2)]) -> Section:
    """Which channels are dead, which copy the digit, which invert it? How much more abstract is the second layer?

    Args:
        subject: The network and its images.
        num_images: Test images for the statistics of the channels, evenly spaced over the test set.
    """
    with torch.no_grad():
        maps = subject.network.features(subject.on_device()[0])
    shown = {layer: getattr(maps, layer).cpu() for layer in LAYERS}
    figures = {}
    for layer in LAYERS:
        figures[f"activations/{layer}/overview"] = draw.activations(subject.images[:10], shown[layer][:10], layer)
        for index, image, channels in zip(subject.indices[:10].tolist(), subject.images, shown[layer], strict=False):
            figures[f"activations/{layer}/{_name(index)}"] = draw.channels(image, channels, layer)
    first = _name(int(subject.indices[0]))
    tensors = {"activations": {"indices": subject.indices, "images": subject.images, **shown}}
    overviews, close = ([f"activations/{layer}/{name}" for layer in LAYERS] for name in ("overview", first))
    if subject.test is None:
        return Section({}, [Answer("What does each channel make of the picture?", close, [])], tensors, figures)

    chosen = subject.test.evenly_spaced(num_images).split(EVAL_BATCH_SIZE)
    batches = (subject.test[index].images.to(subject.device) for index in console.track(chosen, "activations"))
    found = look_at_activations.statistics(subject.network, batches)
    figures["activations/statistics"] = draw.activation_statistics(found)
    tensors["statistics"] = {
        f"{layer}_{key}": value for layer in LAYERS for key, value in getattr(found, layer)._asdict().items()
    }
    answers = [
        Answer(
            "Which channels are dead, and which copy the digit, sharp or blurred?",
            close,
            [
                f"{layer}: dead channels: {{{layer}_dead}}; sharp copies of the digit: {{{layer}_sharp_copies}}; "
                f"blurred copies: {{{layer}_blurred_copies}}; inverted copies: {{{layer}_inverts}} (from a correlation "
                "of {copy_from:.1f} on)."
                for layer in LAYERS
            ],
        ),
        Answer(
            "Does the background vary from channel to channel?",
            ["activations/statistics"],
            [
                f"{layer}: {{{layer}_background_channels}} channels are above zero on empty paper, by up to "
                f"{{{layer}_background_largest:.2f}}."
                for layer in LAYERS
            ],
        ),
        Answer(
            "How much more abstract is the second layer than the first?",
            overviews,
            [
                "The size of the correlation with the digit is {conv1_correlation:.2f} on average in conv1 and "
                "{conv2_correlation:.2f} in conv2; {conv1_zero_share:.0%} of the values are zero in conv1 and "
                "{conv2_zero_share:.0%} in conv2.",
            ],
        ),
    ]
    return Section(_channel_findings(found), answers, tensors, figures)


def _channel_findings(found: Activations) -> dict[str, Any]:
    """Findings about the channels of both layers."""
    findings: dict[str, Any] = {"num_images": found.num_images, "copy_from": COPY}
    for layer in LAYERS:
        statistics = getattr(found, layer)
        correlation, blur = statistics.correlation, statistics.blur
        copies, is_sharp = correlation > COPY, blur <= 0.5
        findings |= {
            f"{layer}_dead": statistics.dead.nonzero()[:, 0].tolist(),
            f"{layer}_zero_share": statistics.zero_share.mean().item(),
            f"{layer}_correlation": correlation.abs().mean().item(),
            f"{layer}_sharp_copies": (copies & is_sharp).nonzero()[:, 0].tolist(),
            f"{layer}_blurred_copies": (copies & ~is_sharp).nonzero()[:, 0].tolist(),
            f"{layer}_inverts": (correlation < -COPY).nonzero()[:, 0].tolist(),
            f"{layer}_background_channels": int((statistics.background > 0).sum()),
            f"{layer}_background_largest": statistics.background.max().item(),
        }
    return findings


def _name(index: int) -> str:
    """The name of the figure of one image."""
    return "picture" if index < 0 else f"image_{index}"
