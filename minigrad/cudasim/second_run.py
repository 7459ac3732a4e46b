"""What a second run of a launch shows, in check mode: two mistakes that no single load or store gives away.

- A local variable that is read before it is set.  Variables live in registers, where nobody can watch them.  So they
  begin as bytes of 0xFE (compiler.py).  Where g++ suspects one, or a result is as large as such a number, the launch
  is run again with zeros in their place: if the results differ, they depend on what nobody has set.
- A promise of __restrict__ that is broken.  Where two such parameters overlap, the launch is run again on copies that
  do not: if the results differ, they depend on the overlap, and a compiler may choose between the two.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import settings
from .call import Area, run_quietly
from .comparing import difference
from .reports import Report, Triple

if TYPE_CHECKING:
    from .module import Function, RawModule

MOST_BYTES = 64 << 20  # of arrays that a kernel may write: with more, nothing is run twice
# What comes from bytes of 0xFE: a float as large as this, an integer as near to that as a count may be.
HUGE = {"float32": 1e30, "float64": 1e290}
PATTERN = {"int32": -0x01010102, "int64": -0x0101010101010102}


class SecondRun:
    """The launch as it was before it ran.  reports(): what another run of it shows; the arrays keep their values."""

    def __init__(
        self,
        function: Function,
        grid: Triple,
        block: Triple,
        params: Sequence[bytes],
        areas: Sequence[Area],
        shared: int,
    ):
        self.function, self.sizes, self.params, self.areas, self.shared = function, (grid, block), params, areas, shared
        module = function.module
        writable = sum(area.nbytes for area in areas if area.writable)
        # The variables of a file can be given to the library of the second run; those of minigrad's sources cannot.
        known = bool(module.unit) or not function.has_variables
        self.possible = writable <= MOST_BYTES and known and not self._has_addresses(module)
        self.overlapping = list(self._overlapping()) if self.possible else []
        self.before = [_bytes_of(area).copy() for area in areas if area.writable] if self.possible else []
        self.variables = [_bytes_of(area).copy() for area in module.variable_areas] if self.possible else []

    @staticmethod
    def _has_addresses(module: RawModule) -> bool:
        """Whether a variable of the file may hold the address of another: another library has other addresses."""
        return any(_points_into(_bytes_of(area), module) for area in module.variable_areas)

    def reports(self) -> list[Report]:
        if not self.possible:
            return []
        return self._restricted() or self._unset()

    def notes(self) -> list[Report]:
        """What g++ suspects, where nothing is proven."""
        return [
            Report("MAYBE-UNSET", file, line, None, None, f"'{name}' may be read before it is set, says g++")
            for file, line, name in dict.fromkeys(suspect[:3] for suspect in self._suspects())
        ]

    # ---------------------------------------------------------------- locals that nobody has set

    def _suspects(self) -> list[tuple[str, int, str, str]]:
        return [suspect for suspect in self.function.module.suspects() if self._may_run(suspect[3])]

    def _unset(self) -> list[Report]:
        suspects = self._suspects()
        if not suspects and not any(_may_be_unset(area, self._kind(area)) for area in self.areas):
            return []
        zeros = self.function.module.with_zeros()
        theirs = dict(zip(map(id, self.function.module.variable_areas), zeros.variable_areas))
        for area, values in zip(zeros.variable_areas, self.variables):
            _bytes_of(area)[:] = values
        found = self._run(
            zeros.get_function(self.function.name), self.params, [theirs.get(id(area), area) for area in self.areas]
        )
        different = self._different(found, theirs)
        if different is None:
            return []
        text = f"{different} depends on a local variable that nobody has set"
        file, line = self.function.entry.file, self.function.entry.line
        if suspects:
            file, line, variable, _ = suspects[0]
            text += f": '{variable}', it seems"
        return [Report("UNINIT-LOCAL", file, line, None, None, text)]

    def _kind(self, area: Area) -> str:
        """The type of an array's elements; V of a variable's, which may be anything."""
        for kind, value in zip(self.function.parameters, self.params):
            if kind.endswith("*") and int.from_bytes(value, "little") == area.address:
                return kind.removeprefix("const ").removesuffix("*")
        return "V"

    def _may_run(self, functions: str) -> bool:
        """Whether a suspect may belong to this kernel: it does if it is in the kernel, or in no kernel."""
        names = [name for name in self.function.module.names if f" {name}(" in f" {functions}"]
        return not names or self.function.name in names

    # ---------------------------------------------------------------- __restrict__

    def _overlapping(self) -> Iterator[tuple[int, Area]]:
        """Parameters that are restricted and whose array overlaps another restricted one: their number, the array."""
        restricted = []
        for i, is_restricted in enumerate(self.function.entry.restricted):
            if not is_restricted or not self.function.parameters[i].endswith("*"):
                continue
            address = int.from_bytes(self.params[i], "little")
            writable = not self.function.parameters[i].startswith("const ")
            restricted += [(i, a) for a in self.areas if a.address == address and a.writable == writable][:1]
        for i, area in restricted:
            for j, other in restricted:
                apart = area.address + area.nbytes <= other.address or other.address + other.nbytes <= area.address
                if i != j and not apart and (area.writable or other.writable):
                    yield i, area
                    break

    def _restricted(self) -> list[Report]:
        if not self.overlapping:
            return []
        params, areas = list(self.params), list(self.areas)
        copies = []
        now = [_bytes_of(area).copy() for area in self.areas]
        self.restore()
        for i, area in self.overlapping:
            memory = np.empty(area.nbytes + 64, np.uint8)
            start = -memory.ctypes.data % 64
            copy = memory[start : start + area.nbytes]
            number = next(k for k, one in enumerate(self.areas) if one is area)
            copy[:] = _bytes_of(area)
            params[i] = copy.ctypes.data.to_bytes(8, "little")
            areas[number] = replace(area, address=copy.ctypes.data, written=None, must_fill=False)
            copies.append((area, number, copy))
        failed = self._run(self.function, params, areas, restore=False)
        for area, values in zip(self.areas, now):
            if area.writable:
                _bytes_of(area)[:] = values
        for area, number, copy in copies:
            if area.writable and (failed or not _alike(copy, now[number], self._kind(area))):
                text = (
                    f"{area.label} overlaps another array, both are __restrict__, and the result depends on it: "
                    "without the overlap it is another one"
                )
                return [Report("RESTRICT", self.function.entry.file, self.function.entry.line, None, None, text)]
        return []

    # ---------------------------------------------------------------- running

    def restore(self) -> None:
        """The arrays as they were before the launch."""
        for area, values in zip([area for area in self.areas if area.writable], self.before):
            _bytes_of(area)[:] = values

    def _run(self, function: Function, params: Sequence[bytes], areas: Sequence[Area], restore: bool = True) -> Any:
        """Runs it from the same beginning.  What the arrays held after the first run; whether the second one failed."""
        first = [_bytes_of(area).copy() for area in self.areas if area.writable] if restore else []
        if restore:
            self.restore()
        unmarked = [replace(area, written=None, must_fill=False) for area in areas]
        with settings.options(counters=False):
            failed = run_quietly(function, *self.sizes, params, unmarked, self.shared)
        return (failed, first) if restore else failed

    def _different(self, found: tuple[bool, list[np.ndarray]], elsewhere: dict[int, Area]) -> str | None:
        """The name of an array that the second run has left with other values; the arrays get those of the first.

        elsewhere: by the id of an area of the first run, where the second one had it."""
        failed, first = found
        different = None
        for area, values in zip([area for area in self.areas if area.writable], first):
            again = _bytes_of(elsewhere.get(id(area), area))
            # What points to a variable of the file, or into the heap, points elsewhere in another library.
            if failed or not (_points_into(values, self.function.module) or _alike(again, values, self._kind(area))):
                different = different or area.label
            _bytes_of(area)[:] = values
        return different


def _points_into(values: np.ndarray, module: RawModule) -> bool:
    """Whether these bytes hold an address of the module's library."""
    words = np.ascontiguousarray(values[: values.size // 8 * 8]).view(np.uint64)
    return bool(((words >= module.image[0]) & (words < module.image[1])).any())


def _may_be_unset(area: Area, kind: str) -> bool:
    """Whether an array holds numbers that may come from what nobody has set.  kind: of its elements."""
    if not area.writable or not area.nbytes:
        return False
    plain = kind.removeprefix("u")
    for dtype in [plain] if plain in (*HUGE, *PATTERN) else HUGE if kind.startswith("V") else ():
        if area.nbytes % np.dtype(dtype).itemsize == 0:
            numbers = _bytes_of(area).view(dtype)
            with np.errstate(invalid="ignore"):
                if dtype in HUGE:
                    found = (numbers <= -HUGE[dtype]) & (numbers > -np.inf)
                else:
                    found = (numbers > PATTERN[dtype] - (1 << 20)) & (numbers < PATTERN[dtype] + (1 << 20))
            if found.any():
                return True
    return False


def _bytes_of(area: Area) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * area.nbytes).from_address(area.address))


def _alike(again: np.ndarray, first: np.ndarray, kind: str) -> bool:
    """The same bytes; or the same floats but for the rounding, which may differ between two compilations."""
    if np.array_equal(again, first):
        return True
    kind = "float16" if kind == "V2" else kind
    for dtype in [kind] if kind.startswith("float") else HUGE if kind.startswith("V") else ():
        if again.size % np.dtype(dtype).itemsize == 0 and not difference("", first.view(dtype), again.view(dtype)):
            return True
    return False
