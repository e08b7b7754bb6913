"""A committee: several networks of the same task, whose probabilities are averaged."""

import itertools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from cnn_mnist.cli import console
from cnn_mnist.data.batches import Images
from cnn_mnist.figures import sweep as draw
from cnn_mnist.figures import training
from cnn_mnist.figures.render import Picture
from cnn_mnist.report.section import Answer, Section, Table, needs
from cnn_mnist.report.subject import Subject, another, choose
from cnn_mnist.runs import files, locate

FEWEST = 2
NUM_MISTAKES = 24
MOST_COMMITTEES = 30  # of one size


@dataclass(eq=False)
class Committee:
    """Several networks, with the test images that they all see.

    Attributes:
        asked: What `committee` named: a folder of runs, or a list of runs.
        members: The networks.
    """

    asked: str
    members: list[Subject]

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.members[0].device

    @property
    def name(self) -> str:
        """The name of the folder of its analyses."""
        return f"committee-{Path(self.asked.partition(',')[0]).name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What heads the record of an analysis."""
        title = f"A committee of {len(self.members)} networks"
        return {
            "title": title,
            "names": [title],
            "runs": self.asked,
            "dataset": self.members[0].dataset,
            "num_test_images": len(self.test),
        }

    @property
    def test(self) -> Images:
        """The test set."""
        assert self.members[0].test is not None
        return self.members[0].test


def read(
    cfg: DictConfig, overrides: list[str], *, trusted: Collection[str] = (), trusted_data: Collection[str] = ()
) -> Committee:
    """The networks of the runs that `cfg.committee` names.

    Of a run with a hold-out, the checkpoint that the hold-out chose. The data set is that of the first run, as with
    `subject.choose`.

    Raises:
        FileNotFoundError: There is no such run.
        ValueError: There are fewer than two runs, or they are of different data sets or classes.
    """
    runs, asked = _runs(cfg.committee)
    for run in runs:
        locate.check(locate.find(run, prefer_best=True, key="committee"))
    cfg.ckpt_path = str(runs[0])
    (first,) = choose(cfg, overrides, trusted=trusted, trusted_data=trusted_data)
    cfg.ckpt_path = None
    members = [first]
    for run in runs[1:]:
        try:
            member = another(run, first, trusted, key="committee")
        except ValueError as error:
            raise ValueError(f"{files.shown(run)} cannot be a member beside {files.shown(runs[0])}: {error}") from None
        member.dataset, member.test = first.dataset, first.test
        members.append(member)
    return Committee(asked, members)


def _runs(committee: str | Sequence[str]) -> tuple[list[Path], str]:
    """The runs that are named, and their names as shown."""
    if not isinstance(committee, str):
        runs = list(dict.fromkeys(Path(run).expanduser() for run in committee))
        asked = ", ".join(map(files.shown, runs))
    else:
        folder = Path(committee).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}: set committee= to a folder of runs")
        asked = files.shown(folder)
        begun = [run for run in folder.iterdir() if locate.is_begun(run)]
        finished = [run for run in begun if (run / "results.json").is_file()]
        runs = sorted(finished, key=_with_numbers)
        if left_out := len(begun) - len(finished):
            print(f"unfinished runs in {asked}, left out: {left_out}")
    if len(runs) < FEWEST:
        raise ValueError(f"a committee needs at least {FEWEST} finished runs, and {asked} has {len(runs)}")
    return runs, asked


def _with_numbers(run: Path) -> list[str | int]:
    """A run's name as words and numbers, so that seed-2 comes before seed-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", run.name)]


@needs(tables=True)
def committee(subject: Committee) -> Section:
    """How well do the networks do together?"""
    labels = subject.test.labels
    each = torch.stack([member.probability for member in console.track(subject.members, "evaluating the networks")])
    own = (each.argmax(2) == labels).double().mean(1)
    probability = each.mean(0)
    confidence, predicted = probability.max(1)
    votes = (each.argmax(2) == predicted).sum(0)
    wrong = (predicted != labels).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:NUM_MISTAKES]
    growth = by_number(each, labels)
    findings: dict[str, Any] = {
        "num_images": len(labels),
        "num_members": len(each),
        "accuracy": (predicted == labels).double().mean().item(),
        "num_wrong": len(wrong),
        "num_unanimous_mistakes": int((votes[wrong] == len(each)).sum()),
        "num_disagreements": int((votes < len(each)).sum()),
        "calibration_error": multiclass_calibration_error(probability, labels, each.shape[2], n_bins=15).item(),
        "member_mean": own.mean().item(),
        "member_lowest": own.min().item(),
        "member_highest": own.max().item(),
        "members": [
            {"run": files.shown(member.folder), "accuracy": accuracy}
            for member, accuracy in zip(subject.members, own.tolist(), strict=True)
        ],
        "gain_points": 100 * (growth[-1].mean() - growth[0].mean()).item(),
        "by_number": [
            {"num_members": k, "mean": row.mean().item(), "lowest": row.min().item(), "highest": row.max().item()}
            for k, row in enumerate(growth, 1)
        ],
    }
    figures: dict[str, Picture] = {"committee/by_number": draw.by_number(growth)}
    rows = [[f"{{members.{k}.run}}", f"{{members.{k}.accuracy:.2%}}"] for k in range(len(each))]
    answers = [
        Answer(
            "How well do they do together?",
            [],
            [
                "Together, by the mean of their probabilities, the {num_members} networks classify {accuracy:.2%} of "
                "{num_images} test images correctly; alone they classify {member_mean:.2%} on average, "
                "{member_lowest:.2%} to {member_highest:.2%}.",
                "The committee's confidence differs from its accuracy by {calibration_error:.2%} on average (expected "
                "calibration error).",
            ],
            [Table("The networks alone", ["run", "accuracy"], rows)],
        ),
        Answer(
            "Does another network help?",
            ["committee/by_number"],
            [
                "Two networks together classify {by_number.1.mean:.2%} correctly on average. From one network to "
                "{num_members}, the accuracy changes by {gain_points:+.2f} percentage points."
            ],
        ),
    ]
    if len(worst):
        figures["committee/mistakes"] = training.predictions(
            subject.test[worst].images, labels[worst], probability[worst], "The committee's most confident mistakes"
        )
        answers.append(
            Answer(
                "What do they get wrong together?",
                ["committee/mistakes"],
                [
                    "In {num_unanimous_mistakes} of the committee's {num_wrong} mistakes, all members predict the same "
                    "wrong class. The members do not all agree on {num_disagreements} of {num_images} images."
                ],
            )
        )
    tensors = {"committee": {"labels": labels, "probability": probability, "votes": votes, "accuracies": own}}
    return Section(findings, answers, tensors, figures)


def by_number(each: Tensor, labels: Tensor) -> list[Tensor]:
    """The accuracies of committees of k of the M members, for k = 1 to M.

    Args:
        each: Probabilities, (M, N, C).
        labels: int64 (N,).

    Returns:
        For each k, float64 of all its committees, or of `MOST_COMMITTEES` drawn at random where there are more.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for k in range(1, len(each) + 1):
        if math.comb(len(each), k) <= MOST_COMMITTEES:
            chosen = [list(members) for members in itertools.combinations(range(len(each)), k)]
        else:
            chosen = [torch.randperm(len(each), generator=generator)[:k].tolist() for _ in range(MOST_COMMITTEES)]
        right = [(each[members].mean(0).argmax(1) == labels).double().mean() for members in chosen]
        found.append(torch.stack(right))
    return found
