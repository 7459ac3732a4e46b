"""How many threads BLAS uses: one, while ours are at work.

Two of our threads that each call a BLAS of two threads fight for two cores, and spend their time waiting for each
other; and its threads go on spinning for a while when they have nothing left to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_libraries: list[tuple[Callable[[], int], Callable[[int], Any]]] | None = None  # how to ask each one, how to tell it
_holders: set[object] = set()  # the blocks that want BLAS at one thread
_before: list[int] | None = None  # the threads it had before the first of them


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS at one thread for the whole process, until the last of the blocks that ask for it ends.

    The blocks may be of different threads, and end in any order.
    """
    global _libraries, _before
    holder = object()
    with _lock:
        if _libraries is None:
            _libraries = _find()
        if _before is None:
            _before = [threads() for threads, _ in _libraries]
            for _, set_threads in _libraries:
                set_threads(1)
        _holders.add(holder)
    try:
        yield
    finally:
        with _lock:
            _holders.discard(holder)
            if not _holders and _before is not None:
                for (_, set_threads), before in zip(_libraries, _before):
                    set_threads(before)
                _before = None


def _find() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """For each BLAS library in this process, the functions that get and set its number of threads.

    threadpoolctl finds them.  OpenBLAS itself is told directly: from version 3.8 on, threadpoolctl passes on what the
    first thread says and drops what others say, as long as that thread lives.
    """
    found = []
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        set_threads = library.set_num_threads
        if library.internal_api == "openblas" and library.threading_layer != "openmp":
            names = (f"{a}openblas_set_num_threads{b}" for a in ("", "scipy_") for b in ("", "64_", "_64"))
            set_threads = next((getattr(library.dynlib, n) for n in names if hasattr(library.dynlib, n)), set_threads)
        found.append((library.get_num_threads, set_threads))
    return found


def _forget_holders() -> None:
    """A forked child has none of the parent's threads: the next block to end in it gives BLAS its threads back."""
    global _lock
    _lock = threading.Lock()
    _holders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_holders)
