"""Filters: whether they differ, and whether they detect edges (lab report, section 3.2.1)."""

from typing import Any

from cnn_mnist.analysis import filters as look_at_filters
from cnn_mnist.analysis import layers
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.subject import Subject

ALIKE = 0.95  # cosine from which two filters count as duplicates
MARGIN = 0.05  # of a mean cosine with an edge, below which two layers are about the same


@needs(data=False)
def filters(subject: Subject) -> Section:
    """Are the filters different from one another? Do they look like edge detectors, and do the later ones less?"""
    weights = {name: weight.detach().cpu() for name, weight in layers.filters(subject.network).items()}
    if not weights:
        says = ["The network has no convolution larger than a pixel, nor a first linear layer that sees the image."]
        return Section({}, [Answer("Are the filters different from one another?", [], says)], {}, {})
    similar = {layer: look_at_filters.similarity(weight) for layer, weight in weights.items() if len(weight) > 1}
    edges = {
        layer: look_at_filters.edge_likeness(weight)
        for layer, weight in weights.items()
        if look_at_filters.can_detect_edges(weight)
    }
    kernels = {str(weight.shape[-1]) for weight in weights.values()}
    findings: dict[str, Any] = {"alike_from": ALIKE, "layers": list(weights)}
    if len(kernels) == 1:
        findings["kernel_size"] = int(kernels.pop())
    different, edge_like = [], []
    for layer, alike in similar.items():
        key = layers.key_of(layer)
        findings |= {
            f"{key}_closest": list(alike.closest),
            f"{key}_closest_cosine": alike.largest,
            f"{key}_closest_cosine_by_chance": alike.chance,
        }
        verdict = "there are no duplicate filters" if alike.largest < ALIKE else "there are duplicate filters"
        different.append(
            f"{layer}: {verdict} (cosine above {{alike_from:.2f}}); the two most similar, {{{key}_closest}}, have a "
            f"cosine of {{{key}_closest_cosine:.2f}}; the closest two of as many random filters have "
            f"{{{key}_closest_cosine_by_chance:.2f}}."
        )
    for layer, edge in edges.items():
        key = layers.key_of(layer)
        findings |= {
            f"{key}_edge_likeness": edge.score.mean().item(),
            f"{key}_edge_likeness_by_chance": edge.chance,
            f"{key}_edges_share": (edge.score > edge.chance_95).double().mean().item(),
        }
        edge_like.append(
            f"{layer}: the kernels have a cosine of {{{key}_edge_likeness:.2f}} with an edge on average (random "
            f"ones: {{{key}_edge_likeness_by_chance:.2f}}); {{{key}_edges_share:.0%}} are more of an edge than "
            "nineteen of twenty random kernels."
        )
    if len(edges) > 1:
        first, *_, last = (findings[f"{layers.key_of(layer)}_edge_likeness"] for layer in edges)
        order = ("second", "first") if len(edges) == 2 else ("last", "first")
        if abs(last - first) < MARGIN:
            edge_like.append(f"The {order[0]} layer's kernels are about as much like edges as the {order[1]}'s.")
        else:
            more = "less" if last < first else "more"
            edge_like.append(f"The {order[0]} layer's kernels are {more} like edges than the {order[1]}'s.")
    figures: dict[str, Picture] = {
        f"filters/{layers.key_of(layer)}": draw.filters(weight, layer, edges.get(layer))
        for layer, weight in weights.items()
    }
    figures |= {
        f"filters/similarity/{layers.key_of(layer)}": draw.similarity(alike, layer) for layer, alike in similar.items()
    }
    answers = [Answer("Are the filters different from one another?", list(figures), different)]
    if edges:
        figures["filters/edges"] = draw.edges(edges)
        answers.append(Answer("Do they look like edge detectors?", ["filters/edges"], edge_like))
    else:
        says = ["This is not measured: it needs square filters that are smaller than the image, and of at least 3x3."]
        answers.append(Answer("Do they look like edge detectors?", [], says))
    tensors = {f"{layers.key_of(layer)}_weight": weight for layer, weight in weights.items()}
    tensors |= {f"{layers.key_of(layer)}_cosine": alike.cosine for layer, alike in similar.items()}
    tensors |= {f"{layers.key_of(layer)}_edge_likeness": edge.score for layer, edge in edges.items()}
    tensors |= {f"{layers.key_of(layer)}_edge_angle": edge.angle for layer, edge in edges.items()}
    return Section(findings, answers, {"filters": tensors}, figures)
