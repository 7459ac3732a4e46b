"""Every op on the card against NumPy and against the emulator, forward and backward, and against itself.

Small shapes in float32 and float64, on a real card AlexNet's shapes too.  Each result is counted in units of its
tolerance (cases.differences): up to 1 is right.  Two runs must give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ... import gemm_in_use, set_gemm
from ...cudasim.compiler import available
from ...device import Device
from ...errors import MinigradError
from ..cases import CASES, Case, differences, run
from .report import Part, table


def compare(part: Part, device: Device, names: Sequence[str]) -> None:
    """A row for every case of these names, and dtype; a failure for each that is wrong or differs from run to run."""
    on_card = device.kind == "cuda"
    others = ["cpu:0", *(["cudasim:0"] if on_card and available() is None else [])]
    part.head(
        "Largest distance of a result or gradient from the same on another device, in units of the tolerance (1 is",
        "allowed: 10^-5 of the largest number in float32, 3 x 10^-5 where products are summed, 10^-12 and 3 x 10^-12",
        "in float64); and whether a second run gave the same bits.",
        "",
        *table(("case", *(f"{device} - {other}" for other in others), "same bits")),
    )
    cases = [CASES[name] for name in names]
    cases = [case for case in cases if device.has_matrix_units or not case.matrix_units]
    sizes = [(case, "small", dtype) for case in cases for dtype in case.dtypes]
    sizes += [(case, "real", "float32") for case in cases if on_card]
    jobs = [
        (label, partial(_row, gemm, part, label, case, size, dtype, device, others))
        for case, size, dtype in sizes
        for gemm in gemms(device, case)
        for label in [f"{case.name}{gemm}, {size}, {dtype}"]
    ]
    part.work(jobs, partial(usable, device))


def _row(gemm: str, *arguments: Any) -> Iterator[list[str]]:
    with using(gemm):
        yield _compared(*arguments)


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
