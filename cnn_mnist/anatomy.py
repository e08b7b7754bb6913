"""The report's section 3.2, part by part: each looks at the network, draws, and says in numbers what it found."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from cnn_mnist import console
from cnn_mnist.analysis import activations as look_at_activations
from cnn_mnist.analysis import class_image as ascend
from cnn_mnist.analysis import filters as look_at_filters
from cnn_mnist.analysis.occlusion import OcclusionMap, mean_drop, occlusion_map
from cnn_mnist.analysis.occlusion import resistance as look_at_resistance
from cnn_mnist.analysis.saliency import saliency as look_at_saliency
from cnn_mnist.data import EVAL_BATCH_SIZE, NUM_CLASSES
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures import occlusion as draw_occlusion
from cnn_mnist.figures.canvas import cost_curves
from cnn_mnist.findings import Part
from cnn_mnist.subject import Subject

LAYERS = ("conv1", "conv2")
COPY = 0.8  # correlation with the digit from which on a channel is called a copy of it


def filters(subject: Subject) -> Part:
    """Are the filters different from one another? Do they look like edge detectors, and do the second layer's less?"""
    weights = {layer: getattr(subject.network, layer).weight.detach().cpu() for layer in LAYERS}
    similar = {layer: look_at_filters.similarity(weight) for layer, weight in weights.items()}
    edges = {layer: look_at_filters.edge_likeness(weight) for layer, weight in weights.items()}
    findings: dict[str, Any] = {"kernel_size": subject.network.kernel_size}
    sentences = []
    for layer in LAYERS:
        alike, edge = similar[layer], edges[layer]
        share = (edge.score > edge.chance_95).double().mean().item()
        findings |= {
            f"{layer}_closest": list(alike.closest),
            f"{layer}_closest_cosine": alike.largest,
            f"{layer}_closest_cosine_by_chance": alike.chance,
            f"{layer}_edge_likeness": edge.score.mean().item(),
            f"{layer}_edge_likeness_by_chance": edge.chance,
            f"{layer}_edges_share": share,
        }
        i, j = alike.closest
        sentences += [
            f"{layer}: the two filters most alike are {i} and {j}, cosine {alike.largest:.2f} (random ones: "
            f"{alike.chance:.2f}).",
            f"{layer}: its kernels are edges to {edge.score.mean().item():.2f} on average (random: {edge.chance:.2f}); "
            f"{share:.0%} are more so than 95 of 100 random ones.",
        ]
    figures = {
        "filters/conv1": draw.first_filters(weights["conv1"], edges["conv1"]),
        "filters/conv2": draw.second_filters(weights["conv2"]),
        "filters/statistics": draw.filter_statistics(similar, edges),
    }
    tensors = {f"{layer}_weight": weights[layer] for layer in LAYERS}
    tensors |= {f"{layer}_cosine": similar[layer].cosine for layer in LAYERS}
    tensors |= {f"{layer}_edge_likeness": edges[layer].score for layer in LAYERS}
    tensors |= {f"{layer}_edge_angle": edges[layer].angle for layer in LAYERS}
    return Part(findings, sentences, {"filters": tensors}, figures)


def activations(subject: Subject, *, num_images: int) -> Part:
    """Which channels are dead, which copy the digit, which invert it? How much more abstract is the second layer?"""
    with torch.no_grad():
        maps = subject.network.features(subject.on_device()[0])
    shown = {layer: getattr(maps, layer).cpu() for layer in LAYERS}
    figures, findings, sentences = {}, {}, []
    for layer in LAYERS:
        figures[f"activations/{layer}/overview"] = draw.activations(subject.images[:10], shown[layer][:10], layer)
        for index, image, channels in zip(subject.indices[:10].tolist(), subject.images, shown[layer], strict=False):
            figures[f"activations/{layer}/{_name(index)}"] = draw.channels(image, channels, layer)
    if subject.test is not None:
        chosen = subject.test.spread(num_images).split(EVAL_BATCH_SIZE)
        batches = (subject.test[index].images.to(subject.device) for index in console.track(chosen, "activations"))
        found = look_at_activations.statistics(subject.network, batches)
        figures["activations/statistics"] = draw.activation_statistics(found)
        findings["num_images"] = found.num_images
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
            lists = {
                "dead channels": "dead",
                "sharp copies of the digit": "sharp_copies",
                "blurred copies": "blurred_copies",
                "inverted copies": "inverts",
            }
            named = (f"{words} {findings[f'{layer}_{key}'] or 'none'}" for words, key in lists.items())
            sentences += [
                f"{layer}: {'; '.join(named)}.",
                f"{layer}: {findings[f'{layer}_zero_share']:.0%} of values are zero, correlation with the digit "
                f"{findings[f'{layer}_correlation']:.2f} on average (sign aside), "
                f"{findings[f'{layer}_background_channels']} channels above zero on empty paper.",
            ]
    tensors = {"indices": subject.indices, "images": subject.images, **shown}
    return Part(findings, sentences, {"activations": tensors}, figures)


