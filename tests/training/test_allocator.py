"""Freed memory is kept: measured in page faults."""

import subprocess
import sys

import pytest

CODE = """
import os, resource, torch
from cnn_mnist.training.allocator import keep_freed_memory
child = os.fork()  # two processes for one import
if child:
    os.waitpid(child, 0)
keep_freed_memory(*([] if child else [10_000, 10_000]))
def step():
    blocks = [torch.empty(7_500_000).fill_(1) for _ in range(2)]  # 30 MB each
for _ in range(20):  # aligned blocks settle in their places within four to six steps, as the heap happens to lie
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_step_does_not_fetch_its_memory_anew() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    fetching, keeping = map(float, done.stdout.split())
    assert keeping < 100
    assert fetching > 10_000
