"""Launching emulated kernels, in CuPy's shape: RawModule(code).get_function(name).launch(grid, block, ...)."""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from ..errors import ArgumentError, KernelError
from . import native, settings
from . import source as kernel_source
from .assembly import MAX_SHARED
from .call import Area, Call
from .compiler import compile_kernels, compile_unit
from .counters import Counters
from .emission import Unit
from .reports import Lines, Report, Triple
from .second_run import SecondRun
from .side_by_side import Found, parts_of, remember, run_parts, talks
from .trace import tracing

MAX_THREADS = 1024
MOST_SHARED = 227 * 1024  # bytes of shared memory that a block of sm_90 may have, where its kernel has asked for them

# One launch at a time in each library: modules of the same source share it.
_locks: dict[str, threading.Lock] = {}


class RawModule:
    """The kernels of one source, compiled for the emulator.

    code: CUDA C++; `#line` markers name the files of messages.  options: -D options.  mode: "fast" or "check".
    copy: modules of different numbers have separate shared memory and may run at the same time.
    unit: what cuda_file.py has made of a kernel in somebody's file; code and options are not read then.
    unset: in check mode, what local variables begin as that nobody sets: see compile_kernels.
    Raises KernelError for a source that breaks the rules for kernels or does not compile; DeviceError without g++.
    """

    def __init__(
        self,
        code: str,
        options: Sequence[str] = (),
        mode: str = "fast",
        copy: int = 0,
        *,
        unit: Unit | None = None,
        unset: str = "pattern",
    ):
        if mode not in (*settings.MODES, "debug"):
            raise ArgumentError(f"cudasim: mode must be one of {', '.join(map(repr, settings.MODES))}, got {mode!r}")
        self.mode = mode
        self.in_check_mode = cache(lambda: RawModule(code, options, "check", copy, unit=unit))
        self.with_zeros = cache(lambda: RawModule(code, options, "check", copy, unit=unit, unset="zero"))
        self.beside = cache(lambda part: RawModule(code, options, mode, copy + 1000 * part, unit=unit, unset=unset))
        self.blocks_talk = talks(unit.text if unit else code)
        self.suspects = cache(self._suspects)
        self.notes: list[Report] = []  # of the last launch, in check mode: what is suspicious, and may be right
        self.unit = unit
        if unit:
            self.path = compile_unit(unit, mode, copy, unset)
        else:
            self.path = compile_kernels(code, tuple(options), mode, copy, unset)
        self.library = native.load(self.path)
        self.lock = _locks.setdefault(str(self.path), threading.Lock())
        # As with CuPy, which compiles with -ftz=true: float numbers flush to zero, doubles do not.
        self.flush_to_zero = not unit and not any(option.endswith("=double") for option in options)
        begin, end = ctypes.c_uint64(), ctypes.c_uint64()
        self.library.cs_image(begin, end)
        self.image = begin.value, end.value
        files = list(unit.files) if unit else kernel_source.with_numbered_files(code)[1]
        self.lines = Lines(self.path, begin.value, files)
        self.variables = native.variables(self.library) if unit else {}
        self.variable_areas = [
            Area(v.address, v.bytes, not v.constant, label=f"{'constant' if v.constant else 'variable'} '{name}'")
            for name, v in self.variables.items()
        ]
        entries = unit.entries if unit else kernel_source.entries(code)
        self._functions = {entry.name: Function(self, number, entry) for number, entry in enumerate(entries)}

    @property
    def names(self) -> list[str]:
        """The entry points, in the order of the source."""
        return list(self._functions)

    def get_function(self, name: str) -> Function:
        """The entry point of that name; KernelError names those there are."""
        if name not in self._functions:
            raise KernelError(f"there is no kernel '{name}' in this source; there are {', '.join(self.names)}")
        return self._functions[name]

    def get_global(self, name: str) -> tuple[int, int]:
        """Address and bytes of a `__constant__` or `__device__` variable; KernelError names those there are."""
        if name not in self.variables:
            there = ", ".join(self.variables) or "none"
            raise KernelError(f"there is no __constant__ or __device__ variable '{name}' that the kernel uses: {there}")
        variable = self.variables[name]
        return variable.address, variable.bytes

    def take_constants(self, other: RawModule) -> None:
        """Gives the `__constant__` variables the values that they have in another library of the same source."""
        for name, variable in self.variables.items():
            if variable.constant:
                ctypes.memmove(variable.address, *other.get_global(name))

    def take_output(self) -> str:
        """What printf wrote since the last call."""
        length = ctypes.c_uint64()
        text = self.library.cs_take_output(length)
        return ctypes.string_at(text, length.value).decode(errors="replace")

    def _suspects(self) -> list[tuple[str, int, str, str]]:
        """Local variables that g++ takes for unset: file, line, name, the functions that they may belong to."""
        text = ctypes.c_char.in_dll(self.library, "cs_suspected_locals")
        lines = ctypes.string_at(ctypes.addressof(text)).decode(errors="replace").splitlines()
        parts = [line.split("\t") for line in lines]
        return [(self.lines.files[int(number)], int(line), name, of) for number, line, name, of in parts]

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
        with module.lock:  # in check mode it is watched, as if a launch of another thread did what it does
            self.kernel.describe(text)
        self.parameters = text.value.decode().split("\n")[:-1]
        self.sizes = [8 if t.endswith("*") else np.dtype(t).itemsize for t in self.parameters]
        self.static_shared = sum(a.bytes for a in self.shared_arrays() if a.kernel or module.unit)
        # As CuPy calls it: more has to be asked for, and few GPUs have it.
        self.max_dynamic_shared_size_bytes = MAX_SHARED
        count = ctypes.c_uint64.in_dll(module.library, "cs_n_device_variables").value
        variables = (native.Shared * count).in_dll(module.library, "cs_device_variables")
        constants = {known for known, variable in module.variables.items() if variable.constant}
        # Such as the kernel may write: what they hold when a launch begins is not among its arguments.
        self.has_variables = any(
            name.encode() in variable.kernel.split(b",") and variable.name.decode() not in constants
            for variable in variables
        )
        self.most_threads = (ctypes.c_uint32 * (number + 1)).in_dll(module.library, "cs_launch_bounds")[number]

    def shared_arrays(self) -> Iterator[native.Shared]:
        """The static shared arrays that are its own, or may be."""
        for number in itertools.count():
            array = self.module.library.cs_shared_array(number)
            if not array:
                return
            array = array.contents
            if not array.kernel or self.module.unit or self.name.encode() in array.kernel.split(b","):
                yield array

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
        checks = self.module.mode == "check"
        all_areas = [*areas, *self.module.variable_areas]
        again = SecondRun(self, grid, block, params, all_areas, shared_mem) if checks else None
        parts = parts_of(self, grid, block, areas, again)
        found = run_parts(self, parts, grid, block, params, areas, shared_mem, again) if parts else None
        reports, notes, more = found or self._run(grid, block, params, all_areas, shared_mem)
        self.module.notes = notes
        if not reports and again:
            reports = again.reports() + self._unwritten(areas)
            if not reports:
                self.module.notes += again.notes()
        if reports:
            title = _title(self.name, grid, block)
            raise KernelError("\n".join([title, *map(str, reports), *more]), reports)

    def _run(
        self, grid: Triple, block: Triple, params: Sequence[bytes], areas: Sequence[Area], shared_mem: int
    ) -> Found:
        """All blocks, on one core."""
        with self.module.lock:
            call = Call(self, grid, block, params, areas, shared_mem)
            try:
                with tracing(call.options.trace, call.launch, self.module, call.shared_areas):
                    reports = call.run()
            finally:
                sys.stdout.write(self.module.take_output())
            remember(self, block, [call])
            return Found(reports, call.notes() if self.module.mode == "check" else [], call.left_out(reports))

    def _check_launch(self, grid: Triple, block: Triple, params: Sequence[bytes], shared_mem: int) -> None:
        def refuse(rule: str) -> None:
            report = Report("LAUNCH", self.entry.file, self.entry.line, None, None, rule)
            raise KernelError(f"{_title(self.name, grid, block)}\n{report}", [report])

        if len(grid) != 3 or min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            refuse("a grid has three sizes from 1 to (2147483647, 65535, 65535)")
        if len(block) != 3 or min(block) < 1 or block[2] > 64 or int(np.prod(block)) > MAX_THREADS:
            refuse(f"a block has three sizes of at least 1, at most {MAX_THREADS} threads in all, at most 64 along z")
        if int(np.prod(block)) > self.most_threads:
            refuse(f"__launch_bounds__ of the kernel allows {self.most_threads} threads in a block")
        if len(params) != len(self.parameters):
            refuse(f"{len(params)} arguments for {len(self.parameters)} parameters: {', '.join(self.parameters)}")
        for i, (value, size) in enumerate(zip(params, self.sizes)):
            if len(value) != size:
                refuse(f"argument {i} has {len(value)} bytes, parameter {self.parameters[i]} has {size}")
        allowed = max(MAX_SHARED, self.max_dynamic_shared_size_bytes)
        if allowed > MOST_SHARED:
            refuse(f"max_dynamic_shared_size_bytes={allowed}: no GPU gives a block more than {MOST_SHARED}")
        if shared_mem < 0 or self.static_shared + shared_mem > allowed:
            static = f"{self.static_shared} bytes of static"
            asks = "; more is for those who ask: --max-shared, max_shared=, max_dynamic_shared_size_bytes"
            more = "" if self.static_shared > allowed else asks
            refuse(f"{static} and {shared_mem} of dynamic shared memory; a block has {allowed}{more}")

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


def _title(name: str, grid: Sequence[int], block: Sequence[int]) -> str:
    return f"{name}: grid ({','.join(map(str, grid))}), block ({','.join(map(str, block))})"
