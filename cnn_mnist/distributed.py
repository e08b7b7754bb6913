"""Several processes at work on one command (`trainer=ddp`): started here, or by torchrun, or by SLURM.

Training: every process runs the whole of train.py, on its share of every batch, and Lightning's DDP averages the
gradients; the first one alone writes and prints. Analysis: the first process runs analyze.py, and the others wait for
shares of the images that it has to look at.
"""

import datetime
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, open_dict, read_write
from torch import Tensor, multiprocessing, nn
from torch.multiprocessing.spawn import ProcessException, start_processes

from cnn_mnist import signals
from cnn_mnist.data import share
from cnn_mnist.rules import TRAIN, hold

PATIENCE = datetime.timedelta(days=1)  # that a process waits for another: the first may be at work alone for long

Result = TypeVar("Result")


def run(main: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | None:
    """Run `main` in every process: in this one, where something has started them, or in `trainer.devices` new ones.

    Returns:
        What `main` does, where it ran in this one.

    Raises:
        ValueError: There are not so many devices.
        Exception: The first that any of the processes raised.
    """
    for key in ("devices", "num_nodes"):
        hold(f"trainer.{key}", cfg.trainer[key], TRAIN.keys[f"trainer.{key}"])
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
            "use torchrun or srun, see docs/scale.md"
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
    """Leave SIGINT to the process that started this one; torch sends it, too, where that one was killed."""
    if (parent := multiprocessing.parent_process()) is None or not parent.is_alive():
        os._exit(1)


def _join(address: str, port: int, rank: int, size: int) -> None:
    """Meet the other processes."""
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def _agree_on_a_folder() -> None:
    """Let all write where the first would: each has composed its configuration by itself, at its own time."""
    runtime: Any = HydraConfig.get().runtime
    folder = [runtime.output_dir]
    dist.broadcast_object_list(folder)
    if folder[0] != runtime.output_dir:
        Path(runtime.output_dir).rmdir()
        with read_write(runtime), open_dict(runtime):
            runtime.output_dir = folder[0]


def rank() -> int:
    """Which of the processes this is; 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def over_images(
    work: Callable[..., Result], join: Callable[[Sequence[Result]], Result], network: nn.Module, *tensors: Tensor
) -> Result:
    """What is to be done for many images, each process doing its share; to be called by the first.

    Args:
        work: From the network, the place of the first image and a share of each tensor to a result on the CPU; to be
            found by its name in a module, or a `functools.partial` of such.
        join: From the shares' results to that of all.
        network: On its device; each process puts it on its own.
        tensors: (N, ...) each, on any device.
    """
    if size() == 1:
        return _own_share(work, network, tensors)
    _tell((work, network, [tensor.cpu() for tensor in tensors]))
    found = _collect(_own_share(work, network, tensors))
    assert found is not None
    for one in found:
        if isinstance(one, Exception):
            raise one
    return join(found)


def serve() -> None:
    """Do shares of `over_images` until the first process is done."""
    while (told := _tell(None)) is not None:
        work, network, tensors = told
        try:
            found: Any = _own_share(work, network, tensors)
        except Exception as error:
            found = error
        _collect(found)


def dismiss() -> None:
    """Tell the others that there is no more to do."""
    if size() > 1:
        _tell(None)


def _own_share(work: Callable[..., Result], network: nn.Module, tensors: Sequence[Tensor]) -> Result:
    device = next(network.parameters()).device
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())  # the first process's network comes with its device
    own = share(len(tensors[0]), rank(), size())
    return work(network.to(device), own.start, *(tensor[own].to(device) for tensor in tensors))


def _tell(content: Any) -> Any:
    """What the first process says, to all."""
    box = [content]
    dist.broadcast_object_list(box)
    return box[0]


def _collect(found: Result) -> list[Result] | None:
    """What each process has found, to the first; None to the others."""
    box: list[Any] | None = [None] * size() if rank() == 0 else None
    dist.gather_object(found, box)
    return box
