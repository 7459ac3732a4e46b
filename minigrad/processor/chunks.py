"""Part of a graph over chunks of images: the same numbers, sooner.

    x = minigrad.in_chunks(self.convolutions, images)       # instead of x = self.convolutions(images)

Op by op, all threads share the work of one op and meet at its end, before every op, in forward and in backward; and the
whole batch goes to memory and comes back between any two.  Chunk by chunk, one thread takes a few images through *all*
ops, the other threads take other chunks, and nobody waits before the end.  docs/speed.md measures it.

A chunk's graph is an ordinary one, made by the ordinary ops.  The whole lot of them is one node of the outer graph,

    y[i:j] = function(x[i:j])       dx[i:j] = function's backward(dy[i:j])       dw = sum over chunks of their dw

where w are the leaves and earlier results that function reads besides x: they are found by walking the chunks' graphs,
so function may be any closure or module.  Each thread sums the dw of its chunks in their order, then the threads' sums
are added in order: the bits do not depend on timing.  Random ops draw numbers that belong to the image (random_key in
random.py), not to the chunk or thread.

Source: pieces of a batch as in GPipe (Huang et al. 2019, section 2.2: micro-batches), there one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import numpy as np

from ..backward import run_backward
from ..base.arguments import integer
from ..base.grad_mode import is_grad_enabled
from ..base.random import Chunk, current_chunk
from ..device import Array, Device
from ..engine import Function, Sums, next_order
from ..errors import ArgumentError, DeviceError, DTypeError, ShapeError
from ..tensor import Tensor, wrap
from ..tools import tracing
from .memory import empty, own_pool
from .parallel import num_threads, split

# Bytes of input that make a default chunk: 8 images of 224x224.  With less than the second number for each thread, the
# threads would spend their time in waking up and in waiting for Python's lock: LeNet's batch of 64 stays whole.
CHUNK_BYTES, LEAST_BYTES = 5_000_000, 500_000

_whole: ContextVar[bool] = ContextVar("minigrad_whole_batches", default=False)


@contextmanager
def whole_batches() -> Iterator[None]:
    """Inside, in_chunks runs the batch as a whole: for functions that look at all images, and to compare."""
    token = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(token)


def in_chunks(function: Callable[..., Tensor], *inputs: Tensor, size: int | None = None) -> Tensor:
    """function(*inputs), computed a few images at a time on all threads of the device, in forward and in backward.

    function: takes tensors with images along axis 0 and returns one tensor with one row per image.  It must treat
    every image by itself, as all layers here do but batch norm while it trains, which refuses chunks (what else is
    computed from the whole batch, a mean say, would be computed from each chunk).  It is called once per chunk, in
    several threads at once: it should change nothing outside.
    inputs: tensors of one device, equally long.  Gradients flow to them, and to everything else that function reads.
    size: images per chunk, at most; by default what 5 MB of the first input hold.  Chunks are nearly equal, and as many
    for each thread; an input of less than 1 MB stays whole by default.

    Dropout gives each image the mask that it has without chunks.  Weight gradients are summed in a fixed order: the
    same bits on every run; other sizes or thread counts change the rounding only.
    Inside a chunk, inside whole_batches(), where one chunk would hold the batch, and on other devices than cpu:N:
    function(*inputs).
    Raises ArgumentError, DTypeError, DeviceError, ShapeError for inputs and results that do not fit this.
    """
    where, n = _checked_inputs(inputs)
    if size is not None:
        size = integer("in_chunks", "size", size, 1)
    bounds = _bounds(n, size, num_threads(where)) if size else _default_bounds(inputs[0], num_threads(where))
    if len(bounds) < 2 or _whole.get() or current_chunk.get() is not None or not where.shares_cores:
        return function(*inputs)
    node = InChunks()
    with tracing.region(node.name, where, "forward"):
        y = node.run(function, inputs, bounds)
    return wrap(y, where, node if node.inputs else None)


class InChunks(Function, name="in_chunks"):
    """The graphs of all chunks, as one node.  It makes itself: its inputs are known only after forward has run."""

    def run(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], bounds: list[tuple[int, int]]) -> Array:
        """Forward: the rows of y, chunk by chunk.  Sets what `apply` sets for other ops."""
        self.device, self.bounds = inputs[0].device, bounds
        self.since = next_order(_newest(x.node for x in inputs))
        recorded = is_grad_enabled()
        keys: list[int] = []
        keys_lock = threading.Lock()
        y = _Rows(bounds)
        # Per chunk: its pieces of the inputs, as leaves, and the node (or leaf) that made its rows.
        self.graphs: list[Any] = [None] * len(bounds)

        def chunk(number: int) -> None:
            i, j = bounds[number]
            current_chunk.set(Chunk(i, j - i, keys, keys_lock))
            leaves = [_piece(x, i, j, recorded) for x in inputs]
            result = function(*leaves)
            _check_result(result, self.device, j - i)
            y.put(number, result.data)
            if result.requires_grad:
                self.graphs[number] = leaves, result.node or result

        def piece(start: int, stop: int) -> None:
            for number in range(start, stop):
                copy_context().run(chunk, number)

        split(self.device, len(bounds), piece)
        ends: dict[Any, None] = {}
        for graph in self.graphs:
            if graph is not None:
                leaves, root = graph
                ends.update(dict.fromkeys(_ends(leaves, root, self.since)))
        if any(self.graphs):
            ends.update(dict.fromkeys(x.node or x for x in inputs if x.requires_grad))
        self.inputs = tuple(ends)
        self.needs = (True,) * len(ends)
        self.x_targets = [(x.node or x) if x.requires_grad and recorded else None for x in inputs]
        whole = y.whole()
        self.shape, self.dtype, self.order = whole.shape, whole.dtype, next_order(_newest(ends))
        return whole

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        xs = [_Rows(self.bounds) for _ in self.x_targets]

        def piece(start: int, stop: int) -> Sums:
            sums = _sums()
            for number in range(start, stop):
                if self.graphs[number] is not None:
                    leaves, root = self.graphs[number]
                    self.backward_of(number, leaves, root, dy, xs, sums)
            return sums

        sums = _sums()
        for more in split(self.device, len(self.bounds), piece):
            for target, part in more.totals.items():
                sums.add(target, part, owned=True)
        for target, dx in zip(self.x_targets, xs):
            if target is not None and dx.array is not None:  # x may come in twice, or be read besides
                sums.add(target, dx.whole(), owned=True)
        return tuple(sums.totals.get(target) for target in self.inputs)

    def backward_of(self, number: int, leaves: list[Tensor], root: Any, dy: Array, xs: list[_Rows], sums: Sums) -> None:
        """One chunk's way back: gradients of its images into their rows of xs, all others added to sums."""
        i, j = self.bounds[number]
        rows = {id(leaf): dx for leaf, dx in zip(leaves, xs)}

        def deliver(target: Any, grad: Array) -> None:
            if id(target) in rows:
                rows[id(target)].put(number, grad)
            else:
                sums.add(target, grad, owned=True)

        if isinstance(root, Function):
            run_backward(root, dy[i:j], deliver, self.since)
        else:
            deliver(root, dy[i:j].copy())  # function returned one of its inputs as it was, or another leaf


