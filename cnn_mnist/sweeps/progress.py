"""The progress of a sweep on the terminal: a line as each job starts and ends, and a summary."""

import json
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cnn_mnist.cli import signals
from cnn_mnist.runs import files
from cnn_mnist.sweeps.jobs import DONE, MISSING, NO_DDP, RUNNING, Job, jobs, varying, varying_words, write_table

INTERVAL = 0.3  # seconds between two checks


class Watch:
    """Watches a sweep's folder from a thread; the jobs may run anywhere.

    Args:
        folder: The sweep's folder.
        asked: The options of each job.
    """

    def __init__(self, folder: Path, asked: list[list[str]]) -> None:
        self.claim = ExitStack()
        self.claim.enter_context(files.claimed(folder))
        files.write(folder / "jobs.json", json.dumps({"command": sys.argv[1:], "jobs": asked}, indent=2) + "\n")
        self.folder = folder
        self.labels = varying(asked)
        self.start = time.perf_counter()
        self.before = jobs(folder)[: len(asked)]
        signals.sweep = folder
        signals.closing.extend((_end_workers, self.close))
        self.num_ended = 0
        self.running: dict[int, TaskID] = {}
        self.console = Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.num_to_do = sum(job.status != DONE for job in self.before)
        if self.num_to_do < len(asked):
            self.console.print(f"{len(asked) - self.num_to_do} of {len(asked)} jobs are done already")
        self.bar.start()
        self.end = Event()
        self.thread = Thread(target=self._look_on, daemon=True)
        self.thread.start()

    def close(self) -> bool:
        """Write the table and print a summary; returns whether all jobs are done."""
        with self.claim:
            return self._close()

    def _close(self) -> bool:
        self.end.set()
        self.thread.join()
        self._look()
        self.bar.stop()
        found = jobs(self.folder)
        write_table(self.folder, found)
        found = found[: len(self.labels)]
        if not any(job.folder for job in found):  # an error before the first
            for name in ("jobs.json", "multirun.yaml", "sweep.json", "sweep.csv", files.LOCK):
                (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()
            return False
        unfinished = [(label, job) for label, job in zip(self.labels, found, strict=True) if job.status != DONE]
        if unfinished:
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
            for heading in ("job", "status", "what went wrong"):
                table.add_column(heading, overflow="fold")
            for label, job in unfinished:
                if job.status != MISSING:
                    table.add_row(label, "stopped" if job.status == RUNNING else job.status, job.error)
            if num_missing := sum(job.status == MISSING for _, job in unfinished):
                table.add_row(f"{num_missing} job{'s' * (num_missing > 1)}", "not started")
            self.console.print(table)
        self.console.print(f"{len(found) - len(unfinished)} of {len(found)} jobs are done: {self.folder / 'sweep.csv'}")
        if unfinished:
            self.console.print(f"The same command with hydra.sweep.dir={self.folder} does what is missing.")
        self.console.print(f"results: {(self.folder / 'sweep.json').resolve()}")
        return not unfinished

    def _look_on(self) -> None:
        while not self.end.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        """Write the table and print what has changed, in this order: what a line says is in the table."""
        found = jobs(self.folder)
        now = found[: len(self.labels)]
        if now != self.before:
            write_table(self.folder, found)
        for place, (job, before) in enumerate(zip(now, self.before, strict=True)):
            if job == before:
                continue
            line = f"job {place + 1} of {len(now)}  {job.status:7}  {self.labels[place]}"
            if job.status == RUNNING:
                self.running[place] = self.bar.add_task(line, total=None)
                if not self.console.is_terminal:
                    self.console.print(line)
            else:
                if place in self.running:
                    self.bar.remove_task(self.running.pop(place))
                self.num_ended += 1
                self.console.print(f"{line}{_found(job)}{self._time_left()}")
        self.before = now

    def _time_left(self) -> str:
        num_left = self.num_to_do - self.num_ended
        seconds = (time.perf_counter() - self.start) / self.num_ended * num_left
        if num_left <= 0:
            return ""
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def _end_workers() -> None:
    """End joblib's worker processes, if there are any."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        loky._executor.shutdown(wait=True, kill_workers=True)


def _found(job: Job) -> str:
    accuracy = "".join(f"  {key} {job.results[key]:.2%}" for key in ("val/acc", "test/acc") if key in job.results)
    return f"{accuracy}  {job.seconds:.0f} s"


class AnnounceSweep(Callback):
    """Hydra's hook in the process that starts a sweep, with any launcher."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record which jobs there are, and start to watch them.

        Raises:
            SystemExit: There are none, or the folder cannot be written; Hydra turns any other error into a warning.
        """
        if OmegaConf.select(config, "trainer.strategy") == "ddp":
            raise SystemExit(f"error: {NO_DDP}")
        if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            return  # other sweepers choose their jobs as they go: there is no list of jobs
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        (asked,) = BasicSweeper.split_arguments(parser.parse_overrides(list(config.hydra.overrides.task)), None)
        if not asked:
            raise SystemExit("error: the sweep is empty: one of its options has no values")
        if twice := [job for place, job in enumerate(asked) if job in asked[:place]]:
            words = " ".join(word for word in twice[0] if word in varying_words(asked)) or " ".join(twice[0])
            raise SystemExit(f"error: the sweep has the same job twice, {words}: name each value once")
        try:
            signals.at_end.append(Watch(Path(config.hydra.sweep.dir), [list(job) for job in asked]).close)
        except OSError as error:
            raise SystemExit(f"error: cannot use {error.filename}: {error}") from None
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None
