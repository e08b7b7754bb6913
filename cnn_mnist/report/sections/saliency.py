"""Saliency: integrated gradients and Grad-CAM beside occlusion."""

import math

import torch
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from cnn_mnist.analysis.occlusion import mean_drop
from cnn_mnist.analysis.saliency import saliency as look_at_saliency
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Count, Fraction, Pixels
from cnn_mnist.report.section import Answer, Section, needs
from cnn_mnist.report.sections.occlusion import maps_of
from cnn_mnist.report.subject import Subject

MOVED = 0.01  # of the probability: a mean drop from which an image's maps are compared


@needs(picture=True, package="captum")
def saliency(subject: Subject, *, window: Pixels, stride: Pixels, fill: Fraction, steps: Count) -> Section:
    """Do integrated gradients and Grad-CAM highlight the same pixels as occlusion?

    Args:
        subject: The network and its images.
        window: Height and width of the occluding patch in pixels.
        stride: Pixels from one position to the next.
        fill: Grey value of the patch.
        steps: Points on the path from the blank image, for integrated gradients.
    """
    images, labels = subject.on_device()
    drop = mean_drop(maps_of(subject, window, stride, fill))
    found = look_at_saliency(subject.network, images, labels, steps=steps)
    figures: dict[str, Picture] = {"saliency/maps": draw.saliency(subject.images, drop, found, subject.labels)}

    is_moved = drop.nan_to_num().abs().flatten(1).amax(1) >= MOVED  # else its map shows rounding

    def agreement(one: Tensor, other: Tensor) -> float:
        """The mean over the images that the patch moves and of which the other map is not constant."""
        pairs = zip(one[is_moved].flatten(1).float(), other[is_moved].flatten(1).float(), strict=True)
        covered = [(a[a.isfinite()], b[a.isfinite()]) for a, b in pairs]
        varied = [spearman_corrcoef(a, b) for a, b in covered if a.min() < a.max() and b.min() < b.max()]
        return torch.stack(varied).mean().item() if varied else math.nan

    findings = {
        "num_images": len(images),
        "num_compared": int(is_moved.sum()),
        "compared_from": MOVED,
        "rank_correlation_occlusion_integrated_gradients": agreement(drop, found.integrated_gradients.cpu()),
        "completeness_error": found.completeness.abs().max().item(),
    }
    says = "Occlusion's mean drop has a rank correlation of {rank_correlation_occlusion_integrated_gradients:.2f} with "
    if len(images) > 1:
        says = says.replace("Occlusion's", "For {num_compared} of {num_images} images, occlusion's", 1)
    says += "integrated gradients"
    if found.grad_cam is None:
        says += ". Grad-CAM is left out: it needs a convolution that the logit depends on."
    else:
        findings["rank_correlation_occlusion_grad_cam"] = agreement(drop, found.grad_cam.cpu())
        says += " and of {rank_correlation_occlusion_grad_cam:.2f} with Grad-CAM (where it is not constant)."
    sayings = [says]
    if len(images) > 1 and findings["num_compared"] < len(images):
        sayings.append("The others are left out: no patch lowers their probability by {compared_from:g} on average.")
    answers = [Answer("Do other explanations point where occlusion does?", list(figures), sayings)]
    maps = {name: map.cpu() for name, map in found._asdict().items() if map is not None}
    tensors = {"indices": subject.indices, "mean_drop": drop, **maps}
    return Section(findings, answers, {"saliency": tensors}, figures)
