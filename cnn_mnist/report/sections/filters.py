"""Filters: whether they differ, and whether they detect edges (lab report, section 3.2.1)."""

from typing import Any

from cnn_mnist.analysis import filters as look_at_filters
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.sections.activations import LAYERS
from cnn_mnist.report.subject import Subject

ALIKE = 0.95  # cosine from which two filters count as duplicates


@needs(data=False)
def filters(subject: Subject) -> Section:
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
        verdict = "there are no duplicate filters" if alike.largest < ALIKE else "there are duplicate filters"
        different.append(
            f"{layer}: {verdict} (cosine above {{alike_from:.2f}}); the two most similar, {{{layer}_closest}}, have a "
            f"cosine of {{{layer}_closest_cosine:.2f}}; the closest two of as many random filters have "
            f"{{{layer}_closest_cosine_by_chance:.2f}}."
        )
        edge_like.append(
            f"{layer}: the kernels have a cosine of {{{layer}_edge_likeness:.2f}} with an edge on average (random "
            f"ones: {{{layer}_edge_likeness_by_chance:.2f}}); {{{layer}_edges_share:.0%}} are more of an edge than "
            "nineteen of twenty random kernels."
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
    return Section(findings, answers, {"filters": tensors}, figures)
