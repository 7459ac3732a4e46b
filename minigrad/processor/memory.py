"""Memory for arrays, kept for the next array.

A large array is cheap to compute and expensive to get: the system maps its pages one by one, and clears each, which
costs more than an addition that fills it.  Training makes arrays of the same sizes step after step.  So arrays from
`empty` take their memory from a pool and give it back when the last view of them is gone: from the second step on
nothing new is asked of the system, and an op writes to memory that another has just released and that is still in the
cache.

Every thread has a pool of its own (and every device has threads of its own: parallel.py): no thread waits for another's
lock, and no thread gets memory that lies in the cache of another core.  A pool holds no more than `pool_limit()`
bytes of free memory; `memory_summary()` shows what is held, `empty_cache()` returns it to the system.  What is given
back is sorted in when the thread next asks for an array.

    y = empty((64, 55, 55, 96), np.float32)        # like np.empty
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np

from ..base.arguments import integer

SMALLEST = 1 << 17  # bytes; the C library reuses smaller memory itself (glibc maps new pages from 128 kB on)
HUGE_PAGES = 1 << 22  # bytes from which we ask for pages of 2 MB, as NumPy does

_limit = 1 << 30


class Memory:
    """Bytes straight from the system, which go straight back when this object goes."""

    __slots__ = ("address", "pages", "size")

    def __init__(self, size: int):
        if hasattr(mmap, "MAP_PRIVATE"):  # not so on Windows, whose anonymous memory is private anyway
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            pages = mmap.mmap(-1, size)
        if size >= HUGE_PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        self.pages, self.size = np.frombuffer(pages, np.uint8), size
        self.address = self.pages.__array_interface__["data"]


class Loan:
    """Memory of one array.  The array refers to it as its base: when the last view of it goes, so does this."""

    __slots__ = ("__array_interface__", "__weakref__", "ticket")
    __array_interface__: dict[str, Any]
    ticket: Ticket


class Ticket(weakref.ref):  # type: ignore[type-arg]
    """Goes with a Loan, and into its pool's `returned` when the Loan goes: its callback is `returned.append`.

    That runs no Python code.  In a `__del__`, or in a callback written in Python, Ctrl-C could be raised, and Python
    drops what is raised there; it would also need a lock, since an array may go in any thread at any moment.
    """

    __slots__ = ("memory",)
    memory: Memory


class Pool:
    """The free memory of one thread, by size; the sizes that were not asked for longest go first."""

    def __init__(self, name: str):
        self.name = name
        self.free: OrderedDict[int, list[Memory]] = OrderedDict()  # most recently used size last
        self.returned: deque[Ticket] = deque()  # of arrays that are gone; to be sorted into `free`
        self.held = self.used = self.peak = self.reused = self.mapped = 0
        self.lock = threading.RLock()  # empty_cache, set_pool_limit and memory_summary come from other threads

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> np.ndarray:
        size = rounded(size)
        with self.lock:
            self.settle()
            memory = self.waiting(size)
            if memory is not None:
                size = memory.size
                self.held -= size
                self.reused += 1
            self.used += size
            if self.used > self.peak:
                self.peak = self.used
        if memory is None:
            memory = Memory(size)
            self.mapped += 1
        loan = Loan()
        loan.__array_interface__ = {"version": 3, "data": memory.address, "shape": shape, "typestr": dtype.str}
        loan.ticket = ticket = Ticket(loan, self.returned.append)
        ticket.memory = memory
        return np.asarray(loan)

    def waiting(self, size: int) -> Memory | None:
        """Free memory of this size, else of the next larger one up to half as large again: better than more memory.

        The last one returned, as it may be in the cache.
        """
        free = self.free.setdefault(size, [])
        if not free:
            size = min((s for s, f in self.free.items() if f and size < s <= size * 3 // 2), default=size)
            free = self.free[size]
        self.free.move_to_end(size)
        return free.pop() if free else None

    def settle(self) -> None:
        """Sort in what has been returned, as far as the limit allows."""
        returned = self.returned
        with self.lock:
            while returned:
                memory = returned.popleft().memory
                self.used -= memory.size
                self.held += memory.size
                self.free.setdefault(memory.size, []).append(memory)
            if self.held > _limit:
                self.shrink(_limit)

    def shrink(self, limit: int) -> None:
        """Return free memory to the system until no more than `limit` bytes of it are left."""
        with self.lock:
            while self.held > limit:
                size, memories = next(iter(self.free.items()))
                if memories:
                    memories.pop(0)
                    self.held -= size
                else:
                    del self.free[size]


def rounded(size: int) -> int:
    """`size` rounded up to one of eight sizes per power of two, so that batches of nearly one size share memory.

    What is added is at the end and is never touched: it costs addresses, not memory.
    """
    step = max(mmap.PAGESIZE, 1 << (size.bit_length() - 4))
    return -(-size // step) * step


_local = threading.local()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_pools_lock = threading.Lock()


def own_pool() -> Pool:
    """The pool of the calling thread."""
    try:
        return _local.pool
    except AttributeError:
        _local.pool = pool = Pool(threading.current_thread().name)
        with _pools_lock:
            _pools.add(pool)
        return pool


def empty(shape: tuple[int, ...], dtype: Any, pool: Pool | None = None) -> np.ndarray:
    """A new C-contiguous array, contents undefined: np.empty, with memory that is used again.

    pool: another thread's, where the array is for that thread; by default the caller's own.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size < SMALLEST or size > _limit:
        return np.empty(shape, dtype)
    return (pool or own_pool()).lend(shape, dtype, size)


