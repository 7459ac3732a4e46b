"""What the emulator takes: five textbook kernels in both modes, on one core and on all, and the compiler's time.

    python benchmarks/emulator.py [--runs 9] [--save]

A run is minigrad.cudasim.run in one thread order, with its copies of the arguments; contestants take turns.  Compiled
anew: the whole command, with an empty cache (which it fills with the emulator's runtime, too), and with another kernel.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import HERE, Peer, Times, arguments, environment, header, interleaved, ratio, report, row

SOURCE = HERE / "emulator.cu"
N = 256
X = np.random.default_rng(0).standard_normal((N, N), np.float32)
LARGE = np.ones(1 << 18, np.float32)
# Grid, block, arguments; what is an output is named, and what it should be.
KERNELS: dict[str, tuple[Any, Any, tuple[Any, ...], str, Any]] = {
    "saxpy": (1024, 256, (2.0, LARGE, LARGE, LARGE.size), "y", 3 * LARGE),
    "block_sums": (1024, 256, (LARGE, np.zeros(1024, np.float32)), "sums", np.full(1024, 256)),
    "transpose": ((8, 8), (32, 8), (X, np.zeros_like(X), N), "y", X.T),
    "product": ((16, 16), (16, 16), (X, X, np.zeros_like(X), N), "c", X @ X),
    "softmax_rows": (N, 32, (X, np.zeros_like(X), N), "y", np.exp(X) / np.exp(X).sum(1, keepdims=True)),
}
CONTESTANTS = {
    "fast, one core": ("fast", 1, False),
    "fast": ("fast", None, False),
    "check, one core": ("check", 1, False),
    "check": ("check", None, False),
    "counters": ("check", None, True),
}


def contestant(mode: str, cores: int | None, counters: bool) -> dict[str, Callable[[], Any]]:
    from minigrad.cudasim import run
    from minigrad.cudasim.settings import options

    def job(kernel: str) -> Callable[[], Any]:
        grid, block, given, name, wanted = KERNELS[kernel]

        def once() -> None:
            with options(cores=cores):
                result = run(SOURCE, kernel, grid, block, *given, mode=mode, order="forward", counters=counters)
            np.testing.assert_allclose(result[name], wanted, rtol=1e-4, atol=1e-4)

        return once

    return {kernel: job(kernel) for kernel in KERNELS}


def command(cache: str, kernel: str) -> float:
    """Seconds of the whole command for a small launch, in a process of its own."""
    line = [sys.executable, "-m", "minigrad.cudasim", str(SOURCE), "--kernel", kernel, "--grid", "4", "--block", "256"]
    sizes = {"saxpy": ["a=2", "x=ones:1024", "y=ones:1024", "n=1024"], "block_sums": ["x=ones:1024", "sums=zeros:4"]}
    environ = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONPATH": str(HERE.parent)}
    begin = time.perf_counter()
    subprocess.run([*line, *sizes[kernel]], env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def compiling(runs: int) -> Times:
    times: Times = {"first of all": [], "another kernel": [], "once more": []}
    for _ in range(runs):
        cache = tempfile.mkdtemp()
        try:
            for what, kernel in zip(times, ("saxpy", "block_sums", "block_sums")):
                times[what].append(command(cache, kernel))
        finally:
            shutil.rmtree(cache)
    return times


def main() -> None:
    options = arguments(__doc__, runs=9).parse_args()
    peers = [Peer(name, contestant, *how) for name, how in CONTESTANTS.items()]
    lines = [
        "# What the emulator takes",
        "",
        environment("numpy"),
        "",
        f"Milliseconds of a run of a kernel in one thread order, medians of {options.runs} turns.  Ratios are medians",
        "of those of neighbouring turns.",
        "",
        *header("kernel", "emulated threads", *CONTESTANTS, "check / fast", "cores in fast mode gain", "in check mode"),
    ]
    for kernel, (grid, block, *_) in KERNELS.items():
        times = interleaved(peers, kernel, options.runs)
        lines.append(
            row(
                kernel,
                int(np.prod(grid) * np.prod(block)),
                *(f"{1e3 * statistics.median(times[name]):.1f}" for name in CONTESTANTS),
                f"{ratio(times, 'check, one core', 'fast, one core'):.1f}",
                f"{ratio(times, 'fast, one core', 'fast'):.2f}",
                f"{ratio(times, 'check, one core', 'check'):.2f}",
            )
        )
    for peer in peers:
        peer.close()
    lines += [
        "",
        "Seconds of a whole command (`python -m minigrad.cudasim FILE ...`), Python's start among them:",
        "",
        *header("first of all: the runtime is compiled", "another kernel", "the same kernel once more"),
        row(*(f"{statistics.median(seconds):.2f}" for seconds in compiling(min(options.runs, 5)).values())),
    ]
    report("emulator", lines, options.save)


if __name__ == "__main__":
    main()
