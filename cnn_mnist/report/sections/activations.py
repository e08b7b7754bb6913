"""Activations: what each channel responds to (lab report, section 3.2.2)."""

from typing import Annotated, Any

import torch
from torch import Tensor

from cnn_mnist.analysis import activations as look_at_activations
from cnn_mnist.analysis import layers
from cnn_mnist.analysis.activations import Activations, ChannelStatistics
from cnn_mnist.cli import console
from cnn_mnist.data.batches import EVAL_BATCH_SIZE
from cnn_mnist.figures import activations as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import number
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject

COPY = 0.8  # correlation with the image from which a channel counts as a copy of it
SHARP = 0.5  # pixels of blur up to which a copy is called sharp
MOST_NOTABLE = 6  # channels of the overview
NUM_SHOWN = 10  # images: the lab report's number of test examples
NUM_IN_OVERVIEW = 5  # images, each with a few channels


@needs(picture=True, sample=True)
def activations(subject: Subject, *, num_images: Annotated[int, number(int, 2)]) -> Section:
    """Which channels are dead, which copy the image, which invert it? How much more abstract are later layers?

    Args:
        subject: The network and its images.
        num_images: Test images for the statistics of the channels, evenly spaced over the test set.
    """
    names = layers.main_layers(subject.network)
    if not names:
        says = [
            "The network has no convolution larger than a pixel and no hidden linear layer: no activations are shown."
        ]
        return Section({}, [Answer("What does each channel respond to?", [], says)], {}, {})
    with torch.no_grad():
        outputs = layers.outputs(subject.network, subject.on_device()[0], names)
    shown = {layer: output.after.cpu() for layer, output in outputs.items()}
    figures: dict[str, Picture] = {}
    few, classes = subject.images[:NUM_SHOWN], subject.labels[:NUM_SHOWN]
    for layer, maps in shown.items():
        place = f"activations/{layers.key_of(layer)}"
        name = "overview" if maps.ndim == 4 else "units"
        figures[f"{place}/{name}"] = draw.overview(few, classes, maps[:NUM_SHOWN], layer)
        if maps.ndim == 4:
            figures[f"{place}/all"] = draw.all_channels(few, classes, maps[:NUM_SHOWN], layer)
        for index, image, channels in zip(subject.indices[:10].tolist(), subject.images, maps, strict=False):
            figures[f"{place}/{_name(index)}"] = draw.channels(image, channels, layer)
    first = _name(int(subject.indices[0]))
    saved = {layers.key_of(layer): maps for layer, maps in shown.items()}
    tensors = {"activations": {"indices": subject.indices, "images": subject.images, **saved}}
    overviews, close, everything = (
        [f"activations/{layers.key_of(layer)}/{name}" for layer in names] for name in ("overview", first, "all")
    )
    if subject.test is None:
        return Section({}, [Answer("What does each channel make of the picture?", close, [])], tensors, figures)

    chosen = subject.test.evenly_spaced(num_images).split(EVAL_BATCH_SIZE)
    batches = (subject.test[index].images.to(subject.device) for index in console.track(chosen, "activations"))
    found = look_at_activations.statistics(subject.network, batches, names)
    tensors["statistics"] = {
        f"{layers.key_of(layer)}_{key}": value
        for layer, channels in found.layers.items()
        for key, value in channels._asdict().items()
    }
    findings = _channel_findings(found)
    if shown[names[0]].ndim != 4:
        return Section(findings, _about_units(names), tensors, figures)
    for layer, channels in found.layers.items():
        place, maps = f"activations/{layers.key_of(layer)}", shown[layer][:NUM_SHOWN]
        if maps.ndim == 4:
            some = (few[:NUM_IN_OVERVIEW], classes[:NUM_IN_OVERVIEW], maps[:NUM_IN_OVERVIEW])
            figures[f"{place}/overview"] = draw.overview(*some, layer, _notable(maps, channels))
        figures[f"{place}/statistics"] = draw.statistics(channels, layer, found.num_images)
    answers = _about_channels(names, overviews, [tag for tag in [*close, *everything] if tag in figures])
    return Section(findings, answers, tensors, figures)


