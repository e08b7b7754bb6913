"""Files that are there whole or not at all."""

import os
import threading
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a text file, its folder too, so that whoever looks finds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
