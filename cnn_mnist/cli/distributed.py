"""Training in several processes (`trainer=ddp`), started here, by torchrun or by SLURM.

Every process runs the whole of train.py on its share of every batch, and Lightning's DDP averages the gradients; the
first one alone writes and prints.
"""

import datetime
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, open_dict, read_write
from pytorch_lightning.utilities import rank_zero_only
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessException, start_processes

from cnn_mnist.cli import signals
from cnn_mnist.cli.schema import hold
from cnn_mnist.option_types import number

PATIENCE = datetime.timedelta(days=1)  # that a process waits for another: the first may work alone for long


def run(main: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | None:
    """Run `main` in every process: in this one, if torchrun or SLURM started it, or else in `trainer.devices` new ones.

    Returns:
        What `main` returns, if it ran in this process.

    Raises:
        ValueError: There are fewer devices.
        Exception: The first that any of the processes raised.
    """
    for key in ("devices", "num_nodes"):
        hold(f"trainer.{key}", cfg.trainer[key], number(int, 1))
    num_gpus = torch.accelerator.device_count() if cfg.trainer.accelerator != "cpu" else 0
    if 0 < num_gpus < cfg.trainer.devices:
        raise ValueError(f"trainer.devices={cfg.trainer.devices}, but there are {num_gpus}: set trainer.devices=...")
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            environment = kind()
            _join(environment.main_address, environment.main_port, environment.global_rank(), environment.world_size())
            _agree_on_a_folder()
            return main(cfg)
    if cfg.trainer.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}, but nothing has started the processes of the other machines: "
            "use torchrun or srun, see docs/sweeps.md"
        )
    if not num_gpus:  # the cores are shared out
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // cfg.trainer.devices)))
    errors = multiprocessing.get_context("spawn").Queue()
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # which ones it ends, and how
    state = (main, cfg, HydraConfig.instance().cfg, find_free_network_port(), cfg.trainer.devices, errors)
    context = start_processes(_process, state, cfg.trainer.devices, join=False, daemon=True, start_method="spawn")
    signals.closing.extend(process.kill for process in context.processes)  # asked kindly, they wait for one another
    try:
        while not context.join():
            pass
    except ProcessException as error:
        try:
            raise errors.get(timeout=1) from None
        except queue.Empty:
            raise RuntimeError(f"one of the processes has died: {error}") from error
    return None


def _process(
    rank: int,
    main: Callable[[DictConfig], float | None],
    cfg: DictConfig,
    hydra: DictConfig,
    port: int,
    size: int,
    errors: Any,
) -> None:
    """One of the processes."""
    signal.signal(signal.SIGINT, _end_with_the_first)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_the_first()  # it may have been killed before torch asked to be told
    os.environ["LOCAL_RANK"] = str(rank)  # tells Lightning that the processes are there
    if rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    setup_globals()
    HydraConfig.instance().set_config(hydra)
    try:
        _join("127.0.0.1", port, rank, size)
        main(cfg)
    except Exception as error:
        is_plain = isinstance(error, ValueError | OSError)  # others may not survive the way
        errors.put(error if is_plain else RuntimeError(f"{type(error).__name__}: {error}"))
        raise


def _end_with_the_first(number: int = 0, frame: FrameType | None = None) -> None:
    """Ignore SIGINT, which the parent handles, but end if the parent is gone."""
    if (parent := multiprocessing.parent_process()) is None or not parent.is_alive():
        os._exit(1)


def _join(address: str, port: int, rank: int, size: int) -> None:
    """Join the process group."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def _agree_on_a_folder() -> None:
    """Use the first process's folder in all: each has composed its configuration at its own time."""
    runtime: Any = HydraConfig.get().runtime
    folder = [runtime.output_dir]
    dist.broadcast_object_list(folder)
    if folder[0] != runtime.output_dir:
        Path(runtime.output_dir).rmdir()
        with read_write(runtime), open_dict(runtime):
            runtime.output_dir = folder[0]
