"""Every op on the card against NumPy and against the emulator, forward and backward, and against itself.

Small shapes in float32 and float64, on a real card AlexNet's shapes too; products also with TF32 allowed.  Each result
is counted in units of its tolerance (cases.differences): up to 1 is right.  Two runs must give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ... import allow_tf32, gemm_in_use, set_gemm, tf32_allowed
from ...cudasim.compiler import available
from ...device import Device
from ...errors import MinigradError
from ..cases import CASES, Case, differences, run
from .report import Part, table


def compare(part: Part, device: Device, names: Sequence[str], emulator: bool = True) -> None:
    """A row for every case of these names, and dtype; a failure for each that is wrong or differs from run to run.

    emulator: whether a card is compared with it, too, where there is g++.
    """
    on_card = device.kind == "cuda"
    others = ["cpu:0", *(["cudasim:0"] if on_card and emulator and available() is None else [])]
    part.head(
        "Largest distance of a result or gradient from the same on another device, in units of the tolerance (1 is",
        "allowed: 10^-5 of the largest number in float32, 3 x 10^-5 where products are summed, 10^-12 and 3 x 10^-12",
        "in float64; 2 x 10^-3 of NumPy's with TF32); and whether a second run gave the same bits.",
        "",
        *table(("case", *(f"{device} - {other}" for other in others), "same bits")),
    )
    cases = [CASES[name] for name in names]
    cases = [case for case in cases if device.has_matrix_units or not case.matrix_units]
    sizes = ["small, float32", *(["real, float32"] if on_card else []), "small, float64"]  # the most telling first
    jobs = [
        (label, partial(_row, part, label, case, way, *kind.split(", "), device, others))
        for kind in sizes
        for case in cases
        if kind.endswith(case.dtypes)
        for way in ways(device, case, kind)
        for label in [f"{case.name}{way}, {kind}"]
    ]
    part.work(jobs, partial(usable, device))


def _row(part: Part, label: str, case: Case, way: str, *arguments: Any) -> Iterator[list[str]]:
    with using(way):
        yield _compared(part, label, case, way, *arguments)


def _compared(
    part: Part, label: str, case: Case, way: str, size: str, dtype: str, device: Device, others: Sequence[str]
) -> list[str]:
    results = run(case, device, size, np.dtype(dtype))
    cells = []
    for other in others:
        if other == "cudasim:0" and size == "real":  # hours
            cells.append("")
            continue
        # NumPy rounds no factor, and cuBLAS may do it in another way than the emulator does for our kernels.
        rounded = TF32 in way and (other == "cpu:0" or "cublas" in way)
        tolerated = replace(case, tolerance=2e-3) if rounded else case
        far = differences(tolerated, results, run(case, other, size, np.dtype(dtype)))
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


# ---------------------------------------------------------------- cuBLAS, or our own kernels; TF32

TF32 = ", TF32"


def gemms(device: Device, case: Case) -> Iterator[str]:
    """What to append to a case's name: once for each way in which this device multiplies matrices."""
    yield from (", cublas", ", minigrad") if device.kind == "cuda" and "gemm" in case.kernels else ("",)


def ways(device: Device, case: Case, kind: str) -> Iterator[str]:
    """The same; where products are summed in float32, once more with factors that may be rounded to TF32."""
    for gemm in gemms(device, case):
        yield gemm
        if "float32" in kind and {"gemm", "conv2d"} & set(case.kernels) and not case.matrix_units:
            yield gemm + TF32


@contextmanager
def using(way: str) -> Iterator[Any]:
    """As what was appended to a case's name says."""
    before, gemm = (gemm_in_use(), tf32_allowed()), way.removesuffix(TF32).removeprefix(", ")
    set_gemm(gemm or before[0])
    allow_tf32(TF32 in way)
    try:
        yield
    finally:
        set_gemm(before[0])
        allow_tf32(before[1])


def usable(device: Device) -> bool:
    """Whether the card still answers: after an illegal access it never does again."""
    try:
        device.runtime.synchronize()
    except MinigradError:
        return False
    return True
