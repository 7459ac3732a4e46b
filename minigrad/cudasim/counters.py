"""Memory traffic that check mode counted, source line by source line."""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint32, c_uint64
from dataclasses import dataclass

from ..errors import printable
from .reports import Lines

OPERATIONS = ("load", "store", "atomic")


class _Counts(ctypes.Structure):
    """Counts of cpp/counters.cpp: the sums of one instruction."""

    _fields_ = [
        ("pc", c_uint64),
        ("bytes", c_uint32),
        ("kind", c_uint8),
        ("shared", c_uint8),
        ("accesses", c_uint64),
        ("requests", c_uint64),
        ("units", c_uint64),
        ("ideal_units", c_uint64),
    ]


@dataclass
class Row:
    """The traffic of one kind of access in one source line.

    operation: "load", "store" or "atomic"; memory: "global" or "shared"; size: bytes of one thread's access.
    accesses: by threads; requests: by warps.
    units, ideal: sectors of 32 bytes (global) or wavefronts (shared), and how few would do for the same bytes.
    """

    file: str
    line: int
    operation: str
    memory: str
    size: int
    accesses: int = 0
    requests: int = 0
    units: int = 0
    ideal: int = 0

    @property
    def units_per_request(self) -> float:
        return self.units / self.requests

    @property
    def ideal_per_request(self) -> float:
        return self.ideal / self.requests


class Counters:
    """What the launches of a module with options(counters=True) did to memory.

    rows: one Row for each source line, kind of access, memory and size, in the order of the source.
    not_counted: accesses that are in no row: only so many requests are kept between two barriers.
    """

    def __init__(self, library: ctypes.CDLL, lines: Lines):
        self._library = library
        library.cs_counts.restype = c_uint64
        room = int(library.cs_counts(None, c_uint64(0)))
        counts = (_Counts * (room + 1))()
        library.cs_counts(counts, c_uint64(room))
        places = lines.find(c.pc for c in counts[:room])
        merged: dict[tuple[str, int, str, str, int], Row] = {}
        for c in counts[:room]:
            memory = "shared" if c.shared else "global"
            key = (*places.get(c.pc, ("", 0)), OPERATIONS[c.kind], memory, c.bytes)
            row = merged.setdefault(key, Row(*key))
            row.accesses += c.accesses
            row.requests += c.requests
            row.units += c.units
            row.ideal += c.ideal_units
        library.cs_not_counted.restype = c_uint64
        self.not_counted = int(library.cs_not_counted())
        self.rows = [merged[key] for key in sorted(merged) if merged[key].requests]

    def reset(self) -> None:
        """Start again from zero."""
        self._library.cs_reset_counts()
        self.rows, self.not_counted = [], 0

    def _total(self, memory: str, *operations: str) -> int:
        return sum(row.accesses * row.size for row in self.rows if row.memory == memory and row.operation in operations)

    @property
    def bytes_read(self) -> int:
        """Bytes that threads read from global memory."""
        return self._total("global", "load", "atomic")

    @property
    def bytes_written(self) -> int:
        """Bytes that threads wrote to global memory."""
        return self._total("global", "store", "atomic")

    @property
    def bytes_moved(self) -> int:
        """Bytes of the sectors of global memory that were moved, an atomic's both ways; no cache is modelled."""
        sectors = [(row.units, 2 if row.operation == "atomic" else 1) for row in self.rows if row.memory == "global"]
        return 32 * sum(units * ways for units, ways in sectors)

    def __str__(self) -> str:
        """A table: one line for each row, then the totals."""
        cells = [("line", "access", "bytes", "requests", "units/request", "ideal", "unit")]
        for row in self.rows:
            access, unit = f"{row.memory} {row.operation}", "wavefront" if row.memory == "shared" else "sector"
            per_request = f"{row.units_per_request:.2f}", f"{row.ideal_per_request:.2f}"
            cells.append(
                (f"{printable(row.file)}:{row.line}", access, str(row.size), str(row.requests), *per_request, unit)
            )
        widths = [max(map(len, column)) for column in zip(*cells)]
        formats = [f"{{:{'<' if i in (0, 1, 6) else '>'}{width}}}" for i, width in enumerate(widths)]
        table = ["  ".join(formats).format(*line).rstrip() for line in cells]
        totals = f"global memory: {self.bytes_read} bytes read, {self.bytes_written} written, {self.bytes_moved} moved"
        if self.not_counted:
            totals += (
                f"\nNot complete: {self.not_counted} accesses came when no more could be kept, and are not counted."
            )
        return "\n".join([*table, totals])
