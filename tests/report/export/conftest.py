"""Shared by the tests of exported networks: a page in a real browser."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cnn_mnist.data.datamodule import DataModule

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def data() -> DataModule:
    return DataModule("digits").ready()


@contextmanager
def opened(content: bytes, folder: Path) -> Iterator["Page"]:
    """A page in a browser; whatever it says on the console or asks of the network is an error at the end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = folder / "play.html"
    path.write_bytes(content)
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield page
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith("blob:")] == [path.as_uri()]
