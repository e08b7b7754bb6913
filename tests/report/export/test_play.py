"""In a real browser the live page computes what PyTorch computes, and classifies what is drawn."""

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnn_mnist.analysis.occlusion import occlusion_map
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.report.export import play
from cnn_mnist.report.section import Section
from tests.conftest import ROOT, seen_by, trained
from tests.report.export.conftest import needs_browser, opened

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def made(data: DataModule) -> Section:
    """The page of two networks, the second one with batch normalisation."""
    first, second = (seen_by(trained(batchnorm), data) for batchnorm in (False, True))
    first.other, second.other = second, first
    return play.play(first, num_images=100)


def test_filters_of_any_size_and_any_number_of_classes_are_rounded() -> None:
    network = CNN(batchnorm=True, kernel_size=7, num_classes=26).eval()
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(play.Rounded(network).rounded(images), network(images), atol=2e-3, rtol=0)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_rounded_weights_hardly_change_the_logits(batchnorm: bool, data: DataModule) -> None:
    network = trained(batchnorm)
    rounded = play.Rounded(network)
    with torch.no_grad():
        logits = network(data.test[:].images)
        difference = (rounded.rounded(data.test[:].images) - logits).abs().max()
    assert 0 < difference < play.TOLERANCE * logits.abs().max()
    num_numbers = sum(2 * len(bias) for bias in rounded.bias)
    assert len(rounded.content()) == 4 * num_numbers + 2 * sum(level.numel() for level in rounded.level)


def test_the_page_is_whole_and_small(made: Section) -> None:
    page = made.files["play.html"]
    assert len(page) < 2 * 3_000_000
    text = page.decode()
    assert "default-src 'none'" in text
    assert "unsafe" not in text.partition("<style>")[0]
    assert "http://" not in text
    assert "https://" not in text
    assert made.findings["num_same_class"] == 100


def test_weights_that_cannot_be_rounded_are_refused(data: DataModule) -> None:
    network = copy.deepcopy(trained(False))
    with torch.no_grad():
        network.fc2.weight.mul_(100)
        assert play.play(seen_by(network, data), num_images=10).findings["max_difference"] > 2e-3  # of large logits
        network.conv1.bias[0] = -1000  # a filter that sees nothing, with weights that leave no room for the others
        network.conv2.weight[:, 0] = 1e4
    with pytest.raises(ValueError, match=r"logits change by .*, where the largest is"):
        play.play(seen_by(network, data), num_images=10)


