"""Where the time goes: which ops, on which devices and threads, and who waits for whom.

    with minigrad.profile(trace="step.json") as prof:
        loss = step()
    print(prof)

While such a block runs, tracing.py notes when each op began and ended, and on which thread; all else follows from this
list of events.  Those of one thread lie side by side or one inside the other, as calls do, and so

    self time of an event = its time - the times of the events directly inside it

counts each moment of a thread once: an op that runs a whole little graph is not charged with the ops in it, and the
time in which an op waits for its other threads is waiting, not work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

from ..errors import ArgumentError
from . import html, tracing
from .tracing import Event, Shapes

_WORDS = ("op", "phase", "device", "thread", "shapes")  # columns of the tables that are not numbers


class Row(NamedTuple):
    """One row of the table by op: see Profile.  `time` in seconds, `share` of the time of all rows."""

    name: str
    phase: str
    shapes: Shapes | None
    calls: int
    time: float
    share: float
    flops: int
    bytes: int


class ThreadRow(NamedTuple):
    """What one thread did for one device, in seconds; what `busy` and `waiting` leave of `wall` is neither."""

    device: str
    thread: str
    busy: float
    waiting: float
    wall: float


class Profile:
    """What one `with minigrad.profile()` block recorded, in `events`; printed, it is `table()`.

    The table by op has a row for the way forward of each op, and one for its way back:

    - calls: how often it ran.
    - time: self time (above), summed over the threads that worked on it.  Two threads at work for a second are two
      seconds: the times of all rows add up to the busy time of all threads, and an op does not seem faster because more
      threads work on it.  It is taken from the clock on the wall: a thread that loses its core to another program pays
      for it.
    - GFLOP/s: `Function.flops`, the op's own formula with 2 for each multiply-add, by `time`: what one thread reaches,
      to be held against the peak of one core.  (Threads that BLAS starts of its own accord are not seen.)  The way
      back counts one forward for dx and one for dw.  Empty for ops without a formula.
    - MB, GB/s: the arrays that came in and went out; on the way back also those that forward had saved.  Views count
      as what they show, though nothing moves.

    Regions, such as a step of the optimiser, have rows as well.  The table by thread: time at work, time spent waiting,
    and what part they are of the time that the block took.  A thread waits for the others that work on its op, for
    devices (the main thread), or for a gradient of another device.  The rest is Python between the ops, or no work.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.wall = 0.0  # seconds from the beginning of the block to its end
        self.began = 0  # when that was, by perf_counter_ns

    def summary(self, sort: str = "time", by_shape: bool = False) -> list[Row]:
        """The table by op as rows, largest first.

        sort: "time", "calls", "flops", "bytes" or "name".
        by_shape: a row for each combination of input shapes (on the way back: for each shape of dy).
        """
        if sort not in ("time", "calls", "flops", "bytes", "name"):
            raise ArgumentError(f"profile: sort must be time, calls, flops, bytes or name, got {sort!r}")
        sums: dict[tuple[str, str, Shapes | None], list[int]] = {}
        for event, time in _self_times(self.events):
            if event.phase != "waiting":
                row = sums.setdefault((event.name, event.phase, event.shapes if by_shape else None), [0, 0, 0, 0])
                for i, part in enumerate((not event.piece, time, event.flops, event.bytes)):
                    row[i] += part
        total = sum(time for _, time, _, _ in sums.values()) or 1
        rows = [
            Row(*key, calls, time / 1e9, time / total, flops, size) for key, (calls, time, flops, size) in sums.items()
        ]
        return sorted(rows, key=lambda row: getattr(row, sort), reverse=sort != "name")

    def threads(self) -> list[ThreadRow]:
        """The table by device and thread as rows."""
        sums: dict[tuple[str, str, int], list[int]] = {}
        for event, time in _self_times(self.events):
            number, name = event.thread
            sums.setdefault((event.device, name, number), [0, 0])[event.phase == "waiting"] += time
        return [
            ThreadRow(device, name, busy / 1e9, waiting / 1e9, self.wall)
            for (device, name, _), (busy, waiting) in sorted(sums.items())
        ]

    def table(self, sort: str = "time", by_shape: bool = False) -> str:
        """Both tables as text; the arguments are those of `summary`."""
        ops, threads = self._tables(sort, by_shape)
        return f"{_aligned(ops)}\n\n{_aligned(threads)}\n\nfrom beginning to end {_ms(self.wall)} ms"

    def _repr_html_(self) -> str:
        ops, threads = self._tables("time", False)
        ops = [row[:-1] for row in ops]  # of the shapes nothing is shown
        return html.table(ops, 2) + html.table(threads, 2) + html.pre(f"from beginning to end {_ms(self.wall)} ms")

    def _tables(self, sort: str, by_shape: bool) -> tuple[list[list[str]], list[list[str]]]:
        ops = [["op", "phase", "calls", "time ms", "share", "GFLOP/s", "MB", "GB/s", "shapes" if by_shape else ""]]
        for row in self.summary(sort, by_shape):
            gflops, size, rate = (
                f"{value:.1f}" if value else ""
                for value in (_ratio(row.flops, row.time) / 1e9, row.bytes / 1e6, _ratio(row.bytes, row.time) / 1e9)
            )
            shapes = " ".join("x".join(map(str, shape)) or "()" for shape in row.shapes or ())
            ops.append([row.name, row.phase, str(row.calls), _ms(row.time), _of(row.share), gflops, size, rate, shapes])
        threads = [["device", "thread", "busy ms", "share", "waiting ms", "share"]]
        for device, name, busy, waiting, wall in self.threads():
            shares = _of(_ratio(busy, wall)), _of(_ratio(waiting, wall))
            threads.append([device, name, _ms(busy), shares[0], _ms(waiting), shares[1]])
        return ops, threads

    def __str__(self) -> str:
        return self.table()

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events in Chrome's trace format, to be opened in ui.perfetto.dev or chrome://tracing.

        Each device is a process there; a thread that worked for two devices is a thread of both.
        """
        Path(path).write_text(json.dumps({"traceEvents": self.entries(), "displayTimeUnit": "ms"}), encoding="utf-8")

    def entries(self, prefix: str = "", number: int = 0, later: int = 0) -> list[dict[str, Any]]:
        """The events as that format has them, for a file with the profiles of several processes.

        prefix: of the devices' names.  number: after which theirs are counted.  later: nanoseconds to add to all times.
        """
        lanes = {lane: i for i, lane in enumerate(sorted({(e.device, e.thread) for e in self.events}), number + 1)}
        pids = {device: i for i, device in enumerate(sorted({device for device, _ in lanes}), number + 1)}
        entries: list[dict[str, Any]] = []
        for device, pid in pids.items():
            entries.append(dict(ph="M", name="process_name", pid=pid, args={"name": prefix + device}))
        for (device, (_, name)), tid in lanes.items():
            entries.append(dict(ph="M", name="thread_name", pid=pids[device], tid=tid, args={"name": name}))
        for e in self.events:
            category = "piece" if e.piece else e.phase
            seen = {"phase": e.phase, "shapes": e.shapes, "flops": e.flops, "bytes": e.bytes}
            times = dict(ts=(e.start + later) / 1e3, dur=(e.end - e.start) / 1e3)  # in microseconds
            at = dict(pid=pids[e.device], tid=lanes[e.device, e.thread])
            entries.append(dict(ph="X", name=e.name, cat=category, **times, **at, args=seen))
        return entries


@contextmanager
def profile(trace: str | os.PathLike[str] | None = None) -> Iterator[Profile]:
    """Record every op of the process, on any thread, until the block ends: see Profile.

    trace: a file for `save_trace`, written when the block ends, by an error too.
    What was recorded before an error stays readable.  ArgumentError where a profile is being recorded already, inside
    debug() (which may be inside), or where the folder of `trace` does not exist.
    """
    if tracing.recorder is not None:
        raise ArgumentError(
            "profile: a profile is being recorded already, or debug() is at work: end the outer first; "
            "for both, begin the profile first: with profile(), debug():"
        )
    if trace is not None and not Path(trace).parent.is_dir():
        raise ArgumentError(f"profile: trace={str(trace)!r}: there is no folder {Path(trace).parent}: make it first")
    recorder, result = tracing.Recorder(), Profile()
    result.events, result.began = recorder.events, recorder.began
    tracing.recorder = recorder
    try:
        yield result
    finally:
        tracing.recorder = None
        result.wall = (perf_counter_ns() - recorder.began) / 1e9
        if trace is not None:
            result.save_trace(trace)


def _self_times(events: list[Event]) -> Iterator[tuple[Event, int]]:
    """Each event with its self time, in nanoseconds."""
    threads: dict[tuple[int, str], list[Event]] = {}
    for event in events:
        threads.setdefault(event.thread, []).append(event)
    for own in threads.values():
        open_: list[tuple[Event, int]] = []  # one inside the other, the innermost last
        for event in sorted(own, key=lambda e: (e.start, -e.end)):
            while open_ and open_[-1][0].end <= event.start:
                yield open_.pop()
            time = event.end - event.start
            if open_:
                outer, rest = open_[-1]
                open_[-1] = outer, rest - time
            open_.append((event, time))
        yield from open_


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _of(share: float) -> str:
    return f"{share:.1%}"


def _aligned(rows: list[list[str]]) -> str:
    """Columns side by side, words to the left and numbers to the right."""
    columns = []
    for head, *cells in zip(*rows):
        width = max(map(len, (head, *cells)))
        columns.append([cell.ljust(width) if head in _WORDS else cell.rjust(width) for cell in (head, *cells)])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns))
