"""Convolution kernels step by step, from the formula to registers: what each step saves, as the emulator counts it.

    python benchmarks/kernel_ladder.py [--save]

The steps are the files of kernels/ladder/, and kernels/conv2d.cu at the top.  No card is needed, and none is timed: the
emulator runs every thread, and counts what the warps ask of memory; NVIDIA's compiler says what a thread needs.  The
requests and bytes are those that reach the caches; what the caches then keep from memory is not modelled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable

import numpy as np
from peers import environment, header, report, row

import minigrad
import minigrad.functional as F
from minigrad import Tensor, nvrtc
from minigrad.cudasim.counters import Row
from minigrad.cudasim.settings import options
from minigrad.kernel_cases.bare import LADDER, ladder

X, W, PADDING = (1, 16, 27, 27), (64, 16, 5, 5), 2  # AlexNet's conv2 with a third of its channels
TOP = "conv2d"
ARCHITECTURES = ("sm_75", "sm_90")


def traffic(step: str, x: Tensor, w: Tensor) -> tuple[np.ndarray, list[Row]]:
    """y by a step of the ladder or by TOP, conv2d itself, and what the emulator counted while it was computed."""
    modules = x.device.runtime.modules
    with options(mode="check", counters=True):
        for module in modules():
            if module.mode == "check":
                module.counters().reset()
        y = F.conv2d(x, w, padding=PADDING) if step == TOP else ladder(step, x, w, 1, PADDING)
        return y.numpy(), [row for module in modules() if module.mode == "check" for row in module.counters().rows]


def counted(name: str, rows: Iterable[Row], products: int, least: int) -> str:
    """One line of the table of traffic.  products: multiplications of the formula; least: bytes of x, w and y."""

    def numbers(memory: str) -> tuple[str, ...]:
        chosen = [row for row in rows if row.memory == memory]
        loads = sum(row.accesses for row in chosen if row.operation == "load")
        requests, units, ideal = (sum(getattr(row, what) for row in chosen) for what in ("requests", "units", "ideal"))
        if not requests:
            return "-", "-", "-"
        per_request = f"{units / requests:.2f} ({ideal / requests:.2f})"
        return f"{loads / products:.3f}", f"{requests:,}", per_request

    moved = 32 * sum(row.units for row in rows if row.memory == "global")
    return row(name, *numbers("global"), f"{moved / 1e6:.1f}", f"{moved / least:.1f}", *numbers("shared"))


def compiled(name: str, file: str, kernel: str) -> str:
    """One line of the table of what the compiler reports, in float."""
    cells: list[object] = []
    for architecture in ARCHITECTURES:
        measured = nvrtc.compile_source(nvrtc.full_source(file), file, architecture, ["-DREAL=float"])
        found = next(one for one in measured if one.name == kernel)
        cells += [found.registers, found.shared, found.spills]
    return row(name, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--save", action="store_true", help="write what is printed to benchmarks/results/")
    save = parser.parse_args().save

    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(X, dtype="f"), rng.standard_normal(W, dtype="f")
    expected = F.conv2d(*(Tensor(a, device="cpu:0") for a in arrays), padding=PADDING).numpy()
    products = expected.size * math.prod(W[1:])
    least = expected.nbytes + sum(a.nbytes for a in arrays)
    with options(mode="check"):
        x, w = (Tensor(a, device=minigrad.device("cudasim:0")) for a in arrays)

    lines = []
    for name in (*LADDER, TOP):
        y, rows = traffic(name, x, w)
        worst = np.abs(y - expected).max() / np.abs(expected).max()
        if not worst < 1e-5:
            raise RuntimeError(f"{name}: differs from the CPU's result by {worst:.1e} of its largest number")
        lines.append(counted(name, rows, products, least))

    text = [
        "# The ladder of convolution kernels",
        "",
        environment("numpy"),
        "",
        f"x {X}, weight {W}, padding {PADDING}, float32: {products / 1e6:.1f} million multiplications; x, weight and y",
        f"have {least / 1e6:.2f} MB together.  Executed on the CPU emulator, not yet run on hardware.",
        "",
        "Loads: by threads, for each multiplication.  Requests: loads and stores by warps.  Sectors: of 32 bytes, for",
        "each request to global memory.  Wavefronts: turns that a request to shared memory takes, more than the least",
        "where threads want different words of one bank.  In brackets: the least that would do.  MB: of all sectors,",
        "no cache counted; then the same as a multiple of x, weight and y.  conv2d cuts sums into parts where there",
        "are as few tiles as here; writing and adding the parts is counted.",
        "",
        *header(
            "",
            "global: loads",
            "requests",
            "sectors",
            "MB",
            "times the least",
            "shared: loads",
            "requests",
            "wavefronts",
        ),
        *lines,
        "",
        f"What NVRTC {nvrtc.version()} reports: registers of a thread, bytes of shared memory of a block, spills.",
        "",
        *header("", *(f"{what}, {a}" for a in ARCHITECTURES for what in ("registers", "shared", "spills"))),
        *(compiled(name, f"ladder/{name}", step["kernel"]) for name, step in LADDER.items()),
        compiled(TOP, "conv2d", "conv2d_forward_64"),
    ]
    report("kernel_ladder", text, save)


if __name__ == "__main__":
    main()
