"""The section about AutoAttack: what it says of each attack, and that it resumes where it was interrupted."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cnn_mnist import attacks
from cnn_mnist.attacks import AttackResult
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.report.section import Section
from cnn_mnist.report.sections.attacks import autoattack
from cnn_mnist.report.subject import Subject
from tests.conftest import seen_by, trained

LONGER = 0.3  # seconds that each part takes at least
OPTIONS: dict[str, Any] = {"epsilon": 0.3, "norm": "linf", "num_images": 30, "epsilons": [], "seed": 0}


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Subject:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(autoattack, "NUM_TOGETHER", 10)
    data = DataModule("digits")
    data.setup()
    return seen_by(trained(False), data)


def numbers(part: Section) -> dict[str, Any]:
    return {key: value for key, value in part.findings.items() if "seconds" not in key}


def test_it_goes_on_where_it_was_interrupted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = autoattack.auto(subject, **OPTIONS)
    real, calls = attacks.auto, []

    def stopped(*arguments: Any, **options: Any) -> AttackResult:
        calls.append(len(arguments[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        time.sleep(LONGER)
        return real(*arguments, **options)

    monkeypatch.setattr(attacks, "auto", stopped)
    with pytest.raises(KeyboardInterrupt):
        autoattack.auto(subject, **OPTIONS)
    assert len(list(autoattack.UNFINISHED.rglob("*.npz"))) == 2
    resumed = autoattack.auto(subject, **OPTIONS)
    assert calls == [10] * 4  # the third part is attacked again, the first two are not
    assert numbers(resumed) == numbers(whole)
    assert resumed.findings["seconds"] > 3 * LONGER  # also those of the parts that were done
    assert whole.earlier_seconds == 0
    assert 2 * LONGER < resumed.earlier_seconds < resumed.findings["seconds"]
    for name, value in whole.tensors["auto"].items():
        assert torch.equal(resumed.tensors["auto"][name].nan_to_num(), value.nan_to_num()), name
    assert not list(autoattack.UNFINISHED.iterdir())


def test_other_options_are_another_attack(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(autoattack.shutil, "rmtree", lambda folder, **_: kept.append(folder))
    for changed in ({}, {"epsilon": 0.25}, {"seed": 1}, {"num_images": 20}):
        autoattack.auto(subject, **OPTIONS | changed)
    assert len(set(kept)) == 4


def test_the_accuracy_after_each_attack_is_counted(subject: Subject) -> None:
    part = autoattack.auto(subject, **OPTIONS | {"epsilon": 0.4})
    left = part.findings["left"]
    assert [*left] == ["apgd_ce", "apgd_targeted", "fab_targeted", "square"]
    assert [*left.values()] == sorted(left.values(), reverse=True)
    assert left["square"] == pytest.approx(part.findings["accuracy_after"])
    assert part.findings["broken_by_square"] == pytest.approx(left["fab_targeted"] - left["square"])
