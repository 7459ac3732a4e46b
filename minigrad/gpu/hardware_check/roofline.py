"""Every op's time against what the card's memory and arithmetic would allow.

    least time = max(bytes / bandwidth, operations / peak)

Bytes and operations follow from the op's formula, each array moved once; bandwidth and peak are measured here, with
kernels that do nothing else (kernels/peaks.cu).  Times are taken by the card's clock, between two events on its
stream.  Where Python needs longer to launch a kernel than the card to run it, they include the card's waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ... import gpu
from ...device import Device
from ...engine import Function
from ...tensor import Tensor
from ..cases import CASES, Case, bare, computed_flops, inputs_of, moved_bytes
from ..cases.case import gradient_of
from ..sources import constants
from .compare import gemms, usable, using
from .report import EMULATED, Part, table

ROUNDS = 5  # of which the best counts


@dataclass(frozen=True)
class Effort:
    """How much to do: on a card, enough to keep it busy; on the emulator, enough to see that this works."""

    size: str  # of the cases
    seconds: float  # that one measurement should take
    copied: int  # bytes
    blocks: int
    chain: int  # rounds of multiply_add


CARD = Effort("real", 0.02, 1 << 28, 8192, 4096)
EMULATOR = Effort("small", 0.0, 1 << 16, 2, 16)


@dataclass(frozen=True)
class Peaks:
    """bandwidth in bytes/s; flops of float32 and float64 in operations/s."""

    bandwidth: float
    flops: float
    flops_double: float

    def least(self, moved: int, flops: int) -> float:
        """Seconds for so many bytes and float32 operations."""
        return max(moved / self.bandwidth, flops / self.flops)


def measured(device: Device, work: Callable[[], Any], seconds: float) -> float:
    """Seconds of one work(): the best of ROUNDS means, each over about `seconds`."""
    runtime = device.runtime
    timed = getattr(runtime, "timed", None) or _by_host(device)
    work()
    once = timed(work, 1)
    repeats = min(1000, max(1, round(seconds / max(once, 1e-6))))
    return min(timed(work, repeats) for _ in range(ROUNDS if seconds else 1))


def _by_host(device: Device) -> Callable[[Callable[[], Any], int], float]:
    def timed(work: Callable[[], Any], repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        device.runtime.synchronize()
        return (time.perf_counter() - begin) / repeats

    return timed


def peaks(device: Device, effort: Effort) -> Peaks:
    """What this device does at most."""
    x = device.zeros((effort.copied // 4,), np.float32)
    y = device.empty_like(x)
    bandwidth = 2 * effort.copied / measured(device, lambda: bare.copy_packs(device, x, y), effort.seconds)
    (chains,) = constants("peaks", "CHAINS")
    operations = 2 * chains * effort.chain * effort.blocks * gpu.THREADS

    def rate(dtype: Any) -> float:
        work = partial(bare.multiply_add, device, effort.blocks, effort.chain, dtype)
        return operations / measured(device, work, effort.seconds)

    return Peaks(bandwidth, rate(np.float32), rate(np.float64))


def roofline(part: Part, device: Device, names: Sequence[str]) -> None:
    """A row for every op of these names, and direction, in float32."""
    effort = CARD if device.kind == "cuda" else EMULATOR
    most = peaks(device, effort)
    part.head(
        *([] if device.kind == "cuda" else [EMULATED]),
        f"{device}: {most.bandwidth / 1e9:.3g} GB/s (a copy of {effort.copied / 1e6:.3g} MB, read and written), "
        f"{most.flops / 1e12:.3g} TFLOP/s in float32, {most.flops_double / 1e12:.3g} in float64 (multiply-adds in "
        "registers).  float32; the least time follows from the op's formula.",
        "",
        *table(("op", "direction", "MB", "GFLOP", "ms", "least ms", "bound by", "of the roof")),
    )
    cases = [CASES[name] for name in names]
    cases = [case for case in cases if device.has_matrix_units or not case.matrix_units]
    jobs = [
        (f"{case.name}{gemm}", partial(_timed, gemm, device, case, effort, most))
        for case in cases
        for gemm in gemms(device, case)
    ]
    part.work(jobs, partial(usable, device))


def _timed(gemm: str, device: Device, case: Case, effort: Effort, most: Peaks) -> Iterator[tuple[object, ...]]:
    with using(gemm):
        yield from _both_directions(device, case, effort, most)


def _both_directions(device: Device, case: Case, effort: Effort, most: Peaks) -> Iterator[tuple[object, ...]]:
    inputs = {
        name: Tensor(array, bool(case.backward), device)
        for name, array in inputs_of(case, effort.size, np.float32).items()
    }
    y = case.function(**inputs)
    forward: Callable[[], Any]
    forward = case.prepare(**inputs) if case.prepare else lambda: case.function(**inputs)
    yield _row(case, effort, most, y, "forward", measured(device, forward, effort.seconds))
    node = y.node
    # Where the case is more than one op, its backward is the engine's work too, and is not timed.
    moves = moved_bytes(case, effort.size, y.shape, 4, backward=True)  # 0 where backward only makes views
    if node is not None and moves and not any(isinstance(below, Function) for below in node.inputs):
        dy = device.upload(gradient_of(y.shape, y.dtype))
        yield _row(
            case, effort, most, y, "backward", measured(device, lambda: device.backward(node, dy), effort.seconds)
        )


def _row(case: Case, effort: Effort, most: Peaks, y: Tensor, direction: str, seconds: float) -> tuple[object, ...]:
    backward = direction == "backward"
    moved = moved_bytes(case, effort.size, y.shape, 4, backward)
    flops = computed_flops(case, effort.size, y.shape, backward)
    least = most.least(moved, flops)
    bound = "memory" if moved / most.bandwidth >= flops / most.flops else "arithmetic"
    times = f"{seconds * 1e3:.4g}", f"{least * 1e3:.4g}"
    return direction, f"{moved / 1e6:.3g}", f"{flops / 1e9:.3g}", *times, bound, f"{least / seconds:.0%}"
