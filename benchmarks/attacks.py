"""Attacks side by side: this project and foolbox (and torchattacks where it is installed), same network, same images.

    python -m benchmarks.attacks --checkpoint RUN           about 5 minutes on 2 cores
    python -m benchmarks.attacks --checkpoint RUN --cw      also the targeted attack beside Carlini and Wagner's

In one process and in turns, so that whatever else the machine does falls on all. PGD takes 40 steps of 0.01 within 0.3
from a random start, FGSM one step of 0.3. Foolbox is shown as it comes, all images in one batch and the network as it
was loaded, and at its best: parameters frozen, in batches of the size that was fastest in a first round. This project
is shown dropping images once they are wrong, and with that switched off (`early_stop=False`). All have the memory
allocator as this project sets it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import foolbox
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cnn_mnist import archive, attacks, checkpoint
from cnn_mnist.allocator import keep_freed_memory
from cnn_mnist.ascent import l2
from cnn_mnist.data import DataModule, Images
from cnn_mnist.network import CNN

try:
    import torchattacks
except ImportError:
    torchattacks = None

EPSILON, STEP_SIZE, STEPS = 0.3, 0.01, 40
BATCHES = (50, 100, 200, 500, 1000)


class Way(NamedTuple):
    """How to attack: by name, and the share of the images that withstands."""

    name: str
    run: Callable[[], float]


def main() -> None:
    """Measure in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--checkpoint", help="a run's folder; without one, the newest run")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cw", action="store_true", help="also the targeted attack beside Carlini and Wagner's")
    options = parser.parse_args()

    keep_freed_memory()
    network = checkpoint.load(options.checkpoint or archive.newest())
    data = DataModule(root=options.root, fallback=None)
    data.prepare_data()
    data.setup()
    images, labels = data.test[data.test.spread(options.images)]
    table = Table(title=f"{options.images} images, median of {options.rounds} rounds")
    for heading in ("attack", "by", "accuracy left", "seconds", "over foolbox as it comes", "over foolbox's best"):
        table.add_column(heading, justify="left" if heading in ("attack", "by") else "right")
    for attack, ways in {"PGD-40": pgd(network, images, labels), "FGSM": fgsm(network, images, labels)}.items():
        times, accuracy = measure(ways, options.rounds)
        best = min(
            (name for name in times if name.startswith("foolbox, ")), key=lambda name: statistics.median(times[name])
        )
        for name, taken in times.items():
            table.add_row(
                attack,
                name,
                f"{accuracy[name]:.1%}",
                f"{statistics.median(taken):.3f}",
                f"{ratio(times['foolbox'], taken):.2f}",
                f"{ratio(times[best], taken):.2f}",
            )
    Console(width=120).print(table)
    if options.cw:
        carlini_wagner(network, data.test)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {time.strftime('%Y-%m-%d')}")


def pgd(network: CNN, images: Tensor, labels: Tensor) -> list[Way]:
    """PGD by everybody."""
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)

    def ours(early_stop: bool) -> float:
        result = attacks.pgd(
            network,
            images,
            labels,
            epsilon=EPSILON,
            step_size=STEP_SIZE,
            steps=STEPS,
            early_stop=early_stop,
            generator=torch.Generator().manual_seed(0),
        )
        return 1 - result.success.float().mean().item()

    ways = [
        *by_foolbox(theirs, network, images, labels),
        Way("this project", lambda: ours(True)),
        Way("this project, to the end", lambda: ours(False)),
    ]
    if torchattacks:
        attack = torchattacks.PGD(network, eps=EPSILON, alpha=STEP_SIZE, steps=STEPS)
        ways.append(Way("torchattacks", lambda: standing(network, attack(images, labels), labels)))
    return ways


def fgsm(network: CNN, images: Tensor, labels: Tensor) -> list[Way]:
    """FGSM by everybody."""

    def ours() -> float:
        return 1 - attacks.fgsm(network, images, labels, epsilon=EPSILON).success.float().mean().item()

    theirs = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    ways = [*by_foolbox(theirs, network, images, labels), Way("this project", ours)]
    if torchattacks:
        attack = torchattacks.FGSM(network, eps=EPSILON)
        ways.append(Way("torchattacks", lambda: standing(network, attack(images, labels), labels)))
    return ways


def by_foolbox(attack: foolbox.Attack, network: CNN, images: Tensor, labels: Tensor) -> list[Way]:
    """As it comes, and with frozen parameters in batches of several sizes."""
    model = foolbox.PyTorchModel(network, bounds=(0, 1))

    def run(batch: int, *, frozen: bool) -> float:
        network.requires_grad_(not frozen)
        try:
            parts = zip(images.split(batch), labels.split(batch), strict=True)
            fooled = [attack(model, x, foolbox.criteria.Misclassification(y), epsilons=EPSILON)[2] for x, y in parts]
        finally:
            network.requires_grad_(True)
        return 1 - torch.cat(fooled).float().mean().item()

    batches = sorted({min(batch, len(images)) for batch in BATCHES})
    return [
        Way("foolbox", lambda: run(len(images), frozen=False)),
        *(Way(f"foolbox, frozen, batches of {b}", lambda b=b: run(b, frozen=True)) for b in batches),  # type: ignore[misc]
    ]


def measure(ways: list[Way], num_rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each way in each round, and the accuracy left; a first round drops all but the best batch size."""
    first = {way.name: seconds(way.run) for way in ways}
    tuned = sorted((name for name in first if name.startswith("foolbox, ")), key=lambda name: first[name][0])
    kept = [way for way in ways if way.name not in tuned[1:]]
    times: dict[str, list[float]] = {way.name: [] for way in kept}
    for _ in range(num_rounds):
        for way in kept:
            times[way.name].append(seconds(way.run)[0])
    return times, {way.name: first[way.name][1] for way in kept}


def carlini_wagner(network: CNN, test: Images) -> None:
    """Ten digits, each as the nine others: success, mean L2 norm and time of the targeted attack and of C&W's."""
    images, labels = test[test.of_each_class(10)]
    row, target = (~torch.eye(10, dtype=torch.bool)).nonzero(as_tuple=True)
    x = images[labels.argsort()][row]
    network.requires_grad_(False)
    start = time.perf_counter()
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=1000)
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, theirs, found = attack(model, x, foolbox.criteria.TargetedMisclassification(target), epsilons=None)
    middle = time.perf_counter()
    ours = attacks.targeted(network, x, target, beta=6.5, steps=300, step_size=0.1, confidence=0.5)
    end = time.perf_counter()
    distance = l2(theirs - x)[:, 0, 0, 0][found].mean().item()
    own = l2(ours.perturbation)[:, 0, 0, 0][ours.success].mean().item()
    print(f"Carlini and Wagner (foolbox): {int(found.sum())}/90, mean L2 {distance:.3f}, {middle - start:.1f} s")
    print(f"targeted (this project):      {int(ours.success.sum())}/90, mean L2 {own:.3f}, {end - middle:.1f} s")
    print(f"ratio of the norms {own / distance:.3f}, of the times {(end - middle) / (middle - start):.3f}")


def standing(network: CNN, images: Tensor, labels: Tensor) -> float:
    """The share of images that is right."""
    with torch.no_grad():
        return (network(images).argmax(1) == labels).float().mean().item()


def seconds(run: Callable[[], float]) -> tuple[float, float]:
    """How long it takes, and what it finds."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(x / y for x, y in zip(slow, fast, strict=True))


if __name__ == "__main__":
    main()
