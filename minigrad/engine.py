"""The engine: what an op is, and how gradients flow back through the ops that were run.

Running an op leaves a node, a `Function` object, that knows the nodes its inputs came from.  The nodes form a graph
with the loss at one end and the leaves (parameters) at the other.  `run_backward` walks it from the loss:

    the gradient of a node's output is complete once every node that used this output has sent its part;
    so nodes run newest first: whatever used an output was made after it, and has run already.

Newest first is a valid order at no cost (a creation number and a heap), needs no recursion (a chain of 10,000 ops is
as good as one of ten), and visits a diamond's top once.  With several devices in the graph, each has a queue of its
own and its worker empties it; a node waits only for the parts of its own gradient.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, Protocol

import numpy as np

from .device import Device
from .errors import DeviceError, GraphError
from .parallel import inside_worker, on_devices

Array = Any  # numpy.ndarray on a CPU device, cupy.ndarray on a GPU

_grad_enabled: ContextVar[bool] = ContextVar("minigrad_grad_enabled", default=True)


class no_grad(ContextDecorator):  # noqa: N801 (PyTorch's name)
    """Inside `with no_grad():`, or a function decorated with it, ops leave no graph and keep nothing alive."""

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(_grad_enabled.set(False))

    def __exit__(self, *exc: object) -> None:
        _grad_enabled.reset(self._tokens.pop())

    def _recreate_cm(self) -> no_grad:  # a decorated function may run in several threads: each call its own
        return type(self)()


def is_grad_enabled() -> bool:
    """Whether ops record a graph here; False inside no_grad."""
    return _grad_enabled.get()


class Version:
    """Counts the in-place changes of one array; shared by all tensors that are views of it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Target(Protocol):
    """Where a gradient can go: the node that made a tensor, or the leaf tensor itself."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def device(self) -> Device: ...


class Function:
    """One op, and the graph node that a run of it leaves.  Each room in minigrad/ops derives one or more.

    A room defines `forward_cpu(*arrays) -> array` and `backward_cpu(dy) -> array or tuple of arrays (or None), one
    per input`, and the same pair for the GPU.  What backward needs, forward keeps as attributes under the names of
    the formula (`self.x = x`); the engine drops them as soon as backward has used them.  Rules for backward:
    it returns fresh arrays, or dy itself or views of it, never a saved array, and it does not write into dy.

    Set by `apply` (tensor.py) before forward: `device`, and `needs`, which inputs want a gradient.
    Set after it: `shape` and `dtype` of the output, `order` (creation number), `inputs` (where the gradients go).
    """

    name = "function"
    freed = False
    device: Device
    needs: tuple[bool, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: int
    inputs: tuple[Any, ...]  # a Target or None per input; never a Tensor that is not a leaf: see `apply`
    watched: list[tuple[Version, int, str]]

    def __init_subclass__(cls, name: str | None = None) -> None:
        cls.name = name or cls.__name__.lower()

    def forward(self, *arrays: Array) -> Array:
        face = self.forward_cpu if self.device.is_cpu else self.forward_gpu
        return face(*arrays)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        face = self.backward_cpu if self.device.is_cpu else self.backward_gpu
        grads = face(dy)
        return grads if isinstance(grads, tuple) else (grads,)

    def forward_cpu(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: no CPU implementation")

    def backward_cpu(self, dy: Array) -> Any:
        raise GraphError(f"{self.name}: has no gradient")

    def forward_gpu(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: no CUDA kernel yet for {self.device}: move the tensor with .to('cpu:0')")

    def backward_gpu(self, dy: Array) -> Any:
        raise DeviceError(f"{self.name}: no CUDA kernel yet for {self.device}: move the tensor with .to('cpu:0')")

    def watch(self, tensors: Sequence[tuple[str, Array, Version]]) -> None:
        """Note the version of each input or output array that forward kept, in whole or as a view."""
        kept = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        self.watched = [
            (version, version.value, f"{what} {array.shape}")
            for what, array, version in tensors
            if any(value is array or np.may_share_memory(value, array) for value in kept)
        ]

    def check_unchanged(self) -> None:
        for version, value, what in self.watched:
            if version.value != value:
                raise GraphError(
                    f"{self.name}: backward needs {what}, which was modified in place {version.value - value} time(s) "
                    "since forward: modify a copy, or call backward first"
                )

    def release(self) -> None:
        """Drop saved arrays and edges; only the fact that this node is spent remains."""
        vars(self).clear()
        self.freed = True


# ---------------------------------------------------------------- backward


class _Sum:
    """The gradient of one tensor while its parts come in.

    Parts are added newest consumer first, whatever the order in which threads deliver them: floating-point sums
    depend on their order, and the same program must give the same bits.
    """

    __slots__ = ("expected", "early", "total", "owned")

    def __init__(self) -> None:
        self.expected: list[tuple[int, int]] = []  # (order, -position) of the consumers, the newest last
        self.early: dict[tuple[int, int], Array | None] = {}  # parts that came before their turn
        self.total: Array | None = None
        self.owned = False  # whether total is ours to add into, or may be somebody's view

    def add(self, key: tuple[int, int], part: Array | None) -> bool:
        """Take one part; True when the sum is complete."""
        self.early[key] = part
        while self.expected and self.expected[-1] in self.early:
            part = self.early.pop(self.expected.pop())
            if part is None:
                continue
            if self.total is None:
                self.total = part
            elif self.owned:
                self.total += part
            else:
                total = self.total + part
                self.total = np.asarray(total) if isinstance(total, np.generic) else total  # 0-d stays an array
                self.owned = True
        return not self.expected


class _Backward:
    """One call of backward: the sums still open, and a queue of ready nodes per device."""

    def __init__(self, root: Function, gradient: Array):
        self.sums = _plan(root)
        self.left = sum(isinstance(target, Function) for target in self.sums) + 1
        self.lock = threading.Condition()
        self.failed = False
        nodes = [root, *(target for target in self.sums if isinstance(target, Function))]
        devices = list(dict.fromkeys(node.device for node in nodes))
        if len(devices) == 1 or inside_worker():  # one loop does it all; inside a worker there is no other worker
            queue: list[tuple[int, Function, Array]] = []
            self.queues = dict.fromkeys(devices, queue)
            self._push(root, gradient)
            self._work(devices[0])
        else:
            self.queues = {device: [] for device in devices}
            self._push(root, gradient)
            on_devices(devices, self._work, devices)

    def _push(self, node: Function, dy: Array | None) -> None:
        heapq.heappush(self.queues[node.device], (-node.order, node, dy))  # orders differ: nodes are never compared

    def _work(self, device: Device) -> None:
        """Run ready nodes of this device, newest first, until no node of the whole graph is left."""
        queue = self.queues[device]
        while True:
            with self.lock:
                self.lock.wait_for(lambda: queue or self.left == 0 or self.failed)
                if not queue or self.failed:
                    return
                _, node, dy = heapq.heappop(queue)
            try:
                self._run(node, dy)
            except BaseException:
                with self.lock:
                    self.failed = True
                    self.lock.notify_all()
                raise
            dy = node = None  # type: ignore[assignment]  # waiting must not keep the last gradient alive

    def _run(self, node: Function, dy: Array | None) -> None:
        """Run one node's backward and hand its parts on; dy None means that nothing flows here."""
        order, inputs = node.order, node.inputs
        grads: tuple[Array | None, ...] = (None,) * len(inputs)
        if dy is not None:
            node.check_unchanged()
            grads = node.backward(dy)
            if len(grads) != len(inputs):
                raise GraphError(f"{node.name}: backward returned {len(grads)} gradients for {len(inputs)} inputs")
        for position, (target, grad) in enumerate(zip(inputs, grads)):
            if target is None:
                continue
            if grad is not None:
                grad = _checked(node, position, target, grad)
                if not isinstance(target, Function) and (not grad.flags.writeable or np.may_share_memory(grad, dy)):
                    grad = grad.copy()  # a leaf keeps its gradient and adds to it: it must be the leaf's own
            self._deliver((order, -position), target, grad)
        node.release()
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.lock.notify_all()

    def _deliver(self, key: tuple[int, int], target: Any, part: Array | None) -> None:
        with self.lock:
            waiting = self.sums[target]
            if not waiting.add(key, part):
                return
            total, waiting.total = waiting.total, None
            if isinstance(target, Function):
                self._push(target, total)
                self.lock.notify_all()
        if not isinstance(target, Function) and total is not None:
            target.accumulate_grad(total)


