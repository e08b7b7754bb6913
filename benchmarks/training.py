"""Training speed: from a plain PyTorch loop to this project, one change at a time.

    python -m benchmarks.training                        about 20 minutes on 2 cores
    python -m benchmarks.training --rounds 3 --steps 100

All train the same network on the same images with Adam and batches of 100, each in a process of its own and in turns.
A measurement is `steps` training steps, after a fifth as many that do not count. Each row has what the rows above have:

first_try      torchvision's MNIST, ToTensor, DataLoader(shuffle=True), the layers as written down, a plain loop
in_memory      images as one tensor, a batch by one gather
fused_adam     Adam(fused=True)
channels_last  images channels-last in memory
pool_first     the max-pool before the ReLU
folded         the first batch normalisation as part of the filters: this project's network
allocator      freed memory kept by the process
trainer        the same through the Lightning Trainer, loss and accuracy logged to TensorBoard and CSV: this project
bf16           trainer.precision=bf16-mixed
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks import processes
from cnn_mnist.cli import console
from cnn_mnist.data.batches import Shuffled
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.runs.csv_logger import CSVLogger
from cnn_mnist.training.allocator import keep_freed_memory
from cnn_mnist.training.module import Classifier

BATCH_SIZE = 100
WAYS = (
    "first_try",
    "in_memory",
    "fused_adam",
    "channels_last",
    "pool_first",
    "folded",
    "allocator",
    "trainer",
    "bf16",
)


class Plain(nn.Module):
    """The network as one writes it down, with the first two of this project's tricks or without."""

    def __init__(self, batchnorm: bool, *, channels_last: bool, pool_first: bool) -> None:
        super().__init__()
        self.layers = CNN(batchnorm)
        self.channels_last, self.pool_first = channels_last, pool_first

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        net = self.layers
        x = images.to(memory_format=torch.channels_last) if self.channels_last else images
        x = self.pooled(net.norm1(net.conv1(x)))
        x = self.pooled(net.norm2(net.conv2(x)))
        logits: Tensor = net.fc2(net.hidden(x))
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """ReLU and max-pool in either order."""
        return F.relu(F.max_pool2d(x, 2)) if self.pool_first else F.max_pool2d(F.relu(x), 2)


def main() -> None:
    """Measure in turns and keep medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--steps", type=int, default=200, help="training steps in a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, _, norm = options.one.partition("+")
        speed = images_per_second(way, norm == "batchnorm", options.steps, Path(options.root))
        print(json.dumps({"images_per_second": speed}))
        return
    with tempfile.TemporaryDirectory() as scratch:  # torchvision unpacks the files: not in the user's folder
        shutil.copytree(Path(options.root, "MNIST"), Path(scratch, "MNIST"))
        datasets.MNIST(scratch, download=True)
        cases = [way + norm for way in WAYS for norm in ("", "+batchnorm")]
        words = ["--root", scratch, "--steps", str(options.steps)]
        found = processes.measure("benchmarks.training", cases, words, options.rounds)
    record: dict[str, object] = {"steps": options.steps, "rounds": options.rounds}
    before = WAYS[0]
    for way in WAYS:
        record[way] = {}
        for name, norm in (("plain", ""), ("batchnorm", "+batchnorm")):
            key = "images_per_second"
            record[way][name] = processes.spread(found, way + norm, key) | {  # type: ignore[index]
                "over_row_above": processes.ratio(found, way + norm, before + norm, key),
                "over_first_try": processes.ratio(found, way + norm, WAYS[0] + norm, key),
            }
        before = way
    processes.keep("training", record)


def images_per_second(way: str, batchnorm: bool, num_steps: int, root: Path) -> float:
    """One measurement."""
    console.quiet()
    has = WAYS[: WAYS.index(way) + 1]
    if "allocator" in has:
        keep_freed_memory()
    if "trainer" in has:
        return through_the_trainer(batchnorm, num_steps, root, "bf16-mixed" if "bf16" in has else "32-true")
    if "folded" in has:
        model: nn.Module = CNN(batchnorm)
    else:
        model = Plain(batchnorm, channels_last="channels_last" in has, pool_first="pool_first" in has)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused="fused_adam" in has)
    warm = num_steps // 5
    steps = batches("in_memory" in has, root)
    loop(model, optimizer, steps, warm)
    return loop(model, optimizer, steps, num_steps)


def batches(in_memory: bool, root: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch, shuffled."""
    if not in_memory:
        files = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())
        return iter(DataLoader(files, batch_size=BATCH_SIZE, shuffle=True))
    data = DataModule(root=str(root), fallback=None).ready()
    return (data.train[index] for index in Shuffled(len(data.train), BATCH_SIZE, seed=0))


def loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor]], num_steps: int
) -> float:
    """Images per second of a plain training loop."""
    total = torch.zeros(())
    start = time.perf_counter()
    for images, labels in islice(batches, num_steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return num_steps * BATCH_SIZE / (time.perf_counter() - start)


def through_the_trainer(
    batchnorm: bool, num_steps: int, root: Path, precision: Literal["32-true", "bf16-mixed"]
) -> float:
    """The Trainer with the loggers of every run, by an outside clock: what a long epoch takes more than a short one."""
    data = DataModule(root=str(root), fallback=None).ready()
    short, long = num_steps // 5, num_steps + num_steps // 5
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for steps in (short, short, long):  # the first does not count
            trainer = pl.Trainer(
                max_epochs=1,
                limit_train_batches=steps,
                limit_val_batches=0,
                accelerator="cpu",
                precision=precision,
                logger=[TensorBoardLogger(folder, name="", version=""), CSVLogger(folder)],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            start = time.perf_counter()
            trainer.fit(Classifier(batchnorm), data)
            seconds[steps] = time.perf_counter() - start
    return num_steps * BATCH_SIZE / (seconds[long] - seconds[short])


if __name__ == "__main__":
    main()
