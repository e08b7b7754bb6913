"""AutoAttack: this project and the reference implementation, on the same networks and images.

    python -m benchmarks.autoattack --undefended RUN --robust RUN        about 25 minutes on 2 cores with AVX-512

Each measurement is a process of its own, in turns; a robust network takes minutes, so that nothing is warmed up first.
Both run the standard ensemble within 0.3. The reference is pyautoattack, in batches of 250 images. The third network is
the robust one with logits so large that the gradient of the cross-entropy vanishes.
"""

import argparse
import json
import time
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from benchmarks import processes
from cnn_mnist import attacks
from cnn_mnist.attacks.result import predict
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint
from cnn_mnist.training.allocator import keep_freed_memory

EPSILON = 0.3
RUNS = ("undefended", "robust")
NETWORKS = (*RUNS, "masked")


class Masked(nn.Module):
    """A network whose logits are multiplied by 100."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) for images (B, 1, 28, 28)."""
        logits: Tensor = 100 * self.network(images)
        return logits


def main() -> None:
    """Measure in turns and keep medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    for name in RUNS:
        parser.add_argument(f"--{name}", required=True, help="a run's folder")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options)))
        return
    words = ["--root", options.root, "--images", str(options.images)]
    words += ["--undefended", options.undefended, "--robust", options.robust]
    record: dict[str, Any] = {"rounds": options.rounds, "num_images": options.images, "epsilon": EPSILON}
    for name in NETWORKS:
        cases = [f"{name}-theirs", f"{name}-ours"]
        found = processes.measure("benchmarks.autoattack", cases, words, options.rounds)
        record[name] = {
            way: processes.spread(found, case, "seconds") | {"accuracy": found[case][0]["accuracy"]}
            for way, case in zip(("theirs", "ours"), cases, strict=True)
        }
        record[name]["share_of_the_time"] = processes.ratio(found, cases[1], cases[0], "seconds")
    processes.keep("autoattack", record)


def one(case: str, options: argparse.Namespace) -> dict[str, float]:
    """One measurement: seconds, and the share of the images that withstands the ensemble."""
    name, way = case.split("-")
    network: nn.Module = checkpoint.load(options.robust if name == "masked" else getattr(options, name))
    if name == "masked":
        network = Masked(network).eval()
    data = DataModule(root=options.root, fallback=None).ready()
    images, labels = data.test[data.test.evenly_spaced(options.images)]
    start = time.perf_counter()
    if way == "ours":
        keep_freed_memory()
        found = attacks.auto(network, images, labels, epsilon=EPSILON).images
    else:
        peer = AutoAttack(network, norm="Linf", eps=EPSILON, version="standard", device="cpu", seed=0)
        found = peer.run_standard_evaluation(images, labels, batch_size=250)[0]
    taken = time.perf_counter() - start
    with torch.no_grad():
        accuracy = (predict(network, found).argmax(1) == labels).double().mean().item()
    return {"seconds": taken, "accuracy": accuracy}


if __name__ == "__main__":
    main()
