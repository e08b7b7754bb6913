"""SIGINT and SIGTERM: end a command at once, with status 130 or 143 and the command that resumes it.

Nothing is unwound. Whatever a command writes has to survive SIGKILL, so there is nothing to save; and an exception
raised by a signal in the middle of an import or a destructor is lost, or breaks something.
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
at_end: list[Callable[[], bool]] = []  # called as the command ends; each says whether all went well
closing: list[Callable[[], object]] = []  # what ends processes that this one has started, and says how things stand
folder: Path | None = None  # of the training run, if there is one
sweep: Path | None = None  # of the sweep, if it is one
search: Path | None = None  # of the search, if it is one
command: list[str] = []  # as the user began it, if not as `python SCRIPT`
_status = 0
NAMES_CODE = (
    "callbacks",
    "logger",
    "experiment=",
    "model=",
    "model.optimizer",
    "model.schedule",
    "model/",
    "network",
    "data=",
)  # options that may name own code
TAKES_A_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def listen() -> None:
    """Install the handlers; called before slow imports, so that they work during imports, too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def done() -> None:
    """Ignore signals from now on: the work is done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def again() -> str:
    """The command that resumes this one; except for training, the same command."""
    words = [*(command or ["python", sys.argv[0]]), *sys.argv[1:]]
    if sweep is not None:
        if not any(word.startswith("hydra.sweep.dir=") for word in words):
            words.append(f"hydra.sweep.dir={_typed(sweep)}")
    elif search is not None:
        if not any(word.startswith("--folder") for word in words):
            words += ["--folder", str(search)]
    elif folder is not None and (folder / "config.yaml").is_file():
        flags, options = _not_on_record(words[2:])
        words[2:] = [*flags, f"ckpt_path={_typed(folder)}", *options]
    return shlex.join(words)


def _not_on_record(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of a command that the config.yaml of the run does not replace.

    These are flags, such as --config-dir with its folder, and options that name the user's own code, which is not run
    from a file alone.
    """
    flags: list[str] = []
    options: list[str] = []
    is_value = False
    has_own = any(
        word.startswith(("+", *TAKES_A_VALUE)) or "._target_=" in word for word in words
    )  # else config.yaml says it all
    for word in words:
        named = word.startswith("+") or (has_own and word.lstrip("~").startswith(NAMES_CODE))
        if word.startswith("-") or is_value:
            flags.append(word)
        elif named:
            options.append(word)
        is_value = word in TAKES_A_VALUE
    return flags, options


def _typed(path: Path) -> str:
    from cnn_mnist.runs import files

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
        os.write(1, f"to resume: {again()}\n".encode())
    finally:  # though nobody reads any more: Ctrl-C reaches all of a pipe
        os._exit(_status)
