"""Run one kernel of a CUDA file: NumPy arrays in, results and reports out."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base import files
from ..errors import ArgumentError, DataError, KernelError, OutOfMemoryError, printable
from .comparing import Difference, difference, same_bytes
from .counters import Counters
from .cuda_file import CudaFile, Kernel
from .memory import memory_left
from .module import Function, RawModule
from .passing import Empty, Passed, check_supported, parameters_of, pass_arguments
from .reports import Report
from .settings import MODES, ORDERS, options
from .side_by_side import SHADOW
from .trace import Trace, shared_types

Triple = tuple[int, int, int]
_variables: dict[str, dict[str, bytes]] = {}  # of each library: what its variables held before the first launch
TIME_LIMIT = 10.0  # seconds of the processor's time for each launch
COPIES = 5  # of each array: in the emulator, marks of what is written, results of two orders, their comparison


@dataclass(repr=False)
class Result(Mapping[str, np.ndarray]):
    """What a kernel left: result["y"] is the array behind its parameter y.  print(result) shows all of it in words.

    kernel: its name.  grid, block: of the launch.  mode; orders: those of the threads that were run.
    outputs: an array for each pointer that is not to const, by name: as the first order left it.
    written: for each of them, which elements the kernel wrote; None in fast mode, which does not know.
    notes: what is no fault, but may surprise.
    printed: what printf wrote in the first order.
    counters: the memory traffic of the first order, where it was asked for.
    """

    kernel: str
    grid: Triple
    block: Triple
    mode: str
    orders: tuple[str, ...]
    outputs: dict[str, np.ndarray]
    written: dict[str, np.ndarray | None]
    notes: list[str] = field(default_factory=list)
    printed: str = ""
    counters: Counters | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.outputs:
            raise KeyError(f"{self.kernel} has no output {name!r}; it has {', '.join(self.outputs) or 'none'}")
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def unwritten(self, name: str) -> str:
        """What the kernel did not write of an output, in words; "" if it wrote all, or nobody knows."""
        written = self.written[name]
        if written is None or written.all():
            return ""
        if not written.any():
            return f"{name}: the kernel has written nothing"
        first = np.unravel_index(int(np.argmin(written)), written.shape)
        where = f"{name}[{', '.join(map(str, first))}]"
        return f"{name}: {np.count_nonzero(~written)} of {written.size} elements were not written, the first is {where}"

    def title(self) -> str:
        """The launch, in one line."""
        return launch_title(self.kernel, self.grid, self.block, self.mode, self.orders)

    def table(self) -> str:
        """The outputs, one line for each, and what was not written of them."""
        cells = [("name", "dtype", "shape", "first values", "min", "max", "mean", "written")]
        for name, values in self.outputs.items():
            cells.append((name, str(values.dtype), _shape(values), *summary(values), self._written(name)))
        widths = [max(map(len, column)) for column in zip(*cells)]
        right = (4, 5, 6)
        lines = [
            "  ".join(f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths))).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, *filter(None, map(self.unwritten, self.outputs))])

    def _written(self, name: str) -> str:
        written = self.written[name]
        if written is None:
            return "not known"
        return "all" if written.all() else f"{np.count_nonzero(written)} of {written.size}"

    def __repr__(self) -> str:
        found = "no report" if self.mode == "check" else "no fault"
        counted = [str(self.counters)] if self.counters is not None else []
        return "\n".join([f"{self.title()}: {found}", self.table(), *self.notes, *counted])

    __str__ = __repr__


def launch_title(kernel: str, grid: Triple, block: Triple, mode: str, orders: Sequence[str]) -> str:
    sizes = f"grid ({','.join(map(str, grid))}), block ({','.join(map(str, block))})"
    return f"{kernel}: {sizes}, {mode} mode, threads {', '.join(orders)}"


def run(
    source: str | os.PathLike[str],
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    *arguments: Any,
    shared: int = 0,
    mode: str = "check",
    order: str = "all",
    templates: str | Sequence[str] = (),
    defines: Mapping[str, Any] | Sequence[str] = (),
    counters: bool = False,
    time_limit: float = TIME_LIMIT,
    seed: int = 0,
    trace: Trace | None = None,
    variables: Mapping[str, np.ndarray] | None = None,
    include: Sequence[str | os.PathLike[str]] = (),
    max_shared: int | None = None,
) -> Result:
    """Run a kernel on the emulator, check it, and give back what it left in its arrays.

    source: a .cu file, or the text of one (anything with a newline).  kernel: its name.  grid, block: one to three
    sizes.  arguments: for each parameter a NumPy array of exactly its element type, `empty(shape, dtype)` for memory
    that nobody has written yet, or None for a null pointer; a number; of a struct its bytes, or a structured scalar.
    Arrays without C order reach the kernel in C order.  All are copied: the caller's do not change.
    shared: bytes of dynamic shared memory; max_shared: more than 48 KB of it are for a kernel whose host asks, by
    cudaFuncAttributeMaxDynamicSharedMemorySize, for so many.  mode: "check", or "fast", with few checks.  order: of
    the threads and blocks: "forward", "reversed", "random" (drawn from `seed`), or "all", one after the other:
    their results must be the same but for rounding.  templates: the arguments of a template kernel, ("float", "16").
    defines: {"N": 16}, or ("N=16",).  counters: count memory traffic, line by line.  time_limit: seconds for each
    launch.
    trace: a Trace, which is filled with what one thread does, in the first order.  It and counters need check mode.
    include: more folders to look for headers in.
    variables: what to put into `__constant__` and `__device__` variables, by name: arrays of as many bytes.  All others
    begin as the file says, in every launch.

    KernelError for what was found; its `reports` say where (a file that does not compile has none).  ArgumentError and
    DTypeError for arguments that the kernel would misread, DataError for a file that cannot be read.
    """
    opened_source = opened(source, defines, include)
    if mode not in MODES:
        raise ArgumentError(f"cudasim.run: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if order != "all" and order not in ORDERS:
        raise ArgumentError(f"cudasim.run: order must be 'all' or one of {', '.join(map(repr, ORDERS))}, got {order!r}")
    if mode != "check" and (counters or trace is not None):
        raise ArgumentError("cudasim.run: counters and trace need mode='check'")
    launch = Launch(opened_source, kernel, templates, mode, arguments)
    launch.grid, launch.block, launch.shared = sizes_of("grid", grid), sizes_of("block", block), shared
    launch.allow_shared(max_shared)
    if trace is not None:
        trace.check(launch.grid, launch.block)
    launch.set_variables(variables or {})
    return launch.run(ORDERS if order == "all" else (order,), arguments, counters, time_limit, seed, trace)


@dataclass(frozen=True)
class Source:
    """A CUDA file, and its text as it was written."""

    file: CudaFile
    text: str


def opened(
    source: str | os.PathLike[str],
    defines: Mapping[str, Any] | Sequence[str] = (),
    include: Sequence[str | os.PathLike[str]] = (),
) -> Source:
    """The CUDA file of a path or a text; DataError where it, or a folder for its headers, is not there."""
    if isinstance(defines, str):
        raise ArgumentError(f"cudasim.run: defines must be a dict or a sequence, such as ('N=16',), got {defines!r}")
    pairs = [f"{key}={value}" for key, value in defines.items()] if isinstance(defines, Mapping) else list(defines)
    if isinstance(include, (str, os.PathLike)):
        raise ArgumentError(f"cudasim.run: include must be a sequence of folders, got {printable(include)}")
    for folder in include:
        if not os.path.isdir(folder):
            raise DataError(f"{printable(folder)}: there is no such folder to look for headers in")
    if isinstance(source, str) and "\n" in source:
        return Source(CudaFile(source, defines=tuple(pairs), include=include), source)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(f"cudasim.run: wants a file or the text of one, got {type(source).__name__}")
    try:
        text = Path(source).read_text(encoding="utf-8", errors="surrogateescape")  # comments may be in any encoding
        return Source(CudaFile.read(Path(source), defines=tuple(pairs), include=include), text)
    except OSError as error:
        raise DataError(f"{printable(source)}: cannot be read: {files.reason(error)}") from error


def sizes_of(name: str, value: int | Sequence[int]) -> Triple:
    """A grid or block of one to three sizes."""
    given = (value,) if isinstance(value, (int, np.integer)) else tuple(value) if _is_sequence(value) else ()
    if (
        not 1 <= len(given) <= 3
        or not all(isinstance(i, (int, np.integer)) for i in given)
        or True in map(_bool, given)
    ):
        raise ArgumentError(f"cudasim.run: {name} must be one to three integers, got {value!r}")
    x, y, z = (*(int(i) for i in given), 1, 1)[:3]
    return x, y, z


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


class Launch:
    """A kernel of a file, compiled, with the parameters that it turned out to have.

    arguments: only their dtypes are looked at, for a template that is deduced from them.
    """

    grid: Triple
    block: Triple
    shared: int = 0

    def __init__(
        self, source: Source, kernel: str, templates: str | Sequence[str], mode: str, arguments: Sequence[Any]
    ):
        given = (templates,) if isinstance(templates, str) else tuple(map(str, templates))
        dtypes = [getattr(argument, "dtype", None) for argument in arguments]
        self.text, self.mode = source.text, mode
        self.module: RawModule = source.file.module(kernel, templates=given, mode=mode, arguments=dtypes)
        self.module.flush_to_zero = False  # as nvcc does, unless told --use_fast_math
        self.function: Function = self.module.get_function(kernel)
        self.declared: Kernel = next(k for k in source.file.kernels if k.name == kernel)
        self.name = kernel
        self.parameters = parameters_of(self.declared.parameters, self.function.parameters)
        check_supported(self.parameters, self.text)
        if str(self.module.path) not in _variables:  # a library keeps them from one launch to the next
            values = {name: self.module.get_global(name) for name in self.module.variables}
            _variables[str(self.module.path)] = {name: ctypes.string_at(*place) for name, place in values.items()}
        self.variables = dict(_variables[str(self.module.path)])

    def allow_shared(self, most: int | None) -> None:
        """Dynamic shared memory beyond 48 KB, as cudaFuncSetAttribute does."""
        if most is not None:
            self.function.max_dynamic_shared_size_bytes = most

    def set_variables(self, values: Mapping[str, np.ndarray]) -> None:
        """What variables of the file hold when a launch begins, by name; ArgumentError for other sizes."""
        for name, value in values.items():
            _, nbytes = self.module.get_global(name)
            data = np.ascontiguousarray(value)
            if data.nbytes != nbytes or data.dtype.hasobject:
                raise ArgumentError(f"variable {printable(name)} has {nbytes} bytes, got {data.dtype} {data.shape}")
            self.variables[name] = data.tobytes()

    def run(
        self,
        orders: Sequence[str],
        arguments: Sequence[Any],
        counters: bool = False,
        time_limit: float = TIME_LIMIT,
        seed: int = 0,
        trace: Trace | None = None,
    ) -> Result:
        """One launch for each order, on fresh copies of the arguments.  KernelError where one finds something, or where
        two leave different results."""
        self._check_memory(arguments)
        first: Result | None = None
        for order in orders:
            begin = first is None
            traced, counted = (trace, counters) if begin else (None, False)
            mode = "fast" if self.mode == "debug" else self.mode  # which is about the compiler alone
            with options(mode=mode, order=order, seed=seed, time_limit=time_limit, counters=counted, trace=traced):
                result = self._run_once(order, arguments, traced)
            if counted:
                result.counters = self.module.counters()
            if begin:
                first = result
                sys.stdout.write(result.printed)
            else:
                assert first is not None
                self._compare(first, result)
        assert first is not None
        first.orders = tuple(orders)
        return first

    def _check_memory(self, arguments: Sequence[Any]) -> None:
        """OutOfMemoryError where the arrays would not fit: the system would end the process, without a word."""
        sizes = [(a.shape, a.dtype) for a in arguments if isinstance(a, (np.ndarray, Empty))]
        nbytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in sizes)
        needed, left = nbytes * (COPIES + (SHADOW if self.mode == "check" else 0)), memory_left()
        if left is not None and needed > left:
            also = f", and who touched what {SHADOW} times" if self.mode == "check" else ""
            told = f"the arrays take {nbytes / 1e9:.2f} GB.  Their copies take up to {COPIES} times that{also}"
            advice = f"{left / 1e9:.2f} GB are left: give smaller arrays{', or take mode fast' if also else ''}"
            raise OutOfMemoryError(f"{self.name}: {told}: {advice}")

    def _run_once(self, order: str, arguments: Sequence[Any], trace: Trace | None) -> Result:
        if self.mode == "check":
            self.module.counters().reset()
        params, arrays = pass_arguments(self.parameters, arguments, keep_marks=self.mode == "check")
        if trace is not None:
            areas = [(array, array.area()) for array in arrays]
            trace.arrays = [(area.address, area.nbytes, array.parameter.name, array.dtype) for array, area in areas]
            trace.arrays += [(v.address, v.bytes, name, np.dtype("V1")) for name, v in self.module.variables.items()]
            trace.types = shared_types(self.text)
        for name, data in self.variables.items():
            ctypes.memmove(self.module.get_global(name)[0], data, len(data))
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                self.function.launch(self.grid, self.block, params, [array.area() for array in arrays], self.shared)
            self._check_guards(arrays)
        except KernelError as error:
            sys.stdout.write(output.getvalue())
            raise KernelError(f"{error}\n(threads in the order {order!r})", error.reports) from None
        outputs = {array.parameter.name: array for array in arrays if not array.parameter.const}
        return Result(
            self.name,
            self.grid,
            self.block,
            self.mode,
            (order,),
            {name: array.values() for name, array in outputs.items()},
            {name: array.written() for name, array in outputs.items()},
            notes=list(map(str, self.module.notes)),
            printed=output.getvalue(),
        )

    def _check_guards(self, arrays: Sequence[Passed]) -> None:
        for array in arrays:
            try:
                array.memory.check_guards(self.name, array.label)
            except KernelError as error:
                text = str(error).split("OUT-OF-BOUNDS: ", 1)[-1]
                self._refuse("OOB-GLOBAL", f"{text}; check mode knows the line")

    def _refuse(self, kind: str, text: str) -> None:
        report = Report(kind, self.function.entry.file, self.function.entry.line, None, None, text)
        title = f"{self.name}: grid ({','.join(map(str, self.grid))}), block ({','.join(map(str, self.block))})"
        raise KernelError(f"{title}\n{report}", [report])

    def _compare(self, first: Result, other: Result) -> None:
        """KernelError where two orders left different results; a note where they differ by rounding."""
        names = f"{first.orders[0]} ", f"{other.orders[0]} "
        for name, values in first.outputs.items():
            again = other.outputs[name]
            found: Difference | None = difference(name, values, again, names=names)
            if found:
                self._refuse(
                    "ORDER",
                    f"the result depends on the order of the threads, {found}.  If any order is right (places taken "
                    "from an atomic counter), run one of them: order='forward'",
                )
            note = f"{name}: another order of the threads gives other last bits (atomics on floats do)"
            if not same_bytes(values, again) and note not in first.notes:
                first.notes.append(note)


def summary(values: np.ndarray, many: int = 4) -> tuple[str, str, str, str]:
    """First values, least, largest and mean, in words."""
    flat = values.reshape(-1)
    first = " ".join(_number(value) for value in flat[:many]) + (" ..." if flat.size > many else "")
    if flat.size == 0 or flat.dtype.kind not in "biuf":
        return first, "", "", ""
    wide = flat.astype(np.float64) if flat.dtype.kind in "bf" else flat
    with np.errstate(invalid="ignore", over="ignore"):
        return first, _number(wide.min()), _number(wide.max()), _number(wide.mean(dtype=np.float64))


def _number(value: Any) -> str:
    if isinstance(value, np.void) and not value.dtype.names:  # a struct, of which only the bytes are known
        data = value.tobytes()
        return data[:8].hex() + ".." * (len(data) > 8)
    return f"{value:.5g}" if isinstance(value, np.floating) else str(value)


def _shape(values: np.ndarray) -> str:
    return "x".join(map(str, values.shape)) or "scalar"
