"""The points that a claim of robustness must withstand, each measured, and a verdict on each."""

import itertools
import time
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnn_mnist import attacks
from cnn_mnist.attacks.checklist import ALL, BUDGETS, GRADIENT
from cnn_mnist.attacks.pgd import default_step_size
from cnn_mnist.attacks.result import judge
from cnn_mnist.cli import console
from cnn_mnist.networks import build
from cnn_mnist.option_types import Count, Positive, Queries, Seed, UnitPositive
from cnn_mnist.report.section import Answer, Section, Table, needs, of_attack
from cnn_mnist.report.subject import Subject
from cnn_mnist.runs import checkpoint

CLOSE = 0.002  # share of the images: what a stronger or another attack may find
FOUND = 0.95  # share of the breakable copies that the attacks by gradient must break
NUM_TRAIN, BATCH_SIZE = 20_000, 100  # of the undefended network, where none is named
NAMES = {
    "pgd": "PGD, {steps} steps x {restarts} starts",
    "pgd_more_steps": "PGD, twice the steps",
    "apgd_ce": "APGD on the cross-entropy",
    "apgd_targeted": "APGD on the ratio of logits, targeted",
    "square": "Square, {queries} queries (no gradient)",
    "boundary": "HopSkipJump, {queries} queries (decision-based)",
    "transfer": "PGD on an undefended network, transferred",
}


class Point(NamedTuple):
    """A point of the list.

    Attributes:
        key: Of what decides it, among the findings.
        asks: What is asked.
        measured: What was measured, a sentence over the findings.
        holds: Whether it holds.
    """

    key: str
    asks: str
    measured: str
    holds: bool


@needs(images=False, sample=True, tables=True, first=True)
def checklist(
    subject: Subject,
    *,
    epsilon: UnitPositive,
    steps: Count,
    step_size: Positive | None,
    restarts: Count,
    queries: Queries,
    num_images: Count,
    num_decision_based: Count,
    num_breakable: Count,
    seed: Seed,
) -> Section:
    """Can the robust accuracy be trusted?

    Args:
        subject: The network and its test images; the other network, if there is one, should have no defence.
        epsilon: Largest change of a pixel that the network is claimed to withstand.
        steps: Steps of PGD from each start; also taken twice as many.
        step_size: Of PGD; None: 2.5 * epsilon / steps.
        restarts: Starts of PGD.
        queries: Of the attacks that use no gradient.
        num_images: Test images attacked, evenly spaced over the test set.
        num_decision_based: How many of them are attacked by HopSkipJump, which is slow.
        num_breakable: For how many of them a copy of the network is made that is sure to have an adversarial example.
        seed: Random seed of all attacks.
    """
    assert subject.test is not None
    images, labels = subject.test[subject.test.evenly_spaced(num_images)]
    x, y = images.to(subject.device), labels.to(subject.device)
    clock = time.perf_counter()
    other = _undefended(subject, seed) if subject.other is None else subject.other.network
    found = attacks.checklist(
        subject.network,
        other,
        x,
        y,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        queries=queries,
        num_decision_based=num_decision_based,
        num_breakable=num_breakable,
        generator=torch.Generator().manual_seed(seed),
        progress=lambda name: lambda taken: console.track(taken, f"checklist: {name}"),
    )
    seconds = time.perf_counter() - clock
    result = judge(subject.network, x, found.images, y).cpu()
    findings: dict[str, Any] = {
        "threat_model": f"any change of up to {epsilon:g} in every pixel; weights known; any wrong class counts",
        "step_size_used": default_step_size(step_size, epsilon, steps),
        "accuracy": found.is_right.double().mean().item(),
        "left": {name: found.under(name) for name in ALL},
        "num_attacked": found.num_attacked,
        "gradient": found.left(*GRADIENT),
        "worst_case": found.left(*ALL),
        "last_start": found.last_start,
        "more_steps": found.found_more("pgd_more_steps", "pgd"),
        "curve": {"epsilon": list(BUDGETS), "robust_acc": found.curve},
        "found_more": {name: found.found_more(name, *GRADIENT) for name in ("square", "boundary", "transfer")},
        "num_copies": found.num_copies,
        "broken_copies": found.broken_copies,
        "undefended": "the other network"
        if subject.other
        else f"the same architecture after one epoch on {min(NUM_TRAIN, len(subject.train or ())):,} training images",
        "undefended_left": found.other_left,
    }
    points = _points(findings, restarts)
    findings["points"] = [{"key": one.key, "asks": one.asks, "holds": one.holds} for one in points]
    findings["num_holding"] = sum(point.holds for point in points)
    findings["num_points"] = len(points)
    rows = [[point.asks, point.measured, "holds" if point.holds else "does not hold"] for point in points]
    attacked = [[NAMES[name], f"{{num_attacked.{name}}}", f"{{left.{name}:.1%}}"] for name in ALL]
    says = [
        "{num_holding} of {num_points} points hold. Of {num_images} test images {accuracy:.1%} are classified "
        "correctly, and {worst_case:.1%} still are under the worst of all attacks for each image."
    ]
    answers = [
        Answer("Which points hold?", [], says, [Table("The checklist", ["asked", "measured", "verdict"], rows)]),
        Answer(
            "How much accuracy does each attack leave?",
            [],
            ["The transferred images were made on {undefended}, of which PGD itself leaves {undefended_left:.1%}."],
            [Table("Accuracy under each attack", ["attack", "images", "accuracy left"], attacked)],
        ),
    ]
    unmet = [point.asks for point in points if not point.holds]
    part = of_attack("checklist", subject, images, labels, result, seconds, Section(findings, answers, {}, {}))
    return part._replace(unmet=unmet)