@pytest.mark.parametrize("run", [None, "outputs/mnist-paper/date", "multirun/date/job"])
def test_make_play_trains_only_where_there_is_no_run(run: str | None, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt", "ready"):
        (tmp_path / name).touch()
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$@" >> calls\n')
    stub.chmod(0o755)
    if run:
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        (tmp_path / run / "checkpoints" / "last.ckpt").touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "play", "BIN=bin", "READY=ready"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["train.py"] * (run is None) + ["analyze.py export=play"]


# ---- in the browser


@pytest.fixture(scope="module")
def page(made: Section, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Page"]:
    """The page of the report's network, without and with batch normalisation."""
    with opened(made.files["play.html"], tmp_path_factory.mktemp("page")) as found:
        yield found


class TestInTheBrowser:
    pytestmark = needs_browser

    @pytest.fixture(params=[("network", False), ("other", True)], ids=["baseline", "batchnorm"])
    def side(self, request: pytest.FixtureRequest) -> tuple[str, CNN]:
        return request.param[0], trained(request.param[1])

    def test_logits(self, side: tuple[str, CNN], page: "Page", data: DataModule) -> None:
        name, network = side
        images = data.test[:100].images
        ask = "([name, all]) => Promise.all(all.map((one) => window[name].logits(one)))"
        found = torch.tensor(page.evaluate(ask, [name, images.flatten(1).tolist()]))
        with torch.no_grad():
            expected = network(images)
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
        assert torch.equal(found.argmax(1), expected.argmax(1))

    @pytest.mark.parametrize(("window", "stride", "fill"), [(8, 1, 0.5), (5, 3, 0.0), (28, 1, 1.0)])
    def test_occlusion(
        self,
        window: int,
        stride: int,
        fill: float,
        side: tuple[str, CNN],
        page: "Page",
        data: DataModule,
    ) -> None:
        name, network = side
        (image, label) = (one[3:4] for one in data.test[:4])
        ask = "([name, ...values]) => window[name].occlusion(...values)"
        options = {"window": window, "stride": stride, "fill": fill}
        found = page.evaluate(ask, [name, image.flatten().tolist(), int(label), options])
        expected = occlusion_map(network, image, label, **options)
        probability = torch.tensor(found["probability"]).view_as(expected.probability)
        torch.testing.assert_close(probability, expected.probability, atol=2e-3, rtol=0)
        sure = (expected.probability - 0.5).abs() > 0.01
        assert torch.equal(torch.tensor(found["predicted"]).view_as(sure)[sure], expected.predicted[sure])

    @pytest.mark.parametrize("targeted", [True, False])
    def test_an_attack_from_the_same_start(
        self,
        targeted: bool,
        side: tuple[str, CNN],
        page: "Page",
        data: DataModule,
    ) -> None:
        name, network = side
        image, label = (one[:1] for one in data.test[:1])
        target = (label + 5) % 10 if targeted else label
        noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        start = (image + 0.3 * noise).clamp(0, 1)
        expected, steps = descended(network, image, start, target, targeted)
        ask = "([name, ...values]) => window[name].attack(...values)"
        options = {"target": int(target), "targeted": targeted, "epsilon": 0.3, "steps": 60, "stepSize": 0.02}
        found = page.evaluate(ask, [name, image.flatten().tolist(), options | {"start": start.flatten().tolist()}])
        moved = torch.tensor(found["pixels"]).view_as(image)
        assert (moved - image).abs().max() <= 0.3 + 1e-6
        assert found["steps"] == steps
        assert len(found["trace"]) == steps + 1
        with torch.no_grad():
            assert network(moved).argmax() == network(expected).argmax()
        assert (network(moved).argmax() == target).item() == targeted
        assert (moved - expected).abs().mean() < 0.01  # the sign of a gradient near zero may differ

    def test_the_gradient(self, side: tuple[str, CNN], page: "Page", data: DataModule) -> None:
        name, network = side
        image = data.test[:1].images.requires_grad_()
        weights = torch.linspace(-1, 1, 10)
        (network(image) * weights).sum().backward()
        ask = "async ([name, ...values]) => Array.from(await window[name].gradient(...values))"
        found = torch.tensor(page.evaluate(ask, [name, image.flatten().tolist(), weights.tolist()]))
        assert image.grad is not None
        torch.testing.assert_close(found.view_as(image.grad), image.grad, atol=2e-3, rtol=1e-3)

    def test_what_is_drawn_is_classified(self, page: "Page") -> None:
        page.click("#clear")
        page.wait_for_selector("#says:text('The paper is empty')")
        box = page.locator("#paper").bounding_box()
        page.mouse.move(box["x"] + 140, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 230, steps=12)
        page.mouse.up()
        page.wait_for_selector("#says:text('%')")
        best = page.locator("#answers .bars").nth(1).locator(".best span").first.inner_text()
        assert best == "1"  # a vertical line
        page.wait_for_timeout(400)
        ask = "[...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
        ink = 1 - torch.tensor(page.evaluate(ask)).view(28, 28, 4)[..., 0] / 255
        rows = (ink > 0.5).nonzero()[:, 0]
        assert rows.max() - rows.min() + 1 == 20  # as MNIST frames a digit
        assert abs((ink.sum(1) @ torch.arange(28.0)) / ink.sum() - 14) <= 0.5
        assert abs((ink.sum(0) @ torch.arange(28.0)) / ink.sum() - 14) <= 0.5

    def test_the_map_is_that_of_the_image_on_the_paper(self, page: "Page") -> None:
        page.locator("#samples button").nth(4).click()
        page.wait_for_timeout(200)  # while the first map is computed
        page.locator("#samples button").nth(7).click()
        page.wait_for_selector("#says:text(': 7 (')")
        page.wait_for_selector("#map-class:text('7')")
        page.wait_for_timeout(1500)
        assert page.inner_text("#map-class") == page.inner_text("#gradient-class") == "7"

    def test_only_what_is_drawn_with_the_pen_is_ink(self, page: "Page") -> None:
        dark = "[...document.getElementById('paper').getContext('2d').getImageData(0, 0, 280, 280).data]"
        count = f"{dark}.filter((value, place) => place % 4 === 0 && value < 128).length"
        page.click("#clear")
        box = page.locator("#paper").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 140, box["y"] - 30)
        page.mouse.down()  # outside, and dragged across
        page.mouse.move(box["x"] + 140, box["y"] + 140, steps=5)
        page.mouse.up()
        page.mouse.click(box["x"] + 140, box["y"] + 140, button="right")
        assert page.evaluate(count) == 0
        page.mouse.click(box["x"] + 100, box["y"] + 100)
        assert 200 < page.evaluate(count) < 500  # a dot, as wide as the pen: 20 pixels
        page.click("#undo")
        assert page.evaluate(count) == 0

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("occlusion(image, 3, {window: 40})", "window must be a whole number from 1 to 28, got 40"),
            ("occlusion(image, 3, {stride: 0})", "stride must be a whole number from 1 to 28, got 0"),
            ("occlusion(image, 10)", "label must be a whole number from 0 to 9, got 10"),
            ("attack(image, {target: -1})", "target must be a whole number from 0 to 9, got -1"),
            ("logits([1, 2])", "an image has 784 pixels, got 2"),
            ("logits(image.map(() => NaN))", "an image's pixels must be finite numbers"),
        ],
    )
    def test_a_wrong_call_is_refused(self, call: str, message: str, page: "Page") -> None:
        ask = f"async () => {{ const image = Array(784).fill(0.5); try {{ await window.network.{call} }}"
        assert message in page.evaluate(f"{ask} catch (error) {{ return String(error) }} }}")

    def test_the_whole_tour(self, page: "Page") -> None:
        page.locator("#samples button").nth(4).click()
        page.wait_for_selector("#map-class:text('4')")
        page.hover("#map")
        page.wait_for_selector("#patch-says:text('This patch')")
        page.select_option("#target", "9")
        page.click("#attack")
        page.wait_for_selector("#attack-says:text('after')")
        assert "classifies the changed image as" in page.inner_text("#attack-says")
        page.click("#keep")
        page.wait_for_selector("#says:text(': 9 (')")
        assert page.inner_text("#attack-says") == ""  # it was about another image
        assert page.is_disabled("#keep")
        page.click("#undo")
        page.wait_for_selector("#says:text(': 4 (')")
        page.locator("#maps .maps >> nth=1 >> button").nth(5).focus()
        page.wait_for_selector("#large-says:text('Channel 5 of convolution 2')")
        page.wait_for_selector("#filter-says:text('32 channels')")
        page.focus("#map")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("#patch-says:text('This patch')")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def descended(network: CNN, image: Tensor, start: Tensor, target: Tensor, targeted: bool) -> tuple[Tensor, int]:
    """PGD as a plain loop: steps of 0.02 within 0.3 until it is over, at most 60; the image and the number of steps."""
    moved = start
    for step in range(61):
        moved = moved.detach().requires_grad_()
        logits = network(moved)
        if (logits.argmax(1) == target).item() == targeted or step == 60:
            break
        loss = F.cross_entropy(logits, target) * (-1 if targeted else 1)
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = (moved + 0.02 * gradient.sign()).clamp(image - 0.3, image + 0.3).clamp(0, 1)
    return moved.detach(), step
