"""Files that are there whole or not at all, folders that one process alone writes to, and how they are named."""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

SCRATCH = ".scratch-"  # what a file is called until it is whole
LOCK = ".lock"


def shown(path: Path) -> str:
    """A path as a reader wants it: from the folder in which the command was given, where it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def typed(path: str, *, always: bool = False) -> str:
    """A path as the value of an option: in quotes of its own where Hydra would take a letter of it for grammar."""
    if not always and re.fullmatch(r"[\w.+-]*/[\w./+-]*", path, re.ASCII):
        return path
    quoted = re.sub(r"(\\*)'", r"\1\1\'", re.sub(r"(\\+)$", r"\1\1", path))
    return "'" + quoted.replace("${", r"\${") + "'"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch file beside `path` to be written, which then takes its place, on the disk before this returns.

    Whoever looks finds the old file or the new one, whatever kills this process or the machine. Where the writing
    fails the old one stays.

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
        if isinstance(error, OSError):  # of a full disk Python does not say which
            error.filename = error.filename or str(path)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        names = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(names)
        finally:
            os.close(names)


def write(path: Path, text: str) -> None:
    """Write a text file, its folder too, as `replacing` does."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where there is none.

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
    """Make sure that a folder can be written and holds so many files more, by writing them and taking them away.

    Args:
        folder: Made where there is none.
        num_files: How many.
        num_bytes: Of each.

    Raises:
        OSError: It cannot, or does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = [folder / f"{SCRATCH}{os.getpid()}-{place}" for place in range(num_files)]
    try:
        content = os.urandom(num_bytes)  # that no file system can make less of
        for path in scratch:
            path.write_bytes(content)
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)


def sweep_up(folder: Path) -> None:
    """Remove what killed processes left half written below a folder that no other process writes to."""
    for scratch in folder.rglob(f"{SCRATCH}*"):
        scratch.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder to this process; the system takes the claim back, whatever ends the process.

    Raises:
        ValueError: Another process has it.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{shown(folder)} is in use: another command is at work in it") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # while it is held: who has opened it meanwhile sees that it is gone
        lock.release()
