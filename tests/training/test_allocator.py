"""Freed memory is kept: measured in page faults."""

import subprocess
import sys

import pytest

CODE = """
import resource, torch
from cnn_mnist.training.allocator import keep_freed_memory
{call}
def step():
    blocks = [torch.empty(7_500_000).fill_(1) for _ in range(2)]  # 30 MB each
for _ in range(20):  # aligned blocks settle in their places within four to six steps, as the heap happens to lie
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def faults(call: str) -> float:
    """Page faults of a step that fills and frees two large blocks."""
    done = subprocess.run([sys.executable, "-c", CODE.format(call=call)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_step_does_not_fetch_its_memory_anew() -> None:
    assert faults("keep_freed_memory()") < 100
    assert faults("keep_freed_memory(10_000, 10_000)") > 10_000