def _sums() -> Sums:
    """Sums that nobody waits for: all are complete when all chunks are through."""
    return Sums({}, lambda target, gradient: None)


class _Rows:
    """An array of one row per image that comes chunk by chunk, from any thread.

    The first chunk shows its shape, dtype and the order of its axes in memory.
    """

    def __init__(self, bounds: list[tuple[int, int]]):
        self.bounds, self.missing = bounds, set(range(len(bounds)))
        self.array: Array | None = None
        self.pool = own_pool()  # of the thread that gets the array, whichever thread's chunk is the first
        self.lock = threading.Lock()

    def put(self, number: int, rows: Array) -> None:
        i, j = self.bounds[number]
        with self.lock:
            if self.array is None:
                order = [0, *sorted(range(1, rows.ndim), key=lambda axis: -abs(rows.strides[axis]))]
                memory = empty((self.bounds[-1][1], *(rows.shape[axis] for axis in order[1:])), rows.dtype, self.pool)
                self.array = memory.transpose(np.argsort(order))
            self.missing.discard(number)
        if rows.shape[1:] != self.array.shape[1:] or rows.dtype != self.array.dtype:
            raise ShapeError(
                f"in_chunks: chunks must give rows of one shape and dtype, images {i} to {j - 1} give "
                f"{rows.shape[1:]} {rows.dtype}, others {self.array.shape[1:]} {self.array.dtype}"
            )
        self.array[i:j] = rows

    def whole(self) -> Array:
        """All rows; zeros where none came."""
        for number in self.missing:
            self.array[slice(*self.bounds[number])] = 0  # type: ignore[index]
        return self.array


