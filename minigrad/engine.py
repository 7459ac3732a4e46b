"""The engine: what an op is, and how gradients flow back through the ops that were run.

Running an op leaves a node, a `Function` object, that knows the nodes its inputs came from.  The nodes form a graph
with the loss at one end and the leaves (parameters) at the other.  `run_backward` walks it from the loss:

    the gradient of a node's output is complete once every node that used this output has sent its part;
    so nodes run newest first: whatever used an output was made after it, and has run already.

Newest first is a valid order at no cost (a creation number and a sort), needs no recursion (a chain of 10,000 ops is
as good as one of ten), and visits a diamond's top once.  With several devices in the graph, each has a queue of its
own, and its worker takes the newest node that is ready; a node waits only for the parts of its own gradient.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, Protocol

import numpy as np

from . import gpu, tracing
from .device import Device
from .errors import DeviceError, GraphError, OutOfMemoryError
from .parallel import add_into, added, inside_worker, on_devices

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

    value = 0  # of the class until the first change: most arrays never see one, and every op makes a Version


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
    order = 0
    inputs: tuple[Any, ...]  # a Target or None per input; never a Tensor that is not a leaf: see `apply`
    watched: list[tuple[Version, int, int, tuple[int, ...]]]  # version, its value, position, shape

    def __init_subclass__(cls, name: str | None = None) -> None:
        cls.name = name or cls.__name__.lower()

    def forward(self, *arrays: Array) -> Array:
        if self.device.is_cpu:
            return self.forward_cpu(*arrays)
        try:
            return self.forward_gpu(*arrays)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{self.name} (inputs {', '.join(str(a.shape) for a in arrays)}): {error}") from None

    def flops(self, *inputs: Array) -> int:
        """Floating-point operations of the forward pass on these input arrays; 0 where it does not matter.

        For the profiler.
        """
        return 0

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        if self.device.is_cpu:
            grads = self.backward_cpu(dy)
        else:
            try:
                grads = self.backward_gpu(dy)
            except OutOfMemoryError as error:
                raise OutOfMemoryError(f"backward of {self.name} (output {dy.shape}): {error}") from None
        return grads if isinstance(grads, tuple) else (grads,)

    def forward_cpu(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: no CPU implementation")

    def backward_cpu(self, dy: Array) -> Any:
        raise GraphError(f"{self.name}: has no gradient")

    def forward_gpu(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: has no GPU face, for {self.device}: move the tensor with .to('cpu:0')")

    def backward_gpu(self, dy: Array) -> Any:
        raise DeviceError(f"{self.name}: has no GPU face, for {self.device}: move the tensor with .to('cpu:0')")

    def watch(self, inputs: Sequence[Any], output: Any) -> None:
        """Note the version of each input or output array that forward kept, in whole or as a view."""
        watched = []
        for value in vars(self).values():
            if isinstance(value, np.ndarray) or (not self.device.is_cpu and gpu.is_array(value)):
                for position, tensor in enumerate((*inputs, output)):
                    if may_share_memory(value, tensor.data):
                        watched.append((tensor.version, tensor.version.value, position, tensor.data.shape))
        self.watched = watched

    def check_unchanged(self) -> None:
        for version, value, position, shape in self.watched:
            if version.value != value:
                what = f"input {position}" if position < len(self.inputs) else "its output"
                raise GraphError(
                    f"{self.name}: backward needs {what} {shape}, which was modified in place {version.value - value} "
                    "time(s) since forward: modify a copy, or call backward first"
                )

    def release(self) -> None:
        """Drop saved arrays and edges; only the fact that this node is spent remains."""
        vars(self).clear()
        self.freed = True


def may_share_memory(a: Array, b: Array) -> bool:
    """Whether writing to one array may change the other; NumPy's test, but for arrays that own their memory."""
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return gpu.may_share_memory(a, b)
    if a.base is None and b.base is None:
        return a is b
    return np.may_share_memory(a, b)


# ---------------------------------------------------------------- backward

Deliver = Callable[[Any, Array], None]


