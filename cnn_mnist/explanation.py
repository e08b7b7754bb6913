"""The report's section 3.2.3, what the network looks at: occlusion, and two other explanations beside it."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from cnn_mnist import console
from cnn_mnist.analysis.occlusion import OcclusionMap, Resistance, mean_drop, occlusion_map
from cnn_mnist.analysis.occlusion import resistance as look_at_resistance
from cnn_mnist.analysis.saliency import saliency as look_at_saliency
from cnn_mnist.data import EVAL_BATCH_SIZE
from cnn_mnist.distributed import over_images
from cnn_mnist.figures import anatomy as draw
from cnn_mnist.figures import occlusion as draw_occlusion
from cnn_mnist.network import CNN
from cnn_mnist.part import Answer, Part
from cnn_mnist.subject import Subject


def occlusion(subject: Subject, *, window: int, stride: int, fill: float, num_images: int) -> Part:
    """Is what the network has learnt meaningful? Which digits resist, and what do the others become?"""
    maps = _maps(subject, window, stride, fill)
    of = "true" if subject.test is not None else "predicted"
    figures = {
        "occlusion/probability": draw_occlusion.probability_maps(subject.images, subject.labels, maps, of=of),
        "occlusion/predicted": draw_occlusion.predicted_maps(subject.images, subject.labels, maps, of=of),
    }
    tensors = {"occlusion": _saved(maps, subject.indices, subject.labels)}
    findings: dict[str, Any] = {"window": window, "stride": stride, "fill": fill}
    if subject.test is None:
        answers = [Answer("What must not be hidden?", list(figures), [])]
        return Part(findings, answers, tensors, figures)

    chosen = subject.test.spread(num_images)
    images, labels = subject.test[chosen]
    look = functools.partial(_look, window=window, stride=stride, fill=fill)
    whole = over_images(look, _joined, subject.network, images, labels)
    found = look_at_resistance(whole, images, labels, subject.probability[chosen].argmax(1))
    figures["occlusion/resistance"] = draw_occlusion.resistance(found)
    tensors["test_images"] = _saved(whole, chosen, labels)
    findings |= _resistance_findings(found)
    return Part(findings, _resistance_answers(findings), tensors, figures)


def _resistance_findings(found: Resistance) -> dict[str, Any]:
    changed = found.taken_for.clone().fill_diagonal_(0)
    return {
        "num_images": int(found.num_images.sum()),
        "resistant_share": (found.num_resistant.sum() / found.num_images.sum()).item(),
        "resistant_share_by_class": (found.num_resistant / found.num_images.clamp_min(1)).tolist(),
        "drop_on_ink": found.drop_on_ink,
        "drop_on_paper": found.drop_on_paper,
        "drop_ratio": found.drop_on_ink / found.drop_on_paper if found.drop_on_paper > 1e-4 else math.nan,
        "becomes": {
            str(label): [int(other) for other in row.argsort(descending=True)[:2] if row[other] > 0]
            for label, row in enumerate(changed)
        },
        "taken_for": found.taken_for.tolist(),
        "same_digit_difference": found.same_digit,
        "other_digit_difference": found.other_digit,
    }


def _resistance_answers(findings: dict[str, Any]) -> list[Answer]:
    drops = (
        "The true class loses {drop_on_ink:.3f} of its probability on average where the patch touches ink, and "
        "{drop_on_paper:.3f} where it covers empty paper alone"
    )
    drops += ": {drop_ratio:.1f} times as much." if math.isfinite(findings["drop_ratio"]) else "."
    nine = "A hidden nine is most often taken for {becomes.9}."
    if not findings["becomes"]["9"]:
        nine = "A hidden nine is taken for nothing else."
    resists = [
        "{resistant_share:.1%} of {num_images} digits that are right without a patch are right wherever it lies "
        "({window} x {window} pixels, grey {fill:g})."
    ]
    if math.isfinite(findings["same_digit_difference"]):
        resists.append(
            "It is a matter of the image: maps of one digit differ by {same_digit_difference:.3f} from image to image, "
            "those of different digits by {other_digit_difference:.3f}."
        )
    return [
        Answer("How much more does ink matter than background?", ["occlusion/probability"], [drops]),
        Answer("What does an occluded digit become?", ["occlusion/predicted"], [nine]),
        Answer("How many digits resist occlusion?", ["occlusion/resistance"], resists),
    ]


def saliency(subject: Subject, *, window: int, stride: int, fill: float, steps: int) -> Part:
    """Do integrated gradients and Grad-CAM point where occlusion does?"""
    images, labels = subject.on_device()
    drop = mean_drop(_maps(subject, window, stride, fill))
    found = look_at_saliency(subject.network, images, labels, steps=steps)
    figures = {"saliency/maps": draw.saliency(subject.images, drop, found, subject.labels)}

    def agreement(one: Tensor, other: Tensor) -> float:
        """The mean over the images of which neither map is constant."""
        pairs = zip(one.flatten(1).float(), other.flatten(1).float(), strict=True)
        covered = [(a[a.isfinite()], b[a.isfinite()]) for a, b in pairs]
        varied = [spearman_corrcoef(a, b) for a, b in covered if a.min() < a.max() and b.min() < b.max()]
        return torch.stack(varied).mean().item() if varied else math.nan

    findings = {
        "num_images": len(images),
        "rank_correlation_occlusion_integrated_gradients": agreement(drop, found.integrated_gradients.cpu()),
        "rank_correlation_occlusion_grad_cam": agreement(drop, found.grad_cam.cpu()),
        "completeness_error": found.completeness.abs().max().item(),
    }
    says = [
        "Over {num_images} images, occlusion's mean drop has a rank correlation of "
        "{rank_correlation_occlusion_integrated_gradients:.2f} with integrated gradients and of "
        "{rank_correlation_occlusion_grad_cam:.2f} with Grad-CAM (where neither is constant)."
    ]
    answers = [Answer("Do other explanations point where occlusion does?", list(figures), says)]
    tensors = {"indices": subject.indices, "mean_drop": drop, **{k: v.cpu() for k, v in found._asdict().items()}}
    return Part(findings, answers, {"saliency": tensors}, figures)


@functools.lru_cache(maxsize=4)
def _maps(subject: Subject, window: int, stride: int, fill: float) -> OcclusionMap:
    """Those of the subject's few images; made once, whichever part asks."""
    return _look(subject.network, 0, *subject.on_device(), window=window, stride=stride, fill=fill)


def _look(
    network: CNN, first: int, images: Tensor, labels: Tensor, *, window: int, stride: int, fill: float
) -> OcclusionMap:
    """The maps of a share of the images, batch by batch."""
    batches = console.track(torch.arange(len(images)).split(EVAL_BATCH_SIZE), "occlusion")
    return _joined(
        [
            occlusion_map(network, images[index], labels[index], window=window, stride=stride, fill=fill).cpu()
            for index in batches
        ]
    )


def _joined(parts: Sequence[OcclusionMap]) -> OcclusionMap:
    """The maps of one set of images that was looked at piece by piece."""
    return parts[0]._replace(
        probability=torch.cat([part.probability for part in parts]),
        predicted=torch.cat([part.predicted for part in parts]),
        clean=torch.cat([part.clean for part in parts]),
    )


def _saved(maps: OcclusionMap, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
    numbers = {name: torch.tensor(getattr(maps, name)) for name in ("window", "stride", "fill")}
    fields = {name: getattr(maps, name) for name in ("probability", "predicted", "clean")}
    return {"indices": indices, "labels": labels, **fields, **numbers}
