"""Every op on the card against NumPy and against the emulator, forward and backward, and against itself.

Small shapes in float32 and float64, on a real card AlexNet's shapes too.  Each result is counted in units of its
tolerance (kernel_cases.differences): up to 1 is right.  Two runs must give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import gemm_in_use, set_gemm
from ..cudasim.compiler import available
from ..device import Device
from ..errors import MinigradError
from ..kernel_cases import Case, differences, run
from .report import Part, first_line, table

Results = dict[str, np.ndarray]


def compare(device: Device, cases: Sequence[Case], progress: Callable[[str], None]) -> Part:
    """A row for every case and dtype; a failure for each that is wrong, faults, or differs from run to run."""
    part = Part("Comparison")
    rows: list[tuple[str, ...]] = []
    on_card = device.kind == "cuda"
    others = ["cpu:0", *(["cudasim:0"] if on_card and available() is None else [])]
    jobs = [(case, "small", dtype) for case in cases for dtype in ("float32", "float64")]
    jobs += [(case, "real", "float32") for case in cases if on_card]
    for case, size, dtype in jobs:
        for gemm in gemms(device, case):
            label = f"{case.name}{gemm}, {size}, {dtype}"
            progress(f"comparing {label}")
            try:
                with using(gemm):
                    cells = _compared(part, label, case, size, dtype, device, others)
            except (MinigradError, MemoryError) as error:
                part.fail(f"{label}: {first_line(error)}")
                cells = ["**failed**"] * len(others) + [""]
                if not usable(device):
                    part.fail(f"{device} cannot be used by this process any more: what follows was not compared")
                    part.lines = _lines(device, others, [*rows, (label, *cells)])
                    return part
            rows.append((label, *cells))
    part.lines = _lines(device, others, rows)
    return part


def _compared(
    part: Part, label: str, case: Case, size: str, dtype: str, device: Device, others: Sequence[str]
) -> list[str]:
    results = run(case, device, size, np.dtype(dtype))
    cells = []
    for other in others:
        if other == "cudasim:0" and size == "real":  # hours
            cells.append("")
            continue
        far = differences(case, results, run(case, other, size, np.dtype(dtype)))
        name = max(far, key=lambda name: far[name])
        cells.append(f"{far[name]:.2g} ({name})")
        if not far[name] <= 1:
            part.fail(f"{label}: {name} is {far[name]:.3g} tolerances from {other}")
            cells[-1] = f"**{cells[-1]}**"
    again = run(case, device, size, np.dtype(dtype))
    moved = [name for name, array in results.items() if array.tobytes() != again[name].tobytes()]
    if moved:
        part.fail(f"{label}: {', '.join(moved)} differ between two runs")
    return [*cells, "**no**" if moved else "yes"]


def _lines(device: Device, others: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return [
        "Largest distance of a result or gradient from the same on another device, in units of the tolerance (1 is",
        "allowed: 10^-5 of the largest number in float32, 3 x 10^-5 where products are summed, 10^-12 and 3 x 10^-12",
        "in float64); and whether a second run gave the same bits.",
        "",
        *table(("case", *(f"{device} - {other}" for other in others), "same bits"), rows),
    ]


# ---------------------------------------------------------------- cuBLAS, or our own kernels


def gemms(device: Device, case: Case) -> Iterator[str]:
    """What to append to a case's name: once for each way in which this device multiplies matrices."""
    yield from (", cublas", ", minigrad") if device.kind == "cuda" and "gemm" in case.kernels else ("",)


@contextmanager
def using(gemm: str) -> Iterator[Any]:
    before = gemm_in_use()
    set_gemm(gemm.removeprefix(", ") or before)
    try:
        yield
    finally:
        set_gemm(before)


def usable(device: Device) -> bool:
    """Whether the card still answers: after an illegal access it never does again."""
    try:
        device.runtime.synchronize()
    except MinigradError:
        return False
    return True
