"""The audit reports that it was skipped if it could not run."""

import json
import runpy
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT

audit: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "audit.py"))


def answering(monkeypatch: pytest.MonkeyPatch, packages: list[dict[str, Any]]) -> None:
    done = SimpleNamespace(stdout=json.dumps({"dependencies": packages}))
    monkeypatch.setattr("subprocess.run", lambda *args, **options: done)


def test_no_answer_for_any_package_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    answering(monkeypatch, [{"name": "torch", "skip_reason": "not found"}])
    assert audit["vulnerabilities"]() is False
    assert "pip-audit is skipped: the index knows none of the 1 packages" in capsys.readouterr().out


def test_no_index_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="no network"))
    assert audit["vulnerabilities"]() is False
    assert "pip-audit is skipped: no answer" in capsys.readouterr().out


def test_a_known_vulnerability_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    known = {"name": "old", "version": "1", "vulns": [{"id": "CVE-1"}]}
    answering(monkeypatch, [known, {"name": "torch", "skip_reason": "not found"}])
    assert audit["vulnerabilities"]() is True
    out = capsys.readouterr().out
    assert "1 of 2 packages are known to the index, 1 findings" in out
    assert "old 1: CVE-1" in out
