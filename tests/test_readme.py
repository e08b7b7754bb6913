"""README and docs: the examples run as pasted, and every figure comes from a record."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cnn_mnist
from benchmarks import readme, results_page, robustness_page
from cnn_mnist import published
from tests.conftest import MNIST_ROOT, ROOT, Command

PAGES = [*readme.PAGES, "CONTRIBUTING.md"]
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
RECORD = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
QUOTED = ("95 % interval", "100 % probability")  # in a block: a level, and the lab report's words


@pytest.mark.parametrize("name", PAGES)
def test_the_figures_of_a_page_are_those_of_its_records(name: str) -> None:
    assert readme.written(TEXT[name]) == TEXT[name], "run python -m benchmarks.readme"


@pytest.mark.parametrize("name", PAGES)
def test_no_measured_figure_stands_outside_of_a_block(name: str) -> None:
    outside = re.sub(r"```.*?```", "", readme.BLOCK.sub("", TEXT[name]), flags=re.DOTALL)
    outside = re.sub(r"^    .*$", "", outside, flags=re.MULTILINE)
    assert re.findall(r"[\d.]+ ?%|[\d.]+ percentage points|p = 0\.0\d+", outside) == []
    for _, _, template, _, _ in readme.BLOCK.findall(TEXT[name]):
        for quoted in QUOTED:
            template = template.replace(quoted, "")
        assert re.findall(r"(?<![:.\d{])\b\d[\d.]* ?%", template) == []


def test_a_wrong_figure_is_found(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"accuracy": 0.99123}))
    template = "<!-- figures of results.json\nIt has {accuracy:.2%}.\n-->\n"
    page = f"a\n{template}It has 98.00 %.\n<!-- end of figures -->\n98.00 %\n"
    assert readme.written(page, tmp_path) == page.replace("It has 98.00 %", "It has 99.12 %")
    with pytest.raises(KeyError, match="loss is not in the record"):
        readme.written(page.replace("accuracy", "loss"), tmp_path)


def test_results_md_is_its_records() -> None:
    assert results_page.page(RECORD) == (ROOT / "RESULTS.md").read_text()


def test_rates_under_one_attack_are_not_set_beside_those_under_another() -> None:
    runs = [run for runs in RECORD["robustness"]["networks"].values() for run in runs]
    whole = [run | {"num_images": published.NUM_IMAGES} for run in runs]
    attacks = {"FGSM": "FGSM", "PGD-50 x 10, steps of 0.01": "PGD-50 x 10", "AutoAttack": "AutoAttack"}
    for some, measured in ((whole, {"FGSM", "PGD-50 x 10", "AutoAttack"}), (only(whole, "clean", "fgsm"), {"FGSM"})):
        text = "\n".join(robustness_page.robustness({"epsilon": 0.3, "networks": {"some": some}}))
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
        heads, others = rows[0], [row for row in rows[2:] if "`" not in row[0]]
        shown = {
            (attacks[head], row[0], cell)
            for row in others
            for head, cell in zip(heads[3:], row[3:], strict=True)
            if cell
        }
        known = {(one.attack, one.source, f"{one.robust:.2%}".replace("%", " %")) for one in published.ROBUST}
        assert shown == {one for one in known if one[0] in measured}
    fewer = [run | {"num_images": 1000} for run in runs]
    page = "\n".join(robustness_page.robustness({"epsilon": 0.3, "networks": {"some": fewer}}))
    assert not any(one.source in page for one in published.ROBUST)


def only(runs: list[dict[str, Any]], *measures: str) -> list[dict[str, Any]]:
    return [run | {"measured": {name: run["measured"][name] for name in measures}} for run in runs]


@pytest.mark.mnist
def test_the_python_examples_run_as_pasted(train: Command, tmp_path: Path) -> None:
    options = (f"data.root={MNIST_ROOT}", "trainer=cpu", "callbacks=none", "trainer.max_epochs=1")
    done = train(*options, "+trainer.limit_train_batches=30", "+trainer.limit_test_batches=2", cwd=tmp_path)
    assert done.status == 0, done.err
    (tmp_path / "data").symlink_to(MNIST_ROOT.resolve())
    pages = TEXT["README.md"] + TEXT["docs/python.md"]
    examples = re.findall(r"```python\n(.*?)```", pages, re.DOTALL)
    assert len(examples) >= 3
    pasted = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(examples)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert pasted.returncode == 0, pasted.stderr
    shapes = "torch.Size([10, 21, 21]) torch.Size([10, 21, 21]) torch.Size([10])\ntorch.Size([10, 28, 28])"
    assert shapes in pasted.stdout


def test_importing_the_package_costs_no_torch() -> None:
    program = "import sys, cnn_mnist; cnn_mnist.__version__; print([m for m in sys.modules if m.startswith('torch')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", cnn_mnist.__version__)


def test_images_are_loaded_by_name_and_split() -> None:
    for split, num_images in (("train", 1500), ("test", 297)):
        images, labels = cnn_mnist.load_images("digits", split=split)
        assert images.shape == (num_images, 1, 28, 28)
        assert (str(images.dtype), str(labels.dtype)) == ("torch.float32", "torch.int64")
        assert images.min() == 0
        assert 0.9 < images.max() <= 1
    with pytest.raises(ValueError, match="split must be train or test, got val"):
        cnn_mnist.load_images("digits", split="val")
    with pytest.raises(ValueError, match="name must be mnist, fashion_mnist, kmnist, digits, .*, got imagenet"):
        cnn_mnist.load_images("imagenet")
    with pytest.raises(AttributeError, match="has no attribute 'load_everything'"):
        _ = cnn_mnist.load_everything  # type: ignore[attr-defined]


@pytest.mark.mnist
def test_mnists_test_images_are_ten_thousand() -> None:
    images, labels = cnn_mnist.load_images(root=MNIST_ROOT)
    assert (images.shape, labels.shape) == ((10_000, 1, 28, 28), (10_000,))
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
