"""What is proven of the network: images that no change within epsilon can move to another class."""

import torch

from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import certificate
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.attacks.result import predict
from cnn_mnist.cli import console
from cnn_mnist.figures import adversarial as draw
from cnn_mnist.figures.render import Picture
from cnn_mnist.option_types import Count, Fraction, Seed
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject

NUM_SHOWN = 10  # images with the smallest radius, and with the largest


@needs(images=False, sample=True, tables=True)
def certified(subject: Subject, *, epsilon: Fraction, steps: Count, num_images: Count, seed: Seed) -> Section:
    """For which images is it proven that no small change moves them to another class?

    Args:
        subject: The network and its test images.
        epsilon: Largest change of a pixel.
        steps: Steps of PGD, whose accuracy no proof can exceed.
        num_images: Test images, evenly spaced over the test set.
        seed: Random seed of the starts of PGD.
    """
    assert subject.test is not None
    images, labels = subject.test[subject.test.evenly_spaced(num_images)]
    there = images.to(subject.device), labels.to(subject.device)
    is_right = (predict(subject.network, there[0]).argmax(1) == there[1]).cpu()
    found = certificate(subject.network, *there, epsilon=epsilon)
    is_proven, radius = found.is_proven.cpu(), found.radius.cpu()
    attacked = attacks.pgd(
        subject.network,
        *there,
        epsilon=epsilon,
        step_size=default_step_size(None, epsilon, steps),
        steps=steps,
        generator=torch.Generator().manual_seed(seed),
        progress=lambda taken: console.track(taken, f"certified: pgd, epsilon {epsilon:g}"),
    ).cpu()
    if (attacked.success & is_proven).any():
        raise RuntimeError("PGD broke an image that is proven: the bounds are wrong")
    by_class = [
        {"name": subject.names[c], "share": is_proven[labels == c].double().mean().item()}
        for c in labels.unique().tolist()
    ]
    findings = {
        "num_images": len(images),
        "epsilon": epsilon,
        "steps": steps,
        "accuracy": is_right.double().mean().item(),
        "certified_acc": is_proven.double().mean().item(),
        "robust_acc": 1 - attacked.success.double().mean().item(),
        "median_radius": radius.median().item(),
        "by_class": by_class,
    }
    order = radius.where(is_right, torch.inf).argsort()[: int(is_right.sum())]  # the nearest to being undecided first
    figures: dict[str, Picture] = {"certified/radius": draw.certified(radius[is_right], len(images), epsilon)}
    if len(order):
        shown = order[:NUM_SHOWN], order[-NUM_SHOWN:].flip(0)
        figures["certified/images"] = draw.radii(*((images[k], labels[k], radius[k]) for k in shown))
    rows = [[f"{{by_class.{k}.name}}", f"{{by_class.{k}.share:.1%}}"] for k in range(len(by_class))]
    answers = [
        Answer(
            "For how many images is it proven?",
            ["certified/radius"],
            [
                "{accuracy:.1%} of {num_images} test images are classified correctly. For {certified_acc:.1%} it is "
                "proven that they are, whatever change of up to {epsilon:g} is made in every pixel. PGD with {steps} "
                "steps leaves {robust_acc:.1%}: the accuracy under the best possible attack lies between the two.",
                *["Half of the images are proven up to an epsilon of {median_radius:.3g} or more."]
                * bool(radius.median()),
            ],
            [Table("Proven, of the images of each class", ["class", "share"], rows)],
        )
    ]
    if "certified/images" in figures:
        answers.append(Answer("Which images are proven furthest, and which least?", ["certified/images"], []))
    tensors = {"images": images, "label": labels, "is_proven": is_proven, "radius": radius}
    return Section(findings, answers, {"certified": tensors}, figures)
