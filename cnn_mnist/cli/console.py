"""Terminal output: warnings, progress bars, the line of each epoch, the outcome."""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytorch_lightning as pl
import rich.progress
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.profilers import PassThroughProfiler, Profiler
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.network import CNN
from cnn_mnist.runs import files

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


def show_architecture(network: CNN) -> None:
    """Print the report's table of layers and the shares of the convolutional and the linear ones."""
    layers = architecture(network)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer")
    for heading in ("input", "output", "parameters", "neurons", "per neuron"):
        table.add_column(heading, justify="right")
    for layer in layers:
        table.add_row(
            layer.name,
            "x".join(map(str, layer.input)),
            "x".join(map(str, layer.output)),
            f"{layer.num_parameters:,}",
            f"{layer.num_neurons:,}",
            f"{layer.num_parameters / layer.num_neurons:,.2f}" if layer.num_neurons else "",
        )
    console = Console()
    console.print(table)
    everything = total(layers)
    for noun, field in {"parameters": "num_parameters", "neurons": "num_neurons"}.items():
        whole = getattr(everything, field)
        kinds = {"convolutional": "conv", "fully connected": "fc", "normalisation": "norm"}
        parts = {name: getattr(total(layers, kind), field) for name, kind in kinds.items()}
        shares = ", ".join(f"{name} {part:,} ({part / whole:.2%})" for name, part in parts.items() if part)
        console.print(f"  {whole:,} {noun}: {shares}", highlight=False, soft_wrap=True)
    console.print()


class EpochLine(Callback):
    """Prints a line for every epoch, above the progress bar and into log files."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's metrics."""
        metrics = "  ".join(
            f"{name} {value:.4f}" for name, value in sorted(trainer.callback_metrics.items(), reverse=True)
        )
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {metrics}"
        trainer.print(line)
        log.info(line)


class Bar(RichProgressBar):
    """Lightning's bar, with epochs counted as the lines above it count them, and the training loss."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The last point of the training loss, beside what callbacks have logged for the bar."""
        metrics = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        points = getattr(pl_module, "losses", None)
        return {"loss": f"{points[-1][0]:.4f}", **metrics} if points else metrics

    def _stop_progress(self) -> None:
        if self.progress is not None:  # and leave no line behind
            for task in self.progress.task_ids:
                self.progress.update(task, visible=False)
        super()._stop_progress()


def show_outcome(record: dict[str, Any], trainer: pl.Trainer) -> None:
    """Print the outcome of a training run in one line, after the profiler's table where there is one."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    if not isinstance(profiler, PassThroughProfiler):
        trainer.print(profiler.summary())
    checkpoint = record["checkpoint"]
    which = f"epoch {record['checkpoint_epoch']} of {record['epochs']}" if checkpoint else "no checkpoint"
    where = files.shown(Path(checkpoint)) if checkpoint else "trainer.fast_dev_run keeps nothing"
    accuracy = f"test accuracy {record['test/acc']:.2%}" if "test/acc" in record else "not tested"
    of = f" of {record['num_test']:,} images" if "test/acc" in record else ""
    line = f"{accuracy}{of}, {which}, {record['fit_seconds']:.0f} s: {where}"
    trainer.print(line)
    log.info(line)


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
