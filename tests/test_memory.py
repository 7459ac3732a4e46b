"""keep_freed_memory: the second large array costs no fresh pages.  In a process of its own: it holds for all of it."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys

import numpy as np

from minigrad.processor.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("not here")
    raise SystemExit


def faults_of_one_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults_of_one_array()
print(faults_of_one_array())
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, timeout=60)
    if "not here" in done.stdout:
        pytest.skip("the C library here has no mallopt (Linux with glibc has)")
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_the_second_array_reuses_the_pages_of_the_first():
    fresh, kept = faults("no"), faults("keep")
    assert kept < 100
    assert fresh == 0 or kept < fresh / 4  # pages may be huge (2 MB), then both are few
