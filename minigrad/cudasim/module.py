"""Launching emulated kernels, in CuPy's shape: RawModule(code).get_function(name).launch(grid, block, ...)."""

from __future__ import annotations

import ctypes
import itertools
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..errors import ArgumentError, KernelError
from . import native, settings
from . import source as kernel_source
from .compiler import MAX_SHARED, compile_kernels
from .counters import Counters
from .reports import Lines, Report, Triple
from .trace import tracing

MAX_THREADS = 1024
PER_LINE = 8  # a line may be many instructions; of the reports of one kind and line the first is shown
SIGNALS = {
    signal.SIGSEGV: "memory access that the operating system refused",
    signal.SIGBUS: "memory access that the operating system refused",
    signal.SIGFPE: "integer division by zero, or one whose result does not fit",
    signal.SIGILL: "a place that no valid program reaches",
}

# One launch at a time in each library: modules of the same source share it.
_locks: dict[str, threading.Lock] = {}


@dataclass
class Area:
    """An array argument: the bytes that the kernel may touch.

    written: one uint8 per byte, 1 = has been written; check mode reads and updates it.  None: all of it has been.
    label: what reports call it, "y (argument 2)".  must_fill: the launch must leave no byte unwritten.
    Areas may overlap.
    """

    address: int
    nbytes: int
    writable: bool
    written: np.ndarray | None = None
    label: str = "an array"
    must_fill: bool = False


class RawModule:
    """The kernels of one source, compiled for the emulator.

    code: CUDA C++; `#line` markers name the files of messages.  options: -D options.  mode: "fast" or "check".
    copy: modules of different numbers have separate shared memory and may run at the same time.
    Raises KernelError for a source that breaks the rules for kernels or does not compile; DeviceError without g++.
    """

    def __init__(self, code: str, options: Sequence[str] = (), mode: str = "fast", copy: int = 0):
        if mode not in (*settings.MODES, "debug"):
            raise ArgumentError(f"cudasim: mode must be one of {', '.join(map(repr, settings.MODES))}, got {mode!r}")
        self.mode = mode
        self.in_check_mode = cache(lambda: RawModule(code, options, "check", copy))
        self.path = compile_kernels(code, tuple(options), mode, copy)
        self.library = native.load(self.path)
        self.lock = _locks.setdefault(str(self.path), threading.Lock())
        # As with CuPy, which compiles with -ftz=true: float numbers flush to zero, doubles do not.
        self.flush_to_zero = not any(option.endswith("=double") for option in options)
        begin, end = ctypes.c_uint64(), ctypes.c_uint64()
        self.library.cs_image(begin, end)
        self.image = begin.value, end.value
        self.lines = Lines(self.path, begin.value, kernel_source.with_numbered_files(code)[1])
        self._functions = {
            entry.name: Function(self, number, entry) for number, entry in enumerate(kernel_source.entries(code))
        }

    @property
    def names(self) -> list[str]:
        """The entry points, in the order of the source."""
        return list(self._functions)

    def get_function(self, name: str) -> Function:
        """The entry point of that name; KernelError names those there are."""
        if name not in self._functions:
            raise KernelError(f"there is no kernel '{name}' in this source; there are {', '.join(self.names)}")
        return self._functions[name]

    def take_output(self) -> str:
        """What printf wrote since the last call."""
        length = ctypes.c_uint64()
        text = self.library.cs_take_output(length)
        return ctypes.string_at(text, length.value).decode(errors="replace")

    def counters(self) -> Counters:
        """Memory traffic of the launches with options(counters=True) so far, line by line.  Check mode only."""
        if self.mode != "check":
            raise ArgumentError("cudasim: counters are collected in check mode only: RawModule(..., mode='check')")
        return Counters(self.library, self.lines)


