"""The tuned and the robust recipe on MNIST: long tests."""

import json
from pathlib import Path

import pytest
import torch

from cnn_mnist import attacks
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint
from tests.conftest import ROOT, Command

pytestmark = [pytest.mark.slow, pytest.mark.mnist]
# Quicker where the processor has instructions for it, with the same accuracy over five seeds (docs/performance.md).
CAPABILITIES = getattr(torch.cpu, "get_capabilities", dict)()
FAST = ["trainer.precision=bf16-mixed"] if CAPABILITIES.get("amx_bf16") or CAPABILITIES.get("avx512_bf16") else []


def test_the_tuned_recipe_reaches_what_readme_says(train: Command, mnist_root: Path) -> None:
    claimed = json.loads((ROOT / "docs" / "results.json").read_text())["accuracy"]["tuned"]["mean"]
    done = train("experiment=tuned", "callbacks=none", *FAST, f"data.root={mnist_root}", "trainer=cpu", timeout=1200)
    assert done.status == 0, done.err
    assert done.results["test/acc"] >= claimed - 0.0015  # three standard deviations of a seed


def test_adversarial_training_withstands(train: Command, mnist_root: Path) -> None:
    pictures = ("samples", "predictions", "confusion_matrix", "filters", "activations", "occlusion", "adversarial")
    without = [f"~callbacks.{name}" for name in pictures]
    short = ("experiment=robust", "trainer.max_epochs=2", "model.warmup_epochs=1", *FAST, *without)
    done = train(*short, "trainer=cpu", f"data.root={mnist_root}", timeout=1200)
    assert done.status == 0, done.err
    network = checkpoint.load(done.folder)
    metrics = (done.folder / "metrics.csv").read_text()
    assert "test/robust_acc" in metrics.splitlines()[0]
    data = DataModule(root=str(mnist_root), fallback=None)
    data.prepare_data()
    data.setup()
    images, labels = data.test[data.test.evenly_spaced(300)]
    result = attacks.pgd(
        network, images, labels, epsilon=0.3, step_size=0.01, steps=50, generator=torch.Generator().manual_seed(0)
    )
    assert 1 - result.success.double().mean() >= 0.88  # after two epochs
