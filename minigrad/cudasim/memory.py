"""Memory of an emulated device: arrays that look like CuPy's, and can do no more than be looked at and cut.

Host code cannot compute with them: no `x + 1`, no np.exp(x), as for the memory of a card that NumPy cannot reach.
`get()` copies to the host, `reshape`, `transpose` and slices make views; all else is the business of kernels.

Around every piece of memory lie guard zones, which no kernel may write to.  Fresh memory is poisoned: every byte is
0xFF, which is NaN for floats and -1 for integers.  In check mode each byte also carries a mark, whether it was written.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeviceError, KernelError
from .arena import LARGE, pages
from .settings import current
from .streams import Access, Stream, ticket

GUARD = 512  # bytes before and after; also the alignment, larger than any real allocator's 256


class Memory:
    """One allocation: its bytes, and who may still be using it."""

    def __init__(self, stream: Stream, nbytes: int):
        settings = current()
        self.stream, self.nbytes = stream, nbytes
        memory = pages(nbytes + 3 * GUARD)
        if settings.poison:
            memory[: nbytes + 3 * GUARD] = 0xFF
        elif nbytes < LARGE:  # larger ones are zero already: pages that nobody touches take no memory
            memory[...] = 0
        start = GUARD + -(memory.ctypes.data + GUARD) % GUARD
        self.bytes = memory[start : start + nbytes]
        self.guards = memory[start - GUARD : start], memory[start + nbytes : start + nbytes + GUARD]
        number = next(_numbers)
        # A signalling NaN, whose bits arithmetic changes; another one for each array, so that copies of it show.
        self.pattern = np.full(GUARD // 4, 0x7FA00000 + number % (1 << 20), np.uint32).view(np.uint8)
        for guard in self.guards:
            guard[:] = self.pattern
        self.written = np.zeros(nbytes, np.uint8) if settings.mode == "check" and settings.poison else None
        self.access = Access(f"memory {number} of {stream.name}")
        self.ticket = ticket(self, stream, self.access, nbytes)

    def check_guards(self, where: str, label: str) -> None:
        """KernelError if a kernel has written beyond the ends."""
        for guard, side in zip(self.guards, ("before", "behind")):
            if not np.array_equal(guard, self.pattern):
                guard[:] = self.pattern
                raise KernelError(f"{where}:\nOUT-OF-BOUNDS: wrote {side} {label}, into its guard zone")


_numbers = itertools.count(1)


class Pointer:
    """Where an array begins: an address in a Memory, as CuPy's `array.data` has it."""

    __slots__ = ("ptr", "mem")

    def __init__(self, ptr: int, mem: Memory):
        self.ptr, self.mem = ptr, mem


class SimArray:
    """An array in the memory of an emulated device: the part of cupy.ndarray that minigrad uses.

    `host` is the same memory as NumPy sees it: for the emulator's own use.  Reading it anywhere else would be
    reading a card's memory from the host.
    """

    __slots__ = ("host", "memory", "__weakref__")
    __array_ufunc__ = None  # np.exp(x), numpy_array + x: refused
    __hash__ = object.__hash__

    def __init__(self, host: np.ndarray, memory: Memory):
        self.host, self.memory = host, memory

    @property
    def shape(self) -> tuple[int, ...]:
        return self.host.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.host.dtype

    @property
    def ndim(self) -> int:
        return self.host.ndim

    @property
    def size(self) -> int:
        return self.host.size

    @property
    def itemsize(self) -> int:
        return self.host.itemsize

    @property
    def nbytes(self) -> int:
        return self.host.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self.host.strides

    @property
    def flags(self) -> Any:
        return self.host.flags

    @property
    def data(self) -> Pointer:
        return Pointer(self.host.__array_interface__["data"][0], self.memory)

    @property
    def device(self) -> str:
        return self.memory.stream.name

    def __len__(self) -> int:
        return len(self.host)

    def __repr__(self) -> str:
        return f"SimArray(shape={self.shape}, dtype={self.dtype}, device='{self.device}')"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(f"an array on {self.device} is not turned into a NumPy array by itself: call its get()")

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of an array on {self.device} is not known to the host: call its get()")

    # ---------------------------------------------------------------- views

    def _view(self, host: np.ndarray) -> SimArray:
        return SimArray(host, self.memory)

    def reshape(self, *shape: Any) -> SimArray:
        """A view with another shape; DeviceError where it would take a copy."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        view = self.host.reshape(wanted)
        if self.size and not np.may_share_memory(view, self.host):
            raise DeviceError(f"reshape: {self.shape} with strides {self.strides} has no view of shape {wanted}")
        return self._view(view)

    def transpose(self, *axes: Any) -> SimArray:
        return self._view(self.host.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> SimArray:
        return self._view(self.host.swapaxes(a, b))

    @property
    def T(self) -> SimArray:  # noqa: N802 (NumPy's name)
        return self.transpose()

    def __getitem__(self, index: Any) -> SimArray:
        """A view: ints, slices, None and ... only."""
        for part in index if isinstance(index, tuple) else (index,):
            if not (part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))) or part is True:
                raise DeviceError(f"an array on {self.device} takes ints, slices, None and ... as index, got {part!r}")
        index = index if isinstance(index, tuple) else (index,)
        view = self.host[index if Ellipsis in index else (*index, Ellipsis)]  # with ...: an array, never a scalar
        return self._view(view)

    # ---------------------------------------------------------------- to the host

    def get(self) -> np.ndarray:
        """A copy for the host, memory order kept; waits for the device's stream.

        KernelError in check mode if some of it was never written.
        """
        stream = self.memory.stream
        stream.touch("get", [self.memory.access], [])
        stream.synchronize()
        self.check_written()
        return np.array(self.host, order="K")

    def item(self) -> Any:
        return self.get().item()

    def check_written(self) -> None:
        marks = self.marks()
        if marks is not None and not marks.all():
            raise KernelError(f"get: {self!r}:\nUNINITIALISED: {int((marks == 0).sum())} bytes were never written")

    def marks(self) -> np.ndarray | None:
        """The marks of this array's bytes, shape (*shape, itemsize), 1 where written; None: not kept, or no bytes."""
        if self.memory.written is None or self.size == 0:  # slices of nothing begin behind it
            return None
        offset = self.data.ptr - self.memory.bytes.ctypes.data
        return np.ndarray((*self.shape, self.itemsize), np.uint8, self.memory.written, offset, (*self.strides, 1))


def memory_left(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take, of the machine's and of its control group's; None: nobody knows."""
    found = []
    try:
        with open("/proc/meminfo") as file:
            found += [1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:")]
        used = int((group / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        found.append(int((group / "memory.max").read_text()) - used + (int(cached[1]) if cached else 0))
    except (OSError, ValueError):  # no such files, or "max"
        pass
    return min(found, default=None)