def run_backward(root: Function, gradient: Array, deliver: Deliver | None = None, since: int | None = None) -> None:
    """Send `gradient`, that of root's output, back to the leaves; every node is spent afterwards.

    gradient: is only read.
    deliver: `deliver(leaf, grad)` takes each leaf's complete gradient, instead of `leaf.accumulate_grad(grad)`; the
    array is the receiver's own, and the order of the calls depends on the graph alone.
    since: a creation number.  Nodes made before it are not run: they are ends, as leaves are, and the gradient that
    reaches one goes to `deliver(node, grad)`.

    With `deliver`, all is done in the calling thread, and many threads may be here at a time, each with nodes of its
    own; ends they may share.
    """
    if deliver is not None and since is not None and root.order < since:
        deliver(root, gradient.copy() if root.device.is_cpu else gpu.copied(root.device, gradient))
        return
    nodes, ends = _plan(root, -1 if since is None else since)
    devices = list(dict.fromkeys(node.device for node in nodes))
    if len(devices) == 1 or deliver is not None or inside_worker():  # inside a worker there is no other worker
        _Backward(root, gradient, nodes, ends, deliver or _accumulate)
    else:
        _ConcurrentBackward(root, gradient, nodes, ends, devices)


def _accumulate(leaf: Any, grad: Array) -> None:
    leaf.accumulate_grad(grad)


def _plan(root: Function, since: int) -> tuple[list[Function], dict[Any, int]]:
    """The nodes to run, newest first, and the ends, with the number of parts of each one's gradient.

    Raises before anything runs.
    """
    nodes: list[Function] = []
    ends: dict[Any, int] = {}
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        if node.freed:
            raise GraphError(
                "backward: this graph was already used by an earlier backward and freed: run forward again, "
                "or add the losses first and go back once"
            )
        nodes.append(node)
        for target in node.inputs:
            if isinstance(target, Function) and (target.freed or target.order >= since):
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
            elif target is not None:
                ends[target] = ends.get(target, 0) + 1
    nodes.sort(key=lambda node: node.order, reverse=True)
    return nodes, ends


class _Backward:
    """Backward in one thread: nodes run newest first, so a sum is complete when its node's turn comes.

    That is also the order in which its parts come: newest consumer first.
    """

    def __init__(self, root: Function, gradient: Array, nodes: list[Function], ends: dict[Any, int], deliver: Deliver):
        self.ends, self.deliver = ends, deliver
        self.totals: dict[Any, Array] = {root: gradient}
        self.owned: set[Any] = set()  # targets whose total is ours to add into, and not somebody's view
        for node in nodes:
            self._run(node, self.totals.pop(node, None))

    def _run(self, node: Function, dy: Array | None) -> None:
        totals, ends, inputs = self.totals, self.ends, node.inputs
        grads = _gradients(node, dy)
        for position, target in enumerate(inputs):
            if target is None:
                continue
            grad = grads[position]
            if grad is not None:
                grad = _checked(node, position, target, grad)
                total = totals.get(target)
                if total is None:
                    totals[target] = _own(target, grad, dy, grads) if target in ends else grad
                elif target in ends or target in self.owned:
                    add_into(target.device, total, grad)
                else:
                    totals[target] = added(target.device, total, grad)
                    self.owned.add(target)
            if target in ends:
                ends[target] -= 1
                if ends[target] == 0 and target in totals:
                    self.deliver(target, totals.pop(target))
        node.release()


class _Sum:
    """The gradient of one tensor while its parts come in from several threads.

    Parts are added newest consumer first, whatever the order in which threads deliver them: floating-point sums
    depend on their order, and the same program must give the same bits.
    """

    __slots__ = ("expected", "early", "total", "owned")

    def __init__(self, owned: bool) -> None:
        self.expected: list[tuple[int, int]] = []  # (order, position) of the consumers, the first to add last
        self.early: dict[tuple[int, int], Array | None] = {}  # parts that came before their turn
        self.total: Array | None = None
        self.owned = owned  # whether total is ours to add into, or may be somebody's view

    def add(self, where: Device, key: tuple[int, int], part: Array | None) -> bool:
        """Take one part; True when the sum is complete."""
        self.early[key] = part
        while self.expected and self.expected[-1] in self.early:
            part = self.early.pop(self.expected.pop())
            if part is None:
                continue
            if self.total is None:
                self.total = part
            elif self.owned:
                add_into(where, self.total, part)
            else:
                self.total, self.owned = added(where, self.total, part), True
        return not self.expected