def _points(found: dict[str, Any], restarts: int) -> list[Point]:
    """The points of the list, over the findings."""
    curve, more = found["curve"]["robust_acc"], found["found_more"]
    has_copies = found["num_copies"] > 0
    return [
        Point("threat_model", "the threat model is stated", "{threat_model}", True),
        Point("accuracy", "the accuracy without an attack is stated", "{accuracy:.1%}", True),
        Point(
            "curve",
            "larger budgets leave less, until nothing is left",
            "; ".join(f"{{curve.robust_acc.{k}:.1%}} at {{curve.epsilon.{k}:g}}" for k in range(len(BUDGETS))),
            curve[-1] <= CLOSE and all(b <= a + CLOSE for a, b in itertools.pairwise(curve)),
        ),
        Point(
            "more_steps",
            "twice the steps change less than 0.2 points",
            "from the same starts {steps} steps leave {left.pgd:.1%}; twice as many break another {more_steps:.1%}",
            found["more_steps"] < CLOSE,
        ),
        Point(
            "last_start",
            "another start changes less than 0.2 points",
            "the last of {restarts} starts broke {last_start:.1%}",
            found["last_start"] < CLOSE and restarts > 1,
        ),
        Point(
            "found_more.square",
            "an attack without a gradient finds less than 0.2 points more",
            "Square broke {found_more.square:.1%} that no attack by gradient broke",
            more["square"] < CLOSE,
        ),
        Point(
            "found_more.boundary",
            "an attack that sees only the predicted class finds less than 0.2 points more",
            "HopSkipJump broke {found_more.boundary:.1%} of {num_attacked.boundary} that no attack by gradient broke",
            more["boundary"] < CLOSE,
        ),
        Point(
            "found_more.transfer",
            "images made on an undefended network find less than 0.2 points more",
            "they broke {found_more.transfer:.1%} that no attack by gradient broke",
            more["transfer"] < CLOSE,
        ),
        Point(
            "worst_case",
            "the worst case of each image is stated",
            "{worst_case:.1%} are left by all attacks together",
            True,
        ),
        Point(
            "broken_copies",
            "attacks by gradient break copies that are made breakable",
            "they broke {broken_copies:.0%} of {num_copies}" if has_copies else "no copy could be made",
            has_copies and found["broken_copies"] >= FOUND,
        ),
    ]


def _undefended(subject: Subject, seed: int) -> nn.Module:
    """The same architecture, trained for an epoch without a defence.

    Raises:
        ValueError: There are no training images.
    """
    if subject.train is None:
        raise ValueError("attack=checklist needs an undefended network: set against= to a run without a defence")
    images, labels = (t.to(subject.device) for t in subject.train[subject.train.evenly_spaced(NUM_TRAIN)])
    hparams = checkpoint.read(subject.checkpoint)["hyper_parameters"]
    kind = {"batchnorm": hparams.get("batchnorm", False), "num_classes": subject.num_classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build.build(checkpoint.description_of(hparams), **kind).to(subject.device)
        adam = torch.optim.Adam(network.parameters(), lr=1e-3)
        order = torch.randperm(len(images))[: len(images) // BATCH_SIZE * BATCH_SIZE or None].split(BATCH_SIZE)
        for index in console.track(order, "checklist: an undefended network"):
            adam.zero_grad()
            F.cross_entropy(network(images[index]), labels[index]).backward()
            adam.step()
    return network.eval()
