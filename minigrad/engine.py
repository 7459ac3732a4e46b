"""The engine: what an op is, and how gradients flow back through the ops that were run.

Running an op leaves a node, a `Function` object, that knows the nodes its inputs came from.  The nodes form a graph
with the loss at one end and the leaves (parameters) at the other.  Backward goes through it from the loss, newest node
first: whatever used a node's output was made after it, so it has sent its part of the gradient already, and the sum is
complete.  `backward_in_ten_lines` is all of it, and what textbook:0 runs.

`walk` does the same for cpu:N and cards, and more: nothing begins on a graph that is spent, sums are made in place, and
Ctrl-C leaves none half added.  backward.py begins it, and has the other way, for graphs that span several devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

import numpy as np

from .base.interrupts import Hold
from .device import Array
from .errors import DeviceError, GraphError
from .tools import tracing


def backward_in_ten_lines(loss: Function, gradient: Array) -> dict[Any, Array]:
    """The gradient of every leaf that the node `loss` depends on, from the gradient of its output."""
    gradients, waiting = {loss: gradient}, [(-loss.order, loss)]
    while waiting:
        _, node = heappop(waiting)  # the newest: nobody is left who could add to its gradient
        for target, part in zip(node.inputs, gradients_of(node, gradients.pop(node))):
            if part is not None:
                if isinstance(target, Function) and target not in gradients:  # else it is a leaf, or waiting already
                    heappush(waiting, (-target.order, target))
                gradients[target] = target.device.added(gradients[target], part) if target in gradients else part
        node.release()  # its arrays are not needed any more
    return gradients


class Version:
    """Counts the in-place changes of one array, for all tensors that are views of it, and knows where they were."""

    latest: object = None  # a new object at every change of any array: while it is the same, nothing has changed
    value = 0  # these three are the class's until the first change: every op makes a Version, and few see one
    extent = float("inf"), 0.0  # from where to where in memory (Device.extent)
    shape: tuple[int, ...] = ()  # of the tensor that was written to

    def changed(self, extent: tuple[float, float], shape: tuple[int, ...]) -> None:
        self.extent = min(self.extent[0], extent[0]), max(self.extent[1], extent[1])
        self.shape, self.value, Version.latest = shape, self.value + 1, object()

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy, whose memory is elsewhere: it may be any part
        self.__dict__ = {**state, "extent": (0.0, float("inf"))}


class Function:
    """One op, and the graph node that a run of it leaves.  Each room (minigrad/ops/<op>.py) derives one or more.

    An op has up to three faces, ways to compute the same, and the device picks one of them.  A room defines
    `forward(*arrays) -> array` and `backward(dy) -> array or tuple of arrays (or None), one per input`: the
    formula in plain NumPy, which runs on textbook:0.  Where that is not fast enough, `forward_cpu` and
    `backward_cpu` do the same in less time on cpu:N (an op without them runs the first pair there), and `forward_gpu`
    and `backward_gpu` launch kernels on a card.  What backward needs, forward keeps as attributes under the names of
    the formula (`self.x = x`); the engine drops them as soon as backward has used them.  Rules for backward:
    it returns fresh arrays, or dy itself or views of it, never a saved array, and it does not write into dy.

    Set by `apply` (tensor.py) before forward: `device`, and `needs`, which inputs want a gradient.
    Set after it: `shape` and `dtype` of the output, `order` (creation number), `inputs` (where the gradients go).
    """

    name = "function"
    freed = False
    device: Any  # a Device; a card's face uses it as a gpu.Card
    needs: tuple[bool, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order = 0
    inputs: tuple[Any, ...]  # per input the node that made it, or the leaf's tensor; None: no gradient wanted
    # Version.latest before forward ran, and the versions of inputs and output, with their values then
    watched: tuple[object, Sequence[Version], Sequence[int]] = (None, (), ())

    def __init_subclass__(cls, name: str | None = None) -> None:
        cls.name = name or cls.__name__.lower()
        for way in ("forward", "backward"):  # an op without a fast face runs the textbook's on the CPU
            if way in vars(cls) and f"{way}_cpu" not in vars(cls):
                setattr(cls, f"{way}_cpu", vars(cls)[way])

    def forward(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: has no face for {self.device}: move the tensor with .to('cpu:0')")

    def backward(self, dy: Array) -> Any:
        raise GraphError(f"{self.name}: has no gradient on {self.device}: .detach() its inputs, or move them to cpu:0")

    forward_cpu = forward_gpu = forward
    backward_cpu = backward_gpu = backward

    def flops(self, *inputs: Array) -> int:
        """Floating-point operations of forward on these arrays, for the profiler; 0 where they do not matter."""
        return 0

    def check_usable(self) -> None:
        """GraphError where this node is spent, or where an array that forward kept, whole or as a view, has changed."""
        if self.freed:
            raise GraphError(
                "backward: this graph was already used by an earlier backward and freed: run forward again, "
                "or add the losses first and go back once"
            )
        for position, (version, value) in enumerate(zip(*self.watched[1:])):
            if version.value != value and self._keeps(*version.extent):
                what = f"input {position}" if position < len(self.inputs) else "its output"
                raise GraphError(
                    f"{self.name}: backward needs {what} {version.shape}, which was modified in place "
                    f"{version.value - value} time(s) since forward: modify a copy, or call backward first"
                )

    def _keeps(self, start: float, stop: float) -> bool:
        kept = (value for value in vars(self).values() if isinstance(value, self.device.array_type))
        return any(low < stop and start < high for low, high in map(self.device.extent, kept))

    def release(self) -> None:
        """Drop saved arrays and edges; what remains says where and what the output was, and that this node is spent."""
        device, shape, dtype, order = self.device, self.shape, self.dtype, self.order
        self.__dict__ = {"device": device, "shape": shape, "dtype": dtype, "order": order, "freed": True, "inputs": ()}


# ---------------------------------------------------------------- creation order

_main_clock = itertools.count(1)  # next() on it is one indivisible step: no two threads get the same number
_clock: ContextVar[Iterator[int]] = ContextVar("minigrad_clock", default=_main_clock)


def next_order(newest: int = 0) -> int:
    """The creation number of a new graph node.  Backward follows these numbers, and sums gradients in their order.

    newest: the largest number among the node's inputs.  Its own is larger, even if they came from another sequence.
    """
    clock = _clock.get()
    number = next(clock)
    while number <= newest:
        number = next(clock)
    return number


class Clocks:
    """Interleaved sequences of numbers for workers that run at the same time: worker i of k draws start + i + k*n.

    So a node's number depends on the program, not on which thread was faster: the same bits on every run.
    """

    def __init__(self, workers: int):
        start = next_order() + 1
        self.sequences = [itertools.count(start + i, step=workers) for i in range(workers)]

    def use(self, worker: int) -> None:
        _clock.set(self.sequences[worker])

    def end(self) -> None:
        """What follows is newer than all that the workers have made."""
        next_order(max(map(next, self.sequences)))


# ---------------------------------------------------------------- backward

Deliver = Callable[[Any, Array], None]


class Sums:
    """Gradients while their parts come in: the one place where they are added, and where one is found complete.

    expected: for each end (see `plan`), how many parts are to come; after the last, `deliver(end, gradient)` is called.
    """

    def __init__(self, expected: dict[Any, int], deliver: Deliver):
        self.expected, self.deliver = expected, deliver
        self.totals: dict[Any, Array] = {}
        self.owned: set[Any] = set()  # targets whose total is ours to add into, and not somebody's view

    def add(self, target: Any, part: Array, owned: bool = False) -> None:
        """owned: nobody else may read the array `part`."""
        if target in self.owned:
            target.device.add_into(self.totals[target], part)
        else:
            total = self.totals.get(target)
            self.totals[target] = part if total is None else target.device.added(total, part)
            if owned or total is not None:
                self.owned.add(target)

    def take(self, target: Any) -> Array | None:
        """The sum; None where no part has come."""
        self.owned.discard(target)
        return self.totals.pop(target, None)

    def one_less(self, end: Any) -> None:
        """A part of this end's gradient has come, or will not."""
        self.expected[end] -= 1
        if self.expected[end] == 0 and end in self.totals:
            self.deliver(end, self.take(end))


