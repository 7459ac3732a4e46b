"""What was found in a launch, with file and line of the kernel."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import printable
from .source import numbered_file

# The kinds of reports.
KINDS = {
    "RACE": "two accesses to the same bytes, one of them a write, that no barrier, __syncwarp or atomic orders",
    "OOB-GLOBAL": "an access outside of every array that was passed",
    "OOB-SHARED": "an access outside of every shared array",
    "OOB-LOCAL": "an access by a pointer outside of a local array",
    "OOB-INDEX": "an index outside of an array of known size, or of a row of it",
    "SHARED-OVERRUN": "fast mode: the bytes behind a shared array were changed",
    "UNINIT-GLOBAL": "a read of memory that nobody has written",
    "UNINIT-SHARED": "a read of shared memory that no thread of the block has written",
    "UNINIT-LOCAL": "a result that depends on a local variable that nobody has set",
    "UNWRITTEN": "an output that the kernel left unwritten in part",
    "WRITE-CONST": "a write to an array that the kernel takes as a pointer to const",
    "RESTRICT": "__restrict__ parameters that overlap, and a result that depends on it",
    "MISALIGNED": "an address that is no multiple of what its type needs",
    "OVERFLOW": "an integer that does not fit its type; the number of a thread that wraps around at 2^32",
    "SHIFT": "a shift by more bits than there are, or by a negative number of them",
    "DIVISION": "a division by zero, or one whose result does not fit",
    "DIVERGENT-BARRIER": "a __syncthreads that not all threads of the block reach",
    "COPY-PENDING": "an asynchronous copy that its thread has not waited for when it ends",
    "UNROUNDED": "a factor of multiply_add_tf32 with more bits than a TF32 number has",
    "WARP-MASK": "a mask that does not name the calling lane, or names lanes that do not exist",
    "WARP-SOURCE": "a shuffle from a lane that is not in its mask",
    "WARP-WIDTH": "a shuffle in segments of a width that is no power of two up to 32",
    "WARP-DIVERGENT": "lanes that wait for each other in different intrinsics, or with different masks",
    "WARP-DEADLOCK": "a warp intrinsic that some lanes of its mask never reach",
    "ASSERT": "an assertion that does not hold, or __trap()",
    "FAULT": "a memory access or an instruction that the processor refused",
    "STACK-OVERFLOW": "more local variables, or deeper calls, than a thread's stack holds",
    "ORDER": "a result that depends on the order of the threads by more than rounding",
    "TIME-LIMIT": "a kernel that runs longer than the time limit",
    "LAUNCH": "a grid, a block, shared memory or arguments that CUDA would refuse",
    "EMULATOR": "something that the emulator cannot do",
}

# The kinds of notes, RawModule.notes: what is suspicious, but may be right.  A note is no fault.
NOTES = {
    "MAYBE-UNSET": "a local variable that g++ suspects, though no result was seen to depend on it",
    "STALE-SHARED": "a read of shared memory from an earlier round, where the same line has written in this round",
}

Triple = tuple[int, int, int]
Line = tuple[str, int]
_PLACE = re.compile(r"(?:.*/)?" + numbered_file(r"(\d+)") + r":(\d+)")


@dataclass(frozen=True)
class Report:
    """One fault.

    kind: one of KINDS; file, line: in the kernel's source, "" and 0 if unknown;
    block, thread: where, None if unknown; text: what happened.
    """

    kind: str
    file: str
    line: int
    block: Triple | None
    thread: Triple | None
    text: str

    def __str__(self) -> str:
        where = f"{printable(self.file)}:{self.line}: " if self.file else ""
        who = "".join(
            f" {name} ({','.join(map(str, index))})"
            for name, index in (("block", self.block), ("thread", self.thread))
            if index is not None
        )
        return f"{where}{self.kind}:{who and who + ':'} {self.text}"


class Lines:
    """File and line of the instructions of one library.  files: the names of the kernel's files, by their numbers."""

    def __init__(self, library: Path, base: int, files: Sequence[str]):
        self.library, self.base, self.files = str(library), base, files

    def find(self, addresses: Iterable[int]) -> dict[int, Line]:
        """The source line of each return address (the address behind a call); those that are not known are left out."""
        wanted = sorted({address for address in addresses if address > self.base})
        offsets = [address - self.base - 1 for address in wanted]
        found = _lookup(self.library, tuple(offsets)) if offsets else []
        return {address: self._own(places) for address, places in zip(wanted, found) if places}

    def _own(self, places: list[tuple[int, int]]) -> Line:
        """The innermost line of a kernel's own file: what SERVANTS do is named by the line that asked them to."""
        lines = [(self.files[number], line) for number, line in places]
        return next((line for line in lines if line[0] not in SERVANTS), lines[0])


SERVANTS = ("kernels/common.cuh", "kernels/instructions.cuh")


@lru_cache(maxsize=256)
def _lookup(library: str, offsets: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    """addr2line: for each offset its line in the kernel's files, with the file's number, and those that called it.

    The other lines are the emulator's, and those of the C++ library that it uses.
    """
    command = ["addr2line", "-i", "-a", "-e", library, *map(hex, offsets)]
    output = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    found: list[list[tuple[int, int]]] = []
    for text in output.splitlines():
        if text.startswith("0x"):
            found.append([])
            continue
        place = _PLACE.match(text)
        if found and place and int(place[2]):
            found[-1].append((int(place[1]), int(place[2])))
    return found + [[] for _ in range(len(offsets) - len(found))]


def nearest(areas: Sequence[Any], address: int) -> str:
    """Where an address lies, seen from the array closest to it."""

    def distance(area: Any) -> int:
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
