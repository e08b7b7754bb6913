"""A sweep on disk: the jobs that were asked for, how each is doing, and one table of all.

Whatever runs the jobs, one after another, side by side or on a cluster, and whatever kills them, what is on disk says
what is done; the same command in the same folder does the rest. Below the sweep's folder:

    jobs.json         what was asked for, in order
    <job>/job.json    the state of each
    <job>/log.txt     what it would have said on the terminal
    sweep.json        a row for each job, with the scalars of its results.json
    sweep.csv         the same rows

Imports neither torch nor Lightning, so that a mistake answers at once.
"""

import csv
import hashlib
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cnn_mnist import files

DONE, FAILED, RUNNING, MISSING = "done", "failed", "running", "missing"
PATHS = ("checkpoint", "against_checkpoint", "network", "tensors", "title", "date")  # in which equal jobs differ
NO_DDP = (
    "trainer=ddp cannot be part of a sweep (-m), whose jobs may share the devices already: "
    "run it alone, or leave it to hydra/launcher=joblib or slurm to run jobs side by side"
)
NOT_PART_OF_IT = ("data.root", "trainer.accelerator", "trainer.devices", "overrides")  # not what a job computes


class Job(NamedTuple):
    """A job of a sweep, as it stands on disk.

    Attributes:
        overrides: Its options, such as `seed=3`.
        status: `done`, `failed`, `running` (or killed while it did), `missing`.
        folder: Its own; None while missing.
        error: Why it failed, in a line.
        started: When it was last tried, in seconds since 1970.
        seconds: What it has taken since, once it ended.
        results: What it found; empty unless done.
    """

    overrides: list[str]
    status: str = MISSING
    folder: Path | None = None
    error: str | None = None
    started: float | None = None
    seconds: float | None = None
    results: Mapping[str, Any] = MappingProxyType({})

    @property
    def row(self) -> dict[str, Any]:
        """Its options, status and error, and the numbers, words and yeses of its results."""
        options = dict(override.lstrip("+").partition("=")[::2] for override in self.overrides)
        scalars = {
            key: value
            for key, value in self.results.items()
            if isinstance(value, int | float | str) and key not in PATHS and key not in options
        }
        return {**options, "status": self.status, "error": self.error, **scalars}


LONGEST = 120  # characters of a job's folder; a file system takes 255 bytes


def job_folder(overrides: Sequence[str], left_out: Sequence[str] = ()) -> str:
    """The name of a job's folder: its options, without what a path or Hydra's grammar would trip over.

    Where something had to go, or the name would be too long, a hash of the whole keeps it apart from others.

    Args:
        overrides: The job's options.
        left_out: Keys that say where it runs, and not what it is.
    """
    words = sorted(word for word in overrides if word.partition("=")[0] not in left_out)
    name = "_".join(word.replace("=", "-", 1) for word in words)
    clean = re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.") or "defaults"
    if clean == (name or clean) and len(clean) <= LONGEST:
        return clean
    return f"{clean[:LONGEST]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"


class AnnounceSweep(Callback):
    """Hydra's hook in the process that starts a sweep, whatever launches its jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note on disk which jobs there are to be, and begin to watch them.

        Raises:
            SystemExit: There are none, or nothing can be written; for Hydra takes any other error for a warning.
        """
        from cnn_mnist.watch import Watch, watched

        if OmegaConf.select(config, "trainer.strategy") == "ddp":
            raise SystemExit(f"error: {NO_DDP}")
        if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            return  # another sweeper chooses its jobs as it goes: there is no list to hold them against
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        (asked,) = BasicSweeper.split_arguments(parser.parse_overrides(list(config.hydra.overrides.task)), None)
        if not asked:
            raise SystemExit("error: the sweep is empty: one of its options has no values")
        if twice := [job for place, job in enumerate(asked) if job in asked[:place]]:
            words = " ".join(word for word in twice[0] if word in varying_words(asked)) or " ".join(twice[0])
            raise SystemExit(f"error: the sweep has the same job twice, {words}: name each value once")
        try:
            watched.append(Watch(Path(config.hydra.sweep.dir), [list(job) for job in asked]))
        except OSError as error:
            raise SystemExit(f"error: cannot use {error.filename}: {error}") from None
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None


