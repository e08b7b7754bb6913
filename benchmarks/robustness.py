"""Accuracy under attack: every attack on networks of every kind, on the whole test set, beside published numbers.

    python -m benchmarks.robustness                                   of the runs that benchmarks.results has trained
    python -m benchmarks.robustness robust=RUN,RUN --device cuda      of these; printed, and no record is written
    python -m benchmarks.robustness robust=RUN --measures clean,auto  only these
    python -m benchmarks.robustness --write certified=RUN,RUN         in the record, these replace those of their seeds

No pixel changes by more than 0.3. On 2 cores a robust network takes about an hour, on a GPU a few minutes. The result
of every 1,000 images is kept in outputs/results/robustness, so that an interrupted measurement resumes where it
stopped. The record is the part `robustness` of docs/results.json, and RESULTS.md is written anew.
"""

import argparse
import functools
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import results_page
from benchmarks.tables import percent
from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import is_proven
from cnn_mnist.attacks.result import predict
from cnn_mnist.data.batches import Images
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.published import EPSILON
from cnn_mnist.runs import checkpoint, files
from cnn_mnist.runs.record import surroundings
from cnn_mnist.sweeps import jobs
from cnn_mnist.training.allocator import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path("outputs", "results", "robustness")
PGD = functools.partial(attacks.pgd, steps=50, restarts=10)
ATTACKS: dict[str, Callable[..., attacks.AttackResult]] = {
    "auto": attacks.auto,
    "fgsm": attacks.fgsm,
    "pgd": functools.partial(PGD, step_size=0.01),
    "pgd_large_steps": functools.partial(PGD, step_size=0.019),
    "apgd": attacks.apgd,
    "square": attacks.square,
    "boundary": functools.partial(attacks.boundary, norm="linf"),
}
CERTIFIED = {"certified": EPSILON, "certified_at_0.1": 0.1}
FOR_EVERY_SEED = ("clean", "auto", *CERTIFIED)
MEASURES = (*FOR_EVERY_SEED, *(name for name in ATTACKS if name != "auto"))  # of the first seed
PAIR = ("undefended", "robust")  # the networks of the checklist: the first of each
PART = 1000  # images whose result is kept in a file of its own


def main() -> None:
    """Measure what is missing, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME=RUN[,RUN]")
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boundary-images", type=int, default=1000, help="for the attack that sees classes alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measures", help=f"of {','.join(MEASURES)}")
    parser.add_argument("--remark", help="for the record, such as what ran beside a training")
    parser.add_argument("--write", action="store_true", help="write the networks that are named into the record")
    asked = parser.parse_args()
    if unknown := set((asked.measures or "clean").split(",")) - {*MEASURES}:
        parser.error(f"--measures must be of {','.join(MEASURES)}, got {','.join(sorted(unknown))}")
    if malformed := [word for word in asked.networks if "=" not in word]:
        parser.error(f"a network must be NAME=RUN[,RUN], got {malformed[0]}")
    named = dict(word.split("=", 1) for word in asked.networks)
    runs = {name: [Path(run) for run in found.split(",")] for name, found in named.items()} or finished_runs()
    if not runs:
        parser.error("there are no networks: name some, or train them with python -m benchmarks.results")
    keep_freed_memory()
    try:
        facts = {run: training_facts(run) | {"weights": fingerprint(run)} for run in itertools.chain(*runs.values())}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    test = DataModule(root=asked.root, fallback=None).ready().test
    for option, number in (("--images", asked.images), ("--boundary-images", asked.boundary_images)):
        if not 1 <= number <= len(test):
            parser.error(f"{option} must be in 1..{len(test)}, got {number}")
    networks: dict[str, list[dict[str, Any]]] = {}
    for name, folders in runs.items():
        for index, run in enumerate(folders):
            for_boundary = min(asked.boundary_images, asked.images)
            how = {"num_images": asked.images, "num_boundary_images": for_boundary}
            how |= {"date": time.strftime("%Y-%m-%d")}
            how |= {"remark": asked.remark} if asked.remark else {}
            usual = FOR_EVERY_SEED if index else MEASURES
            shares = {}
            for measure in asked.measures.split(",") if asked.measures else usual:
                number = for_boundary if measure == "boundary" else asked.images
                shares[measure] = cached(run, measure, test, number, torch.device(asked.device))
                print(name, run.name, measure, shares[measure], flush=True)
            networks.setdefault(name, []).append(facts[run] | how | {"measured": shares})
    if (asked.measures or asked.networks) and not asked.write:
        return
    record: dict[str, Any] = results_page.record().get("robustness", {}) | {"epsilon": EPSILON}
    known = record.get("networks", {})
    record["networks"] = known | {name: extended(known.get(name, []), found) for name, found in networks.items()}
    pair = [found[0].get("weights") for name in PAIR if (found := record["networks"].get(name))]
    if record.get("checklist", {}).get("weights") != pair:
        record.pop("checklist", None)  # it is of other networks
    if set(PAIR) <= runs.keys() and not asked.measures:
        undefended, robust = (runs[name][0] for name in PAIR)
        record["checklist"] = checklist(robust, undefended) | {"weights": pair}
    results_page.update_record({"robustness": record})


def extended(known: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The networks found now; to one that is known, what has been measured now is added, and its remark stays.

    What is known of the same networks on another number of images stays, and so do the recipe's other seeds. The
    largest number of images comes first, then the lowest seed.
    """
    same = ("weights", "num_images", "num_boundary_images")
    before = {tuple(run.get(key) for key in same): run for run in known}
    pairs = [(before.pop(tuple(run[key] for key in same), {"measured": {}}), run) for run in found]
    weights = {run["weights"] for run in found}
    recipes, seeds = ({run[key] for run in found} for key in ("recipe", "seed"))
    others = [
        run
        for run in before.values()
        if run.get("weights") in weights or (run["recipe"] in recipes and run["seed"] not in seeds)
    ]
    both = [old | run | {"measured": old["measured"] | run["measured"]} for old, run in pairs] + others
    return sorted(both, key=lambda run: (-run["num_images"], run["seed"]))