def occlusion(subject: Subject, *, window: int, stride: int, fill: float, num_images: int) -> Part:
    """Is what the network has learnt meaningful? Which digits resist, and what do the others become?"""

    def look(images: Tensor, labels: Tensor) -> OcclusionMap:
        images, labels = images.to(subject.device), labels.to(subject.device)
        return occlusion_map(subject.network, images, labels, window=window, stride=stride, fill=fill).cpu()

    maps = look(subject.images, subject.labels)
    of = "true" if subject.test is not None else "predicted"
    figures = {
        "occlusion/probability": draw_occlusion.probability_maps(subject.images, subject.labels, maps, of=of),
        "occlusion/predicted": draw_occlusion.predicted_maps(subject.images, subject.labels, maps, of=of),
    }
    tensors = {"occlusion": _saved(maps, subject.indices, subject.labels)}
    findings: dict[str, Any] = {"window": window, "stride": stride, "fill": fill}
    sentences = []
    if subject.test is not None:
        chosen = subject.test.spread(num_images)
        parts, predicted = [], []
        for index in console.track(chosen.split(EVAL_BATCH_SIZE), "occlusion"):
            images, labels = subject.test[index]
            parts.append(look(images, labels))
            with torch.no_grad():
                predicted.append(subject.network(images.to(subject.device)).argmax(1).cpu())
        whole = maps._replace(
            probability=torch.cat([part.probability for part in parts]),
            predicted=torch.cat([part.predicted for part in parts]),
            clean=torch.cat([part.clean for part in parts]),
        )
        images, labels = subject.test[chosen]
        found = look_at_resistance(whole, images, labels, torch.cat(predicted))
        figures["occlusion/resistance"] = draw_occlusion.resistance(found)
        tensors["test_images"] = _saved(whole, chosen, labels)
        changed = found.taken_for.clone().fill_diagonal_(0)
        becomes = {
            str(label): [int(other) for other in row.argsort(descending=True)[:2] if row[other] > 0]
            for label, row in enumerate(changed)
        }
        findings |= {
            "num_images": int(found.num_images.sum()),
            "resistant_share": (found.num_resistant.sum() / found.num_images.sum()).item(),
            "resistant_share_by_class": (found.num_resistant / found.num_images.clamp_min(1)).tolist(),
            "drop_on_ink": found.drop_on_ink,
            "drop_on_paper": found.drop_on_paper,
            "becomes": becomes,
            "taken_for": found.taken_for.tolist(),
            "same_digit_difference": found.same_digit,
            "other_digit_difference": found.other_digit,
        }
        sentences = [
            f"{findings['resistant_share']:.1%} of {findings['num_images']:,} images are right wherever the patch lies "
            f"({window} x {window} pixels, grey {fill:g}).",
            f"Mean loss of the true class's probability where the patch touches ink: {_mean(found.drop_on_ink)}; "
            f"where it covers empty paper alone: {_mean(found.drop_on_paper)}.",
            f"A hidden 9 is most often taken for {' and '.join(map(str, becomes['9'])) or 'nothing else'}.",
        ]
        if math.isfinite(found.same_digit):
            sentences.append(
                f"Maps of one digit differ by {found.same_digit:.3f} from image to image, of different digits by "
                f"{found.other_digit:.3f}."
            )
    return Part(findings, sentences, tensors, figures)


def saliency(subject: Subject, *, window: int, stride: int, fill: float, steps: int) -> Part:
    """Do integrated gradients and Grad-CAM point where occlusion does?"""
    images, labels = subject.on_device()
    drop = mean_drop(occlusion_map(subject.network, images, labels, window=window, stride=stride, fill=fill))
    found = look_at_saliency(subject.network, images, labels, steps=steps)
    figures = {"saliency/maps": draw.saliency(subject.images, drop.cpu(), found, subject.labels)}

    def agreement(one: Tensor, other: Tensor) -> float:
        """The mean over the images of which neither map is constant."""
        pairs = zip(one.flatten(1).float(), other.flatten(1).float(), strict=True)
        covered = [(a[a.isfinite()], b[a.isfinite()]) for a, b in pairs]
        varied = [spearman_corrcoef(a, b) for a, b in covered if a.min() < a.max() and b.min() < b.max()]
        return torch.stack(varied).mean().item() if varied else math.nan

    findings = {
        "num_images": len(images),
        "rank_correlation_occlusion_integrated_gradients": agreement(drop, found.integrated_gradients),
        "rank_correlation_occlusion_grad_cam": agreement(drop, found.grad_cam),
        "completeness_error": found.completeness.abs().max().item(),
    }
    sentences = [
        f"Over {len(images)} images, occlusion's mean drop has a rank correlation of "
        f"{_mean(findings['rank_correlation_occlusion_integrated_gradients'])} with integrated gradients and of "
        f"{_mean(findings['rank_correlation_occlusion_grad_cam'])} with Grad-CAM (where neither is constant)."
    ]
    tensors = {"indices": subject.indices, "mean_drop": drop.cpu(), **{k: v.cpu() for k, v in found._asdict().items()}}
    return Part(findings, sentences, {"saliency": tensors}, figures)


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
    sentences = [f"The cost rises for {rises:.0%} of {len(target)} images in {steps} steps."]
    if confidence is None:
        mean = found.cost.mean(1, keepdim=True)
        figures[f"class_image/{stem}_cost"] = cost_curves(mean, [f"mean of {num_units} channels"], "cost")
    else:
        curves = [f"class {label}" for label in range(NUM_CLASSES)]
        figures["class_image/cost"] = cost_curves(found.cost[:, :num_units], curves, "logit - penalty")
        findings["mean_confidence"] = confidence.mean().item()
        sentences.append(f"The network takes them for their class with p = {confidence.mean().item():.3f} on average.")
    tensors = {"target": target.cpu(), "images": found.images.cpu(), "cost": found.cost.cpu()}
    return Part(findings, sentences, {stem: tensors}, figures)


def _saved(maps: OcclusionMap, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
    numbers = {name: torch.tensor(getattr(maps, name)) for name in ("window", "stride", "fill")}
    fields = {name: getattr(maps, name) for name in ("probability", "predicted", "clean")}
    return {"indices": indices, "labels": labels, **fields, **numbers}


def _name(index: int) -> str:
    """How a figure of one image is called."""
    return "picture" if index < 0 else f"image_{index}"


def _mean(value: float) -> str:
    """A mean in words; there is none of nothing."""
    return f"{value:.3f}" if math.isfinite(value) else "no such case"
