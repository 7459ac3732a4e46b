"""Kernels step by step, from an op's formula to registers: what each step saves, as the emulator counts it.

    python benchmarks/kernel_ladder.py [OP] [--save]

OP: conv2d, lrn_backward, ...; all if none is named.  The steps are the files of kernels/ladder/, and at the top the
op's own kernel.  No card is needed, and none is timed: the emulator runs every thread, and counts what the warps ask
of memory; NVIDIA's compiler says what a thread needs.  The requests and bytes are those that reach the caches; what the
caches then keep from memory is not modelled.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from peers import environment, header, report, row

import minigrad
from minigrad import Tensor
from minigrad.cudasim.counters import Row
from minigrad.cudasim.runtime import SimRuntime
from minigrad.cudasim.settings import ORDERS, options
from minigrad.device import DeviceLike
from minigrad.gpu import nvrtc
from minigrad.gpu.cases.ladder import LADDERS, entry_point

ARCHITECTURES = ("sm_75", "sm_90")
TYPES = ["-DREAL=float", "-DTYPE=float", "-DTAP=unsigned char"]


@dataclass
class Climb:
    """What is measured of one ladder.

    entry: the kernel of the top that does the work.  unit, units: what accesses are counted for, and how many of them
    there are.  numbers: of all arrays that must be read or written, in float32.
    """

    title: str
    shapes: dict[str, tuple[int, ...]]
    settings: dict[str, Any]
    entry: str
    unit: str
    units: int
    numbers: float
    remarks: str


X, W, Y = (1, 16, 27, 27), (64, 16, 5, 5), (1, 64, 27, 27)  # AlexNet's conv2 with a third of its channels
CONV_PRODUCTS = math.prod(Y) * math.prod(W[1:])
CONV_NUMBERS = math.prod(X) + math.prod(W) + math.prod(Y)
MAPS = (1, 96, 27, 27)
MULTIPLICATION, NUMBER = "multiplication of the formula", "number of the result"
CONVOLUTION = {"stride": 1, "padding": 2}
RESPONSE = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}

CLIMBS = {
    "gemm": Climb(
        "Matrix product",
        {"a": (150, 300), "b": (300, 200)},
        {},
        "gemm_tiles",
        MULTIPLICATION,
        150 * 300 * 200,
        150 * 300 + 300 * 200 + 150 * 200,
        "A thread of gemm has up to 8 x 8 numbers in registers.  A c as small as this one is cut into tiles of 32\n"
        "rows, 2 x 8 numbers a thread, and sums into parts: more blocks share the work, and read more than step 3.\n"
        "Step 4 multiplies by matrix units, factors rounded to TF32: 12 shared loads for 128 multiplications a thread.",
    ),
    "conv2d": Climb(
        "Convolution",
        {"x": X, "w": W},
        CONVOLUTION,
        "conv2d_forward",
        MULTIPLICATION,
        CONV_PRODUCTS,
        CONV_NUMBERS,
        "conv2d takes tiles of 32 rows and cuts sums into parts where there are as few as here; writing and adding\n"
        "the parts is counted.",
    ),
    "conv2d_backward_x": Climb(
        "Convolution's gradient for x",
        {"dy": Y, "w": W},
        CONVOLUTION,
        "conv2d_backward_x",
        MULTIPLICATION,
        CONV_PRODUCTS,
        CONV_NUMBERS,
        "Atomics are counted as reads and writes of what they change.  conv2d cuts sums into parts, as above.",
    ),
    "conv2d_backward_w": Climb(
        "Convolution's gradient for w",
        {"dy": Y, "x": X},
        {"kernel": W[2:], **CONVOLUTION},
        "conv2d_backward_w",
        MULTIPLICATION,
        CONV_PRODUCTS,
        CONV_NUMBERS,
        "Steps 2 and 3 read the same; step 3 has more threads to do it, and then its parts to add.",
    ),
    "lrn": Climb(
        "Local response normalisation",
        {"x": MAPS},
        RESPONSE,
        "lrn_forward",
        NUMBER,
        math.prod(MAPS),
        2 * math.prod(MAPS),
        "A thread of lrn keeps its window in registers: it reads what step 2 reads, and has nothing in shared memory.",
    ),
    "lrn_backward": Climb(
        "Local response normalisation's gradient",
        {"x": MAPS, "dy": MAPS},
        RESPONSE,
        "lrn_backward",
        NUMBER,
        math.prod(MAPS),
        3 * math.prod(MAPS),
        "Powers for each number: n + 1, n + 1, and (32 + 2 * (n//2)) / 32, at most; lrn takes two roots instead of a\n"
        "power, and keeps its windows in registers, as in forward.",
    ),
    "max_pool2d_backward": Climb(
        "Max-pooling's gradient",
        {"x": (1, 96, 55, 55), "dy": MAPS},
        {"kernel": (3, 3), "stride": 2, "padding": 0},
        "max_pool2d_backward_3_by_2",
        NUMBER,
        96 * 55 * 55,
        96 * 55 * 55 + 1.25 * math.prod(MAPS),  # a winner has one byte
        "Step 1 fills dx with zeros first, which is counted.  Step 2 moves no less: it is taken for the same bits\n"
        "every time; and many of its reads are of bytes that others have just read, which a card has in caches.\n"
        "A thread of max_pool2d has 2 x 2 pixels: neighbours' stores have gaps, which their other stores fill.",
    ),
}


@dataclass
class Traffic:
    """The result of a step, what the emulator counted meanwhile, and the threads of each kernel."""

    result: np.ndarray
    rows: list[Row] = field(default_factory=list)
    threads: dict[str, int] = field(default_factory=dict)

    def accesses(self, memory: str, operation: str) -> int:
        return sum(row.accesses for row in self.rows if (row.memory, row.operation) == (memory, operation))

    def units(self, memory: str) -> tuple[float, float] | None:
        """Sectors (or wavefronts) for each request, and the least that would do; None where there are no requests."""
        chosen = [row for row in self.rows if row.memory == memory]
        requests, units, least = (sum(getattr(row, what) for row in chosen) for what in ("requests", "units", "ideal"))
        return (units / requests, least / requests) if requests else None

    @property
    def moved(self) -> int:
        """Bytes of all sectors of global memory, an atomic's both ways."""
        ways = {"load": 1, "store": 1, "atomic": 2}
        return 32 * sum(row.units * ways[row.operation] for row in self.rows if row.memory == "global")