def do_job(
    main: Callable[[DictConfig], float | None], cfg: DictConfig, one_line: Callable[[Exception], str]
) -> float | None:
    """Do one job of a sweep, unless it is done, and note how it went. What it prints goes to its `log.txt`.

    A failure is noted and said on stderr, and not raised: the other jobs go on.

    Returns:
        What the job does, for sweepers that choose options by it; NaN where it failed.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    record = {"overrides": list(HydraConfig.get().overrides.task), "configuration": _fingerprint(cfg)}
    before = files.read_json(folder / "job.json")
    is_same = before.get("configuration") == record["configuration"]
    if is_same and before["status"] == DONE:
        return before.get("objective")
    start = time.time()

    def note(status: str, error: str | None = None, objective: float | None = None) -> None:
        seconds = None if status == RUNNING else round(time.time() - start, 2)
        how = {"status": status, "error": error, "started": start, "seconds": seconds, "objective": objective}
        files.write(folder / "job.json", json.dumps(record | how, indent=2) + "\n")

    try:
        if cfg.trainer.strategy == "ddp":
            raise ValueError(NO_DDP)
        if before and not is_same and (folder / "config.yaml").exists():
            record["configuration"] = before["configuration"]
            raise ValueError("its folder holds it with other defaults, which have changed: set another hydra.sweep.dir")
        note(RUNNING)
        with (folder / "log.txt").open("a", buffering=1, encoding="utf-8") as log, redirect_stdout(log):
            objective = main(cfg)
    except Exception as error:
        line = one_line(error)
        print(f"error in {folder.name}: {line}", file=sys.stderr)
        note(FAILED, line)
        return math.nan
    note(DONE, objective=objective)
    return objective


def jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, in the order in which they were asked for, then those of other commands in its folder.

    Raises:
        ValueError: It is not the folder of a sweep.
    """
    if not (folder / "jobs.json").is_file():
        raise ValueError(f"{folder} is not the folder of a sweep: it holds no jobs.json")
    found: dict[tuple[str, ...], Job] = {}
    for path in sorted(folder.rglob("job.json")):
        record = files.read_json(path)
        results = files.read_json(path.with_name("results.json")) if record["status"] == DONE else {}
        record = {key: value for key, value in record.items() if key in Job._fields}
        found[tuple(record["overrides"])] = Job(folder=path.parent, results=results, **record)
    asked = [found.pop(tuple(overrides), Job(overrides)) for overrides in files.read_json(folder / "jobs.json")["jobs"]]
    return asked + list(found.values())


def varying_words(asked: Sequence[Sequence[str]]) -> set[str]:
    """The options that not all jobs share."""
    shared = set(asked[0]).intersection(*asked)
    return set(asked[0]).union(*asked) - shared


def varying(asked: Sequence[Sequence[str]]) -> list[str]:
    """Of each job, the options that not all of them share, as one line; all of its options where there is but one."""
    shared = set.intersection(*map(set, asked)) if len(asked) > 1 else set()
    return [" ".join(override for override in overrides if override not in shared) for overrides in asked]


def write_table(folder: Path, found: Sequence[Job]) -> None:
    """Write `sweep.json` and `sweep.csv` as the jobs stand: only the process that has claimed the folder does."""
    rows = [job.row for job in found]
    files.write(folder / "sweep.json", json.dumps({"jobs": rows}, indent=2) + "\n")
    files.write(folder / "sweep.csv", as_csv(rows))


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; the columns in the order in which they first appear."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _fingerprint(cfg: DictConfig) -> str:
    """What tells a configuration from another that computes something else."""
    plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for key in NOT_PART_OF_IT:
        if OmegaConf.select(plain, key) is not None:
            OmegaConf.update(plain, key, None)
    return hashlib.sha256(OmegaConf.to_yaml(plain).encode()).hexdigest()
