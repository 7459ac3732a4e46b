"""Where the memory of emulated devices lies: in a range of addresses of its own, far from everything else.

A kernel that computes a wrong index writes near its arrays, some gigabytes away at most.  If they were in the heap,
it would hit Python's own objects, and the process would die much later, for no visible reason.  Here it hits either
another array of the device, as on a card, or pages that nobody may touch: the processor refuses, and the emulator names
line, block and thread.  Memory that is freed becomes such pages again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections import deque

import numpy as np

from ..errors import OutOfMemoryError

_PRIVATE, _ANONYMOUS = 0x2, 0x20 if os.uname().sysname == "Linux" else 0x1000
_NORESERVE = 0x4000 if os.uname().sysname == "Linux" else 0x40
_NO_ACCESS, _READ_WRITE = 0, 3
_DONTNEED = 4
LARGE = 1 << 20  # bytes from which freed pages go back to the system at once, and come from it as zeros


class Region:
    """Some pages of the arena as a NumPy array sees them; they go back when the last array over them is gone."""

    __slots__ = ("__array_interface__", "__weakref__", "ticket")

    def __init__(self, address: int, size: int, returned: deque[Ticket]):
        self.__array_interface__ = {"version": 3, "data": (address, False), "shape": (size,), "typestr": "|u1"}
        self.ticket = Ticket(self, returned.append)
        self.ticket.address, self.ticket.size = address, size


class Ticket(weakref.ref):  # type: ignore[type-arg]
    """Says which pages have gone: its callback, in C, where Ctrl-C cannot interrupt, puts it on a list."""

    __slots__ = ("address", "size")
    address: int
    size: int


class Arena:
    """A reserved range of addresses, of which pages are opened and closed."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for bits in (42, 39, 37):  # 4 TB of addresses, which take no memory; fewer where the system refuses
            size = 1 << bits
            start = self.libc.mmap(None, size, _NO_ACCESS, _PRIVATE | _ANONYMOUS | _NORESERVE, -1, 0)
            if start != ctypes.c_void_p(-1).value:
                break
        else:
            raise OutOfMemoryError("cudasim: the system has no 128 GB of addresses left: raise ulimit -v, or use cpu:0")
        self.margin = size // 8  # on both sides, never opened
        self.next, self.end = start + self.margin, start + size - self.margin
        self.free: dict[int, list[int]] = {}
        self.returned: deque[Ticket] = deque()
        self.lock = threading.RLock()

    def array(self, size: int) -> np.ndarray:
        """`size` bytes or a little more, zeros or what an array left there; OutOfMemoryError where there is no room."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self.lock:
            self.settle()
            waiting = self.free.get(size)
            if waiting:
                address = waiting.pop()
            else:
                address, self.next = self.next, self.next + size + mmap.PAGESIZE  # a closed page between two
        if address + size > self.end or self.libc.mprotect(address, size, _READ_WRITE):
            raise OutOfMemoryError(f"cudasim: the system gave no {size / 1e6:.1f} MB: use a smaller batch")
        return np.asarray(Region(address, size, self.returned))

    def settle(self) -> None:
        """Close the pages that have been returned."""
        with self.lock:
            while self.returned:
                gone = self.returned.popleft()
                if gone.size >= LARGE:
                    self.libc.madvise(gone.address, gone.size, _DONTNEED)
                self.libc.mprotect(gone.address, gone.size, _NO_ACCESS)
                self.free.setdefault(gone.size, []).append(gone.address)


_arena: Arena | None = None
_lock = threading.Lock()


def pages(size: int) -> np.ndarray:
    """At least `size` bytes of device memory as uint8, contents undefined (zeros if they are a megabyte or more)."""
    global _arena
    with _lock:
        if _arena is None:
            _arena = Arena()
    return _arena.array(size)


def settle() -> None:
    """Close the pages of arrays that are gone: before every step of a device."""
    if _arena is not None:
        _arena.settle()


def after_fork() -> None:
    """New locks for a forked child."""
    global _lock
    _lock = threading.Lock()
    if _arena is not None:
        _arena.lock = threading.RLock()
