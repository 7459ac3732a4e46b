"""Threads: work on several devices at once, and the work of one op on the cores of its device.

Two levels, one rule each.  `on_devices` gives every device a thread of its own: this is how the two columns of
AlexNet run at the same time.  `split` cuts the work of one op (images, rows of a matrix) into as many pieces as the
device has threads.  NumPy releases Python's lock inside its loops and BLAS calls, so these threads do run in parallel.

BLAS keeps threads too, and is held to one while ours are at work (blas.py).

Whatever happens, Ctrl-C too (interrupts.py): when `split` or `on_devices` is left, none of their threads is at work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from ..base.interrupts import hold
from ..device import Device, DeviceLike, device
from ..engine import Clocks
from ..errors import ArgumentError
from ..tools import tracing
from .blas import one_blas_thread

Result = TypeVar("Result")

# How many threads the work of one op may use here; None outside on_devices and split: all cores.
_share: ContextVar[int | None] = ContextVar("minigrad_share", default=None)
_inside: ContextVar[bool] = ContextVar("minigrad_inside", default=False)
_in_piece: ContextVar[bool] = ContextVar("minigrad_in_piece", default=False)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads(where: DeviceLike) -> int:
    """The threads that an op on this device uses now: what set_num_threads said, else this device's share."""
    return 1 if _in_piece.get() else device(where).threads or _share.get() or cores()


def beside_others() -> bool:
    """Whether this thread works on one piece of a split or for one of several devices, with other threads beside it."""
    return _in_piece.get() or _inside.get()


def set_num_threads(threads: int | None, where: DeviceLike = "cpu:0") -> None:
    """Give a device that many threads; None goes back to an equal share of the cores among devices at work."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ArgumentError(f"set_num_threads: threads must be an integer >= 1 or None, got {threads!r}")
    device(where).threads = threads


# ---------------------------------------------------------------- the work of one op on the cores of its device


def split(where: Device, n: int, work: Callable[[int, int], Result], at_least: int = 1) -> list[Result]:
    """`work(start, stop)` over contiguous pieces of range(n), at the same time; the results in order.

    There is one piece per thread of the device, and no piece is smaller than `at_least` (below which a thread costs
    more than it saves).  The pieces depend on n and the thread count alone, never on timing.  Ctrl-C waits for the end
    of all pieces.
    """
    go_on()
    pieces = max(1, min(num_threads(where), n // at_least))
    if pieces == 1:
        if beside_others():  # whoever began these has seen to BLAS
            return [work(0, n)]
        with hold(), one_blas_thread():
            return [work(0, n)]
    bounds = [n * i // pieces for i in range(pieces + 1)]

    def piece(start: int, stop: int) -> Result:
        _in_piece.set(True)  # a piece is one thread: an op inside it does not split again
        return work(start, stop)

    traced = tracing.pieces(piece, where)
    futures: list[Future[Result]] = []
    with hold(), one_blas_thread():
        try:
            for i in range(1, pieces):  # piece i always on the same thread: its data is near
                thread = _worker(device(where), i)
                futures.append(thread.submit(copy_context().run, traced, bounds[i], bounds[i + 1]))
            results = [copy_context().run(piece, bounds[0], bounds[1])]
        finally:
            _wait(futures, "other threads", where)
        return results + [future.result() for future in futures]


# ---------------------------------------------------------------- several devices at once


class Stopped(BaseException):
    """Raised in a worker to end what it is at, after Ctrl-C.  The caller, who waits for it, gets Ctrl-C's exception."""


class _Crew:
    """The workers of one call of on_devices, and whether they are to stop early."""

    def __init__(self, when_stopped: Callable[[], None] | None):
        self.stopped, self.when_stopped = False, when_stopped

    def stop(self) -> None:
        self.stopped = True
        if self.when_stopped is not None:
            self.when_stopped()


_crew: ContextVar[_Crew | None] = ContextVar("minigrad_crew", default=None)


def go_on() -> None:
    """Raises Stopped on a worker that is to stop early.  Called before every op, and by `split`, for backward."""
    crew = _crew.get()
    if crew is not None and crew.stopped:
        raise Stopped


