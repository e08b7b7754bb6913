"""Occlusion: this project's two paths and captum, on the same network, images and patches.

    python -m benchmarks.occlusion                       about 5 minutes on 2 cores
    python -m benchmarks.occlusion --images 100 --windows 8

Each measurement is a process of its own, warmed up, in turns:

captum   `captum.attr.Occlusion` over the network's probabilities, at the `perturbations_per_eval` that was fastest warm
plain    every occluded image through the network, as `occlusion_map` does it for any model
fast     what the patch can reach, as `occlusion_map` does it for this network

Only this project's have its setting of the memory allocator. The work differs a little to captum's advantage: it
explains the true class alone, the others find every class's probability.
"""

import argparse
import json
from collections.abc import Callable

import torch
from captum.attr import Occlusion

from benchmarks import processes
from cnn_mnist.analysis import incremental_occlusion, occlusion
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.network import CNN
from cnn_mnist.runs import checkpoint
from cnn_mnist.training.allocator import keep_freed_memory

PERTURBATIONS_PER_EVAL = (1, 2, 4, 8, 16, 32, 64)
FILL = 0.5


def main() -> None:
    """Measure in turns and keep medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--checkpoint", help="a run's folder; without one, a network that has learnt nothing")
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--windows", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"seconds": one(options.one, options.images[0], options.windows[0], options)}))
        return
    record: dict[str, object] = {"rounds": options.rounds, "fill": FILL}
    common = ["--root", options.root, *(["--checkpoint", options.checkpoint] if options.checkpoint else [])]
    for images in options.images:
        for window in options.windows:
            words = [*common, "--images", str(images), "--windows", str(window)]
            tried = processes.measure("benchmarks.occlusion", [f"captum-{n}" for n in PERTURBATIONS_PER_EVAL], words, 1)
            best = min(tried, key=lambda case: tried[case][0]["seconds"])
            found = processes.measure("benchmarks.occlusion", [best, "plain", "fast"], words, options.rounds)
            positions = images * (29 - window) ** 2
            record[f"images_{images}_window_{window}"] = {
                "num_images": images,
                "perturbations_per_eval": int(best.partition("-")[2]),
                **{
                    f"{way}_positions_per_second": positions / processes.spread(found, case, "seconds")["median"]
                    for way, case in (("captum", best), ("plain", "plain"), ("fast", "fast"))
                },
                "fast_over_captum": processes.ratio(found, best, "fast", "seconds"),
                "plain_over_captum": processes.ratio(found, best, "plain", "seconds"),
            }
    processes.keep("occlusion", record)


def one(way: str, num_images: int, window: int, options: argparse.Namespace) -> float:
    """Seconds of one way, warm."""
    if not way.startswith("captum"):
        keep_freed_memory()
    network = checkpoint.load(options.checkpoint) if options.checkpoint else CNN().eval()
    assert isinstance(network, CNN)
    network.requires_grad_(False)
    data = DataModule(root=options.root, fallback=None).ready()
    images, labels = data.test[data.test.of_each_class(num_images)]
    explainer = Occlusion(lambda x: network(x).softmax(1))

    def captum() -> object:
        return explainer.attribute(
            images,
            target=labels,
            sliding_window_shapes=(1, window, window),
            strides=1,
            baselines=FILL,
            perturbations_per_eval=int(way.partition("-")[2]),
        )

    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: occlusion.class_probabilities(network, images, window=window, stride=1, fill=FILL),
        "fast": lambda: incremental_occlusion.class_probabilities(network, images, window=window, stride=1, fill=FILL),
    }
    with torch.no_grad():
        return processes.seconds(ways.get(way, captum))


if __name__ == "__main__":
    main()