def _plan(root: Function) -> dict[Any, _Sum]:
    """Every node and leaf below root, with the parts its gradient will consist of.  Raises before anything runs."""
    sums: dict[Any, _Sum] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.freed:
            raise GraphError(
                "backward: this graph was already used by an earlier backward and freed: run forward again, "
                "or add the losses first and go back once"
            )
        for position, target in enumerate(node.inputs):
            if target is None:
                continue
            if target not in sums:
                sums[target] = _Sum()
                if isinstance(target, Function):
                    stack.append(target)
            sums[target].expected.append((node.order, -position))
    for waiting in sums.values():
        waiting.expected.sort()
    return sums


def _checked(node: Function, position: int, target: Target, grad: Array) -> Array:
    """The gradient, once it has the shape, dtype and device of the tensor that it belongs to."""
    grad = target.device.xp.asarray(grad) if target.device.is_cpu else grad
    on = "cpu" if isinstance(grad, np.ndarray) else "cuda"
    if grad.shape != target.shape or grad.dtype != target.dtype or on != target.device.kind:
        raise GraphError(
            f"{node.name}: backward returned a gradient {grad.shape} {grad.dtype} on {on} for input {position}, "
            f"which is {target.shape} {target.dtype} on {target.device}"
        )
    return grad


def run_backward(root: Function, gradient: Array) -> None:
    """Send `gradient`, that of root's output, back to the leaves; every node is spent afterwards."""
    _Backward(root, gradient)
