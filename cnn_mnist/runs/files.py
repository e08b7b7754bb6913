"""Files written whole or not at all, folders claimed by one process, and how paths are shown and typed."""

import csv
import io
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

SCRATCH = ".scratch-"  # prefix of unfinished files
LOCK = ".lock"


def shown(path: Path) -> str:
    """A path to show: relative to the current folder if it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def typed(path: str, *, always: bool = False) -> str:
    """A path as the value of an option, quoted where Hydra's grammar needs it."""
    if not always and re.fullmatch(r"[\w.+-]*/[\w./+-]*", path, re.ASCII):
        return path
    quoted = re.sub(r"(\\*)'", r"\1\1\'", re.sub(r"(\\+)$", r"\1\1", path))
    return "'" + quoted.replace("${", r"\${") + "'"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch file beside `path`, which replaces it when the block ends and is on the disk before this returns.

    Whatever kills this process or the machine, the file on disk is the old one or the new one. If writing fails, the
    old one stays.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{SCRATCH}{os.getpid()}-{threading.get_ident()}-{path.name}")  # keeps the suffix
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file)
        scratch.replace(path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):  # Python does not name the file on a full disk
            error.filename = error.filename or str(path)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        names = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)


def write(path: Path, text: str) -> None:
    """Write a text file with `replacing`, and create its folder."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; the columns in the order in which they first appear."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty if there is none.

    Raises:
        ValueError: It is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{shown(path)} is damaged: it holds no record")
    return content


def check_room(folder: Path, num_files: int, num_bytes: int) -> None:
    """Make sure that a folder can be written and has room for some files, by reserving and releasing their space.

    Args:
        folder: Created if it does not exist.
        num_files: Number of files.
        num_bytes: Size of each.

    Raises:
        OSError: It cannot be written, or has too little room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = [folder / f"{SCRATCH}{os.getpid()}-{place}" for place in range(num_files)]
    try:
        for path in scratch:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
                    os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)


def sweep_up(folder: Path) -> None:
    """Remove the unfinished files of killed processes below a folder that no other process writes to."""
    for scratch in folder.rglob(f"{SCRATCH}*"):
        scratch.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Claim a folder for this process; the claim ends with the process.

    Raises:
        ValueError: Another process has claimed it.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{shown(folder)} is in use by another command") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # while held: who has opened it sees that it is gone
        lock.release()
