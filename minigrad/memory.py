"""Freed memory, kept for the next array.

The C library of Linux (glibc) takes an array above 32 MB from the system when it is made and gives it back when it is
freed.  Training makes arrays of the same sizes step after step, and every one of them comes as fresh pages, which the
system maps and clears one by one.  The gradients of AlexNet's fc6 and fc7 alone are 220 MB a step.  Keeping the pages
takes a train step at batch 128 from 6.98 to 5.81 seconds (benchmarks/results/alexnet_step.md).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # mallopt takes a C int


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees, for its next arrays; True where it agreed.

    The process then stays as large as it once was.  Call it before the first large array, and once: it holds for the
    whole process and every library in it, so a program decides about it, never an import.  Arrays above 2 GB go back to
    the system all the same.  Linux with glibc only; elsewhere nothing happens, and the answer is False.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library without it (musl)
        return False
    # One arena for all threads: what the others keep is in heaps of 64 MB, too small for large arrays.
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST))
    return all(mallopt(name, value) == 1 for name, value in settings)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array, contents undefined, C-contiguous; large ones reuse memory that this thread's arrays gave back."""
    return np.empty(shape, dtype)
