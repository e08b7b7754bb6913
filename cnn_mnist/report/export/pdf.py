"""The page as a PDF file, printed by the browser that is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "chrome",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
SECONDS = 180  # a browser that takes longer hangs


def browser() -> str:
    """The path of Chromium, Chrome or Edge.

    Raises:
        ValueError: None of them is installed.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise ValueError("report=pdf needs Chromium, Chrome or Edge, which prints it: install one, or leave it out")
    return found


def print_page(page: Path) -> Path:
    """Print a page on A4 into a PDF file beside it, and return the file's path.

    Raises:
        ValueError: There is no browser, or it did not print.
    """
    file = page.resolve().with_suffix(".pdf")
    file.unlink(missing_ok=True)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as profile:  # of its own: an open browser stays as it is
        command = [browser(), "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command += ["--no-sandbox"] * is_root  # Chromium does not start for root without it
        try:
            done = subprocess.run(
                [*command, f"--print-to-pdf={file}", page.resolve().as_uri()],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"report=pdf: {command[0]} did not end within {SECONDS} s") from error
    if done.returncode or not file.is_file():
        raise ValueError(f"report=pdf: {command[0]} did not print: {' '.join(done.stderr.split()[-40:])}")
    return file
