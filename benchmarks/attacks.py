"""Attacks: this project and foolbox, on the same network and images.

    python -m benchmarks.attacks --checkpoint RUN           about 10 minutes on 2 cores
    python -m benchmarks.attacks --checkpoint RUN --cw      also the targeted attack beside Carlini and Wagner's

Each measurement is a process of its own, warmed up, in turns. PGD takes 40 steps of 0.01 within 0.3 from a random
start, FGSM one step of 0.3. Foolbox is shown with its defaults, all images in one batch and the network as loaded, and
at its best: parameters frozen, in batches of the size that was fastest warm. This project is shown dropping images once
they are wrong, and with that switched off (`early_stop=False`); only it has its setting of the memory allocator.

Carlini and Wagner's attack and the targeted one are compared as norm against time: each at several numbers of steps.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import foolbox
import torch
from torch import Tensor, nn

from benchmarks import processes
from cnn_mnist import attacks
from cnn_mnist.attacks.gradient_ascent import l2
from cnn_mnist.data.batches import Images
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint, locate
from cnn_mnist.training.allocator import keep_freed_memory

EPSILON, STEP_SIZE, STEPS = 0.3, 0.01, 40
BATCHES = (50, 100, 200, 500, 1000)
FOOLBOX = {
    "pgd": lambda: foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True),
    "fgsm": lambda: foolbox.attacks.LinfFastGradientAttack(random_start=False),
}
OURS = {"pgd": ("ours", "ours_to_the_end"), "fgsm": ("ours",)}
NEAREST = ("cw-3x100", "cw-5x300", "cw-9x1000", "targeted-1x50", "targeted-1x100", "targeted-1x300", "targeted-1x1000")


def main() -> None:
    """Measure in turns and keep medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--checkpoint", help="a run's folder; without one, the newest run")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cw", action="store_true", help="also the targeted attack beside Carlini and Wagner's")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options)))
        return
    run = options.checkpoint or str(locate.newest())
    words = ["--root", options.root, "--checkpoint", run, "--images", str(options.images)]
    record: dict[str, Any] = {"rounds": options.rounds, "num_images": options.images}
    for attack in FOOLBOX:
        sizes = sorted({min(size, options.images) for size in BATCHES})
        tried = processes.measure("benchmarks.attacks", [f"{attack}-frozen-{size}" for size in sizes], words, 1)
        best = min(tried, key=lambda case: tried[case][0]["seconds"])
        cases = [f"{attack}-foolbox", best, *(f"{attack}-{own}" for own in OURS[attack])]
        found = processes.measure("benchmarks.attacks", cases, words, options.rounds)
        record[attack] = {
            "best_batch_size": int(best.rpartition("-")[2]),
            **{
                name: processes.spread(found, case, "seconds")
                | {
                    "accuracy": found[case][0]["accuracy"],
                    "faster_than_foolbox": processes.ratio(found, cases[0], case, "seconds"),
                    "faster_than_its_best": processes.ratio(found, best, case, "seconds"),
                }
                for name, case in zip(("foolbox", "foolbox_best", *OURS[attack]), cases, strict=True)
            },
        }
    if options.cw:
        found = processes.measure("benchmarks.attacks", NEAREST, words, min(3, options.rounds))
        record["nearest"] = {
            case.replace("-", "_"): processes.spread(found, case, "seconds")
            | {"num_success": found[case][0]["num_success"], "mean_l2": found[case][0]["mean_l2"]}
            for case in NEAREST
        }
    processes.keep("attacks", record)


def one(case: str, options: argparse.Namespace) -> dict[str, float]:
    """One measurement, warm."""
    network = checkpoint.load(options.checkpoint)
    data = DataModule(root=options.root, fallback=None).ready()
    attack, way, *size = case.split("-")
    if way.startswith("ours") or attack == "targeted":
        keep_freed_memory()
    if attack in ("cw", "targeted"):
        return nearest(network, data.test, attack, *map(int, way.split("x")))
    images, labels = data.test[data.test.evenly_spaced(options.images)]
    if way.startswith("ours"):
        run = ours(attack, network, images, labels, early_stop=way == "ours")
    else:
        run = by_foolbox(FOOLBOX[attack](), network, images, labels, batch=int(size[0]) if size else None)
    return {"seconds": processes.seconds(run), "accuracy": run()}


def ours(attack: str, network: nn.Module, images: Tensor, labels: Tensor, *, early_stop: bool) -> Callable[[], float]:
    """This project's attack: the share of the images that withstands it."""

    def run() -> float:
        if attack == "fgsm":
            result = attacks.fgsm(network, images, labels, epsilon=EPSILON)
        else:
            options = {"epsilon": EPSILON, "step_size": STEP_SIZE, "steps": STEPS}
            result = attacks.pgd(network, images, labels, **options, early_stop=early_stop)  # type: ignore[arg-type]
        return 1 - result.success.float().mean().item()

    return run


def by_foolbox(
    attack: foolbox.Attack, network: nn.Module, images: Tensor, labels: Tensor, batch: int | None
) -> Callable[[], float]:
    """As it comes where `batch` is None, else with frozen parameters in batches."""
    network.requires_grad_(batch is None)
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    size = batch or len(images)

    def run() -> float:
        parts = zip(images.split(size), labels.split(size), strict=True)
        fooled = [attack(model, x, foolbox.criteria.Misclassification(y), epsilons=EPSILON)[2] for x, y in parts]
        return 1 - torch.cat(fooled).float().mean().item()

    return run


def nearest(network: nn.Module, test: Images, attack: str, searches: int, steps: int) -> dict[str, float]:
    """Ten digits, each as the nine others: successes, mean L2 norm of theirs, and seconds."""
    images, labels = test[test.of_each_class(10)]
    row, target = (~torch.eye(10, dtype=torch.bool)).nonzero(as_tuple=True)
    x = images[labels.argsort()][row]
    network.requires_grad_(False)
    start = time.perf_counter()
    if attack == "cw":
        theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=searches, steps=steps)
        goal = foolbox.criteria.TargetedMisclassification(target)
        _, found, success = theirs(foolbox.PyTorchModel(network, bounds=(0, 1)), x, goal, epsilons=None)
    else:
        result = attacks.targeted(network, x, target, beta=6.5, steps=steps, step_size=0.1, confidence=0.5)
        found, success = result.images, result.success
    taken = time.perf_counter() - start
    distance = l2(found - x)[:, 0, 0, 0][success]
    return {"seconds": taken, "num_success": int(success.sum()), "mean_l2": distance.mean().item()}


if __name__ == "__main__":
    main()