def on_devices(
    devices: Sequence[DeviceLike],
    function: Callable[..., Result],
    *arguments: Sequence[Any],
    when_stopped: Callable[[], None] | None = None,
) -> list[Result]:
    """`[function(*args) for args in zip(*arguments)]`, call i on the worker of devices[i], all at the same time.

    arguments: as for `map`, one sequence per parameter of function, each with one entry per device:

        halves = on_devices(["cpu:0", "cpu:1"], lambda column, x: column(x), columns, inputs)

    Returns when all calls have ended; the error of the first that failed is raised here, with its own traceback.
    The devices at work share the cores equally.  One device, a textbook:N among them, or a call from inside a worker:
    done in turn, here.

    Ctrl-C makes the workers stop before their next op, and is raised here when all have.  A function that waits for
    something else has to be told: `when_stopped` is called then, from any thread.
    """
    places = [device(spec) for spec in devices]
    for sequence in arguments:
        if len(sequence) != len(places):
            raise ArgumentError(f"on_devices: {len(places)} devices but {len(sequence)} arguments: give one per device")
    calls = list(zip(*arguments)) if arguments else [()] * len(places)
    distinct = list(dict.fromkeys(places))  # each device once, in order: calls for the same one come after each other
    if len(distinct) == 1 or _inside.get() or any(one.plain for one in distinct):
        return [function(*args) for args in calls]

    results: list[Any] = [None] * len(places)
    share = max(1, cores() // max(1, sum(one.shares_cores for one in distinct)))
    crew = _Crew(when_stopped)

    def device_work(number: int, one: Device) -> None:
        _inside.set(True)
        _share.set(share)
        clocks.use(number)
        _crew.set(crew)
        for i, place in enumerate(places):
            if place is one:
                go_on()
                results[i] = function(*calls[i])

    # One caller at a time: the devices of one graph wait for each other, and must not queue behind those of another.
    with hold() as held, _one_caller, one_blas_thread():
        held.stop_early(crew.stop)
        clocks = Clocks(len(distinct))
        futures: list[Future[None]] = []
        try:
            for number, one in enumerate(distinct):
                futures.append(_worker(one).submit(copy_context().run, device_work, number, one))
        except BaseException:  # the system gives no more threads: those that have one must not wait for the others
            crew.stop()
            raise
        finally:
            _wait(futures, "devices")
        clocks.end()
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None and not isinstance(error, Stopped):
                raise error
        if any(errors):
            raise Stopped
    return results


def inside_worker() -> bool:
    """Whether devices take turns here: on the worker of a device, or within in_turn()."""
    return _inside.get()


@contextmanager
def in_turn() -> Iterator[None]:
    """Devices work one after the other, in the calling thread: for debuggers and profilers, and to compare times.

    Results are the same as at the same time but for the rounding that another number of threads brings.
    """
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


# ---------------------------------------------------------------- workers

_lock = threading.Lock()
_one_caller = threading.Lock()  # held while on_devices has devices at work
_workers: dict[tuple[Device, int], ThreadPoolExecutor] = {}


def _worker(where: Device, number: int = 0) -> ThreadPoolExecutor:
    """A thread of that device: number 0 is for on_devices, the others take the pieces of split.

    A piece never waits for another piece, so that pieces of two callers may queue for one thread.
    """
    with _lock:
        if (where, number) not in _workers:
            name = f"minigrad {where}" + (f" thread {number + 1}" if number else "")
            _workers[where, number] = ThreadPoolExecutor(1, thread_name_prefix=name)
        return _workers[where, number]


def _wait(futures: Sequence[Future[Any]], what: str, where: DeviceLike | None = None) -> None:
    """Until all have ended; an exception that another thread sends to this one meanwhile is raised afterwards."""
    sent: BaseException | None = None
    with tracing.waited(what, where):
        for future in futures:
            while not future.done():
                try:
                    # A thread that waits for ever never learns of a signal that the system gave to another thread.
                    future.exception(timeout=0.1)
                except TimeoutError:
                    pass
                except BaseException as error:
                    sent = error
    if sent is not None:
        raise sent


def _forget_threads() -> None:
    """A forked child has none of the parent's threads: start new ones when asked."""
    global _lock, _one_caller
    _lock, _one_caller = threading.Lock(), threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
