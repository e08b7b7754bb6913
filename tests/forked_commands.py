"""A process that has imported what commands import, and forks one for each command: 5 seconds of imports less each.

A forked command is a process of its own, with its own folder, arguments, environment, output and exit status. Commands
that start processes themselves, or need variables that are read early, get a fresh interpreter instead
(`tests.conftest.command`).
"""

import json
import os
import runpy
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTS = (  # what train.py, analyze.py and search.py import on their way
    "cnn_mnist.cli.entry",
    "cnn_mnist.cli.training_output",
    "cnn_mnist.report.plan",
    "cnn_mnist.report.sections.sweeps.sweep",
    "cnn_mnist.report.subject",
    "cnn_mnist.report.writer",
    "cnn_mnist.runs.checkpoint_io",
    "cnn_mnist.runs.run_folder",
    "cnn_mnist.runs.training_record",
    "cnn_mnist.sweeps.progress",
    "cnn_mnist.sweeps.search",
    "cnn_mnist.training.callbacks.plotting_failures",
    "cnn_mnist.training.module",
    "captum.attr",
    "pytorch_lightning.loggers",
    "hydra._internal.hydra",
    "torch.utils.tensorboard",
)


class Warm:
    """The client's side: starts the warm process at first use."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(
        self,
        script: Path,
        arguments: tuple[str, ...],
        cwd: Path,
        environment: dict[str, str],
        timeout: float,
        interrupt: tuple[int, str | float] | None = None,
    ) -> tuple[int, str, str]:
        """Run a command; returns its exit status, negative for a signal, and what it wrote to stdout and stderr.

        `interrupt` is a signal's number, and when to send it: once stdout has these words, or after so many seconds.
        """
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked_commands"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        outputs = [cwd.parent / f".{cwd.name}-{time.monotonic_ns()}-{name}" for name in ("out", "err")]
        asked = {"script": str(script), "arguments": arguments, "cwd": str(cwd), "timeout": timeout}
        asked |= {"environment": dict(environment), "interrupt": interrupt}
        self.process.stdin.write(json.dumps(asked | {"outputs": list(map(str, outputs))}) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        texts = [path.read_text() for path in outputs]
        for path in outputs:
            path.unlink()
        if status == TIMED_OUT:
            raise subprocess.TimeoutExpired([str(script), *arguments], timeout, *texts)
        return status, *texts

    def close(self) -> None:
        """End the warm process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


TIMED_OUT = 1000  # no exit status


def serve() -> None:
    """Fork a command for each line of stdin; answer with its status."""
    import gc
    import importlib

    for name in IMPORTS:
        with suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(name)
    _read_digits()
    _compose()
    gc.freeze()  # no command searches what is here already for garbage
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            replies.close()
            _become(asked)
        status = _wait(child, asked["timeout"], Path(asked["outputs"][0]), asked["interrupt"])
        replies.write(f"{status}\n")
        replies.flush()


def _read_digits() -> None:
    """Keep scikit-learn's digits for every command; in one thread, since no others survive a fork."""
    import torch

    from cnn_mnist.data.digits import digits

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    digits()
    torch.set_num_threads(num_threads)


def _compose() -> None:
    """Compose each configuration once: Hydra's plugins and the tables of its parser are then there for all commands.

    A command composes its configuration twice, first to see whether `hydra.mode` is in it, which no configuration of
    this project sets: its commands here compose once.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.hydra import Hydra

    Hydra.get_mode = lambda self, config_name, overrides: None  # type: ignore[method-assign]

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name in ("train", "analyze"):
            compose(name, overrides=["seed=0"])


def _renew_threads() -> None:
    """Replace PyTorch's pool of threads, which no fork takes along, while there is one thread to ask for it."""
    import torch

    torch.set_num_threads(torch.get_num_threads())


def _wait(child: int, timeout: float, out: Path, interrupt: tuple[int, str | float] | None) -> int:
    start = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        if interrupt:
            number, when = interrupt
            has_said_it = isinstance(when, str) and out.exists() and when in out.read_text()
            if has_said_it or (not isinstance(when, str) and seconds > when):
                os.kill(child, number)
                interrupt = None
        if seconds > timeout:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return TIMED_OUT
        time.sleep(0.005)


def _become(asked: dict[str, object]) -> None:
    """Turn this process into `python SCRIPT ARGUMENTS`."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in zip((1, 2), asked["outputs"], strict=True):  # type: ignore[call-overload]
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), *(open(number, "w", 1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    os.chdir(str(asked["cwd"]))
    script = str(asked["script"])
    sys.argv = [script, *asked["arguments"]]  # type: ignore[misc]
    sys.path[0] = str(Path(script).parent)
    _renew_threads()
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
