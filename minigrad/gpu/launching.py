"""Launching a kernel: the only place that passes anything to one, and checks all of it."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..device import Device
from ..errors import KernelError, OutOfMemoryError, printable
from ..processor.parallel import go_on
from .sources import C_TYPES, MACROS, Parameter, entry_points, full_source, kernel_file, remembered

Array = Any  # cupy.ndarray, or cudasim.SimArray

THREADS = 256  # of a block, unless a kernel needs another number
MOST_BLOCKS = 2**31 - 1  # along x; 65535 along y and z


class Strided:
    """Marks an argument of launch whose kernel takes its strides into account: it need not be contiguous."""

    __slots__ = ("array",)

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
            with self.runtime.here():
                return function.forward_gpu(*arrays)
        except OutOfMemoryError as error:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise OutOfMemoryError(f"{function.name} (inputs {shapes}): {error}") from None

    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        try:
            with self.runtime.here():
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
        dtype, and for a parameter `Arrays<...>` there is a list of them; numbers are converted to exactly the
        parameter's type, and must fit it; a struct is what `sources.struct` (for a `Layout`, `layout_of`) returns.
        shared_mem: bytes of dynamic shared memory.
        types: what the source leaves open: a dtype (REAL=x.dtype) or an integer (TILE=64).

        KernelError says which argument breaks which rule.
        """
        runtime = self.runtime
        try:
            entry = _entry(file, kernel, tuple(types.items()))
            if len(args) != len(entry.arguments):
                names = ", ".join(p.name for p in entry.parameters)
                raise _RefusedError(f"{len(args)} arguments for {len(entry.parameters)} parameters: {names}")
            try:
                grid_size, block_size = _sizes(grid, block)
            except TypeError:  # a list has no hash
                raise _RefusedError(f"grid and block must be ints or tuples of ints, got {grid!r}, {block!r}") from None
            if 0 in grid_size:
                return
            ready = tuple([argument(self, value) for argument, value in zip(entry.arguments, args)])
        except _RefusedError as refused:
            raise KernelError(f"launch of {kernel} ({file}.cu) on {self}: {refused}") from None
        function = runtime.function(entry.source, entry.options, kernel)
        runtime.launch(function, entry.parameters, grid_size, block_size, ready, shared_mem)


class _RefusedError(Exception):
    """What is wrong with a launch."""


class _Entry(NamedTuple):
    """What a launch has to know of an entry point compiled with some options."""

    source: str
    options: tuple[str, ...]
    parameters: list[Parameter]
    arguments: list[Argument]  # of each parameter


@remembered
def _entry(file: str, kernel: str, types: tuple[tuple[str, Any], ...]) -> _Entry:
    """Worked out at the first of many launches."""
    source, options = full_source(file), _options(types)
    parameters = _parameters(source, options).get(kernel)
    if parameters is None:
        raise _RefusedError(f"there is no such entry point in {printable(kernel_file(file))}")
    return _Entry(source, options, parameters, [_argument(p) for p in parameters])


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


Sizes = tuple[int, int, int]


@lru_cache(maxsize=1024, typed=True)
def _sizes(grid: int | tuple[int, ...], block: int | tuple[int, ...]) -> tuple[Sizes, Sizes]:
    """The sizes of grid and blocks along x, y and z."""
    x, y, z = grid_size = _three("grid", grid)
    tx, ty, tz = block_size = _three("block", block)
    if 0 not in grid_size:
        if x > MOST_BLOCKS or y > 65535 or z > 65535:
            raise _RefusedError(f"grid {grid_size} exceeds (2147483647, 65535, 65535)")
        if not 0 < tx * ty * tz <= 1024 or tz > 64:
            raise _RefusedError(f"block {block_size} must have 1 to 1024 threads, at most 64 along z")
    return grid_size, block_size