class Function:
    """An entry point.  name; parameters: the types of its parameters, as NumPy calls them, "const float32*", "int64";
    V<size> for a struct."""

    def __init__(self, module: RawModule, number: int, entry: kernel_source.Entry):
        name = entry.name
        self.module, self.number, self.entry, self.name = module, number, entry, name
        self.kernel = module.library.cs_kernel(number).contents
        text = ctypes.create_string_buffer(65536)
        self.kernel.describe(text)
        self.parameters = text.value.decode().split("\n")[:-1]
        self.sizes = [8 if t.endswith("*") else np.dtype(t).itemsize for t in self.parameters]
        self.static_shared = sum(
            array.bytes for array in _shared_arrays(module.library) if array.kernel == name.encode()
        )

    def launch(
        self, grid: Triple, block: Triple, params: Sequence[bytes], areas: Sequence[Area] = (), shared_mem: int = 0
    ) -> None:
        """Runs the kernel; returns when it has ended.

        params: the bytes of each argument, 8 (an address) for a pointer.  areas: the arrays behind the pointers.
        shared_mem: bytes of dynamic shared memory.
        Raises KernelError for a launch that CUDA would refuse and for every fault found, one line each, `.reports`
        has them as objects; KeyboardInterrupt for Ctrl-C.
        """
        self._check_launch(grid, block, params, shared_mem)
        with self.module.lock:
            call = _Call(self, grid, block, params, areas, shared_mem)
            try:
                with tracing(call.options.trace, call.launch, self.module, call.shared_areas):
                    reports = call.run()
            finally:
                sys.stdout.write(self.module.take_output())
        if not reports and self.module.mode == "check":
            reports = self._unwritten(areas)
        if reports:
            title = f"{self.name}: grid ({','.join(map(str, grid))}), block ({','.join(map(str, block))})"
            raise KernelError("\n".join([title, *map(str, reports), *call.left_out(reports)]), reports)

    def _check_launch(self, grid: Triple, block: Triple, params: Sequence[bytes], shared_mem: int) -> None:
        def refuse(rule: str) -> None:
            report = Report("LAUNCH", self.entry.file, self.entry.line, None, None, rule)
            raise KernelError(f"{self.name}: grid {tuple(grid)}, block {tuple(block)}\n{report}", [report])

        if len(grid) != 3 or min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            refuse("a grid has three sizes from 1 to (2147483647, 65535, 65535)")
        if len(block) != 3 or min(block) < 1 or block[2] > 64 or int(np.prod(block)) > MAX_THREADS:
            refuse(f"a block has three sizes of at least 1, at most {MAX_THREADS} threads in all, at most 64 along z")
        if len(params) != len(self.parameters):
            refuse(f"{len(params)} arguments for {len(self.parameters)} parameters: {', '.join(self.parameters)}")
        for i, (value, size) in enumerate(zip(params, self.sizes)):
            if len(value) != size:
                refuse(f"argument {i} has {len(value)} bytes, parameter {self.parameters[i]} has {size}")
        if shared_mem < 0 or self.static_shared + shared_mem > MAX_SHARED:
            static = f"{self.static_shared} bytes of static"
            refuse(f"{static} and {shared_mem} of dynamic shared memory; a block has {MAX_SHARED}")

    def _unwritten(self, areas: Sequence[Area]) -> list[Report]:
        reports = []
        for area in areas:
            if not area.must_fill or not area.writable or area.written is None or area.written.all():
                continue
            missing = int(np.count_nonzero(area.written == 0))
            text = (
                f"{missing} of the {area.nbytes} bytes of {area.label} were left unwritten, the first at byte "
                f"{int(np.argmin(area.written))}"
            )
            reports.append(Report("UNWRITTEN", self.entry.file, self.entry.line, None, None, text))
        return reports


