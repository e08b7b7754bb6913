"""What whole commands cost: seconds by the clock and of the processor, and the most memory.

    python -m benchmarks.commands                        about 6 minutes on 2 cores; needs MNIST and a trained run
    python -m benchmarks.commands --rounds 1 --short     only those of a few seconds

Short commands stand beside the import of torch, which takes much of their time; long ones are run once. Processor
seconds are those of all threads, user and system.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from cnn_mnist.runs import locate

ROOT = Path(__file__).resolve().parents[1]
MISTAKE = "model.lrr=1"
SHORT = {
    "import_torch": ("-c", "import torch"),
    "import_lightning": ("-c", "import torch, pytorch_lightning"),
    "help": ("train.py", "--help"),
    "mistake": ("train.py", MISTAKE),
    "filters": ("analyze.py", "analysis=filters"),
    "fgsm": ("analyze.py", "attack=fgsm"),
    "first_step": ("train.py", "trainer=cpu", "callbacks=none", "+trainer.fast_dev_run=true"),
}
LONG = {
    "training": ("train.py", "trainer=cpu", "trainer.max_epochs=1"),
    "report": ("analyze.py",),
    "occlusion": ("analyze.py", "analysis=occlusion", "occlusion.num_images=10000"),
}


def main() -> None:
    """Measure in turns and keep medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST/raw/*.gz")
    parser.add_argument("--checkpoint", help="a run's folder; without one, the newest run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="leave out the long ones, and keep no record")
    options = parser.parse_args()
    run = Path(options.checkpoint or locate.newest().parents[1]).resolve()
    root = f"data.root={Path(options.root).resolve()}"
    more = {"analyze.py": [f"ckpt_path={run}", root], "train.py": [root]}
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for name, words in (SHORT | ({} if options.short or number else LONG)).items():
            own = [str(ROOT / words[0]), *more[words[0]], *words[1:]] if words[0] in more else words
            found.setdefault(name, []).append(cost(own))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    record: dict[str, Any] = {
        name: {key: statistics.median(one[key] for one in own) for key in own[0]} for name, own in found.items()
    }
    for name in SHORT:
        record[name]["beyond_torch"] = statistics.median(
            one["cpu_seconds"] - torch["cpu_seconds"]
            for one, torch in zip(found[name], found["import_torch"], strict=True)
        )
    if not options.short:
        processes.keep("commands", {"rounds": options.rounds, **record})


MEASURE = """
import json, os, subprocess, sys, time

start = time.perf_counter()
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
seconds, cpu_seconds = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
print(json.dumps([process.returncode, seconds, cpu_seconds, usage.ru_maxrss / 1000]))
"""


def cost(words: Sequence[str]) -> dict[str, float]:
    """Run Python with some arguments in an empty folder: its seconds, processor seconds, and MB of memory at most."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MEASURE, *words]  # a small process, whose size its child's begins with
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    status, seconds, cpu_seconds, megabytes = json.loads(done.stdout)
    assert status == (words[-1] == MISTAKE), words
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_megabytes": megabytes}


if __name__ == "__main__":
    main()
