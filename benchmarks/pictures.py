"""Accuracy on pictures: digits of MNIST on paper of 21 kinds, read back by `load_picture`, and classified.

    python -m benchmarks.pictures default=RUN tuned=RUN handwriting=RUN     about 8 minutes on 2 cores
    python -m benchmarks.pictures --hold-out default=RUN tuned=RUN          of training images held out, to choose by

Each picture shows another digit, with a kind of paper, pen and light and one of three strengths drawn for it
(tests/data/paper.py). Every network sees the same pictures. Other people's handwriting is scikit-learn's digits: 1,797
of 8x8, framed like MNIST's, of which none is trained on. Of several runs, RUN,RUN, the mean accuracy is taken.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import processes
from cnn_mnist.attacks.result import predict
from cnn_mnist.data import digits, picture
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.runs import checkpoint
from tests.data import paper

HELD_OUT = 5000
KINDS = list(paper.KINDS)


class Shown(NamedTuple):
    """A picture as the networks see it: image (1, 28, 28), or None where it was refused, its class and its kind."""

    image: Tensor | None
    label: int
    kind: str


def main() -> None:
    """Draw the pictures, read them, classify them, and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NAME=RUN[,RUN]")
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--hold-out", action="store_true", help="of training images held out; printed, not kept")
    asked = parser.parse_args()
    data = DataModule(root=asked.root, val_size=HELD_OUT if asked.hold_out else 0, fallback=None).ready()
    images, labels = (data.val if asked.hold_out else data.test)[:]
    tasks = [(images[k % len(images), 0].numpy(), int(labels[k % len(images)]), k) for k in range(asked.pictures)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        shown = list(pool.map(_shown, tasks, chunksize=50))
    read = [one for one in shown if one.image is not None]
    sets = {
        "images": (images, labels),
        "pictures": (torch.stack([one.image for one in read if one.image is not None]), _labels(read)),
        "others": _scikit_learns(),
    }
    found: dict[str, Any] = {
        "num_images": len(images),
        "num_pictures": len(shown),
        "num_refused": len(shown) - len(read),
        "num_others": len(sets["others"][1]),
        "num_kinds": len(KINDS),
    }
    for name, runs in (one.split("=", 1) for one in asked.networks):
        correct: dict[str, list[Tensor]] = {key: [] for key in sets}
        for run in runs.split(","):
            network = checkpoint.load(run)
            for key, (seen, expected) in sets.items():
                correct[key].append((predict(network, seen).argmax(1) == expected).double())
        means = {key: torch.stack(values).mean(0) for key, values in correct.items()}
        correct_of = dict.fromkeys(range(len(shown)), 0.0)  # a refused picture is not classified correctly
        where = (k for k, one in enumerate(shown) if one.image is not None)
        correct_of |= dict(zip(where, means["pictures"].tolist(), strict=True))
        means["pictures"] = torch.tensor(list(correct_of.values()))
        by_kind = {
            kind: means["pictures"][[one.kind == kind for one in shown]].mean().item()
            for kind in KINDS
            if any(one.kind == kind for one in shown)
        }
        found[name] = {key: round(values.mean().item(), 5) for key, values in means.items()}
        found[name] |= {"num_runs": len(runs.split(",")), "worst_kind": min(by_kind, key=by_kind.__getitem__)}
        found[name] |= {"worst_kind_accuracy": round(min(by_kind.values()), 4)}
        print(name, json.dumps(found[name]))
    if not asked.hold_out:
        processes.keep("pictures", found)


def _shown(task: tuple[np.ndarray, int, int]) -> Shown:
    digit, label, seed = task
    random = np.random.default_rng(seed)
    kind, strength = KINDS[random.integers(len(KINDS))], int(random.integers(3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.png")
        Image.fromarray(paper.picture(kind, digit, strength, seed)).save(path, compress_level=1)
        try:
            return Shown(picture.read(path).image[0], label, kind)
        except ValueError:
            return Shown(None, label, kind)


def _labels(shown: list[Shown]) -> Tensor:
    return torch.tensor([one.label for one in shown])


def _scikit_learns() -> tuple[Tensor, Tensor]:
    """All of scikit-learn's digits, framed like MNIST's: images (N, 1, 28, 28) in [0, 1] and labels."""
    parts = digits.digits().values()
    return torch.cat([images for images, _ in parts]).float() / 255, torch.cat([labels for _, labels in parts])


if __name__ == "__main__":
    main()
