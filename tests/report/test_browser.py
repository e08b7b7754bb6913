"""The report and TensorBoard in a real headless Chromium."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn_mnist.report.export import pdf
from tests.conftest import SMALL, Command, Done

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'")

SIZES = {"desktop": (1280, 900), "phone": (375, 700)}


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def compared(run: Done, analyze: Command, train: Command) -> Path:
    """The page of two different networks."""
    other = train("data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", cwd=run.cwd)
    assert other.status == 0, other.err
    done = analyze(*SMALL, "images=12", f"ckpt_path={other.folder}", f"against={run.folder}", cwd=run.cwd)
    assert done.status == 0, done.err
    return done.folder / "report.html"


@pytest.fixture(params=["one", "two"])
def report(request: pytest.FixtureRequest) -> Path:
    """The page of one network, and of two."""
    if request.param == "one":
        return request.getfixturevalue("whole").folder / "report.html"
    path: Path = request.getfixturevalue("compared")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_report_opens_without_a_fault(report: Path, size: str, scheme: str, browser: "sync_api.Browser") -> None:
    width, height = SIZES[size]
    said: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri(), wait_until="load")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    decoded = page.evaluate(
        "async () => { const all = [...document.images]; await Promise.all(all.map(i => i.decode()));"
        " return all.map(i => i.naturalWidth) }"
    )
    assert len(decoded) >= 200
    assert all(decoded)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling
    outside = page.evaluate("w => [...document.images].filter(i => i.getBoundingClientRect().right > w).length", width)
    assert outside == 0
    paper, ink = page.evaluate(
        "['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k].match(/\\d+/g).map(Number))"
    )
    assert (sum(paper) > sum(ink)) == (scheme == "light")
    assert abs(sum(paper) - sum(ink)) > 450  # of 765: enough contrast to read
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_the_links_of_the_table_of_contents_land(report: Path, size: str, browser: "sync_api.Browser") -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.goto(report.as_uri())
    page.add_style_tag(content="html { scroll-behavior: auto !important; }")
    links = page.locator("nav a")
    assert links.count() >= 12
    for place in range(links.count()):
        link = links.nth(place)
        target = (link.get_attribute("href") or "").removeprefix("#")
        link.click()
        top = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", target)
        assert -1 <= top < height, target
        assert page.evaluate("location.hash") == f"#{target}"
    page.close()


def test_a_figure_opens_in_full_size_and_goes_back(report: Path, browser: "sync_api.Browser") -> None:
    page = browser.new_page(viewport={"width": 375, "height": 700})
    page.goto(report.as_uri())
    frame = page.locator("#predictions .frame").first
    image = frame.locator("img")
    assert image.bounding_box()["width"] < 375
    frame.locator(".enlarge").click()
    assert image.bounding_box()["width"] >= 800
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    frame.locator(".reduce").click()
    assert image.bounding_box()["width"] < 375
    page.close()


WIDTHS = (360, 390, 768, 1280, 1920)
CUT = """width => [...document.querySelectorAll("main *")].filter(one => !one.closest(".scroll, .reduce") && (
    one.getBoundingClientRect().right > width + 0.5 ||
    (getComputedStyle(one).display !== "inline" && one.scrollWidth > one.clientWidth + 1))
).map(one => one.outerHTML.slice(0, 120))"""
TEXTS = """() => [...document.querySelectorAll("body *")].filter(
    one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()) && one.checkVisibility()
).map(one => [parseFloat(getComputedStyle(one).fontSize), one.outerHTML.slice(0, 120)])"""
CHARTS = """() => [...document.querySelectorAll(".frame img")].map(image => {
    const svg = new TextDecoder().decode(Uint8Array.from(atob(image.src.split(",")[1]), c => c.charCodeAt(0)));
    const scale = image.clientWidth / parseFloat(svg.match(/viewBox="0 0 ([0-9.]+)/)[1]);
    const sizes = [...svg.matchAll(/font(?:-size)?: ([0-9.]+)px/g)].map(found => parseFloat(found[1]));
    return [scale * Math.min(...sizes), image.alt];
})"""
CUT_IN_CHARTS = """() => [...document.querySelectorAll(".frame img")].flatMap(image => {
    const svg = new TextDecoder().decode(Uint8Array.from(atob(image.src.split(",")[1]), c => c.charCodeAt(0)));
    const place = document.createElement("div");
    place.innerHTML = svg.slice(svg.indexOf("<svg"));
    document.body.append(place);
    const whole = place.firstElementChild.getBoundingClientRect();
    const cut = [...place.querySelectorAll("text")].filter(text => {
        const box = text.getBoundingClientRect();
        const isInWidth = box.left >= whole.left && box.right <= whole.right;
        return !isInWidth || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
    }).map(text => `${image.alt}: ${text.textContent}`);
    place.remove();
    return cut;
})"""


def test_nothing_is_cut_and_no_text_is_too_small(report: Path, browser: "sync_api.Browser") -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate(CUT_IN_CHARTS) == []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT, width) == []
        smallest = 11 if width >= 1280 else 9
        charts = page.evaluate(CHARTS)
        assert len(charts) >= 10
        small = [one for one in [*page.evaluate(TEXTS), *charts] if one[0] < smallest and width >= 390]
        assert small == [], width
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(report: Path, scheme: str, browser: "sync_api.Browser") -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(report.as_uri())
    found = axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found] == []
    context.close()


def test_it_is_printed(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pdf.print_page(report)
    content = file.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page[^s]", content)) >= 5
    file.unlink()
    monkeypatch.setattr(pdf, "BROWSERS", ("true",))  # ends well, and prints nothing
    with pytest.raises(ValueError, match="did not print"):
        pdf.print_page(report)
    monkeypatch.setattr(pdf, "BROWSERS", ())
    with pytest.raises(ValueError, match="report=pdf needs Chromium, Chrome or Edge"):
        pdf.browser()


@pytest.fixture(scope="module")
def tensorboard(train: Command) -> Iterator[str]:
    """TensorBoard on a run with every callback; its address."""
    done = train("data=digits", "trainer=cpu", "trainer.max_epochs=1", "model.batchnorm=true")
    assert done.status == 0, done.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(done.folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(120):
                try:
                    tags = urllib.request.urlopen(f"{address}/data/plugin/images/tags", timeout=5).read()
                except OSError:
                    tags = b""
                if b"adversarial" in tags:
                    break
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()


def test_tensorboard_shows_what_the_callbacks_logged(tensorboard: str, browser: "sync_api.Browser") -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{tensorboard}/#images", wait_until="load")
    for tag in ("samples", "predictions", "confusion_matrix", "filters", "activations", "occlusion", "adversarial"):
        page.get_by_text(re.compile(f"^{tag}")).first.wait_for(timeout=60_000)
    page.locator("img").first.wait_for(timeout=60_000)
    assert page.locator("img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") > 100
    page.goto(f"{tensorboard}/#custom_scalars", wait_until="load")
    for chart in ("accuracy", "loss", "learning rate", "gradient norm"):
        page.get_by_text(chart, exact=True).first.wait_for(timeout=60_000)
    page.goto(f"{tensorboard}/#text", wait_until="load")
    page.get_by_text("800,206").first.wait_for(timeout=60_000)
    page.goto(f"{tensorboard}/#hparams", wait_until="load")
    for name in ("batchnorm", "test/acc", "test/loss", "fit_seconds"):
        page.get_by_text(name, exact=True).locator("visible=true").first.wait_for(timeout=60_000)
    page.close()
