"""A sweep on disk: its jobs, the state of each, and a table of all.

Whether jobs run one after another, side by side or on a cluster, and whatever kills them, the files record what is
done; the same command in the same folder does the rest. Below the sweep's folder:

    jobs.json         the jobs asked for, in order
    <job>/job.json    the state of each
    <job>/log.txt     its output
    sweep.json        a row for each job, with the scalars of its results.json
    sweep.csv         the same rows

Imports neither torch nor Lightning, so that errors appear at once.
"""

import hashlib
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

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cnn_mnist.cli import errors
from cnn_mnist.runs import files

DONE, FAILED, RUNNING, MISSING = "done", "failed", "running", "missing"
PATHS = ("checkpoint", "against_checkpoint", "network", "tensors", "title", "date")  # that differ between equal jobs
NO_DDP = (
    "trainer=ddp cannot be part of a sweep (-m), whose jobs may share the devices already: "
    "run it alone, or leave it to hydra/launcher=joblib or slurm to run jobs side by side"
)
NOT_PART_OF_IT = ("data.root", "trainer.accelerator", "trainer.devices", "overrides")  # without effect on results
UNNAMED = (
    *NOT_PART_OF_IT,
    "data",
    "data.fallback",
    "experiment",
    "trainer",
    "ckpt_path",
)  # or named by the folder above
OWN_IMAGES = ("npz", "image_folder")  # data sets of which data.root is not the place, but the data set itself
OWN_MODULE = "own"  # stands for the data set of a data module of the user's own, as in conf/train.yaml


class Job(NamedTuple):
    """A job of a sweep, as recorded on disk.

    Attributes:
        overrides: Its options, such as `seed=3`.
        status: `done`, `failed`, `running` (or killed while it did), `missing`.
        folder: Its folder; None while missing.
        error: Why it failed, in one line.
        started: Start of the last attempt, in seconds since 1970.
        seconds: Duration of the last attempt, once it has ended.
        results: Its results.json; empty unless done.
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
        """Its options, status and error, and the scalars of its results."""
        options = dict(override.lstrip("+").partition("=")[::2] for override in self.overrides)
        scalars = {
            key: value
            for key, value in self.results.items()
            if isinstance(value, int | float | str) and key not in PATHS and key not in options
        }
        return {**options, "status": self.status, "error": self.error, **scalars}


LONGEST = 120  # characters of a job's folder; a file system takes 255 bytes


def job_folder(overrides: Sequence[str], left_out: Sequence[str] = (), dataset: str = "") -> str:
    """The name of a job's folder: its options, without characters that a path or Hydra's grammar cannot take.

    If characters were removed, or the name would be too long, a hash makes it unique.

    Args:
        overrides: The job's options.
        left_out: Keys that do not change what it computes.
        dataset: The data set, as far as it is known; `own` for a data module of the user's own.
    """
    named = any(word in (f"data={kind}", f"data.dataset={kind}") for kind in OWN_IMAGES for word in overrides)
    if named or dataset in (*OWN_IMAGES, OWN_MODULE):
        left_out = [key for key in left_out if key != "data.root"]
    words = sorted(word for word in overrides if word.partition("=")[0] not in left_out)
    name = "_".join(word.replace("=", "-", 1) for word in words)
    clean = re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip("-.") or "defaults"
    if clean == (name or clean) and len(clean) <= LONGEST:
        return clean
    return f"{clean[:LONGEST]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"


def options_in_name(overrides: Sequence[str]) -> str:
    """What the name of a run's folder says after the date: the options that make it another training, or nothing."""
    chosen = [word for word in overrides if not word.lstrip("+~").startswith(("callbacks", "logger", "hydra"))]
    name = job_folder(chosen, UNNAMED)
    return "" if name == job_folder([]) else f"_{name}"


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("options_in_name", options_in_name, replace=True)


def do_job(
    main: Callable[[DictConfig], float | None], cfg: DictConfig, one_line: Callable[[Exception], str]
) -> float | None:
    """Run one job of a sweep, unless it is done, and record its state. Its output goes to its `log.txt`.

    A failure is recorded and printed on stderr, and not raised, so that the other jobs run.

    Returns:
        What `main` returns, for sweepers that choose options by it; NaN if it failed.
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
    except errors.Unmet as error:  # it has results, of which one is that
        print(f"{folder.name}: {error}", file=sys.stderr)
        note(DONE, str(error))
        return None
    except Exception as error:
        line = one_line(error)
        print(f"error in {folder.name}: {line}", file=sys.stderr)
        note(FAILED, line)
        return math.nan
    note(DONE, objective=objective)
    return objective


def jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, in the order in which they were asked for, then those of other commands in the folder.

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
        found[tuple(sorted(record["overrides"]))] = Job(folder=path.parent, results=results, **record)
    wanted = files.read_json(folder / "jobs.json")["jobs"]
    asked = [found.pop(tuple(sorted(overrides)), Job(overrides)) for overrides in wanted]  # in whatever order
    return asked + list(found.values())


def varying_words(asked: Sequence[Sequence[str]]) -> set[str]:
    """The options that not all jobs share."""
    shared = set(asked[0]).intersection(*asked)
    return set(asked[0]).union(*asked) - shared


def varying(asked: Sequence[Sequence[str]]) -> list[str]:
    """For each job, the options that not all jobs share, as one line; for a single job all of its options."""
    shared = set.intersection(*map(set, asked)) if len(asked) > 1 else set()
    return [" ".join(override for override in overrides if override not in shared) for overrides in asked]


def write_table(folder: Path, found: Sequence[Job]) -> None:
    """Write `sweep.json` and `sweep.csv`; only the process that has claimed the folder does."""
    rows = [job.row for job in found]
    files.write(folder / "sweep.json", json.dumps({"jobs": rows}, indent=2) + "\n")
    files.write(folder / "sweep.csv", files.as_csv(rows))


def _fingerprint(cfg: DictConfig) -> str:
    """A hash of everything in a configuration that affects what it computes."""
    plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    module = str(OmegaConf.select(plain, "data._target_") or "cnn_mnist.")
    is_own = OmegaConf.select(plain, "data.dataset") in OWN_IMAGES or not module.startswith("cnn_mnist.")
    for key in NOT_PART_OF_IT[is_own:]:
        if OmegaConf.select(plain, key) is not None:
            OmegaConf.update(plain, key, None)
    return hashlib.sha256(OmegaConf.to_yaml(plain).encode()).hexdigest()
