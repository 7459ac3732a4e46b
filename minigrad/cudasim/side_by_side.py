"""The blocks of one launch on all cores: in parts, each on a copy of the library with memory of its own for a block.

CUDA's blocks run in any order, or at once, so a right kernel leaves the same.  One whose blocks talk to each other
(atomics, fences, volatile memory, variables of the file) or whose order shows (printf, malloc) runs on one core.  So
does one that is expected to be short, from what its last launch took.

In check mode each part knows only its own blocks.  So when all are done, what they have touched is compared, and where
two of them met at a byte that one has written, or anything was found at all, the launch runs again from the same
beginning on one core: its reports do not depend on the number of cores.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import native, settings
from .call import Area, Call
from .reports import Report, Triple
from .second_run import SecondRun
from .source import without_comments

if TYPE_CHECKING:
    from .module import Function, RawModule

# Emulated threads for which another part pays, in the first launch of a kernel, of which nothing is known.
LEAST_THREADS = {"fast": 1 << 14, "check": 1 << 11}
# Seconds of a processor from which parts pay once a kernel has run: in check mode each part fills a shadow of its own.
WORTH = {"fast": 0.02, "check": 0.05}
MOST_SHADOW = 1 << 30  # bytes that all parts of a launch in check mode may remember about memory
SHADOW = 8  # bytes for each byte of an array, at most, where no access is narrower than 4

_TALKS = re.compile(
    r"\b(?:atomic\w*|__threadfence\w*|__nanosleep|(?<!asm )volatile|this_grid|grid_group|this_cluster|red|printf|assert"
    r"|__trap|clock(?:64)?|globaltimer|malloc|free|new|delete|__prof_trigger|cuda::\w+)\b"
)

# Of the kernels that have run, by library and name: the time for an emulated thread, in the last launch; those whose
# parts have met, so that all was run twice.  They decide about speed alone.
_seconds: dict[tuple[str, str], float] = {}
_meet: set[tuple[str, str]] = set()


def talks(text: str) -> bool:
    """Whether blocks of a kernel in this source may be in touch with each other, or have an order that shows."""
    return bool(_TALKS.search(without_comments(text)))


def parts_of(
    function: Function, grid: Triple, block: Triple, areas: Sequence[Area], again: SecondRun | None
) -> list[range]:
    """How to split the blocks of the launch; one part, or none, where it is to run on one core.

    again: in check mode, what can bring back the arrays as they were.
    """
    module, blocks = function.module, grid[0] * grid[1] * grid[2]
    options = settings.current()
    cores = options.cores or len(os.sched_getaffinity(0))
    if cores == 1 or options.blocks is not None or options.counters or options.trace is not None:
        return []
    if module.mode not in LEAST_THREADS or (module.mode == "fast" and options.order != "forward"):
        return []
    if module.blocks_talk or function.has_variables or (again is not None and not again.possible):
        return []
    threads, key = blocks * block[0] * block[1] * block[2], _key(function)
    if key in _meet or threads * _seconds.get(key, np.inf) < WORTH[module.mode]:
        return []
    count = min(cores, blocks, threads // LEAST_THREADS[module.mode])
    if module.mode == "check":
        count = min(count, MOST_SHADOW // (SHADOW * sum(area.nbytes for area in areas) + 1))
    return [range(k * blocks // count, (k + 1) * blocks // count) for k in range(count)] if count > 1 else []


def remember(function: Function, block: Triple, calls: Sequence[Call]) -> None:
    """Notes what the launch took that these calls have run."""
    threads = sum(len(call.blocks) for call in calls) * block[0] * block[1] * block[2]
    _seconds[_key(function)] = sum(call.seconds for call in calls) / threads


def _key(function: Function) -> tuple[str, str]:
    return str(function.module.path), function.name


class Found(NamedTuple):
    """Of a launch: its reports, what is suspicious and may be right, and what to say of reports that are left out."""

    reports: list[Report]
    notes: list[Report]
    left_out: list[str]


def run_parts(
    function: Function,
    parts: Sequence[range],
    grid: Triple,
    block: Triple,
    params: Sequence[bytes],
    areas: Sequence[Area],
    shared_mem: int,
    again: SecondRun | None,
) -> Found | None:
    """Runs these parts of a launch at once.  None where all of it has to run again: the arrays are as before."""
    module = function.module
    copies = [module, *(module.beside(number) for number in range(1, len(parts)))]
    marked = [area for area in areas if again and area.written is not None and area.writable]
    marks = [area.written.copy() for area in marked if area.written is not None]
    with ExitStack() as stack:
        for copy in copies:
            stack.enter_context(copy.lock)
        calls = []
        for copy, blocks in zip(copies, parts):
            copy.flush_to_zero = module.flush_to_zero
            copy.take_constants(module)
            own = copy.get_function(function.name)
            call = Call(own, grid, block, params, [*areas, *copy.variable_areas], shared_mem)
            call.blocks, call.launch.keep_cells = blocks, module.mode == "check"
            calls.append(call)
        with ThreadPoolExecutor(len(parts) - 1) as pool:
            others = [pool.submit(call.run) for call in calls[1:]]
            reports = [calls[0].run(), *(other.result() for other in others)]
        met = again is not None and _met(copies)
        failed = next((k for k, found in enumerate(reports) if found), 0)
        in_time = not any(report.kind == "TIME-LIMIT" for report in reports[failed])
        if again and in_time and (met or reports[failed]):
            if met:
                _meet.add(_key(function))
            again.restore()
            for area, written in zip(marked, marks):
                np.copyto(area.written, written)  # type: ignore[arg-type]
            return None
        remember(function, block, calls)
        notes: dict[tuple[str, str, int], Report] = {}
        for note in [note for call in calls for note in call.notes()] if again else []:
            notes.setdefault((note.kind, note.file, note.line), note)
        return Found(reports[failed], list(notes.values()), calls[failed].left_out(reports[failed]))


def _met(copies: Sequence[RawModule]) -> bool:
    """Whether two parts have touched the same byte, and one of them wrote it; forgets who touched what."""
    known: list[ctypes.Array[native.Cells]] = []
    met = False
    for copy in copies:
        for other in known:
            met = met or bool(copy.library.cs_met(other, len(other)))
        cells = (native.Cells * copy.library.cs_cells(None, 0))()
        copy.library.cs_cells(cells, len(cells))
        known.append(cells)
    for copy in copies:
        copy.library.cs_forget_cells()
    return met
