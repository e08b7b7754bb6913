"""Training speed side by side: what one writes first, a hand-written loop, and this project's Trainer.

    python -m benchmarks.training                        about 5 minutes on 2 cores
    python -m benchmarks.training --rounds 5 --steps 300

All three train the same network on the same images with Adam and batches of 100, in one process and in turns, so
that whatever else the machine does falls on all of them:

(a) torchvision's MNIST + ToTensor + DataLoader(shuffle=True) + a plain PyTorch loop over the layers as written down;
(a+) the same, with this project's setting of the memory allocator, which it would not have by itself;
(b) a hand-written loop over tensors in memory, with this project's network and allocator setting;
(c) this project through the Lightning Trainer, loss and accuracy logged to TensorBoard and CSV.

A measurement is `steps` training steps from the first batch on; a round of all before the first counts for nothing.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from cnn_mnist import console
from cnn_mnist.allocator import keep_freed_memory
from cnn_mnist.callbacks.throughput import Throughput
from cnn_mnist.curves import Curves
from cnn_mnist.data import DataModule, Shuffled
from cnn_mnist.module import Classifier
from cnn_mnist.network import CNN

BATCH_SIZE = 100
# What glibc sets by itself: the largest block freed so far, measured with mallinfo2 in a process that runs (a) alone,
# and twice that for the end of the heap.
GLIBC_LARGEST = 16_790_966
Measurement = Callable[[bool], float]  # with or without batch normalisation -> images per second


def main() -> None:
    """Measure in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--steps", type=int, default=200, help="training steps in a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    console.quiet()
    data = DataModule(root=options.root, fallback=None)
    data.prepare_data()
    data.setup()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ways: dict[str, Measurement] = {
            "(a) first try": lambda batchnorm: first_try(data, options.steps, batchnorm, folder, keep=False),
            "(a+) and allocator": lambda batchnorm: first_try(data, options.steps, batchnorm, folder, keep=True),
            "(b) by hand": lambda batchnorm: by_hand(data, options.steps, batchnorm),
            "(c) this project": lambda batchnorm: this_project(data, options.steps, batchnorm, folder),
        }
        cases = list(product(ways, (False, True)))
        found: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
        for number in range(options.rounds + 1):  # the first round warms up
            for way, batchnorm in cases:
                speed = ways[way](batchnorm)
                if number:
                    found[way, batchnorm].append(speed)
    report(found, options.steps)


def report(found: dict[tuple[str, bool], list[float]], num_steps: int) -> None:
    """Print medians with their range, and the ratios that matter: medians of the rounds' own ratios."""
    table = Table(title=f"Training, images/s, median of {len(next(iter(found.values())))} rounds of {num_steps} steps")
    for heading in ("", "without batch norm", "with batch norm", "batch norm costs"):
        table.add_column(heading, justify="right" if heading else "left")

    def ratio(numerator: tuple[str, bool], denominator: tuple[str, bool]) -> float:
        return statistics.median(x / y for x, y in zip(found[numerator], found[denominator], strict=True))

    names = list(dict.fromkeys(way for way, _ in found))
    for way in names:
        cells = [
            f"{statistics.median(v):,.0f} ({min(v):,.0f}-{max(v):,.0f})" for v in (found[way, b] for b in (False, True))
        ]
        table.add_row(way, *cells, f"{ratio((way, False), (way, True)) - 1:+.0%} time")
    c = names[-1]
    for other in names[:-1]:
        ratios = (f"{ratio((c, batchnorm), (other, batchnorm)):.2f}" for batchnorm in (False, True))
        table.add_row(f"(c) / {other.split()[0]}", *ratios, "")
    Console().print(table)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {time.strftime('%Y-%m-%d')}")


def first_try(data: DataModule, num_steps: int, batchnorm: bool, scratch: Path, *, keep: bool) -> float:
    """(a) What one writes first; with the allocator's setting if `keep`, else as glibc sets itself."""
    if keep:
        keep_freed_memory()
    else:
        keep_freed_memory(GLIBC_LARGEST, 2 * GLIBC_LARGEST)
    root = scratch / "torchvision"
    if not root.exists():  # torchvision unpacks the files beside themselves: not in the user's folder
        shutil.copytree(data.root / "MNIST", root / "MNIST")
    images = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor(), download=True)
    loader = DataLoader(images, batch_size=BATCH_SIZE, shuffle=True)

    def norm(layer: nn.Module) -> list[nn.Module]:
        return [layer] if batchnorm else []

    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        *norm(nn.BatchNorm2d(32)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        *norm(nn.BatchNorm2d(32)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 500),
        *norm(nn.BatchNorm1d(500)),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
    return loop(model, torch.optim.Adam(model.parameters(), lr=1e-3), iter(loader), num_steps)


def by_hand(data: DataModule, num_steps: int, batchnorm: bool) -> float:
    """(b) A loop over tensors in memory, with this project's network."""
    keep_freed_memory()
    model = CNN(batchnorm)
    images, labels = data.train.images, data.train.labels
    batches = ((images[index].float() / 255, labels[index]) for index in Shuffled(len(images), BATCH_SIZE, seed=0))
    return loop(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), batches, num_steps)


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


def this_project(data: DataModule, num_steps: int, batchnorm: bool, scratch: Path) -> float:
    """(c) The same through the Trainer, with the loggers of every run."""
    throughput = Throughput()
    folder = tempfile.mkdtemp(dir=scratch)
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=num_steps,
        limit_val_batches=0,
        accelerator="cpu",
        callbacks=[throughput],
        logger=[TensorBoardLogger(folder, name="", version=""), Curves(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(batchnorm), data)
    return throughput.timing().train_images_per_second


if __name__ == "__main__":
    main()
