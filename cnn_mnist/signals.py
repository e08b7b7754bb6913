"""What SIGINT and SIGTERM do to a command: it ends at once, with status 130 or 143 and a line that says how to go on.

Nothing is unwound. Whatever a command writes has to outlive SIGKILL, so there is nothing to save; and an exception out
of nowhere is no way to end: in the middle of an import, or of what frees an object, it gets lost or breaks something.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

GRACE = 10.0  # seconds to do what is in `closing`
closing: list[Callable[[], object]] = []  # what ends processes that this one has started, and says how things stand
folder: Path | None = None  # of the training run at work, if there is one
sweep: Path | None = None  # of the sweep, if it is one
search: Path | None = None  # of the search, if it is one
_status = 0
NAMES_CODE = ("callbacks", "logger")  # sections whose options are given again
TAKES_A_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def listen() -> None:
    """Begin; to be called before anything slow is imported, so that it holds while that goes on, too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def done() -> None:
    """All is done: a signal that comes now is too late."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def again() -> str:
    """The command that goes on with what this one does: for all but training, the same."""
    words = ["python", *sys.argv]
    if sweep is not None:
        if not any(word.startswith("hydra.sweep.dir=") for word in words):
            words.append(f"hydra.sweep.dir={_typed(sweep)}")
    elif search is not None:
        if not any(word.startswith("--folder") for word in words):
            words += ["--folder", str(search)]
    elif folder is not None and (folder / "config.yaml").is_file():
        words[2:] = [f"ckpt_path={_typed(folder)}", *_not_on_record(words[2:])]
    return shlex.join(words)


def _not_on_record(words: list[str]) -> list[str]:
    """The words of a command that a resumed run's own config.yaml does not stand for.

    These are flags, such as --config-dir with its folder, and whatever names code of the user's own, which is not run
    from a file alone.
    """
    again, is_value = [], False
    has_own = any(word.startswith(("+", *TAKES_A_VALUE)) for word in words)  # else config.yaml says it all
    for word in words:
        named = word.startswith("+") or (has_own and word.lstrip("~").startswith(NAMES_CODE))
        if word.startswith("-") or is_value or named:
            again.append(word)
        is_value = word in TAKES_A_VALUE
    return again


def _typed(path: Path) -> str:
    from cnn_mnist import files

    return files.typed(files.shown(path))


def _stop(number: int, frame: FrameType | None) -> None:
    global _status
    if not _status:  # else told twice, or it takes too long
        _status = 128 + number
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, _stop)
            signal.setitimer(signal.ITIMER_REAL, GRACE)
        for close in closing:
            with suppress(Exception):
                close()
    try:
        with suppress(Exception):  # whatever was being printed
            sys.stdout.flush()
            sys.stderr.flush()
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        os.write(1, f"to go on: {again()}\n".encode())
    finally:  # though nobody reads any more: Ctrl-C reaches all of a pipe
        os._exit(_status)
