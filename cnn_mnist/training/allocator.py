"""Keep memory that a training step frees in the process, for the next step.

By default the C library returns freed blocks of some megabytes to the system and requests them again page by page:
5,200 page faults in a step of this network (batches of 100); docs/performance.md has what keeping them gains.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's parameters (glibc, malloc.h)


def keep_freed_memory(largest: int = 32 * 2**20, most: int = 2**31 - 1) -> None:
    """Tell glibc to keep freed memory for the rest of the process; does nothing with other C libraries.

    Args:
        largest: Bytes of the largest block to keep; glibc takes no more than 32 MiB.
        most: Most bytes to keep at the end of the heap.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(MMAP_THRESHOLD, largest)
        mallopt(TRIM_THRESHOLD, most)