class _Call:
    """One launch on its way through the C++ side."""

    def __init__(
        self,
        function: Function,
        grid: Triple,
        block: Triple,
        params: Sequence[bytes],
        areas: Sequence[Area],
        shared_mem: int,
    ):
        self.function, self.module, self.areas = function, function.module, areas
        self.arguments = grid, block, params, areas, shared_mem
        self.options = settings.current()
        self.blocks = self.options.blocks or range(grid[0] * grid[1] * grid[2])
        if self.blocks[-1] >= grid[0] * grid[1] * grid[2]:
            raise ArgumentError(f"cudasim: blocks={self.blocks} of a grid of {grid[0] * grid[1] * grid[2]}: {grid}")
        # Each argument lies at a multiple of 16 bytes, as the compiled code expects of structs.
        starts = np.cumsum([0] + [(len(value) + 15) // 16 * 16 for value in params])
        self.bytes = ctypes.create_string_buffer(int(starts[-1]) + 16)
        first = (ctypes.addressof(self.bytes) + 15) // 16 * 16
        for start, value in zip(starts, params):
            ctypes.memmove(first + int(start), value, len(value))
        self.parameters = (ctypes.c_void_p * (len(params) + 1))(*(first + int(start) for start in starts))
        self.native_areas = _native_areas(areas)
        self.reports = (native.NativeReport * (self.options.max_reports * PER_LINE))()
        self.launch = native.Launch(
            grid_size=native.Triple(*grid),
            block_size=native.Triple(*block),
            shared_bytes=shared_mem,
            seed=self.options.seed & (2**64 - 1),
            order=native.ORDERS[self.options.order],
            poison=self.options.poison,
            count=self.options.counters,
            flush_to_zero=self.module.flush_to_zero,
            kernel=function.number,
            parameters=self.parameters,
            areas=self.native_areas,
            n_areas=len(areas),
            reports=self.reports,
            max_reports=len(self.reports),
        )

    def run(self) -> list[Report]:
        fault = self._enter(self.blocks, self.options.time_limit)
        if self._failed(fault) and not self._thread_known():
            # The threads ran in one loop, which does not note whose turn it is.  Once more, thread by thread.
            output, number = self.module.take_output(), self.module.library.cs_block_number()
            first, first_reports = fault, self._raw_reports()
            self.launch.one_by_one = 1
            fault = self._enter(range(number, number + 1), self.options.time_limit)
            self.module.take_output()
            sys.stdout.write(output)
            if not self._failed(fault):  # the block, run again on what it had changed, went well
                return self._collect(first, first_reports)
        return self._collect(fault, self._raw_reports())

    def left_out(self, reports: list[Report]) -> list[str]:
        """What to say where more was found than is reported; nothing otherwise."""
        found = int(self.launch.n_found)
        if found <= len(reports):
            return []
        return [
            f"In all {found} times something was found.  Of each kind and line the first is listed, and at most "
            f"{self.options.max_reports}."
        ]

    def _failed(self, fault: native.Fault) -> bool:
        return fault.end != native.FINISHED or self.launch.n_reports > 0

    def _raw_reports(self) -> list[native.NativeReport]:
        return [native.NativeReport.from_buffer_copy(self.reports[i]) for i in range(self.launch.n_reports)]

    def _thread_known(self) -> bool:
        if self.launch.n_reports:
            return all(self.reports[i].has_thread or not self.reports[i].pc for i in range(self.launch.n_reports))
        return self._where()[1] is not None

    def _enter(self, blocks: range, time_limit: float) -> native.Fault:
        launch, fault, library = self.launch, native.Fault(), self.module.library
        launch.first_block, launch.blocks, launch.block_step = blocks.start, len(blocks), blocks.step
        launch.n_reports = launch.n_found = 0
        control = ctypes.addressof(ctypes.c_char.in_dll(library, "cs_control"))
        entry = ctypes.cast(library.cs_launch, ctypes.c_void_p)
        end = native.guarded()(entry, launch, control, *self.module.image, time_limit, fault)
        if end != native.FINISHED:
            library.cs_clean_up()
        if end < 0:
            raise MemoryError("cudasim: no memory for the stacks of a block's threads")
        if end == native.INTERRUPTED:
            raise KeyboardInterrupt
        return fault

    def _where(self) -> tuple[Triple, Triple | None]:
        block, thread = native.Triple(), native.Triple()
        known = self.module.library.cs_where(block, thread)
        return _triple(block), _triple(thread) if known else None

    def _collect(self, fault: native.Fault, raw: list[native.NativeReport]) -> list[Report]:
        """The reports of the launch, and one about its end where that came from outside."""
        lines = self.module.lines.find([pc for r in raw for pc in (r.pc, r.other_pc)] + list(fault.trace))
        unknown = self.function.entry.file, self.function.entry.line
        found = []
        for r in raw:
            other = lines.get(r.other_pc)
            text = r.text.decode(errors="replace").replace(
                "{other}", f"{other[0]}:{other[1]}" if other else "another line"
            )
            thread = _triple(r.thread) if r.has_thread else None
            found.append(Report(r.kind.decode(), *lines.get(r.pc, unknown), _triple(r.block), thread, text))
        by_line: dict[tuple[str, str, int], Report] = {}
        for one in found:
            by_line.setdefault((one.kind, one.file, one.line), one)
        found = list(by_line.values())[: self.options.max_reports]
        if fault.end:
            line = next((lines[pc] for pc in fault.trace if pc in lines), unknown)
            found.append(self._report_fault(fault, line))
        return found

    def _report_fault(self, fault: native.Fault, line: tuple[str, int]) -> Report:
        if fault.end == native.TIME_LIMIT:
            text = (
                f"the kernel ran longer than the time limit of {self.options.time_limit:g} s and was ended here: it "
                "never ends, needs longer, or waits for what a thread that does not run meanwhile would write"
            )
            if self.module.mode == "fast" and _is_empty_loop(fault.trace[0] - 1, self.module.image):
                line = self._line_in_check_mode() or (self.function.entry.file, self.function.entry.line)
            return Report("TIME-LIMIT", *line, *self._where(), text)
        if fault.stack_overflow:
            return Report("STACK-OVERFLOW", *line, *self._where(), "the thread's local variables do not fit its stack")
        text = SIGNALS.get(fault.signal) or signal.strsignal(fault.signal) or f"signal {fault.signal}"
        if fault.behind_stack:
            text += ": an index that leads out of the thread's local variables"
        elif fault.known_address:
            areas = [*self.areas, *self.shared_areas()]
            text += f" at address {fault.address:#x}{_nearest(areas, fault.address)}"
        return Report("FAULT", *line, *self._where(), text)

    def _line_in_check_mode(self) -> tuple[str, int] | None:
        """The line of an endless loop that the compiler has made a bare jump: the block is run again with checks."""
        module, number = self.module.in_check_mode(), self.module.library.cs_block_number()
        with module.lock:
            again = _Call(module.get_function(self.function.name), *self.arguments)
            fault = again._enter(range(number, number + 1), self.options.time_limit)
            module.take_output()
            if fault.end != native.TIME_LIMIT or again._where() != self._where():
                return None
            found = again._collect(fault, [])[-1]
        return found.file, found.line

    def shared_areas(self) -> Iterator[Area]:
        library = self.module.library
        for array in _shared_arrays(library):
            if array.kernel in (b"", self.function.name.encode()):
                yield Area(array.address, array.bytes, True, label=f"shared array '{array.name.decode()}'")
        if self.launch.shared_bytes:
            yield Area(library.cs_dynamic_shared(), self.launch.shared_bytes, True, label="shared array 'dynamic'")


def _shared_arrays(library: ctypes.CDLL) -> Iterator[native.Shared]:
    for number in itertools.count():
        array = library.cs_shared_array(number)
        if not array:
            return
        yield array.contents


# A jump to itself, as the machine writes it: a loop whose body the compiler has found to be of no use.
_EMPTY_LOOPS = {"x86_64": b"\xeb\xfe", "aarch64": b"\x00\x00\x00\x14"}


def _is_empty_loop(address: int, image: tuple[int, int]) -> bool:
    code = _EMPTY_LOOPS.get(platform.machine())
    if code is None or not image[0] <= address < image[1] - len(code):
        return False
    return ctypes.string_at(address, len(code)) == code


def _triple(values: Any) -> Triple:
    return values[0], values[1], values[2]


def _nearest(areas: Sequence[Area], address: int) -> str:
    """Where an address lies, seen from the array closest to it."""

    def distance(area: Area) -> int:
        return max(area.address - address, address - (area.address + area.nbytes - 1), 0)

    if address < 4096:
        return ": a null pointer"
    if not areas or distance(min(areas, key=distance)) > 2**36:
        return ": far from every array"
    area = min(areas, key=distance)
    side = "before" if address < area.address else "behind the end of" if distance(area) else "in"
    if side == "in":
        return f", byte {address - area.address} of {area.label}"
    past = area.address - address if side == "before" else distance(area) - 1
    return f", {past} bytes {side} {area.label}"


def _native_areas(areas: Sequence[Area]) -> ctypes.Array[native.NativeArea]:
    """The areas as the C++ side takes them: sorted, and numbered by pieces of memory that overlap."""
    converted = (native.NativeArea * (len(areas) + 1))()
    piece, end = -1, 0
    for target, area in zip(converted, sorted(areas, key=lambda area: area.address)):
        if piece < 0 or area.address >= end:
            piece, end = piece + 1, area.address
        end = max(end, area.address + area.nbytes)
        target.address, target.bytes = area.address, area.nbytes
        target.writable, target.piece = area.writable, piece
        target.label = area.label.encode()
        if area.written is not None:
            if (
                area.written.dtype != np.uint8
                or area.written.size != area.nbytes
                or not area.written.flags.c_contiguous
            ):
                raise ArgumentError(f"cudasim: written of {area.label} must be {area.nbytes} contiguous uint8 values")
            target.written = area.written.ctypes.data
    return converted
