"""Occlusion side by side: this project's two paths and captum, the same network, images and patches.

    python -m benchmarks.occlusion                       about 5 minutes on 2 cores
    python -m benchmarks.occlusion --images 100 --windows 8

In one process and in turns, so that whatever else the machine does falls on all:

(captum) `captum.attr.Occlusion` over the network's probabilities, at several `perturbations_per_eval`;
(plain) every occluded image through the network, as `occlusion_map` does it for any model;
(fast) what the patch can reach, as `occlusion_map` does it for this network.

A first round warms up and finds captum's two best settings; only these go on. All have the memory allocator as this
project sets it, captum too. The work differs a little to captum's advantage: it explains the true class alone, the
others find every class's probability.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from captum.attr import Occlusion
from rich.console import Console
from rich.table import Table

from cnn_mnist import checkpoint
from cnn_mnist.allocator import keep_freed_memory
from cnn_mnist.analysis import occlusion, reach
from cnn_mnist.data import Batch, DataModule
from cnn_mnist.network import CNN

PERTURBATIONS_PER_EVAL = (1, 2, 4, 8, 16, 32, 64)
FILL = 0.5


def main() -> None:
    """Measure in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--checkpoint", help="a run's folder; without one, a network that has learnt nothing")
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--windows", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    keep_freed_memory()
    network = checkpoint.load(options.checkpoint) if options.checkpoint else CNN().eval()
    network.requires_grad_(False)
    data = DataModule(root=options.root, fallback=None)
    data.prepare_data()
    data.setup()
    table = Table(title=f"Occlusion, stride 1, positions/s, median of {options.rounds} rounds")
    for heading in ("images", "window", "captum's best", "plain", "fast", "fast / captum", "fast / plain"):
        table.add_column(heading, justify="right")
    for num_images in options.images:
        batch = data.test[data.test.of_each_class(num_images)]
        for window in options.windows:
            times = measure(network, batch, window, options.rounds)
            positions = num_images * (29 - window) ** 2
            best = min(
                (way for way in times if way.startswith("captum")), key=lambda way: statistics.median(times[way])
            )
            speed = {way: positions / statistics.median(seconds) for way, seconds in times.items()}
            table.add_row(
                str(num_images),
                str(window),
                f"{speed[best]:,.0f} ({best.removeprefix('captum ')} per eval)",
                f"{speed['plain']:,.0f}",
                f"{speed['fast']:,.0f}",
                f"{ratio(times[best], times['fast']):.2f}",
                f"{ratio(times['plain'], times['fast']):.2f}",
            )
    Console().print(table)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {time.strftime('%Y-%m-%d')}")


def measure(network: CNN, batch: Batch, window: int, num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    images, labels = batch
    explainer = Occlusion(lambda x: network(x).softmax(1))

    def captum(perturbations_per_eval: int) -> object:
        return explainer.attribute(
            images,
            target=labels,
            sliding_window_shapes=(1, window, window),
            strides=1,
            baselines=FILL,
            perturbations_per_eval=perturbations_per_eval,
        )

    ways: dict[str, Callable[[], object]] = {
        f"captum {number}": lambda number=number: captum(number)  # type: ignore[misc]
        for number in PERTURBATIONS_PER_EVAL
    }
    ways["plain"] = lambda: occlusion.class_probabilities(network, images, window=window, stride=1, fill=FILL)
    ways["fast"] = lambda: reach.class_probabilities(network, images, window=window, stride=1, fill=FILL)
    first = {way: seconds(run) for way, run in ways.items()}
    worse = sorted((way for way in first if way.startswith("captum")), key=first.__getitem__)[2:]
    times: dict[str, list[float]] = {way: [] for way in ways if way not in worse}
    for _ in range(num_rounds):
        for way, taken in times.items():
            taken.append(seconds(ways[way]))
    return times


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    with torch.no_grad():
        run()
    return time.perf_counter() - start


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(x / y for x, y in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()