def plan(root: Function, since: int) -> tuple[list[Function], dict[Any, int]]:
    """The nodes to run, newest first, and the ends, with the number of parts of each one's gradient.

    An end is a leaf, or a node older than `since`.  Raises before anything runs.
    """
    nodes: list[Function] = []
    ends: dict[Any, int] = {}
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if node.freed:
            node.check_usable()  # which raises
        nodes.append(node)
        for target in node.inputs:
            if isinstance(target, Function) and (target.freed or target.order >= since):
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
            elif target is not None:
                ends[target] = ends.get(target, 0) + 1
    nodes.sort(key=attrgetter("order"), reverse=True)
    return nodes, ends


def walk(
    root: Function, gradient: Array, nodes: list[Function], ends: dict[Any, int], deliver: Deliver, held: Hold
) -> None:
    """Backward in one thread: run `nodes`, newest first, and deliver the gradient of each end once it is complete.

    A node's sum is complete when its turn comes; the parts of a sum come newest consumer first, too.  Once
    Ctrl-C has come (`held`), no further node is run.
    """
    sums = Sums(ends, deliver)
    sums.add(root, gradient)
    for node in nodes:
        if held.stopping:
            return
        _run(node, sums, ends)


def _run(node: Function, sums: Sums, ends: dict[Any, int]) -> None:
    totals = sums.totals
    dy = totals.pop(node, None)
    parts = [None] * len(node.inputs) if dy is None else gradients_of(node, dy)
    for target, part in zip(node.inputs, parts):
        if target in ends:
            if part is not None:
                sums.add(target, part if target in totals else own(target, part, dy, parts), owned=True)
            sums.one_less(target)
        elif part is not None:
            if target in totals:
                sums.add(target, part)
            else:
                totals[target] = part  # the first part, as it is; there is seldom another
    node.release()


