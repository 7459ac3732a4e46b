"""What manages an emulated card: memory, streams, copies and launches, with the methods of gpu/cuda_runtime.py."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..errors import DeviceError, OutOfMemoryError
from .compiler import available
from .memory import Memory, SimArray
from .module import Area, Function, RawModule
from .settings import current
from .streams import Access, Stream, bytes_in_use


class SimRuntime:
    """One emulated card.  It has as much memory as the host, unless settings say otherwise."""

    has_matrix_units = True

    def __init__(self, index: int):
        reason = available()
        if reason is not None:
            raise DeviceError(f"cudasim:{index}: {reason}")
        self.index, self.name = index, f"cudasim:{index}"
        self.stream = Stream(self.name)
        self._modules: dict[tuple[str, tuple[str, ...], str], RawModule] = {}
        self._lock = threading.Lock()

    # ---------------------------------------------------------------- memory

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> SimArray:
        nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
        limit = current().memory_limit
        if limit is not None and bytes_in_use(self.name) + nbytes > limit:
            raise OutOfMemoryError(
                f"{self.name}: out of memory: {nbytes / 1e6:.1f} MB wanted for {tuple(shape)} {dtype}, "
                f"{bytes_in_use(self.name) / 1e6:.1f} MB in use, {limit / 1e6:.1f} MB in all: use a smaller batch"
            )
        memory = Memory(self.stream, nbytes)
        return SimArray(memory.bytes.view(dtype).reshape(shape), memory)

    def from_host(self, values: np.ndarray) -> SimArray:
        """A copy in device memory, in the memory order of `values`."""
        axes = sorted(range(values.ndim), key=lambda axis: -abs(values.strides[axis]))
        array = self.empty(tuple(values.shape[axis] for axis in axes), values.dtype)
        back = sorted(range(values.ndim), key=axes.__getitem__)
        array = array.transpose(back) if back != list(range(values.ndim)) else array
        self.stream.touch("copy from host", [], [array.memory.access])
        array.host[...] = values
        _mark_written(array)
        return array

    def copy_from(self, other: SimRuntime, x: SimArray) -> SimArray:
        """x, an array of another device, here: after all that `other` was given, before all it is given next."""
        self.stream.wait(other.stream.record())
        y = self._laid_out_like(x)
        self.stream.touch(f"copy from {other.name}", [x.memory.access], [y.memory.access])
        x.check_written()
        y.host[...] = x.host
        _mark_written(y)
        other.stream.wait(self.stream.record())  # or x's memory might be reused while it is being read
        return y

    def _laid_out_like(self, x: SimArray) -> SimArray:
        axes = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
        y = self.empty(tuple(x.shape[axis] for axis in axes), x.dtype)
        return y.transpose(sorted(range(x.ndim), key=axes.__getitem__)) if x.ndim else y

    def to_host(self, x: SimArray) -> np.ndarray:
        return x.get()

    def owns(self, array: Any) -> bool:
        return isinstance(array, SimArray) and array.memory.stream is self.stream

    def here(self) -> AbstractContextManager[Any]:
        """A real card must be made the current one."""
        return nullcontext()

    def synchronize(self) -> None:
        self.stream.synchronize()

    # ---------------------------------------------------------------- kernels

    def function(self, source: str, options: tuple[str, ...], name: str) -> Function:
        """The compiled entry point, for the mode now set."""
        key = source, options, current().mode
        with self._lock:
            if key not in self._modules:
                self._modules[key] = RawModule(source, options, key[2], self.index)
            return self._modules[key].get_function(name)

    def table(self, arrays: Sequence[SimArray], many: int) -> Sequence[SimArray]:
        """What `launch` takes for a parameter `Arrays<...>`: the arrays, for it is to know of each."""
        return arrays

    def modules(self) -> list[RawModule]:
        """What was compiled so far, for the counters."""
        return list(self._modules.values())

    def launch(
        self,
        function: Function,
        parameters: Sequence[Any],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared_mem: int,
    ) -> None:
        params: list[bytes] = []
        areas: list[Area] = []
        reads: list[Access] = []
        writes: list[Access] = []
        arrays: list[tuple[SimArray, str]] = []
        for i, (parameter, value) in enumerate(zip(parameters, args)):
            if not parameter.pointer:
                params.append(value.tobytes())
                continue
            given = list(value) if parameter.many else [value]
            pointers = np.zeros(max(1, parameter.many), np.uint64)
            pointers[: len(given)] = [x.data.ptr for x in given]
            params.append(pointers.tobytes())
            for k, x in enumerate(given):
                name = f"{parameter.name}[{k}]" if parameter.many else parameter.name
                label = f"{name} (argument {i}, {x.dtype} {x.shape})"
                arrays.append((x, label))
                (reads if parameter.const else writes).append(x.memory.access)
                areas.append(_area(x, not parameter.const, label))
        where = f"{function.name} on {self.name}"
        self.stream.touch(where, reads, writes)
        function.launch(grid, block, params, areas, shared_mem)
        for value, label in arrays:
            value.memory.check_guards(where, label)


def _area(array: SimArray, writable: bool, label: str) -> Area:
    """The bytes from the first to the last element; with strides, those between its elements too."""
    low = array.data.ptr + sum(min(0, s * (n - 1)) for n, s in zip(array.shape, array.strides))
    nbytes = array.itemsize + sum(abs(s) * (n - 1) for n, s in zip(array.shape, array.strides)) if array.size else 0
    written = array.memory.written
    if written is not None:
        offset = low - array.memory.bytes.ctypes.data
        written = written[offset : offset + nbytes]
    return Area(low, nbytes, writable, written, label, must_fill=writable and array.flags.c_contiguous)


def _mark_written(array: SimArray) -> None:
    marks = array.marks()
    if marks is not None:
        marks[...] = 1
