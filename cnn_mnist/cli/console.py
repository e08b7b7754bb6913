"""Terminal output of all commands: warnings, progress bars, the parts of an analysis. Imports no Lightning."""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import rich.progress
from rich.console import Console
from rich.panel import Panel

log = logging.getLogger("cnn_mnist")


def quiet() -> None:
    """Silence advertisements and warnings that need no action; show the others in a frame."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("always", UserWarning)
    for ignorable in (
        ".*does not have many workers.*",  # batches are gathered in memory: there is nothing for a worker to do
        ".*logs directory .* exists and is not empty.*",  # a run's own folder, made by this very command
        ".*GPU available but not used.*",  # as asked for
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*smaller than the logging interval.*",  # an epoch's last batch is logged, however short it is
        ".*Grad strides do not match bucket view strides.*",  # of one channel: the same memory, in other words
        ".*Glyph .* missing from .*",  # of a file's or a class's name, drawn as a box
        ".*You requested to overfit but enabled .* shuffling.*",  # the data module has turned it off
    ):
        warnings.filterwarnings("ignore", ignorable)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = _show_warning  # type: ignore[assignment]


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    Console(stderr=True).print(Panel(str(message), title="WARNING", border_style="bold yellow"))
    if sys.stdout is not sys.__stdout__:  # a job of a sweep, whose log.txt should have it, too
        print(f"warning: {message}", flush=True)
    log.warning(str(message))


def has_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


class Named(Protocol):
    """Something with a name to show."""

    @property
    def name(self) -> str: ...  # noqa: D102


Item = TypeVar("Item")
_STDERR = Console(stderr=True)  # one for all bars: they nest


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Iterate over items with a progress bar, on a terminal."""
    return rich.progress.track(items, what, console=_STDERR, transient=True, disable=not sys.stderr.isatty())


Task = TypeVar("Task", bound=Named)


def parts(tasks: Sequence[Task]) -> Iterator[Task]:
    """Iterate over tasks; print the name of each and how long it took."""
    with rich.progress.Progress(console=_STDERR, transient=True, disable=not sys.stderr.isatty()) as bar:
        row = bar.add_task("", total=len(tasks))
        for task in tasks:
            start = time.perf_counter()
            bar.update(row, description=f"part {task.name}")
            print(task.name, flush=True)
            yield task
            print(f"  {time.perf_counter() - start:.1f} s", flush=True)
            bar.advance(row)
