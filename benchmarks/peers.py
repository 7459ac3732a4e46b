"""Processes that benchmarks time in turn: one per contestant, so that each has its own memory and thread pools.

The parent asks one process at a time for one measurement (A B A B ...): when the machine slows down, it slows both.
Below that, what all benchmarks write: the machine, medians, ratios, and whether a ratio meets its target.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "examples")]  # spawned processes inherit it

Times = dict[str, list[float]]
Sample = tuple[float, dict[str, np.ndarray]]  # a loss, and part of each gradient (or of the outputs)


class Peer:
    """A process that holds one contestant: `make(*args)` builds it there and returns functions to call by name.

    children: it starts processes itself, which Python forbids to those that it ends without asking.
    """

    def __init__(
        self, name: str, make: Callable[..., dict[str, Callable[..., Any]]], *args: Any, children: bool = False
    ):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=not children)
        self._process.start()
        self._answer()

    def call(self, what: str, *args: Any) -> Any:
        """The result of one of its functions."""
        self._pipe.send((what, args))
        return self._answer()

    def time(self, what: str, calls: int = 1) -> float:
        """Seconds that a call takes, measured inside the process.

        A pause comes first, in which the threads of the process before fall asleep.  More than one call: the median,
        after a call that does not count.
        """
        return self.call("time", what, calls)

    def peak_mb(self) -> float:
        """The largest resident memory so far, in MB."""
        return self.call("peak_mb")

    def close(self) -> None:
        """End the process, and whatever processes its libraries have started."""
        try:
            self._pipe.send(None)
        except OSError:  # it is gone
            pass
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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

    def timed(what: str, calls: int) -> float:
        function, seconds = functions[what], []
        time.sleep(0.05)
        if calls > 1:
            function()
        for _ in range(calls):
            begin = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    try:
        functions.update(make(*args))
        functions["time"] = timed
        functions["peak_mb"] = _peak_mb
        pipe.send((True, None))
    except Exception:
        pipe.send((False, traceback.format_exc()))
        return
    while (request := pipe.recv()) is not None:
        what, arguments = request
        try:
            pipe.send((True, functions[what](*arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):  # ru_maxrss would also count what the parent held when it made this process
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def interleaved(peers: Sequence[Peer], what: str, runs: int, warmup: int = 1, calls: int = 1) -> Times:
    """Seconds of `runs` calls of each peer, in turns of `calls`, after `warmup` turns that do not count.

    Each turn gives one figure, the median of its calls: calls below 0.1 s want several in a turn (see Peer.time).
    """
    times: Times = {peer.name: [] for peer in peers}
    for turn in range(warmup + math.ceil(runs / calls)):
        for peer in peers:
            seconds = peer.time(what, calls)
            if turn >= warmup:
                times[peer.name].append(seconds)
    return times


def ratio(times: Times, ours: str, theirs: str) -> float:
    """The median of the ratios of neighbouring measurements: what drifts slowly cancels."""
    return statistics.median(a / b for a, b in zip(times[ours], times[theirs]))


# ---------------------------------------------------------------- the same work


def sampled(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every 97th number of a large array, all of a small one: enough to compare, little enough to send."""
    return {name: array.reshape(-1)[:: 97 if array.size > 10_000 else 1].copy() for name, array in arrays.items()}


def agree(who: str, ours: Sample, theirs: Sample, worst: float) -> None:
    """Print the largest relative L2 difference of an array; RuntimeError where it exceeds `worst` or losses differ."""
    if set(ours[1]) != set(theirs[1]):
        raise RuntimeError(f"{who}: arrays {sorted(ours[1])} and {sorted(theirs[1])}")
    if not abs(ours[0] - theirs[0]) <= 1e-4 * abs(theirs[0]):
        raise RuntimeError(f"{who}: losses differ: {ours[0]} and {theirs[0]}")
    for name, array in theirs[1].items():
        if ours[1][name].shape != array.shape:
            raise RuntimeError(f"{who}: {name} has {ours[1][name].shape} numbers and {array.shape}")
    differences = {
        name: float(np.linalg.norm(ours[1][name] - array) / np.linalg.norm(array)) for name, array in theirs[1].items()
    }
    name = max(differences, key=lambda name: differences[name])
    if not all(difference <= worst for difference in differences.values()):  # NaN fails too
        raise RuntimeError(f"{who}: {name} differs by {differences[name]} (allowed: {worst})")
    print(f"{who} agree: arrays differ by at most {differences[name]:.1e} ({name})", flush=True)


def check(peers: Sequence[Peer], what: str, worst: float, close: bool = False) -> None:
    """Compare the loss and arrays that `what` gives with those of the first peer (see agree)."""
    theirs = peers[0].call(what)
    for peer in peers[1:]:
        agree(f"{peer.name} and {peers[0].name}", peer.call(what), theirs, worst)
    for peer in peers if close else ():
        peer.close()


# ---------------------------------------------------------------- reports


def processor() -> str:
    """The processor's name and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {cores()} cores"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_settings() -> list[str]:
    """The variables that make OpenBLAS run otherwise than by itself, NAME=value; a user's shell has none of them.

    OPENBLAS_CORETYPE set to an older processor halves the speed of NumPy's products.
    """
    return [f"{name}={os.environ[name]}" for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]


class Save(argparse.Action):
    """The option that keeps what is measured: refused before anything is, where BLAS is set as users have it not."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings, nargs=0, default=False)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        if found := blas_settings():
            without = " ".join(f"-u {setting.split('=')[0]}" for setting in found)
            parser.error(f"{self.option_strings[0]}: {', '.join(found)}: NumPy runs otherwise than a user's: "
                         f"env {without} python {sys.argv[0]} ...")  # fmt: skip
        setattr(namespace, self.dest, True)


def environment(*packages: str) -> str:
    """Date, processor and versions, for the head of a results file, and what BLAS was told."""
    import minigrad

    versions = "".join(f", {package} {importlib.metadata.version(package)}" for package in packages)
    blas = "".join(f", **{setting}**" for setting in blas_settings())
    return (
        f"{time.strftime('%Y-%m-%d')}, {processor()}, Python {platform.python_version()}, "
        f"minigrad {minigrad.__version__}{versions}{blas}"
    )


def arguments(doc: str | None, runs: int) -> argparse.ArgumentParser:
    """The options every benchmark has: --runs and --save."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=runs, help=f"measurements of each contestant (default {runs})")
    parser.add_argument("--save", action=Save, help="write what is printed to benchmarks/results/")
    return parser


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*names: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(*names), "|" + "---|" * len(names)]


def verdict(value: float, target: float, at_least: bool = False) -> tuple[str, str, str]:
    """Three cells: the measured value, its target, and whether it is met."""
    met = value >= target if at_least else value <= target
    return f"{value:.3f}", f"{'>=' if at_least else '<='} {target:.2f}", "met" if met else "**missed**"


def report(name: str, lines: list[str], save: bool) -> None:
    """Print a report; with `save`, also write it to results/<name>.md."""
    text = "\n".join(lines) + "\n"
    print("\n" + text, flush=True)
    if save:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"{name}.md").write_text(text)
