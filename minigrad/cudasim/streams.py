"""The order of work on several streams, checked by vector clocks.

A stream runs what it is given in order.  Between two streams there is no order at all, but for events: `record` marks
a point of one stream, and a stream that has waited for the event (`wait`) comes after all that went before that point.
The emulator runs everything at once, so a forgotten event never shows in its results, as it may on a card.  Instead
every stream carries a clock: how far it knows every other stream to have come.

    stream.clock[s] = t       all that stream s did up to its step t is done before this stream's next step

Every piece of memory remembers the step that wrote it last and the steps that have read it since.  A step that reads
must come after the last write; a step that writes, after the last write and every read.  If the clock does not say so,
the order is a matter of luck, and STREAM-ORDER is reported.

Source: Lamport 1978, "Time, clocks, and the ordering of events in a distributed system"; Fidge, Mattern 1988.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..errors import KernelError
from . import arena

Clock = dict[int, int]

_lock = threading.RLock()  # clocks and accesses of all streams
_numbers = itertools.count()
_streams: dict[int, Stream] = {}


class Access:
    """Who used a piece of memory: its last writer and the readers since, as (stream, step)."""

    __slots__ = ("label", "write", "reads")

    def __init__(self, label: str):
        self.label = label
        self.write: tuple[int, int] | None = None
        self.reads: Clock = {}


class Ticket(weakref.ref):  # type: ignore[type-arg]
    """Belongs to a piece of memory; when that goes, C code, which Ctrl-C cannot interrupt, puts it on `_gone`."""

    __slots__ = ("access", "nbytes", "stream")
    access: Access
    nbytes: int
    stream: Stream


_gone: deque[Ticket] = deque()
_in_use: dict[str, int] = {}


def ticket(memory: Any, stream: Stream, access: Access, nbytes: int) -> Ticket:
    """For `memory` to hold: tells the stream when it has gone."""
    new = Ticket(memory, _gone.append)
    new.access, new.nbytes, new.stream = access, nbytes, stream
    with _lock:
        _in_use[stream.name] = _in_use.get(stream.name, 0) + nbytes
    return new


def settle() -> None:
    """Note what memory has gone since the last step of any stream: before the next one."""
    with _lock:
        while _gone:
            gone = _gone.popleft()
            _in_use[gone.stream.name] -= gone.nbytes
            gone.stream.freed(gone.access)
    arena.settle()


def bytes_in_use(device: str) -> int:
    """Bytes in arrays of that device that are alive."""
    settle()
    return _in_use.get(device, 0)


class Stream:
    """A queue of work on one device."""

    def __init__(self, name: str):
        self.name, self.number, self.steps = name, next(_numbers), 0
        self.clock: Clock = {}
        self.faults: list[str] = []  # found where no exception can be raised
        with _lock:
            _streams[self.number] = self

    def record(self) -> Clock:
        """An event: a mark after all that this stream was given so far."""
        with _lock:
            return {**self.clock, self.number: self.steps}

    def wait(self, event: Clock) -> None:
        """What this stream is given from now on comes after the event."""
        settle()
        with _lock:
            for number, step in event.items():
                self.clock[number] = max(self.clock.get(number, 0), step)

    def synchronize(self) -> None:
        """The host waits until this stream has done all it was given."""
        HOST.wait(self.record())
        self.raise_faults("synchronize")

    def touch(self, what: str, reads: Sequence[Access], writes: Sequence[Access]) -> None:
        """One step, `what`, that reads and writes these; KernelError where it is in no order with an earlier one."""
        with _lock:
            self.wait(HOST.clock)  # a launch comes after all that the host has waited for
            self.steps += 1
            self.clock[self.number] = self.steps
            self.raise_faults(what)
            for access in (*reads, *writes):
                if access.write is not None and not self._knows(*access.write):
                    raise self._disorder(what, "uses", access, access.write[0], "wrote")
            for access in writes:
                for number, step in access.reads.items():
                    if not self._knows(number, step):
                        raise self._disorder(what, "overwrites", access, number, "may still be reading")
                access.write, access.reads = (self.number, self.steps), {}
            for access in reads:
                access.reads[self.number] = self.steps

    def freed(self, access: Access) -> None:
        """Memory of this stream's device goes back to the pool: a fault where another stream may still be using it."""
        with _lock:
            users = dict(access.reads)
            if access.write is not None:
                users[access.write[0]] = max(access.write[1], users.get(access.write[0], 0))
            for number, step in users.items():
                if not self._knows(number, step) and HOST.clock.get(number, 0) < step:
                    self.faults.append(
                        f"STREAM-ORDER: {access.label} was freed while stream {_streams[number].name} may use it: "
                        f"let {self.name} wait for an event of that stream first"
                    )

    def raise_faults(self, what: str) -> None:
        if self.faults:
            faults, self.faults = self.faults, []
            raise KernelError(f"{what} on {self.name}:\n" + "\n".join(faults))

    def _knows(self, number: int, step: int) -> bool:
        return number == self.number or self.clock.get(number, 0) >= step

    def _disorder(self, what: str, does: str, access: Access, other: int, did: str) -> KernelError:
        return KernelError(
            f"{what} on stream {self.name}:\nSTREAM-ORDER: {does} {access.label}, which stream {_streams[other].name} "
            f"{did}, and no event says in which order: record one there and wait for it here"
        )


HOST = Stream("host")


def _after_fork() -> None:
    """The parent's locks may be held by threads that a forked child does not have."""
    global _lock
    _lock = threading.RLock()
    arena.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
