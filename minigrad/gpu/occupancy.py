"""How many warps of a kernel a multiprocessor holds at once, from what a block takes of it.

Memory answers after hundreds of cycles; meanwhile a multiprocessor works on whichever of its warps has its data.  How
many it can have at once is decided by what runs out first: its threads, its registers, its shared memory, or its places
for blocks.

The numbers are those of the CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability"; how
registers and shared memory are rounded is what cuda_occupancy.h, which comes with CUDA, does.
"""

from __future__ import annotations

from typing import NamedTuple

WARP = 32
WARPS_TOGETHER = 4  # warps are given registers by fours: each of a multiprocessor's four quarters has its own
REGISTERS_OF_A_WARP = 256  # their number is rounded up to a multiple of this
REGISTERS = 65536  # of a multiprocessor, on all of these


class Limits(NamedTuple):
    """What one multiprocessor has.  shared: bytes, of which `reserved` for each block, in multiples of `rounded`."""

    threads: int
    blocks: int
    shared: int
    reserved: int = 1024
    rounded: int = 128


LIMITS = {
    "sm_75": Limits(1024, 16, 64 << 10, 0, 256),
    "sm_80": Limits(2048, 32, 164 << 10),
    "sm_86": Limits(1536, 16, 100 << 10),
    "sm_89": Limits(1536, 24, 100 << 10),
    "sm_90": Limits(2048, 32, 228 << 10),
    "sm_100": Limits(2048, 32, 228 << 10),
}


class Occupancy(NamedTuple):
    """blocks, warps: at once on a multiprocessor; share: of the warps that it has room for; by: what ran out first."""

    blocks: int
    warps: int
    share: float
    by: str

    def __str__(self) -> str:
        return f"{self.share:.0%} ({self.blocks} x {self.warps // max(1, self.blocks)} warps: {self.by})"


def occupancy(architecture: str, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks of so many threads; registers: of a thread; shared: bytes of a block, static and dynamic."""
    limits = LIMITS[architecture]
    warps = -(-threads // WARP)
    of_a_warp = _up(max(1, registers) * WARP, REGISTERS_OF_A_WARP)
    with_registers = REGISTERS // WARPS_TOGETHER // of_a_warp * WARPS_TOGETHER  # warps
    room = {
        "threads": limits.threads // WARP // warps,
        "registers": with_registers // warps,
        "shared memory": limits.shared // max(1, _up(shared + limits.reserved, limits.rounded)),
        "blocks": limits.blocks,
    }
    by = min(room, key=lambda name: room[name])
    return Occupancy(room[by], room[by] * warps, room[by] * warps * WARP / limits.threads, by)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