def gradients_of(node: Function, dy: Array) -> list[Array | None]:
    """What a node's backward returns for the gradient of its output: one for every input that wants one, or None.

    GraphError where the node or an array it needs is not what it was, or a gradient does not fit.
    """
    if node.freed or node.watched[0] is not Version.latest:
        node.check_usable()
    grads = (tracing.recorder or node.device).backward(node, dy)
    if len(grads) != len(node.inputs):
        raise GraphError(
            f"{node.name}: backward returned {len(grads)} gradients for {len(node.inputs)} inputs: return one each"
        )
    parts: list[Array | None] = []
    for target, part in zip(node.inputs, grads):
        if target is None or part is None:
            part = None
        else:
            if type(part) is not np.ndarray and isinstance(part, (np.generic, float, int)):
                part = np.asarray(part)  # NumPy turns 0-d results into scalars
            if not target.device.owns(part) or part.shape != target.shape or part.dtype != target.dtype:
                raise _misfit(node, len(parts), target, part)
        parts.append(part)
    return parts


def own(target: Any, grad: Array, dy: Array | None, grads: Sequence[Array | None]) -> Array:
    """`grad`, or a copy if somebody else may read it: an end keeps its gradient, and adds to it."""
    device = target.device
    seen = isinstance(dy, device.array_type) and device.shares(grad, dy)
    seen = seen or not device.writable(grad) or sum(grad is other for other in grads) > 1
    return device.copied(grad) if seen else grad


def _misfit(node: Function, position: int, target: Any, grad: Array) -> GraphError:
    device = target.device
    on = "cpu" if isinstance(grad, np.ndarray) else device if device.owns(grad) else "another device"
    return GraphError(
        f"{node.name}: backward returned a gradient {np.shape(grad)} {getattr(grad, 'dtype', type(grad))} on {on} "
        f"for input {position}, which is {target.shape} {target.dtype} on {device}"
    )
