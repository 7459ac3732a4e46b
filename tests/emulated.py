"""Kernels on the emulator without the rest of minigrad: NumPy arrays in, NumPy arrays changed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minigrad.cudasim.module import Area, RawModule

GUARD = 4096  # bytes before and behind every array, so that a wild store of a broken kernel hits nothing else
_guard_bytes = itertools.cycle(range(1, 252))  # another for each array: one guard copied onto another is seen


class Guarded(np.ndarray):
    """An array with guard zones.  written: None, or one byte per byte, 1 where a kernel has written."""

    memory: np.ndarray
    guard_byte: int
    written: np.ndarray | None

    def guards_hit(self) -> bool:
        guards = np.concatenate([self.memory[:GUARD], self.memory[-GUARD:]])
        return bool((guards != self.guard_byte).any())


def fresh(shape: int | tuple[int, ...], dtype: Any = np.float32) -> Guarded:
    """Memory that nobody has written yet: its elements are NaN, -1 or the like, and check mode knows."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    guard_byte = next(_guard_bytes)
    memory = np.full(nbytes + 2 * GUARD + 64, guard_byte, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :][: nbytes + 2 * GUARD]
    inner = memory[GUARD : GUARD + nbytes]
    inner.fill(0xFF)
    array = inner.view(dtype).reshape(shape).view(Guarded)
    array.memory, array.guard_byte, array.written = memory, guard_byte, np.zeros(nbytes, np.uint8)
    return array


def array(values: Any, dtype: Any = None) -> Guarded:
    """A copy of the values."""
    values = np.asarray(values, dtype)
    copy = fresh(values.shape, values.dtype)
    copy[...] = values
    copy.written = None
    return copy


def three(sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*(sizes if isinstance(sizes, tuple) else (sizes,)), 1, 1)[:3]
    return x, y, z


def launch(module: RawModule, name: str, grid: Any, block: Any, *args: Any, shared_mem: int = 0) -> None:
    """Arrays are passed by their addresses, scalars must be NumPy scalars of the parameters' types."""
    function = module.get_function(name)
    params, areas = [], []
    for i, (arg, type_name) in enumerate(zip(args, function.parameters, strict=True)):
        if not isinstance(arg, np.ndarray):
            assert arg.dtype == type_name, f"argument {i} is {arg.dtype}, the kernel wants {type_name}"
            params.append(arg.tobytes())
            continue
        element = type_name.removeprefix("const ").removesuffix("*")
        assert element[0] == "V" or arg.dtype == element, f"argument {i} is {arg.dtype}, the kernel wants {type_name}"
        params.append(np.uint64(arg.ctypes.data).tobytes())
        writable, written = not type_name.startswith("const "), getattr(arg, "written", None)
        areas.append(Area(arg.ctypes.data, arg.nbytes, writable, written, f"argument {i}", written is not None))
    function.launch(three(grid), three(block), params, areas, shared_mem)
