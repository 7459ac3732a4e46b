"""One launch on its way through the C++ side: what goes in, and the reports that come out."""

from __future__ import annotations

import ctypes
import itertools
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from . import native, settings
from .reports import Report, Triple, nearest

if TYPE_CHECKING:
    from .module import Function

PER_LINE = 8  # a line may be many instructions; of the reports of one kind and line the first is shown
SIGNALS = {
    signal.SIGSEGV: "memory access that the operating system refused",
    signal.SIGBUS: "memory access that the operating system refused",
    signal.SIGFPE: "integer division by zero, or one whose result does not fit",
    signal.SIGILL: "a place that no valid program reaches",
}


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


class Call:
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
        begin = time.thread_time()
        fault = self._enter(self.blocks, self.options.time_limit)
        self.seconds = time.thread_time() - begin
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

    def notes(self) -> list[Report]:
        """What is suspicious in the launch, and may be right all the same."""
        raw = []
        for number in itertools.count():
            note = self.module.library.cs_note(number)
            if not note:
                break
            raw.append(native.NativeReport.from_buffer_copy(note.contents))
        return self._collect(native.Fault(), raw) if raw else []

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
            if self.module.mode == "fast" and native.is_empty_loop(fault.trace[0] - 1, self.module.image):
                line = self._line_in_check_mode() or (self.function.entry.file, self.function.entry.line)
            return Report("TIME-LIMIT", *line, *self._where(), text)
        if fault.stack_overflow:
            return Report("STACK-OVERFLOW", *line, *self._where(), "the thread's local variables do not fit its stack")
        text = SIGNALS.get(fault.signal) or signal.strsignal(fault.signal) or f"signal {fault.signal}"
        if fault.behind_stack:
            text += ": an index that leads out of the thread's local variables"
        elif fault.known_address:
            areas = [*self.areas, *self.shared_areas()]
            text += f" at address {fault.address:#x}{nearest(areas, fault.address)}"
        return Report("FAULT", *line, *self._where(), text)

    def _line_in_check_mode(self) -> tuple[str, int] | None:
        """The line of an endless loop that the compiler has made a bare jump: the block is run again with checks."""
        module, number = self.module.in_check_mode(), self.module.library.cs_block_number()
        with module.lock:
            again = Call(module.get_function(self.function.name), *self.arguments)
            fault = again._enter(range(number, number + 1), self.options.time_limit)
            module.take_output()
            if fault.end != native.TIME_LIMIT or again._where() != self._where():
                return None
            found = again._collect(fault, [])[-1]
        return found.file, found.line

    def shared_areas(self) -> Iterator[Area]:
        for array in self.function.shared_arrays():
            yield Area(array.address, array.bytes, True, label=f"shared array '{array.name.decode()}'")
        if self.launch.shared_bytes:
            address = self.module.library.cs_dynamic_shared()
            yield Area(address, self.launch.shared_bytes, True, label="shared array 'dynamic'")


def run_quietly(
    function: Function, grid: Triple, block: Triple, params: Sequence[bytes], areas: Sequence[Area], shared_mem: int
) -> bool:
    """Runs a kernel once more; what it prints is dropped.  True if something was found."""
    with function.module.lock:
        try:
            return bool(Call(function, grid, block, params, areas, shared_mem).run())
        finally:
            function.module.take_output()


def _triple(values: Any) -> Triple:
    return values[0], values[1], values[2]


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