def empty_like(x: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A new array of x's shape, its axes in memory in the order in which x has them: np.empty_like from the pool."""
    if x.nbytes < SMALLEST:
        return np.empty_like(x, dtype)
    dtype = dtype or x.dtype
    if x.flags.c_contiguous:
        return empty(x.shape, dtype)
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    y = empty(tuple(x.shape[axis] for axis in order), dtype)
    return y.transpose(sorted(range(x.ndim), key=order.__getitem__))


# ---------------------------------------------------------------- what is held, and giving it back


def _all_pools() -> list[Pool]:
    with _pools_lock:
        pools = sorted(_pools, key=lambda pool: pool.name)
    for pool in pools:
        pool.settle()
    return pools


def memory_summary() -> str:
    """A table, one row per thread: MB in arrays that are alive, their peak, MB free for the next; arrays so far.

    Counted are arrays from 128 kB to pool_limit() that ops made; a tensor made from an array of yours is not.
    """
    lines = [f"{'thread':28}{'in use, MB':>12}{'peak, MB':>12}{'free, MB':>12}{'reused':>12}{'new':>10}"]
    pools = _all_pools()
    for pool in pools:
        lines.append(
            f"{pool.name:28}{pool.used / 1e6:12.1f}{pool.peak / 1e6:12.1f}{pool.held / 1e6:12.1f}"
            f"{pool.reused:12,}{pool.mapped:10,}"
        )
    used, held = (sum(getattr(pool, name) for pool in pools) for name in ("used", "held"))
    reused, new = (sum(getattr(pool, name) for pool in pools) for name in ("reused", "mapped"))
    lines.append(f"{'all':28}{used / 1e6:12.1f}{'':12}{held / 1e6:12.1f}{reused:12,}{new:10,}")
    return "\n".join(lines)


def empty_cache() -> int:
    """Return the free memory of all threads to the system; the number of bytes returned."""
    pools = _all_pools()
    before = sum(pool.held for pool in pools)
    for pool in pools:
        pool.shrink(0)
    return before - sum(pool.held for pool in pools)


def pool_limit() -> int:
    """How many bytes of free memory each thread may keep: 1 GB unless set_pool_limit said otherwise."""
    return _limit


def set_pool_limit(limit: int) -> None:
    """Let each thread keep at most `limit` bytes of free memory; 0 keeps nothing.  ArgumentError below 0."""
    global _limit
    _limit = integer("set_pool_limit", "limit", limit, 0)
    for pool in _all_pools():
        pool.shrink(_limit)


def _forget_pools() -> None:
    """A forked child starts with pools of its own: the parent's locks may be held by threads that it does not have."""
    global _local, _pools_lock
    _local, _pools_lock = threading.local(), threading.Lock()
    for pool in list(_pools):
        pool.lock = threading.RLock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


# ---------------------------------------------------------------- the C library's own pool

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # mallopt takes a C int


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees, for its next arrays; True where it agreed.

    For the arrays that do not come from `empty`: those of your own NumPy code.  glibc takes an array above 32 MB from
    the system when it is made and gives it back when it is freed.  The process then stays as large as it once was.
    Call it before the first large array, and once: it holds for the whole process and every library in it, so a program
    decides about it, never an import.  Arrays above 2 GB go back to the system all the same.  Linux with glibc only;
    elsewhere nothing happens, and the answer is False.
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