def _notable(maps: Tensor, channels: ChannelStatistics) -> dict[int, str]:
    """The channels that stand out, each with a remark: strong, a copy, dead.

    Args:
        maps: Of a few images, (B, C, H, W).
        channels: The statistics over many.
    """
    correlation, is_sharp = channels.correlation.cpu(), channels.blur.cpu() <= SHARP
    order = correlation.argsort(descending=True).tolist()
    kinds = {
        "sharp copy": [n for n in order if correlation[n] > COPY and is_sharp[n]],
        "blurred copy": [n for n in order if correlation[n] > COPY and not is_sharp[n]],
        "inverted copy": [n for n in reversed(order) if correlation[n] < -COPY],
        "dead": channels.dead.nonzero()[:, 0].tolist(),
    }
    found = {numbers[0]: words for words, numbers in kinds.items() if numbers}
    strong = {n: words for n, words in draw.strongest(maps, MOST_NOTABLE).items() if n not in found}
    return dict(list(strong.items())[: MOST_NOTABLE - len(found)]) | found


def _about_channels(names: list[str], overviews: list[str], on_demand: list[str]) -> list[Answer]:
    """Answers about convolutions."""
    keys = {layer: layers.key_of(layer) for layer in names}
    first, last = keys[names[0]], keys[names[-1]]
    answers = [
        Answer(
            "Which channels are dead, and which copy the image, sharp or blurred?",
            overviews,
            [
                f"{layer}: dead channels: {{{key}_dead}}; sharp copies of the image: {{{key}_sharp_copies}}; "
                f"blurred copies: {{{key}_blurred_copies}}; inverted copies: {{{key}_inverts}} (from a correlation "
                "of {copy_from:.1f} on)."
                for layer, key in keys.items()
            ],
            on_demand=on_demand,
        ),
        Answer(
            "Does the background vary from channel to channel?",
            [f"activations/{key}/statistics" for key in keys.values()],
            [
                f"{layer}: {{{key}_background_channels}} channels are above zero on empty paper, by up to "
                f"{{{key}_background_largest:.2f}} (the figure shows it as a share of the channel's largest value)."
                for layer, key in keys.items()
            ],
        ),
    ]
    if len(names) == 1:
        says = f"The size of the correlation with the image is {{{first}_correlation:.2f}} on average."
        return [*answers, Answer("How much does it resemble the image?", [], [says])]
    later = "the second layer" if len(names) == 2 else "the last layer"
    says = (
        f"The size of the correlation with the image is {{{first}_correlation:.2f}} on average in {names[0]} and "
        f"{{{last}_correlation:.2f}} in {names[-1]}; {{{first}_zero_share:.0%}} of the values are zero in {names[0]} "
        f"and {{{last}_zero_share:.0%}} in {names[-1]}."
    )
    return [*answers, Answer(f"How much more abstract is {later} than the first?", [], [says])]


def _about_units(names: list[str]) -> list[Answer]:
    """Answers about linear layers, whose units have no position on the image."""
    says = [
        f"{layer}: {{{key}_num_dead}} of {{{key}_num_units}} units are zero for every image; {{{key}_zero_share:.0%}} "
        "of the values are zero."
        for layer, key in ((layer, layers.key_of(layer)) for layer in names)
    ]
    says.append("These are linear layers: their units have no position on the image, and cannot be copies of it.")
    return [
        Answer(
            "Which units are dead, and how many are active at once?",
            [f"activations/{layers.key_of(layer)}/units" for layer in names],
            says,
        )
    ]


def _channel_findings(found: Activations) -> dict[str, Any]:
    """Findings about each layer that is shown."""
    findings: dict[str, Any] = {"num_images": found.num_images, "copy_from": COPY}
    for name, statistics in found.layers.items():
        layer = layers.key_of(name)
        if statistics.correlation.isnan().any():  # a linear layer
            findings |= {
                f"{layer}_num_units": len(statistics.dead),
                f"{layer}_num_dead": int(statistics.dead.sum()),
                f"{layer}_zero_share": statistics.zero_share.mean().item(),
            }
            continue
        correlation, blur = statistics.correlation, statistics.blur
        copies, is_sharp = correlation > COPY, blur <= SHARP
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
