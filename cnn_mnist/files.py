"""Files that are there whole or not at all, and how they are named to a reader."""

import os
import threading
from pathlib import Path


def shown(path: Path) -> str:
    """A path as a reader wants it: from the folder in which the command was given, where it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def write(path: Path, text: str) -> None:
    """Write a text file, its folder too, so that whoever looks finds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