class _ConcurrentBackward:
    """Backward with a worker and a queue of ready nodes for each device."""

    def __init__(
        self, root: Function, gradient: Array, nodes: list[Function], ends: dict[Any, int], devices: list[Device]
    ):
        self.ends, self.left = ends, len(nodes)
        self.sums: dict[Any, _Sum] = {}
        for node in reversed(nodes):
            for position in reversed(range(len(node.inputs))):
                target = node.inputs[position]
                if target is not None:
                    waiting = self.sums.setdefault(target, _Sum(target in ends))
                    waiting.expected.append((node.order, position))
        self.lock = threading.Condition()
        self.failed = False
        self.queues: dict[Device, list[tuple[int, Function, Array | None]]] = {device: [] for device in devices}
        self._push(root, gradient)
        on_devices(devices, self._work, devices)

    def _push(self, node: Function, dy: Array | None) -> None:
        heapq.heappush(self.queues[node.device], (-node.order, node, dy))  # orders differ: nodes are never compared

    def _work(self, device: Device) -> None:
        """Run ready nodes of this device, newest first, until no node of the whole graph is left."""
        queue = self.queues[device]
        while True:
            with self.lock:
                with tracing.waited("gradient of another device", device):
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
        grads = _gradients(node, dy)
        for position, (target, grad) in enumerate(zip(node.inputs, grads)):
            if target is None:
                continue
            if grad is not None:
                grad = _checked(node, position, target, grad)
                if target in self.ends:
                    grad = _own(target, grad, dy, grads)
            self._send((node.order, position), target, grad)
        node.release()
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.lock.notify_all()

    def _send(self, key: tuple[int, int], target: Any, part: Array | None) -> None:
        with self.lock:
            waiting = self.sums[target]
            if not waiting.add(target.device, key, part):
                return
            total, waiting.total = waiting.total, None
            if target not in self.ends:
                self._push(target, total)
                self.lock.notify_all()
        if target in self.ends and total is not None:
            target.accumulate_grad(total)


def _gradients(node: Function, dy: Array | None) -> Sequence[Array | None]:
    """What a node's backward returns: a gradient per input.  Nothing flows from a node that nothing flowed to."""
    if dy is None:
        return [None] * len(node.inputs)
    if node.watched:
        node.check_unchanged()
    recorder = tracing.recorder
    grads = node.backward(dy) if recorder is None else recorder.backward(node, dy)
    if len(grads) != len(node.inputs):
        raise GraphError(f"{node.name}: backward returned {len(grads)} gradients for {len(node.inputs)} inputs")
    return grads


def _checked(node: Function, position: int, target: Target, grad: Array) -> Array:
    """The gradient, once it has the shape, dtype and device of the tensor that it belongs to."""
    if type(grad) is not np.ndarray and target.device.is_cpu:
        grad = np.asarray(grad)  # NumPy turns 0-d results into scalars
    here = isinstance(grad, np.ndarray) if target.device.is_cpu else target.device.runtime.owns(grad)
    if not here or grad.shape != target.shape or grad.dtype != target.dtype:
        on = "cpu" if isinstance(grad, np.ndarray) else target.device if here else "another device"
        raise GraphError(
            f"{node.name}: backward returned a gradient {grad.shape} {grad.dtype} on {on} for input {position}, "
            f"which is {target.shape} {target.dtype} on {target.device}"
        )
    return grad


def _own(target: Target, grad: Array, dy: Array | None, grads: Sequence[Array | None]) -> Array:
    """`grad`, or a copy if somebody else may read it: an end keeps its gradient, and adds to it."""
    on_cpu = isinstance(grad, np.ndarray)
    read_only = on_cpu and not grad.flags.writeable
    if read_only or may_share_memory(grad, dy) or sum(grad is other for other in grads) > 1:
        return grad.copy() if on_cpu else gpu.copied(target.device, grad)
    return grad
