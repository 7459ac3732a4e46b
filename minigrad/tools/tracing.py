"""Taking the times of ops, threads and waits.  profiler.py makes tables of them.

`recorder` is the profiler's (or the debugger's) while `with minigrad.profile():` (`debug():`) is running, and None at
any other time.  The engine looks at it once for each op, and lets the recorder run the op if there is one.  What
happens less often calls `region`, `waited` or `pieces`, which do nothing where there is no recorder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter_ns
from typing import Any, NamedTuple

Shapes = tuple[tuple[int, ...], ...]

HOST = "host"  # in place of a device: who waits for devices, and regions that name none
SHORTEST_WAIT = 10_000  # nanoseconds; shorter ones are a lock that was free, or nearly


class Task(NamedTuple):
    """What a thread is doing."""

    name: str
    phase: str  # forward, backward, region or waiting
    device: str
    shapes: Shapes = ()  # of the inputs of forward, of dy for backward


class Event(NamedTuple):
    """One stretch of one thread's time; `start` and `end` in nanoseconds since recording began."""

    name: str
    phase: str
    device: str
    shapes: Shapes
    thread: tuple[int, str]  # its number in this process, and its name
    start: int
    end: int
    piece: bool  # not a call of its own: the share of another thread in the task of that name, handed out by `split`
    flops: int
    bytes: int


class Recorder:
    """Takes the times.  All threads append to one list, which needs no lock; no event keeps an array alive."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.began = perf_counter_ns()
        self.at = threading.local()  # .task: what this thread is doing

    def forward(self, function: Any, *arrays: Any) -> Any:
        """Run a Function's forward, in the place of its device."""
        shapes = tuple(array.shape for array in arrays)
        task = Task(function.name, "forward", str(function.device), shapes)
        flops = function.flops_forward = int(function.flops(*arrays))  # for backward, which has no inputs to ask with
        y, start, end = self._timed(task, _until_done(function, function.device.forward), function, *arrays)
        self._note(task, start, end, False, flops, _bytes([*arrays, y]))
        return y

    def backward(self, node: Any, dy: Any) -> Any:
        """Run a Function's backward, in the place of its device."""
        task = Task(node.name, "backward", str(node.device), (dy.shape,))
        flops = getattr(node, "flops_forward", 0) * sum(node.needs[:2])
        saved = list(vars(node).values())
        grads, start, end = self._timed(task, _until_done(node, node.device.backward), node, dy)
        self._note(task, start, end, False, flops, _bytes([dy, *saved, *grads]))
        return grads

    def pieces(self, work: Callable[..., Any], device: object) -> Callable[..., Any]:
        """`work` for other threads to do, as part of what this thread is doing."""
        task = getattr(self.at, "task", None) or Task("split", "region", str(device))

        def piece(*args: Any) -> Any:
            result, start, end = self._timed(task, work, *args)
            self._note(task, start, end, True)
            return result

        return piece

    @contextmanager
    def stretch(self, task: Task, shortest: int = 0) -> Iterator[None]:
        """A block that is this task's; not noted where it took less than `shortest`."""
        outer, self.at.task = getattr(self.at, "task", None), task
        start = perf_counter_ns()
        try:
            yield
        finally:
            end = perf_counter_ns()
            self.at.task = outer
            if end - start >= shortest:
                self._note(task, start, end)

    def region(self, name: str, device: object = None, phase: str = "region") -> AbstractContextManager[Any]:
        return self.stretch(Task(name, phase, HOST if device is None else str(device)))

    def waited(self, what: str, device: object = None) -> AbstractContextManager[Any]:
        return self.stretch(Task(what, "waiting", HOST if device is None else str(device)), SHORTEST_WAIT)

    def _timed(self, task: Task, work: Callable[..., Any], *args: Any) -> tuple[Any, int, int]:
        outer, self.at.task = getattr(self.at, "task", None), task
        try:
            start = perf_counter_ns()
            result = work(*args)
            return result, start, perf_counter_ns()
        finally:
            self.at.task = outer

    def _note(self, task: Task, start: int, end: int, piece: bool = False, flops: int = 0, size: int = 0) -> None:
        thread = threading.get_ident(), threading.current_thread().name
        self.events.append(Event(*task, thread, start - self.began, end - self.began, piece, flops, size))


def _until_done(node: Any, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, and waiting for the card: a launch returns long before its kernel has run."""

    def whole(*args: Any) -> Any:
        result = work(*args)
        node.device.synchronize()
        return result

    return whole


def _bytes(values: list[Any]) -> int:
    """The sizes of the arrays among these, each counted once."""
    return sum({id(value): getattr(value, "nbytes", 0) for value in values}.values())


class PassingOn:
    """A recorder that hands everything on to the one before, if there is one: for those who look on."""

    def __init__(self, inner: Recorder | PassingOn | None):
        self.inner = inner

    def forward(self, function: Any, *arrays: Any) -> Any:
        return (self.inner or function.device).forward(function, *arrays)

    def backward(self, node: Any, dy: Any) -> Any:
        return (self.inner or node.device).backward(node, dy)

    def region(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        return nullcontext() if self.inner is None else self.inner.region(*args, **kwargs)

    def waited(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        return nullcontext() if self.inner is None else self.inner.waited(*args, **kwargs)

    def pieces(self, work: Callable[..., Any], device: object) -> Callable[..., Any]:
        return work if self.inner is None else self.inner.pieces(work, device)


recorder: Recorder | PassingOn | None = None

_NOTHING = nullcontext()


def region(name: str, device: object = None, phase: str = "region") -> AbstractContextManager[Any]:
    """Work that does not pass through the engine, under its own name: `with tracing.region("read images"): ...`."""
    listener = recorder
    return _NOTHING if listener is None else listener.region(name, device, phase)


def waited(what: str, device: object = None) -> AbstractContextManager[Any]:
    """A block in which this thread does nothing but wait for others."""
    listener = recorder
    return _NOTHING if listener is None else listener.waited(what, device)


def pieces(work: Callable[..., Any], device: object) -> Callable[..., Any]:
    """`work` for other threads to do, as part of what this thread is doing."""
    listener = recorder
    return work if listener is None else listener.pieces(work, device)