def tensors(name: str, device: DeviceLike, dtype: str = "float32") -> dict[str, Tensor]:
    """The inputs of a climb."""
    random = np.random.default_rng(0)
    return {
        key: Tensor(random.standard_normal(shape).astype(dtype), device=device)
        for key, shape in CLIMBS[name].shapes.items()
    }


def traffic(name: str, step: str, inputs: dict[str, Tensor], settings: dict[str, Any]) -> Traffic:
    """Compute by a step of a ladder (or by its top, the op itself), and count.  Inputs: made in check mode."""
    modules = next(iter(inputs.values())).device.runtime.modules
    with options(mode="check", counters=True):
        compute = LADDERS[name].prepare(step, **inputs, **settings)
        for module in modules():
            if module.mode == "check":
                module.counters().reset()
        with _launches() as threads:
            result = compute().numpy().copy()
        counters = [module.counters() for module in modules() if module.mode == "check"]
    if any(each.not_counted for each in counters):
        raise RuntimeError(f"{step}: there were more accesses than can be counted: take smaller shapes")
    # The zeros that a step begins with are counted; what the engine copies before an op's backward is not the op's.
    ignored = "kernels/copy.cu" if step == LADDERS[name].top else ""
    rows = [row for each in counters for row in each.rows if row.file != ignored]
    return Traffic(result, rows, threads)


def kernel_of(name: str, step: str) -> tuple[str, str]:
    """The file of kernels/, and the kernel in it, that does the work of a step, or of the top."""
    return (step, CLIMBS[name].entry) if step == LADDERS[name].top else (f"ladder/{step}", entry_point(step))


@contextmanager
def _launches() -> Iterator[dict[str, int]]:
    """The number of threads of every kernel that is launched in this block."""
    seen: dict[str, int] = {}
    launch = SimRuntime.launch

    def noted(self: SimRuntime, function: Any, parameters: Any, grid: Any, block: Any, *rest: Any) -> None:
        seen[function.name] = math.prod(grid) * math.prod(block)
        launch(self, function, parameters, grid, block, *rest)

    SimRuntime.launch = noted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        SimRuntime.launch = launch  # type: ignore[method-assign]


def same_bits(name: str, step: str, inputs: dict[str, Tensor], settings: dict[str, Any]) -> bool:
    """Whether the result has the same bits in whatever order the threads run."""
    results = []
    for order in ORDERS:
        with options(mode="fast", order=order):
            results.append(LADDERS[name].prepare(step, **inputs, **settings)().numpy().tobytes())
    return len(set(results)) == 1


