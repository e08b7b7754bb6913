"""Terminal output of a training: the architecture, the bar, the line of each epoch, the outcome."""

import logging
import shlex
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.profilers import PassThroughProfiler, Profiler
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from torch import nn

from cnn_mnist.analysis.architecture import architecture, total
from cnn_mnist.cli import console, signals
from cnn_mnist.runs import files

log = logging.getLogger("cnn_mnist")


def show_architecture(network: nn.Module) -> None:
    """Print the table of layers and the shares of the convolutional and the linear ones."""
    layers = architecture(network)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer")
    for heading in ("input", "output", "parameters", "neurons", "per neuron"):
        table.add_column(heading, justify="right")
    for layer in layers:
        table.add_row(
            layer.label,
            "x".join(map(str, layer.input)),
            "x".join(map(str, layer.output)),
            f"{layer.num_parameters:,}",
            f"{layer.num_neurons:,}",
            f"{layer.num_parameters / layer.num_neurons:,.2f}" if layer.num_neurons else "",
        )
    shown = Console()
    shown.print(table)
    everything = total(layers)
    for noun, field in {"parameters": "num_parameters", "neurons": "num_neurons"}.items():
        whole = getattr(everything, field)
        kinds = {"convolutional": "conv", "fully connected": "fc", "normalisation": "norm"}
        parts = {name: getattr(total(layers, kind), field) for name, kind in kinds.items()}
        shares = ", ".join(f"{name} {part:,} ({part / max(1, whole):.2%})" for name, part in parts.items() if part)
        shown.print(f"  {whole:,} {noun}: {shares}", highlight=False, soft_wrap=True)
    shown.print()


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
    """Print the outcome of a training run, after the profiler's table where there is one.

    On a terminal that is a panel with the next command, elsewhere and in log files one line.
    """
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    if not isinstance(profiler, PassThroughProfiler):
        trainer.print(profiler.summary())
    checkpoint = record["checkpoint"]
    which = f"epoch {record['checkpoint_epoch']} of {record['epochs']}" if checkpoint else "no checkpoint"
    where = files.shown(Path(checkpoint)) if checkpoint else "trainer.fast_dev_run keeps nothing"
    accuracy = f"test accuracy {record['test/acc']:.2%}" if "test/acc" in record else "not tested"
    of = f" of {record['num_test']:,} images" if "test/acc" in record else ""
    line = f"{accuracy}{of}, {which}, {record['fit_seconds']:.0f} s: {where}"
    log.info(line)
    if not (console.has_terminal() and checkpoint):
        trainer.print(line)
    elif trainer.is_global_zero:
        table = Table.grid(padding=(0, 2))
        for heading, value in (
            ("result", f"{accuracy}{of}"),
            ("checkpoint", f"{where}, {which}"),
            ("training", f"{record['fit_seconds']:.0f} s"),
            ("next", _next(Path(checkpoint))),
            *([] if signals.command else [("", "make tensorboard")]),  # an installed command has no Makefile
        ):
            table.add_row(heading, Text(value, overflow="fold"))
        Console().print(Panel.fit(table, title="finished"))


def _next(checkpoint: Path) -> str:
    """The command that analyses the run of a checkpoint."""
    *words, train = signals.command or ["python", "train.py"]
    run = files.typed(files.shown(checkpoint.parents[1]))
    return shlex.join([*words, train.replace("train", "analyze"), f"ckpt_path={run}"])
