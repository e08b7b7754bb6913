"""The walk-through: its two forms are the same, its questions have answers, and it runs in a notebook's kernel."""

import re
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "walkthrough"
SOURCE = jupytext.read(FOLDER / "walkthrough.py")
NOTEBOOK = nbformat.read(FOLDER / "walkthrough.ipynb", as_version=4)


def test_the_notebook_is_its_source() -> None:
    found, expected = ([(cell.cell_type, cell.source) for cell in one.cells] for one in (NOTEBOOK, SOURCE))
    assert found == expected, "run jupytext --to ipynb docs/walkthrough/walkthrough.py"
    assert not any(cell.get("outputs") for cell in NOTEBOOK.cells)


def test_every_part_ends_in_a_question_that_is_answered() -> None:
    text = "\n".join(cell.source for cell in SOURCE.cells if cell.cell_type == "markdown")
    parts = re.split(r"^## \d\. ", text, flags=re.MULTILINE)[1:]
    questions = [re.findall(r"\*\*Question (\d)\.\*\*", part) for part in parts]
    assert questions == [[str(number)] for number in range(1, len(parts) + 1)]
    answers = re.findall(r"^\*\*(\d)\.\*\*", (FOLDER / "answers.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert answers == [str(number) for number in range(1, len(parts) + 1)]


@pytest.mark.slow
@pytest.mark.mnist
def test_it_runs_and_shows_what_it_says(mnist_root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(mnist_root.resolve())
    notebook = nbformat.from_dict(NOTEBOOK)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 14
    first, second = (float(found) for found in re.findall(r"^test accuracy ([\d.]+)%", said, re.MULTILINE))
    assert first > 98.5
    assert second > 95
    blinded = re.findall(r"([\d.]+)% under one step, ([\d.]+)% under AutoAttack", said)
    assert float(blinded[1][0]) > float(blinded[0][0]) + 20  # the scaled logits blind one step
    assert all(float(ensemble) < 5 for _, ensemble in blinded)  # and not the ensemble
    before, now = map(float, re.findall(r"change ([\d.]+) before, ([\d.]+) now", said)[0])
    assert now > 1.2 * before
    bounds = [(float(low), float(high)) for low, high in re.findall(r"([\d.]+)% proven, ([\d.]+)% under PGD", said)]
    assert len(bounds) == 2
    assert all(low <= high for low, high in bounds)
    random = [float(found) for found in re.findall(r"random changes of [\d.]+: ([\d.]+)%", said)]
    assert random[1] > 70  # of 0.2, where the ensemble leaves nothing
    ordinary, defended = map(float, re.findall(r"median of the filters ([\d.]+)", said))
    assert defended > ordinary
