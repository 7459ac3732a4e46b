"""What one thread of a kernel does to memory, step by step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, printable
from . import native

if TYPE_CHECKING:
    from .call import Area
    from .module import RawModule

Triple = tuple[int, int, int]
OPERATIONS = {b"l": "load", b"s": "store", b"a": "atomic", b"b": "barrier", b"w": "warp"}
C_TYPES = {
    **{"float": "float32", "double": "float64", "int": "int32", "unsigned": "uint32", "char": "int8", "bool": "bool"},
    **{"short": "int16", "long": "int64", "unsigned int": "uint32", "unsigned char": "uint8", "long long": "int64"},
    **{"unsigned short": "uint16", "unsigned long long": "uint64", "half": "float16", "__half": "float16"},
    **{f"{kind}{bits}_t": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
MOST_STEPS = 1_000_000
_OWN = 64  # room for what the emulator itself does in a thread


@dataclass(frozen=True)
class Step:
    """One step.

    operation: "load", "store", "atomic", "barrier" (a __syncthreads) or "warp" (a shuffle, vote or __syncwarp).
    where: what it accesses: "x[17]", "shared tile[3]"; "" of a barrier.
    value: what was read or is stored, "old -> new" of an atomic; "" where the access went wrong.
    """

    file: str
    line: int
    operation: str
    where: str
    value: str


class Trace:
    """What one thread did, filled in by the launch that it is given to.

    thread, block: threadIdx and blockIdx.  most: how many steps are kept, the first ones.
    steps: what happened.  cut: how many more there were.
    arrays: of what `where` names: (address, bytes, name, dtype) of each; types: of shared arrays, by name.
    """

    def __init__(self, thread: Triple, block: Triple = (0, 0, 0), most: int = 200):
        if not 1 <= most <= MOST_STEPS:
            raise ArgumentError(f"cudasim: a trace keeps 1 to {MOST_STEPS} steps, got {most}")
        self.thread, self.block, self.most = thread, block, most
        self.steps: list[Step] = []
        self.cut = 0
        self.arrays: list[tuple[int, int, str, np.dtype[Any]]] = []
        self.types: dict[str, np.dtype[Any]] = {}

    def check(self, grid: Sequence[int], block: Sequence[int]) -> None:
        """ArgumentError where the launch has no such thread."""
        for name, index, sizes in (("thread", self.thread, block), ("block", self.block, grid)):
            if any(not 0 <= i < size for i, size in zip(index, sizes)):
                raise ArgumentError(f"trace: there is no {name} {index}: the sizes are {tuple(sizes)}")

    def prepare(self, launch: native.Launch) -> None:
        """Tells the launch what to note, and where."""
        self._records = (native.Traced * (self.most + _OWN))()
        launch.trace, launch.max_traced, launch.n_traced = self._records, len(self._records), 0
        launch.trace_thread = _flat(self.thread, launch.block_size)
        launch.trace_block = _flat(self.block, launch.grid_size)

    def fill(self, launch: native.Launch, module: RawModule, shared: Iterable[Area]) -> None:
        """Turns what the launch has noted into steps."""
        records = self._records[: min(int(launch.n_traced), len(self._records))]
        lines = module.lines.find(record.pc for record in records)
        beyond = int(launch.n_traced) - len(records)
        # What lies in no line of the source is how the emulator sets the thread's coordinates.
        records = [record for record in records if record.pc in lines]
        self.cut = beyond + max(0, len(records) - self.most)
        places = [*self.arrays]
        for area in shared:
            name = area.label.removeprefix("shared array ").strip("'")
            places.append((area.address, area.nbytes, f"shared {name}", self.types.get(name, np.dtype("V1"))))
        self.steps = [self._step(record, lines[record.pc], places) for record in records[: self.most]]

    def _step(self, record: native.Traced, line: tuple[str, int], places: list[Any]) -> Step:
        operation = OPERATIONS[record.operation]
        if operation in ("barrier", "warp"):
            return Step(*line, operation, "", "")
        where, dtype = _place(record.address, record.bytes, places)
        values = []
        for known, raw in ((record.has_before, record.before), (record.has_after, record.after)):
            if known:
                values.append(_shown(bytes(raw)[: record.bytes], dtype))
        return Step(*line, operation, where, " -> ".join(values))

    def __str__(self) -> str:
        """A table, one line for each step."""
        cells = [("line", "what", "where", "value")]
        for step in self.steps:
            cells.append((f"{printable(step.file)}:{step.line}", step.operation, step.where, step.value))
        widths = [max(map(len, column)) for column in zip(*cells)]
        table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in cells]
        title = f"thread {_text(self.thread)} of block {_text(self.block)}:"
        if not self.steps:
            return f"{title} no access to memory, no barrier"
        tail = [f"... and {self.cut} more, which are left out"] if self.cut else []
        return "\n".join([title, *table, *tail])


@contextmanager
def tracing(
    trace: Trace | None, launch: native.Launch, module: RawModule, shared: Callable[[], Iterable[Area]]
) -> Iterator[None]:
    """Around a launch: what it notes goes to the trace, even where it ends in a fault.  None, fast mode: nothing."""
    if trace is None or module.mode != "check":
        yield
        return
    trace.prepare(launch)
    try:
        yield
    finally:
        trace.fill(launch, module, shared())


def shared_types(text: str) -> dict[str, np.dtype[Any]]:
    """The element types of the __shared__ arrays that a source declares, where they are plain; "dynamic" too."""
    found: dict[str, np.dtype[Any]] = {}
    declared = (
        r"\b(extern\s+)?__shared__\s+(?:__align__\s*\([^)]*\)\s*|alignas\s*\([^)]*\)\s*|volatile\s+)*([\w \t]+?)\s+"
    )
    for match in re.finditer(declared + r"(\w+\s*(?:\[[^;]*)?(?:,[^;]*)?);", text):
        kind = C_TYPES.get(" ".join(match[2].split()))
        for name in re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\[[^\]]*\]", "", match[3])):
            if kind:
                found["dynamic" if match[1] else name] = np.dtype(kind)
    return found


def _flat(index: Triple, sizes: Any) -> int:
    return index[0] + sizes[0] * (index[1] + sizes[1] * index[2])


def _text(index: Triple) -> str:
    return f"({','.join(map(str, index))})"


def _place(address: int, nbytes: int, places: list[Any]) -> tuple[str, np.dtype[Any]]:
    """What lies at an address, in words, and of what type it is."""
    for begin, size, name, dtype in places:
        if begin <= address and address + nbytes <= begin + size:
            known = dtype.kind != "V" or dtype.itemsize == nbytes
            item = dtype.itemsize if known else nbytes
            place, inside = divmod(address - begin, item)
            label = f"{name}[{place}]"
            if nbytes > item:
                label = f"{name}[{place}..{place + nbytes // item - 1}]"
            if inside:
                label += f" byte {inside}"
            return label, dtype if known and not inside else np.dtype(f"V{nbytes}")
    if address < 4096:
        return "a null pointer", np.dtype(f"V{nbytes}")
    nearest = min(places, key=lambda p: min(abs(address - p[0]), abs(address - p[0] - p[1])), default=None)
    if nearest is not None and -(1 << 20) < address - nearest[0] < nearest[1] + (1 << 20):
        begin, size, name, dtype = nearest
        item = dtype.itemsize if dtype.kind != "V" else nbytes
        return f"{name}[{(address - begin) // item}] (outside)", dtype
    return "other memory", np.dtype(f"V{nbytes}")


def _shown(raw: bytes, dtype: np.dtype[Any]) -> str:
    """Bytes as numbers of a type; of an unknown one, as hexadecimal digits of an integer."""
    if dtype.kind == "V" and dtype.fields is None or dtype.itemsize == 0 or len(raw) % dtype.itemsize:
        number = int.from_bytes(raw, "little")
        as_float = np.frombuffer(raw, np.float32)[0] if len(raw) == 4 else None
        return f"{number:#x}" + (f" (as float {as_float:g})" if as_float is not None else "")
    values = np.frombuffer(raw, dtype)
    return str(values[0]) if len(values) == 1 else " ".join(map(str, values))
