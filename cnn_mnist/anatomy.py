"""The report's section 3.2, what is in the network: filters, activations, and the images that it answers to most."""

from typing import Any

import torch

from cnn_mnist import console
from cnn_mnist.analysis import activations as look_at_activations
from cnn_mnist.analysis import class_image as ascend
from cnn_mnist.analysis import filters as look_at_filters
from cnn_mnist.analysis.activations import Activations
from cnn_mnist.data import EVAL_BATCH_SIZE, NUM_CLASSES
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.part import Answer, Part
from cnn_mnist.subject import Subject

LAYERS = ("conv1", "conv2")
ALIKE = 0.95  # cosine from which on two filters are called one
COPY = 0.8  # correlation with the digit from which on a channel is called a copy of it


def filters(subject: Subject) -> Part:
    """Are the filters different from one another? Do they look like edge detectors, and do the second layer's less?"""
    weights = {layer: getattr(subject.network, layer).weight.detach().cpu() for layer in LAYERS}
    similar = {layer: look_at_filters.similarity(weight) for layer, weight in weights.items()}
    edges = {layer: look_at_filters.edge_likeness(weight) for layer, weight in weights.items()}
    findings: dict[str, Any] = {"kernel_size": subject.network.kernel_size, "alike_from": ALIKE}
    different, edge_like = [], []
    for layer in LAYERS:
        alike, edge = similar[layer], edges[layer]
        findings |= {
            f"{layer}_closest": list(alike.closest),
            f"{layer}_closest_cosine": alike.largest,
            f"{layer}_closest_cosine_by_chance": alike.chance,
            f"{layer}_edge_likeness": edge.score.mean().item(),
            f"{layer}_edge_likeness_by_chance": edge.chance,
            f"{layer}_edges_share": (edge.score > edge.chance_95).double().mean().item(),
        }
        verdict = "no two filters are one" if alike.largest < ALIKE else "some filters are one"
        different.append(
            f"{layer}: {verdict} (cosine above {{alike_from:.2f}}); the two most alike are {{{layer}_closest}}, with a "
            f"cosine of {{{layer}_closest_cosine:.2f}}, where as many random ones reach "
            f"{{{layer}_closest_cosine_by_chance:.2f}}."
        )
        edge_like.append(
            f"{layer}: the kernels have a cosine of {{{layer}_edge_likeness:.2f}} with an edge on average (random "
            f"ones: {{{layer}_edge_likeness_by_chance:.2f}}); {{{layer}_edges_share:.0%}} are more of an edge than "
            "nineteen in twenty random ones."
        )
    more = "less" if findings["conv2_edge_likeness"] < findings["conv1_edge_likeness"] else "more"
    edge_like.append(f"The second layer's kernels are {more} like edges than the first's.")
    figures = {
        "filters/conv1": draw.first_filters(weights["conv1"], edges["conv1"]),
        "filters/conv2": draw.second_filters(weights["conv2"]),
        "filters/statistics": draw.filter_statistics(similar, edges),
    }
    tensors = {f"{layer}_weight": weights[layer] for layer in LAYERS}
    tensors |= {f"{layer}_cosine": similar[layer].cosine for layer in LAYERS}
    tensors |= {f"{layer}_edge_likeness": edges[layer].score for layer in LAYERS}
    tensors |= {f"{layer}_edge_angle": edges[layer].angle for layer in LAYERS}
    answers = [
        Answer("Are the filters different from one another?", ["filters/conv1", "filters/conv2"], different),
        Answer("Do they look like edge detectors?", ["filters/statistics"], edge_like),
    ]
    return Part(findings, answers, {"filters": tensors}, figures)


def activations(subject: Subject, *, num_images: int) -> Part:
    """Which channels are dead, which copy the digit, which invert it? How much more abstract is the second layer?"""
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
        return Part({}, [Answer("What does each channel make of the picture?", close, [])], tensors, figures)

    chosen = subject.test.spread(num_images).split(EVAL_BATCH_SIZE)
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
    return Part(_channel_findings(found), answers, tensors, figures)


def _channel_findings(found: Activations) -> dict[str, Any]:
    """What the channels of both layers are like, in numbers."""
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


def class_image(
    subject: Subject,
    *,
    layer: str | None,
    neuron: tuple[int, int] | list[int] | None,
    num_images: int,
    steps: int,
    step_size: float,
    penalty: float,
    seed: int,
) -> Part:
    """What does a class, a channel or a neuron answer to most? The lab's first optional part.

    Args:
        subject: What is looked at.
        layer: None for the classes, or the layer whose channels are looked at.
        neuron: With a layer: (row, column) of one neuron in each channel, instead of the whole channel.
        num_images: Images per class: the first from a blank image, the others from faint noise.
        steps: Steps of gradient ascent.
        step_size: L2 norm of a step.
        penalty: Weight of the squared L2 norm of the image.
        seed: Of the noise.

    Raises:
        ValueError: A neuron without a layer, or one outside of its map.
    """
    if layer is None and neuron is not None:
        raise ValueError(f"class_image.neuron={neuron} needs a layer: set class_image.layer to conv1 or conv2")
    network, device = subject.network, subject.device
    num_units = NUM_CLASSES if layer is None else getattr(network, layer).out_channels
    target = torch.arange(num_units, device=device).repeat(num_images if layer is None else 1)
    if layer is None:
        objective = ascend.class_logit(network, target)
    elif neuron is None:
        objective = ascend.channel(network, layer, target)
    else:
        objective = ascend.neuron(network, layer, target, (neuron[0], neuron[1]))
    start = 0.1 * torch.rand(len(target), 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(device)
    start[:num_units] = 0
    found = ascend.maximise(
        network,
        objective,
        start,
        steps=steps,
        step_size=step_size,
        penalty=penalty,
        progress=lambda taken: console.track(taken, "class images"),
    )
    with torch.no_grad():
        probability = network(found.images).softmax(1).cpu()
    confidence = probability[torch.arange(len(target)), target.cpu()] if layer is None else None
    noun = "class" if layer is None else f"{layer} channel"
    names = [f"{noun} {unit}" if layer is None else str(unit) for unit in target.tolist()]
    stem = "classes" if layer is None else f"{layer}{'' if neuron is None else f'_neuron_{neuron[0]}_{neuron[1]}'}"
    figures = {f"class_image/{stem}": draw.class_images(found, names, f"What each {noun} answers to most", confidence)}
    rises = (found.cost[-1] > found.cost[0]).double().mean().item()
    findings: dict[str, Any] = {"unit": noun, "num_images": len(target), "steps": steps, "cost_rises_share": rises}
    says = ["After {steps} steps the cost is higher than it began for {cost_rises_share:.0%} of {num_images} images."]
    if confidence is None:
        mean = found.cost.mean(1, keepdim=True)
        figures[f"class_image/{stem}_cost"] = cost_curves(mean, [f"mean of {num_units} channels"], "cost")
    else:
        curves = [f"class {label}" for label in range(NUM_CLASSES)]
        figures["class_image/cost"] = cost_curves(found.cost[:, :num_units], curves, "logit - penalty")
        findings["mean_confidence"] = confidence.mean().item()
        says.append("The network takes them for their class with p = {mean_confidence:.3f} on average.")
    tensors = {"target": target.cpu(), "images": found.images.cpu(), "cost": found.cost.cpu()}
    question = f"What does each {noun.replace('class', 'class of the network')} answer to most?"
    return Part(findings, [Answer(question, list(figures), says)], {stem: tensors}, figures)


def _name(index: int) -> str:
    """How a figure of one image is called."""
    return "picture" if index < 0 else f"image_{index}"