def _three(what: str, sizes: int | tuple[int, ...]) -> Sizes:
    given = sizes if isinstance(sizes, tuple) else (sizes,)
    if not 1 <= len(given) <= 3 or any([not isinstance(n, int) or n < 0 for n in given]):
        raise _RefusedError(f"{what} must be an int or up to three ints >= 0, got {sizes!r}")
    x, y, z = (*given, 1, 1)[:3]
    return x, y, z


Argument = Callable[[Launching, Any], Any]  # what to pass for a value; it refuses one that does not fit


def _argument(parameter: Parameter) -> Argument:
    """How launch takes values for this parameter; all that can be known of it beforehand is settled here."""
    if parameter.many:
        return _arrays(parameter.name, parameter.dtype, parameter.many)
    if parameter.pointer:
        return _array(parameter.name, parameter.dtype)
    if parameter.dtype.fields:
        return _struct(parameter.name, parameter.dtype)
    return _number(parameter.name, parameter.dtype)


def _array(name: str, dtype: np.dtype[Any]) -> Argument:
    def array(device: Launching, value: Any) -> Any:
        array = value.array if type(value) is Strided else value
        if not device._runtime.owns(array):
            raise _RefusedError(f"{name} must be an array on {device}, got {_seen(array)}")
        if array.dtype != dtype:
            raise _RefusedError(f"{name} must be {dtype}, it is {array.dtype}")
        if array is value and not array.flags.c_contiguous:
            raise _RefusedError(
                f"{name} must be C-contiguous: shape {array.shape}, strides {array.strides}: call device.contiguous"
            )
        return array

    return array


def _arrays(name: str, dtype: np.dtype[Any], many: int) -> Argument:
    each = [_array(f"{name}[{k}]", dtype) for k in range(many)]

    def arrays(device: Launching, value: Any) -> Any:
        if not isinstance(value, list) or not 1 <= len(value) <= many:
            seen = f"{len(value)} of them" if isinstance(value, list) else _seen(value)
            raise _RefusedError(f"{name} must be a list of 1 to {many} arrays, got {seen}")
        return device._runtime.table([array(device, element) for array, element in zip(each, value)], many)

    return arrays


def _struct(name: str, dtype: np.dtype[Any]) -> Argument:
    def struct(device: Launching, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.size != 1:
            raise _RefusedError(f"{name} must be one {dtype}, got {_seen(value)}")
        return value.reshape(())[()]  # a scalar: CuPy would need 5 us to find the address of an array with fields

    return struct


def _number(name: str, dtype: np.dtype[Any]) -> Argument:
    """The number as a NumPy scalar: CuPy passes the bits of exactly its type."""
    convert: Callable[[Any], Any] = dtype.type

    def number(device: Launching, value: Any) -> Any:
        if type(value) is not float and not isinstance(value, (int, float, np.number, np.bool_)):
            raise _RefusedError(f"{name} must be a number, got {_seen(value)}")
        try:
            return convert(value)
        except (OverflowError, TypeError, ValueError):  # NaN, infinity or a complex number for an integer, ...
            raise _RefusedError(f"{name} = {value!r} does not fit {dtype}") from None

    if dtype.kind not in "iu":
        return number
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max

    def integer(value: Any) -> Any:
        whole = int(value)  # NumPy would compare a float32 with `most` as a float32, and take 2^63 for 2^63 - 1
        if value != whole or not least <= whole <= most:
            raise _RefusedError(f"{name} = {value!r} does not fit {dtype}")
        return dtype.type(whole)

    convert, known = integer, lru_cache(maxsize=256)(integer)  # the same sizes come again in every step
    return lambda device, value: known(value) if type(value) is int else number(device, value)


def _seen(value: Any) -> str:
    return f"{type(value).__name__} {value.shape}" if hasattr(value, "shape") else repr(value)


# ---------------------------------------------------------------- fork

if hasattr(os, "register_at_fork"):  # if forked while another thread makes a runtime, a child would wait for ever
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)