@cache
def compiled(file: str, kernel: str) -> tuple[str, ...]:
    """What the compiler reports of a kernel in float: registers on each architecture, bytes of shared memory."""
    found = []
    for architecture in ARCHITECTURES:
        measured = nvrtc.compile_source(nvrtc.full_source(file), file, architecture, TYPES)
        found.append(next(one for one in measured if one.name == kernel))
    registers = (f"{one.registers}{f', {one.spills} bytes spilled' if one.spills else ''}" for one in found)
    return *registers, str(found[0].shared)


def table(name: str) -> list[str]:
    """The lines of the report on one ladder; RuntimeError where a step's result is wrong."""
    climb, ladder = CLIMBS[name], LADDERS[name]
    with options(mode="check"):
        inputs = tensors(name, "cudasim:0")
    plain = tensors(name, "cudasim:0")
    least = 4 * climb.numbers
    lines = []
    for step in (*ladder.steps, ladder.top):
        seen = traffic(name, step, inputs, climb.settings)
        expected = ladder.prepare(
            step, **tensors(name, "cpu:0"), **climb.settings
        )().numpy()  # step 4 rounds its factors
        worst = np.abs(seen.result - expected).max() / np.abs(expected).max()
        if not worst < 1e-5:
            raise RuntimeError(f"{step}: differs from the CPU's result by {worst:.1e} of its largest number")
        each = [f"{seen.accesses('global', what) / climb.units:.3g}" for what in ("load", "store", "atomic")]
        shared, sectors = seen.units("shared"), seen.units("global")
        assert sectors
        lines.append(
            row(
                step,
                f"{seen.threads[kernel_of(name, step)[1]]:,}",
                *each,
                f"{sectors[0]:.2f} ({sectors[1]:.2f})",
                f"{seen.moved / 1e6:.2f}",
                f"{seen.moved / least:.1f}",
                f"{seen.accesses('shared', 'load') / climb.units:.3g}" if shared else "-",
                f"{shared[0]:.2f} ({shared[1]:.2f})" if shared else "-",
                *compiled(*kernel_of(name, step)),
                "yes" if same_bits(name, step, plain, climb.settings) else "**no**",
            )
        )
    arrays = ", ".join(f"{key} {shape}" for key, shape in climb.shapes.items())
    settings = "".join(f", {key} {value}" for key, value in climb.settings.items())
    return [
        f"## {climb.title}",
        "",
        f"`python benchmarks/kernel_ladder.py {name}`: {arrays}{settings}, float32.",
        f"Accesses for each {climb.unit}, of which there are {climb.units:,}.  The least: {least / 1e6:.2f} MB.",
        climb.remarks,
        "",
        *header(
            "",
            "threads",
            "loads",
            "stores",
            "atomics",
            "sectors",
            "MB",
            "times the least",
            "shared: loads",
            "wavefronts",
            *(f"registers, {architecture}" for architecture in ARCHITECTURES),
            "shared bytes",
            "same bits",
        ),
        *lines,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("op", nargs="?", choices=list(LADDERS), help="one ladder alone")
    parser.add_argument("--save", action="store_true", help="write what is printed to benchmarks/results/")
    asked = parser.parse_args()
    if asked.save and asked.op:
        parser.error("--save writes the tables of all ladders: leave out the op")
    minigrad.device("cudasim:0").runtime  # noqa: B018  (or an error that says what is missing)
    lines = [line for name in ([asked.op] if asked.op else LADDERS) for line in table(name)]
    text = [
        "# The ladders of kernels",
        "",
        environment("numpy"),
        "",
        f"Executed on the CPU emulator, compiled with NVRTC {nvrtc.version()}, not yet run on hardware: nothing here",
        "is a time.  Every step gives the CPU's result, to 1e-5 of its largest number; steps by matrix units that of",
        "factors rounded to TF32.",
        "",
        "Threads: of the kernel that does the work.  Loads, stores, atomics: of global memory, by threads.  Sectors:",
        "of 32 bytes, for each request by a warp.  MB: of all sectors, no cache counted, an atomic's both ways; then",
        "as a multiple of the least, which is every array read or written once.  Shared: loads by threads, and",
        "wavefronts, the turns that a request takes, more than the least where threads want different words of one",
        "bank.  In brackets: the least that would do.  Registers of a thread, bytes of shared memory of a block: of",
        "the kernel that does the work; it spills none, where no spills are named.  Same bits: whether the result is",
        "the same in each of three orders of the threads.",
        "",
        *lines[:-1],
    ]
    report("kernel_ladder", text, asked.save)


if __name__ == "__main__":
    main()
