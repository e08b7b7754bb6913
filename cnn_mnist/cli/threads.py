"""How OpenMP's threads wait for one another: less eagerly where other processes keep the cores busy.

A thread that waits spins at first, so that it can go on at once. Beside a busy process it thereby keeps a core from the
very thread that it waits for. libgomp reads from the environment how long to spin, when torch is imported; until then
commands look at how busy the machine is. The number of threads, and with it every result, stays what it is.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

SPIN_COUNT = 1_000  # of libgomp's 300,000; docs/performance.md has what each costs
SPARE = 0.3  # of a core: less than this is no neighbour
STAT = Path("/proc/stat")  # Linux


class Usage(NamedTuple):
    """Seconds since the start of the machine, and of processor time since then: of all processes and of this one."""

    clock: float
    everyone: float
    own: float


def usage() -> Usage | None:
    """What the processors have done so far; None where the system does not say."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, STAT.read_text().split(maxsplit=8)[1:8])
    except (OSError, ValueError):
        return None
    everyone = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return Usage(time.monotonic(), everyone, time.process_time())


_START = usage()


def limit_spinning() -> None:
    """Limit spinning if other processes have used the cores since the start, unless the environment says how to."""
    now = usage()
    if _START is None or now is None or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    num_cores, num_threads = os.cpu_count() or 1, os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(num_threads) if num_threads.isdecimal() else len(os.sched_getaffinity(0))
    if used_by_others(_START, now) > num_cores - wanted + SPARE:
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def used_by_others(before: Usage, after: Usage) -> float:
    """How many cores the other processes kept busy between two moments."""
    everyone, own = after.everyone - before.everyone, after.own - before.own
    return (everyone - own) / max(after.clock - before.clock, 1e-3)
