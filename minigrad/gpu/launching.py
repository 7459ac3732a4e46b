"""Launching a kernel: the only place that passes anything to one, and checks all of it."""

from __future__ import annotations

import math
import os
import threading
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ..device import Device
from ..errors import KernelError, OutOfMemoryError, printable
from ..processor.parallel import go_on
from .sources import C_TYPES, MACROS, Parameter, entry_points, full_source, kernel_file

Array = Any  # cupy.ndarray, or cudasim.SimArray

THREADS = 256  # of a block, unless a kernel needs another number
MOST_BLOCKS = 2**31 - 1  # along x; 65535 along y and z


class Strided:
    """Marks an argument of launch whose kernel takes its strides into account: it need not be contiguous."""

    def __init__(self, array: Array):
        self.array = array


def blocks(n: int, per_block: int = THREADS) -> int:
    """How many blocks cover n elements."""
    return -(-n // per_block)


_making = threading.Lock()


class Launching(Device):
    """A device whose arrays only kernels touch; ops run their card's face."""

    _runtime: Any = None

    @abstractmethod
    def _new_runtime(self) -> Any: ...

    @property
    def runtime(self) -> Any:
        """What manages memory and launches kernels (CudaRuntime, SimRuntime); DeviceError where it cannot be used."""
        if self._runtime is None:
            with _making:
                if self._runtime is None:
                    self._runtime = self._new_runtime()
        return self._runtime

    def synchronize(self) -> None:
        self.runtime.synchronize()

    def forward(self, function: Any, *arrays: Array) -> Array:
        go_on()
        try:
            return function.forward_gpu(*arrays)
        except OutOfMemoryError as error:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise OutOfMemoryError(f"{function.name} (inputs {shapes}): {error}") from None

    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        try:
            grads = node.backward_gpu(dy)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"backward of {node.name} (output {dy.shape}): {error}") from None
        return grads if isinstance(grads, tuple) else (grads,)

    def launch(
        self,
        file: str,
        kernel: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *args: Any,
        shared_mem: int = 0,
        **types: Any,
    ) -> None:
        """Run `kernel` of kernels/<file>.cu on the device's stream.

        grid, block: numbers of blocks and of threads, int or (x, y, z).  A grid with a 0 has nothing to do: no launch.
        args: one per parameter.  Arrays must be on this device, C-contiguous (or `Strided`) and of the parameter's
        dtype; numbers are converted to exactly the parameter's type, and must fit it; a struct is what `sources.struct`
        (for a `Layout`, `layout_of`) returns.
        shared_mem: bytes of dynamic shared memory.
        types: what the source leaves open: a dtype (REAL=x.dtype) or an integer (TILE=64).

        KernelError says which argument breaks which rule.
        """
        options = _options(tuple(types.items()))
        source = full_source(file)
        where = f"launch of {kernel} ({file}.cu) on {self}"
        try:
            parameters = _parameters(source, options)[kernel]
        except KeyError:
            raise KernelError(f"{where}: there is no such entry point in {printable(kernel_file(file))}") from None
        if len(args) != len(parameters):
            names = ", ".join(p.name for p in parameters)
            raise KernelError(f"{where}: {len(args)} arguments for {len(parameters)} parameters: {names}")
        grid_size, block_size = _three(where, "grid", grid), _three(where, "block", block)
        if 0 in grid_size:
            return
        if grid_size[0] > MOST_BLOCKS or max(grid_size[1:]) > 65535:
            raise KernelError(f"{where}: grid {grid_size} exceeds (2147483647, 65535, 65535)")
        if not 0 < math.prod(block_size) <= 1024 or block_size[2] > 64:
            raise KernelError(f"{where}: block {block_size} must have 1 to 1024 threads, at most 64 along z")
        ready = [_argument(self, where, p, arg) for p, arg in zip(parameters, args)]
        runtime = self.runtime
        runtime.launch(runtime.function(source, options, kernel), parameters, grid_size, block_size, ready, shared_mem)


@cache
def _options(types: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    """-D options for the compiler."""
    return tuple(
        f"-D{MACROS.get(name, name)}={value if isinstance(value, int) else c_type(value)}"
        for name, value in sorted(types)
    )


@cache
def _parameters(source: str, options: tuple[str, ...]) -> dict[str, list[Parameter]]:
    types = dict(option.removeprefix("-D").split("=", 1) for option in options)
    return entry_points(source, types | {name: types[macro] for name, macro in MACROS.items() if macro in types})


def c_type(dtype: Any) -> str:
    """C's name of an element type; KernelError for one that kernels do not know."""
    name = np.dtype(dtype).name
    if name not in C_TYPES:
        raise KernelError(f"kernels have no element type {name}: there are {', '.join(C_TYPES)}")
    return C_TYPES[name]


def _three(where: str, what: str, sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    given = sizes if isinstance(sizes, tuple) else (sizes,)
    if not 1 <= len(given) <= 3 or any(not isinstance(n, int) or n < 0 for n in given):
        raise KernelError(f"{where}: {what} must be an int or up to three ints >= 0, got {sizes!r}")
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


def _argument(device: Launching, where: str, parameter: Parameter, value: Any) -> Any:
    """`value` as the runtime passes it: an array, or a NumPy scalar (or struct) of exactly the parameter's type."""
    name, dtype = parameter.name, parameter.dtype
    if parameter.pointer:
        array = value.array if isinstance(value, Strided) else value
        if not device.runtime.owns(array):
            raise KernelError(f"{where}: {name} must be an array on {device}, got {_seen(array)}")
        if array.dtype != dtype:
            raise KernelError(f"{where}: {name} must be {dtype}, it is {array.dtype}")
        if array is value and not array.flags.c_contiguous:
            raise KernelError(
                f"{where}: {name} must be C-contiguous: shape {array.shape}, strides {array.strides}: "
                "call device.contiguous"
            )
        return array
    if dtype.fields:  # a struct: CuPy passes an array of one by value
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.size != 1:
            raise KernelError(f"{where}: {name} must be one {dtype}, got {_seen(value)}")
        return value
    if isinstance(value, np.ndarray) or not isinstance(value, (int, float, np.number, np.bool_)):
        raise KernelError(f"{where}: {name} must be a number, got {_seen(value)}")
    if dtype.kind in "iu" and (value != int(value) or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
        raise KernelError(f"{where}: {name} = {value!r} does not fit {dtype}")
    return dtype.type(value)


def _seen(value: Any) -> str:
    return f"{type(value).__name__} {value.shape}" if hasattr(value, "shape") else repr(value)


# ---------------------------------------------------------------- fork

if hasattr(os, "register_at_fork"):  # if forked while another thread makes a runtime, a child would wait for ever
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)
