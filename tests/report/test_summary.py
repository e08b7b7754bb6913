"""A report's title, its abstract and its verdicts follow from its numbers."""

import copy
import json
from typing import Any

import pytest

from cnn_mnist.report import summary
from cnn_mnist.report.prose import plain
from tests.conftest import ROOT


@pytest.fixture
def record() -> dict[str, Any]:
    """The record of two networks, without and with batch normalisation, on MNIST."""
    found: dict[str, Any] = json.loads((ROOT / "docs" / "report" / "results.json").read_text())
    return found


def verdicts(record: dict[str, Any]) -> dict[str, str]:
    return {plain(claim, record): evidence[0].verdict for claim, evidence in summary.conclusion(record)}


def test_the_title_says_what_it_is_about(record: dict[str, Any]) -> None:
    first, second = (f"{one['predictions']['accuracy'] * 100:.2f} %" for one in (record, record["other"]))
    expected = f"Two convolutional networks on MNIST: {first} and {second}, and how to fool them"
    assert plain(summary.title(record), record) == expected
    del record["other"]
    assert plain(summary.title(record), record) == f"A convolutional network on MNIST: {first}, and how to fool it"
    alone = {"dataset": "mine.Letters", "filters": {}}
    assert summary.title(alone) == "An image classifier on mine.Letters"
    picture: dict[str, Any] = {"dataset": "picture", "picture": {"name": "7"}}
    assert plain(summary.title(picture), picture) == "A picture: 7"
    picture["other"] = {"picture": {"name": "1"}}
    assert plain(summary.title(picture), picture) == "A picture: 7 or 1"
    assert summary.title({"dataset": "usps", "attack": "pgd"}) == "An image classifier on USPS, and how to fool it"
    assert summary.title({"dataset": "mnist", "seeds": {}, "title": "of a sweep"}) == "of a sweep"


def test_the_abstract_says_what_is_known(record: dict[str, Any]) -> None:
    assert len(summary.abstract(record)) == len(summary.ABSTRACT)
    assert all("other." in one.says for one in summary.abstract(record)[:2])
    del record["pgd"], record["other"]
    found = [plain(one.says, record) for one in summary.abstract(record)]
    assert len(found) == len(summary.ABSTRACT) - 1
    assert f"{record['predictions']['accuracy'] * 100:.2f} % of 10,000 test images correctly" in found[0]
    assert not any("second network" in one for one in found)
    assert summary.abstract({"dataset": "mnist"}) == []


def test_every_claim_is_spoken_about(record: dict[str, Any]) -> None:
    found = dict(summary.conclusion(record))
    assert len(found) == len(summary.CLAIMS)
    for claim, evidence in found.items():  # each network's, unless both are spoken about at once
        whose = [""] if claim.startswith("Batch normalisation") else ["names.0", "names.1"]
        assert [one.whose for one in evidence] == whose
        assert all(plain(one.says, one.found) for one in evidence)
    record["other"]["filters"]["conv1_closest_cosine"] = 0.99
    other = dict(summary.conclusion(record))["All filters are different from one another."]
    assert [one.verdict for one in other] == ["holds", "does not hold here"]
    del record["comparison"]["lab_report_time_ratio"]  # of two networks that are set apart by something else
    assert len(summary.conclusion(record)) == len(summary.CLAIMS) - 2
    del record["comparison"]
    assert len(summary.conclusion(record)) == len(summary.CLAIMS) - 2
    record["predictions"]["differs_from_lab_report"] = [{"key": "epochs"}]
    assert all(one.prefix == "other." for _, evidence in summary.conclusion(record) for one in evidence)
    del record["other"]
    assert summary.conclusion(record) == []
    assert summary.conclusion({"dataset": "digits"}) == []


@pytest.mark.parametrize(
    ("key", "value", "claim", "verdict"),
    [
        (
            "predictions.accuracy",
            0.98,
            "The network reaches the lab report's accuracy.",
            "does not hold here",
        ),
        ("comparison.low", 0.001, "Batch normalisation improves the accuracy.", "holds for these two runs"),
        ("comparison.high", -0.001, "Batch normalisation improves the accuracy.", "does not hold here"),
        ("comparison.time_ratio", 1.77, "Batch normalisation severely affects the training time.", "holds"),
        ("filters.conv1_closest_cosine", 0.99, "All filters are different from one another.", "does not hold here"),
        ("filters.conv1_edge_likeness", 0.4, "Filters of this size show no recognisable pattern.", "holds"),
        (
            "activations.conv2_correlation",
            0.9,
            "The second layer is more abstract than the first.",
            "does not hold here",
        ),
        ("occlusion.resistant_share", 0.0, "Some images resist occlusion completely.", "does not hold here"),
        (
            "non_targeted.success_rate",
            0.9,
            "From noise, every class is reached with high confidence.",
            "does not hold here",
        ),
        (
            "targeted.cost.ends_highest_share",
            1.0,
            "The cost increases with the iterations, whatever the target.",
            "holds",
        ),
        ("non_targeted.likeness.num_digits", 3, "These images do not look like digits.", "does not hold here"),
        (
            "targeted.num_success",
            9,
            "A small change, which a person hardly sees, puts a digit into any other class.",
            "does not hold here",
        ),
    ],
)
def test_a_verdict_follows_the_number(key: str, value: float, claim: str, verdict: str, record: dict[str, Any]) -> None:
    before = verdicts(record)[claim]
    changed = copy.deepcopy(record)
    place = changed
    for part in key.split(".")[:-1]:
        place = place[part]
    place[key.split(".")[-1]] = value
    assert verdicts(changed)[claim] == verdict != before