def checklist(run: Path, other: Path) -> dict[str, Any]:
    """What `attack=checklist` finds, into a folder of its own; not again where it has been found.

    Raises:
        SystemExit: It found nothing.
    """
    place = CACHE / fingerprint(run) / f"checklist-{fingerprint(other)}"
    if not (place / "results.json").exists():
        given = {"ckpt_path": run, "against": other, "hydra.run.dir": place}
        words = ["attack=checklist", *(f"{key}={files.typed(str(path))}" for key, path in given.items())]
        status = subprocess.run([sys.executable, str(ROOT / "analyze.py"), *words]).returncode
        if not (place / "results.json").exists():  # with it, status 1 says that a point does not hold
            raise SystemExit(status)
    found = json.loads((place / "results.json").read_text(encoding="utf-8"))
    points = [point | {"measured": decisive(point["key"], found)} for point in found["points"]]
    return {"points": points} | {key: found[key] for key in ("num_images", "num_holding", "num_points", "device")}


def decisive(key: str, found: dict[str, Any]) -> Any:
    """The number or the words by which a point is judged."""
    value: Any = found
    for name in key.split("."):
        value = value[name]
    if key == "curve":
        pairs = zip(value["epsilon"], value["robust_acc"], strict=True)
        return ", ".join(f"{percent(share)} at {epsilon:g}" for epsilon, share in pairs)
    return value if isinstance(value, str) else percent(value)


def finished_runs() -> dict[str, list[Path]]:
    """The runs of `benchmarks.results`: undefended (seed 0), the same with batch normalisation, robust, certified."""
    found: dict[str, list[Path]] = {}
    for folder in (Path("multirun", f"results-{recipe}") for recipe in ("paper", "robust", "certified")):
        for job in jobs.jobs(folder) if (folder / "jobs.json").exists() else []:
            if job.status != jobs.DONE or job.folder is None:
                continue
            recipe, is_normalised = str(job.results["recipe"]), job.results["batchnorm"]
            if recipe == "paper" and job.results["seed"] == 0:
                found.setdefault("batchnorm" if is_normalised else "undefended", [job.folder])
            elif recipe != "paper":
                found.setdefault(recipe, []).append(job.folder)
    return found


def training_facts(run: Path) -> dict[str, Any]:
    """How a network was trained, by its record.

    Raises:
        OSError: There is no such folder, or no record in it.
    """
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    keys = ("recipe", "overrides", "seed", "epochs", "fit_seconds", "device", "num_threads", "git_commit")
    return {key: record[key] for key in keys}


def fingerprint(run: Path) -> str:
    """Of the network's weights."""
    digest = hashlib.sha256()
    for name, value in checkpoint.load(run).state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:16]


def cached(run: Path, measure: str, test: Images, number: int, device: torch.device) -> dict[str, Any]:
    """A measurement as it is kept; what is missing of it is measured now."""
    folder, network = CACHE / fingerprint(run), checkpoint.load(run).to(device)
    parts = test.evenly_spaced(number).split(PART)
    found, total = [], 0.0
    for index, chosen in enumerate(parts, 1):
        suffix = "" if len(parts) == 1 else f"-{index}"
        place = folder / f"{measure}-{number}{suffix}.json"
        if not place.exists():
            images, labels = (values.to(device) for values in test[chosen])
            proven = known_to_hold(network, images, labels) if measure in ATTACKS else None  # not timed
            start = time.perf_counter()
            share = measured_share(network, measure, images, labels, proven)
            taken = {"share": share, "seconds": round(time.perf_counter() - start, 1)}
            folder.mkdir(parents=True, exist_ok=True)
            files.write(place, json.dumps(taken | surroundings(device), indent=2) + "\n")
        found.append(json.loads(place.read_text(encoding="utf-8")))
        total += found[-1]["share"] * len(chosen)
    devices = " and ".join(sorted({part["device"] for part in found}))
    return {"share": total / number, "seconds": round(sum(part["seconds"] for part in found), 1), "device": devices}


def known_to_hold(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is proven, bool (N,); none is of a network that there are no bounds for."""
    with suppress(ValueError):
        return is_proven(network, images, labels, epsilon=EPSILON)
    return torch.zeros_like(labels, dtype=torch.bool)


def measured_share(network: nn.Module, measure: str, images: Tensor, labels: Tensor, proven: Tensor | None) -> float:
    """The share of the images that is classified correctly, under an attack or not, or that is proven.

    Images that are proven, bool (N,), are not attacked: no attack can change their class.
    """
    if measure in CERTIFIED:
        return is_proven(network, images, labels, epsilon=CERTIFIED[measure]).double().mean().item()
    attacked = images.clone()
    if proven is not None and not proven.all():
        found = ATTACKS[measure](network, images[~proven], labels[~proven], epsilon=EPSILON).images
        assert (found - images[~proven]).abs().max() <= EPSILON + 1e-6
        assert 0 <= found.min() <= found.max() <= 1
        attacked[~proven] = found
    with torch.no_grad():
        return (predict(network, attacked).argmax(1) == labels).double().mean().item()


if __name__ == "__main__":
    main()