def _checked_inputs(inputs: tuple[Any, ...]) -> tuple[Device, int]:
    if not inputs:
        raise ArgumentError("in_chunks: give at least one tensor of images besides the function")
    for x in inputs:
        if not isinstance(x, Tensor):
            raise DTypeError(f"in_chunks: inputs must be Tensors, got {type(x).__name__}: wrap it in minigrad.Tensor")
        if x.ndim == 0 or len(x) != len(inputs[0]):
            shapes = ", ".join(str(x.shape) for x in inputs)
            raise ShapeError(f"in_chunks: inputs must hold equally many images along axis 0, got {shapes}")
        if x.device is not inputs[0].device:
            raise DeviceError(f"in_chunks: inputs on {inputs[0].device} and {x.device}: bring them to one with .to()")
    return inputs[0].device, len(inputs[0])


def _check_result(result: Any, where: Device, n: int) -> None:
    if not isinstance(result, Tensor):
        raise DTypeError(
            f"in_chunks: the function must return one Tensor, got {type(result).__name__}: concat its results"
        )
    if result.ndim == 0 or len(result) != n:
        raise ShapeError(f"in_chunks: the function must return one row per image, {n}, it returned {result.shape}")
    if result.device is not where:
        raise DeviceError(
            f"in_chunks: the function must stay on {where}, it returned a tensor on {result.device}: move it afterwards"
        )


def _default_bounds(x: Tensor, threads: int) -> list[tuple[int, int]]:
    chunks = max(1, -(-x.data.nbytes // CHUNK_BYTES))
    return _bounds(len(x), max(1, -(-len(x) // chunks)), min(threads, max(1, x.data.nbytes // LEAST_BYTES)))


def _bounds(n: int, size: int, threads: int) -> list[tuple[int, int]]:
    """Chunks of range(n) of at most `size`, nearly equal, their number a multiple of the threads where n allows."""
    count = -(-n // size)
    count = min(n, -(-count // threads) * threads)
    return [(n * k // count, n * (k + 1) // count) for k in range(count)]


def _piece(x: Tensor, i: int, j: int, recorded: bool) -> Tensor:
    """Images i to j - 1 as a leaf of the chunk's graph; it shares x's memory, and x's count of changes."""
    leaf = wrap(x.data[i:j], x.device, None, x.version)
    leaf.requires_grad = recorded and x.requires_grad
    return leaf


def _newest(targets: Iterable[Any]) -> int:
    return max((target.order for target in targets if isinstance(target, Function)), default=0)


def _ends(leaves: list[Tensor], root: Any, since: int) -> Iterator[Any]:
    """Where the gradients of one chunk's graph leave it, in a fixed order: leaves, and nodes older than the chunk."""
    own = set(map(id, leaves))
    seen = {id(root)}
    stack = [root]
    while stack:
        target = stack.pop()
        if not isinstance(target, Function) or target.order < since:
            if id(target) not in own:
                yield target
            continue
        for below in target.inputs:
            if below is not None and id(below) not in seen:
                seen.add(id(below))
                stack.append(below)
