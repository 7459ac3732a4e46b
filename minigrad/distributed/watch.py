"""Finding a process that hangs, within seconds, and never one that works, however slowly.

Once in a while every process tells rank 0 in which call of its Comm it is, or how many it has made, and whether it has
used the processor since.  Rank 0 answers, and decides; a thread and a communicator of their own carry this.  All are
ended where, for `hung_after` seconds,

    silent   a process has said nothing: it is stopped, its machine or the network is gone, or C code keeps all its
             threads from running.  That of rank 0 is noticed by the others.
    idle     nobody has done anything: some wait in a call that another has not come to, and that one does not use the
             processor, nor has it a process of its own that may.  It sleeps, or waits for a lock, a pipe, a disk.

and at once where

    apart    the calls that two have made are not the same: they take different ways through the program.

So a process that computes may take as long as it likes.  One that loops for ever computes, too: it is not found.  Where
all are in the same call, data travel, or the network is down: that ends after `timeout` seconds.  One that is stopped
by a debugger is silent or idle.  Time in which this process itself did not run counts for nobody.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .comm import Comm

CALLS = ("", "gather", "broadcast", "exchange", "sum")
LAST = 20  # calls of which a process knows which they were, 3 bits each: together they fit into an int64
LEAST = 0.01  # the share of a processor that is work; what threads use that wait for something is less


class At(NamedTuple):
    """Where a process is.  calls: how many of its Comm it has begun; last: which the last ones were, the latest in the
    lowest bits, as places in CALLS; since: when it began the latest, None where it has come out of it."""

    calls: int
    last: int
    since: float | None

    def into(self, call: str) -> At:
        return At(self.calls + 1, (self.last << 3 | CALLS.index(call)) % 8**LAST, time.monotonic())

    @property
    def call(self) -> str:
        return CALLS[self.last % 8]


NOWHERE = At(0, 0, None)


class State(NamedTuple):
    """What a process says of itself.  at: where its first Comm is.  calls: how many all of them have begun, and whether
    it waits in one.  worked: whether it has used the processor since it said so last."""

    at: At
    calls: int
    waits: bool
    worked: bool


class Judge:
    """What rank 0 makes of it.  Times are seconds of its own clock."""

    def __init__(self, size: int, hung_after: float):
        self.hung_after, self.states = hung_after, [State(NOWHERE, 0, False, True)] * size
        self.heard, self.worked = [0.0] * size, [0.0] * size  # when that was the last time

    def hear(self, rank: int, state: State, now: float) -> None:
        if state.worked or state.calls != self.states[rank].calls:
            self.worked[rank] = now
        self.states[rank], self.heard[rank] = state, now

    def verdict(self, now: float) -> tuple[int, str] | None:
        """(the rank that hangs, why), or None."""
        for rank, heard in enumerate(self.heard):
            if now - heard > self.hung_after:
                return rank, silent(self.hung_after)
        for rank, state in enumerate(self.states):
            found = differ(self.states[0].at, state.at)
            if found:
                return rank, f"has taken another way than rank 0: {found}"
        waiting = max(((s.calls, rank) for rank, s in enumerate(self.states) if s.waits), default=(0, 0))
        idle = [r for r, s in enumerate(self.states) if not s.waits and now - self.worked[r] > self.hung_after]
        behind = [r for r in idle if self.states[r].calls < waiting[0]]
        if behind and len(idle) == sum(not s.waits for s in self.states):
            return behind[0], (
                f"has not used the processor for {self.hung_after:g} seconds, and the others wait for it "
                f"(rank {waiting[1]} in a call, {self.states[waiting[1]].at.call})"
            )
        return None


def silent(seconds: float) -> str:
    return f"has said nothing for {seconds:g} seconds: it, or its machine, is stopped or gone"


def differ(a: At, b: At) -> str:
    """The first of the calls known of both that are not the same, in words."""
    first = max(a.calls, b.calls) - LAST + 1
    for number in range(max(first, 1), min(a.calls, b.calls) + 1):
        here, there = (CALLS[(at.last >> 3 * (at.calls - number)) % 8] for at in (a, b))
        if here != there:
            return f"its call {number} is {there}, not {here}"
    return ""


class Watch:
    """The thread that does it.

    mpi: a communicator for it alone; None where this MPI lets in one thread at a time: `timeout` alone is watched then.
    """

    def __init__(self, comm: Comm, mpi: Any, hung_after: float, timeout: float):
        self.comm, self.mpi, self.hung_after, self.timeout = comm, mpi, hung_after, timeout
        self.comms = [comm]  # and those beside it
        self.beat = min(1.0, hung_after / 5)
        self.over, self.now = threading.Event(), 0.0
        self.judge, self.heard = Judge(comm.size, hung_after), 0.0  # of rank 0; when the others heard it last
        self.used = self._used()
        self.sent: dict[int, tuple[Any, Any]] = {}  # to each rank: request, and the numbers that it may still read
        self.names = comm.gather(f"process {os.getpid()} on {socket.gethostname()}")
        self.thread = threading.Thread(target=self._run, name="minigrad-watch", daemon=True)
        atexit.register(self._stop)
        self.thread.start()

    def _run(self) -> None:
        begin = time.monotonic()
        while not self.over.wait(self.beat):
            end = time.monotonic()
            self.now += min(end - begin, 2 * self.beat)  # while this process did not run, nobody is to blame
            begin = end
            if self.mpi is not None:
                self._as_rank_0() if self.comm.rank == 0 else self._as_another()
            for at in [comm.at for comm in self.comms]:
                if at.since is not None and end - at.since > self.timeout:
                    self._hung(self.comm.rank, f"has been in a call ({at.call}) for {self.timeout:g} seconds")

    def end(self) -> None:
        """All have come to the end; every process calls it."""
        self._stop()
        if self.mpi is not None:
            self.mpi.Barrier()
            self._received()
            for request, _ in self.sent.values():
                request.Wait()

    def _stop(self) -> None:
        """Before MPI ends, which lets no thread in any more."""
        self.over.set()
        self.thread.join()

    def _as_rank_0(self) -> None:
        for rank, numbers in self._received():
            first, last, calls, waits, worked = numbers.tolist()
            self.judge.hear(rank, State(At(first, last, None), calls, bool(waits), bool(worked)), self.now)
        self.judge.hear(0, self._state(), self.now)
        found = self.judge.verdict(self.now)
        for rank in range(1, self.comm.size):
            self._send(rank, found is not None and found[0] == rank)
        if found is not None:
            self._hung(*found)

    def _as_another(self) -> None:
        state = self._state()
        self._send(0, state.at.calls, state.at.last, *state[1:])
        for _, numbers in self._received():
            self.heard = self.now
            if numbers[0]:
                self._tell_where()
        if self.now - self.heard > self.hung_after:
            self._hung(0, silent(self.hung_after))

    def _state(self) -> State:
        all_, before = [comm.at for comm in self.comms], self.used
        self.used = self._used()
        waits, worked = any(at.since is not None for at in all_), self.used - before > LEAST * self.beat
        return State(all_[0], sum(at.calls for at in all_), waits, worked or _has_children())

    def _used(self) -> float:
        """Seconds of the processor that this process has used, without those of this thread."""
        own = time.thread_time() if threading.current_thread() is not threading.main_thread() else 0.0
        return time.process_time() - own

    def _send(self, rank: int, *numbers: int) -> None:
        if rank not in self.sent or self.sent[rank][0].Test():
            content = np.array([*numbers, 0, 0, 0, 0][:5], np.int64)
            self.sent[rank] = self.mpi.Isend(content, rank), content

    def _received(self) -> list[tuple[int, np.ndarray]]:
        found = []
        for rank in range(1, self.comm.size) if self.comm.rank == 0 else [0]:
            while self.mpi.Iprobe(rank):
                numbers = np.empty(5, np.int64)
                self.mpi.Recv(numbers, rank)
                found.append((rank, numbers))
        return found

    def _hung(self, rank: int, why: str) -> None:
        """Say it, and end all; a process that can is left the time to say where it is."""
        out = sys.__stderr__ or sys.stderr  # a program may have silenced the other
        print(f"distributed: rank {rank} ({self.names[rank]}) {why}.  All are ended.", file=out, flush=True)
        if rank == self.comm.rank:
            self._tell_where()
        time.sleep(1 + 2 * self.beat)
        self.comm.abort(1)

    def _tell_where(self) -> None:
        out = sys.__stderr__ or sys.stderr
        print(f"distributed: where rank {self.comm.rank} is:", file=out, flush=True)
        traceback.print_stack(sys._current_frames()[threading.main_thread().ident], file=out)  # type: ignore[index]
        faulthandler.dump_traceback(file=out)  # all threads, but no more than a hundred, and the main one last
        self.comm.abort(1)


def _has_children() -> bool:
    """Whether a process that this one has started is running: a compiler, say, for which it waits."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (ChildProcessError, AttributeError):
        return False
