"""How OpenMP's threads wait for one another: to be set before torch is imported."""

import os

SPIN_COUNT = 3_000  # libgomp's own is 300,000; docs/performance.md has what each costs


def limit_spinning() -> None:
    """Let waiting threads sleep sooner, unless the environment says how they wait.

    A thread that has nothing to do spins, so that it goes on at once. Beside another busy process it keeps a core from
    the thread that it waits for. The number of threads, and with it every result, stays what it is.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
