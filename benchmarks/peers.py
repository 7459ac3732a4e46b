"""Processes that benchmarks time in turn: one per contestant, so that each has its own memory and thread pools.

The parent asks one process at a time for one measurement (A B A B ...): when the machine slows down, it slows both.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Peer:
    """A process that holds one contestant: `make(*args)` builds it there and returns functions to call by name."""

    def __init__(self, name: str, make: Callable[..., dict[str, Callable[..., Any]]], *args: Any):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        self._answer()

    def call(self, what: str, *args: Any) -> Any:
        """The result of one of its functions."""
        self._pipe.send((what, args))
        return self._answer()

    def time(self, what: str, *args: Any) -> float:
        """Seconds that one call takes, measured inside the process."""
        self._pipe.send(("time", (what, *args)))
        return self._answer()

    def peak_mb(self) -> float:
        """The largest resident memory so far, in MB."""
        return self.call("peak_mb")

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            ok, value = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name}: its process died") from None
        if not ok:
            raise RuntimeError(f"{self.name}: {value}")
        return value


def _serve(pipe: Any, make: Callable[..., dict[str, Callable[..., Any]]], args: tuple[Any, ...]) -> None:
    import traceback

    functions: dict[str, Callable[..., Any]] = {}

    def timed(what: str, *args: Any) -> float:
        begin = time.perf_counter()
        functions[what](*args)
        return time.perf_counter() - begin

    try:
        functions.update(make(*args))
        functions["time"] = timed
        functions["peak_mb"] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((True, None))
    except Exception:
        pipe.send((False, traceback.format_exc()))
        return
    while True:
        what, arguments = pipe.recv()
        try:
            pipe.send((True, functions[what](*arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


def interleaved(peers: list[Peer], what: str, runs: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of `runs` calls of each peer, taken in turn, after `warmup` that do not count."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for run in range(warmup + runs):
        for peer in peers:
            seconds = peer.time(what)
            if run >= warmup:
                times[peer.name].append(seconds)
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    """The median of the ratios of neighbouring measurements: what drifts slowly cancels."""
    return statistics.median(a / b for a, b in zip(times[ours], times[theirs]))


def processor() -> str:
    """The processor's name and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def environment(*modules: Any) -> str:
    """Date, processor and versions, for the head of a results file."""
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    return f"{time.strftime('%Y-%m-%d')}, {processor()}, Python {platform.python_version()}, {versions}"
