"""The lab report's recipe and attacks on MNIST: long tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnn_mnist
from cnn_mnist import attacks
from cnn_mnist.runs import checkpoint
from tests.conftest import Command, Done
from tests.data import paper
from tests.test_analyze import tensors
from tests.test_recipes import FAST

pytestmark = [pytest.mark.slow, pytest.mark.mnist]


@pytest.fixture(scope="module", params=["false", "true"], ids=["baseline", "batchnorm"])
def run(request: pytest.FixtureRequest, train: Command, mnist_root: Path) -> Done:
    """Two epochs, without batch normalisation and with all pictures, and with it and without them."""
    more = ["callbacks=none"] if request.param == "true" else []
    words = (
        f"model.batchnorm={request.param}",
        f"data.root={mnist_root}",
        "trainer=cpu",
        "trainer.max_epochs=2",
        *FAST,
    )
    done = train(*words, *more, timeout=1200)
    assert done.status == 0, done.err
    return done


def test_the_reports_recipe(run: Done) -> None:
    assert run.results["test/acc"] >= 0.985
    assert run.folder.parent.name == "mnist-paper"


def test_non_targeted_reaches_every_class_from_ten_seeds(run: Done) -> None:
    network = checkpoint.load(run.folder)
    for seed in range(10):
        result = attacks.non_targeted(
            network, torch.arange(10), steps=500, step_size=0.1, generator=torch.Generator().manual_seed(seed)
        )
        assert result.success.all()
        assert (result.confidence >= 0.999).all()
        assert (result.trace.gather(0, result.steps[None])[0] > result.trace[0]).all()


@pytest.mark.parametrize("run", ["false"], ids=["baseline"], indirect=True)
def test_digits_on_paper_are_read(run: Done, mnist_root: Path, tmp_path: Path) -> None:
    """A digit of each class, right as a tensor, on paper of every kind at its worst."""
    network = checkpoint.load(run.folder)
    images, labels = cnn_mnist.load_images("mnist", "test", str(mnist_root))
    with torch.no_grad():
        is_right = network(images[:1000]).argmax(1) == labels[:1000]
    chosen = torch.cat([((labels[:1000] == label) & is_right).nonzero()[:1, 0] for label in range(10)]).tolist()
    num_right = {}
    for kind in paper.KINDS:
        read = []
        for seed, index in enumerate(chosen):
            page = paper.picture(kind, images[index, 0].numpy().astype(float), 2, seed)
            Image.fromarray(page).save(tmp_path / "page.png")
            try:
                read.append(cnn_mnist.load_picture(tmp_path / "page.png"))
            except ValueError:  # refused as blank
                read.append(torch.zeros(1, 1, 28, 28))
        with torch.no_grad():
            predicted = network(torch.cat(read)).argmax(1)
        num_right[kind] = int((predicted == labels[chosen]).sum())
    assert min(num_right.values()) >= 9, num_right
    assert sum(num_right.values()) >= 0.98 * 10 * len(num_right), num_right


def test_the_reports_attacks(run: Done, analyze: Command) -> None:
    done = analyze("attack=all", "attack.noise.num_test_images=500", cwd=run.cwd)
    assert done.status == 0, done.err
    targeted, noise = done.results["targeted"], done.results["noise"]
    assert targeted["num_images"] == 90
    assert targeted["success_rate"] >= 89 / 90
    assert targeted["median_mse"] <= 0.008
    assert targeted["p90_mse"] <= 0.02
    assert (noise["num_images"], noise["success_rate"]) == (10, 1.0)
    network = checkpoint.load(run.folder)
    for name in ("targeted", "noise"):
        saved = tensors(Path(done.results[name]["tensors"]))
        with torch.no_grad():
            predicted = network(torch.from_numpy(saved["images"])).argmax(1).numpy()
        assert np.array_equal(predicted, saved["predicted"])
        assert (saved["label"] != saved["target"]).all()
