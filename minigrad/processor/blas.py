"""What NumPy does not say to its BLAS: how many threads to use, and to add a product to what is there.

Threads.  Two of our threads that each call a BLAS of two threads fight for two cores, and spend their time waiting for
each other; and its threads go on spinning for a while when they have nothing left to do.  So BLAS has one thread while
ours are at work.

Sums of products.  BLAS's product is  c = alpha a b + beta c.  np.matmul always leaves beta at 0, so that a sum of
products would write each of them to memory, and read it there to add it; `add_product` says beta = 1.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

Array = np.ndarray[Any, Any]

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


# ---------------------------------------------------------------- sums of products

_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112  # CBLAS_ORDER and CBLAS_TRANSPOSE
_products: dict[str, Callable[..., None] | None] = {}  # the element type's letter -> BLAS's own function, once found


def add_product(a: Array, b: Array, out: Array) -> None:
    """out += a @ b, for matrices of one element type, each with its rows or its columns in runs of memory.

    By BLAS itself where NumPy's is found; else, and for matrices that BLAS does not take, in two steps by NumPy.
    """
    if a.dtype.char not in _products:
        _products[a.dtype.char] = _find_product(a.dtype)
    product = _products[a.dtype.char]
    sides = _as_blas_sees(a), _as_blas_sees(b), _as_blas_sees(out)
    if product is None or None in sides or sides[2][0] != _AS_IT_IS or 0 in (*out.shape, a.shape[1]):  # type: ignore[index]
        with np.errstate(invalid="ignore", over="ignore"):  # of which BLAS says nothing
            out += a @ b
        return
    (order_a, at_a, step_a), (order_b, at_b, step_b), (_, at_out, step_out) = sides  # type: ignore[misc]
    sizes = (*out.shape, a.shape[1])
    product(_ROW_MAJOR, order_a, order_b, *sizes, 1.0, at_a, step_a, at_b, step_b, 1.0, at_out, step_out)


def _as_blas_sees(x: Array) -> tuple[int, int, int] | None:
    """A matrix as BLAS is told of it: whether transposed, its address, elements from a row (or column) to the next."""
    (rows, columns), (down, across), size = x.shape, x.strides, x.itemsize
    if not x.flags.aligned:  # then steps are whole numbers, too
        return None
    at = x.__array_interface__["data"][0]
    if (across == size or columns == 1) and (rows == 1 or down >= columns * size):
        return _AS_IT_IS, at, max(columns, down // size) if rows > 1 else columns
    if (down == size or rows == 1) and across >= rows * size:
        return _TRANSPOSED, at, across // size
    return None


def _find_product(dtype: np.dtype[Any]) -> Callable[..., None] | None:
    """cblas_sgemm or cblas_dgemm of the BLAS that NumPy uses, as a function that lets go of Python's lock; or None."""
    if dtype.char not in "fd":
        return None
    real = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype.char]
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    for library in sorted(libraries, key=lambda library: "numpy" not in library.filepath):
        name = {"f": "cblas_sgemm", "d": "cblas_dgemm"}[dtype.char]
        for prefix, suffix in ((a, b) for a in ("scipy_", "") for b in ("64_", "_64", "")):
            function = getattr(library.dynlib, prefix + name + suffix, None)
            if function is None:
                continue
            size, at = (ctypes.c_int64 if suffix else ctypes.c_int32), ctypes.c_void_p
            function.argtypes = [*[ctypes.c_int] * 3, *[size] * 3, real, at, size, at, size, real, at, size]
            function.restype = None
            return function
    return None
