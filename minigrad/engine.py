"""The engine: what an op is, and how gradients flow back through the ops that were run.

Running an op leaves a node, a `Function` object, that knows the nodes its inputs came from.  The nodes form a graph
with the loss at one end and the leaves (parameters) at the other.  Backward walks it from the loss:

    the gradient of a node's output is complete once every node that used this output has sent its part;
    so nodes run newest first: whatever used an output was made after it, and has run already.

Newest first is a valid order at no cost (a creation number and a sort), needs no recursion (a chain of 10,000 ops is
as good as one of ten), and visits a diamond's top once.  `walk` does it in one thread; backward.py, for tensors, begins
it, and has the other way, for graphs that span several devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from . import gpu, tracing
from .device import Device
from .errors import DeviceError, GraphError, OutOfMemoryError
from .interrupts import hold
from .parallel import add_into, added

Array = Any  # numpy.ndarray on a CPU device, cupy.ndarray on a GPU


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

    A room defines `forward(*arrays) -> array` and `backward(dy) -> array or tuple of arrays (or None), one per input`:
    the formula in plain NumPy, which runs on textbook:0.  Where that is not fast enough, `forward_cpu` and
    `backward_cpu` do the same in less time on cpu:N (an op without them runs the first pair there), and `forward_gpu`
    and `backward_gpu` launch kernels on a card.  What backward needs, forward keeps as attributes under the names of
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
        for way in ("forward", "backward"):  # an op without a fast face runs the textbook's on the CPU
            if way in vars(cls) and f"{way}_cpu" not in vars(cls):
                setattr(cls, f"{way}_cpu", vars(cls)[way])

    def compute(self, *arrays: Array) -> Array:
        """Forward, by the face of the op that this device runs."""
        if self.device.is_cpu:
            return self.forward(*arrays) if self.device.kind == "textbook" else self.forward_cpu(*arrays)
        try:
            return self.forward_gpu(*arrays)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{self.name} (inputs {', '.join(str(a.shape) for a in arrays)}): {error}") from None

    def differentiate(self, dy: Array) -> tuple[Array | None, ...]:
        """Backward, by the face of the op that this device runs: a gradient, or None, per input."""
        if self.device.is_cpu:
            grads = self.backward(dy) if self.device.kind == "textbook" else self.backward_cpu(dy)
        else:
            try:
                grads = self.backward_gpu(dy)
            except OutOfMemoryError as error:
                raise OutOfMemoryError(f"backward of {self.name} (output {dy.shape}): {error}") from None
        return grads if isinstance(grads, tuple) else (grads,)

    def flops(self, *inputs: Array) -> int:
        """Floating-point operations of the forward pass on these input arrays; 0 where it does not matter.

        For the profiler.
        """
        return 0

    def forward(self, *arrays: Array) -> Array:
        raise DeviceError(f"{self.name}: has no textbook face, for {self.device}: move the tensor with .to('cpu:0')")

    def backward(self, dy: Array) -> Any:
        raise GraphError(f"{self.name}: has no gradient")

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


def plan(root: Function, since: int) -> tuple[list[Function], dict[Any, int]]:
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


def walk(root: Function, gradient: Array, nodes: list[Function], ends: dict[Any, int], deliver: Deliver) -> None:
    """Backward in one thread: run `nodes`, newest first, and deliver the gradient of each end once it is complete.

    A node's sum is complete when its turn comes; the parts of a sum come newest consumer first, too.  Stops early, with
    an empty hand, where Ctrl-C is held back in this thread.
    """
    totals: dict[Any, Array] = {root: gradient}
    owned: set[Any] = set()  # targets whose total is ours to add into, and not somebody's view
    with hold() as held:
        for node in nodes:
            if held.stopping:
                return
            _run(node, totals, owned, ends, deliver)


def _run(node: Function, totals: dict[Any, Array], owned: set[Any], ends: dict[Any, int], deliver: Deliver) -> None:
    dy = totals.pop(node, None)
    grads = gradients_of(node, dy)
    for position, target in enumerate(node.inputs):
        if target is None:
            continue
        grad = grads[position]
        if grad is not None:
            grad = checked(node, position, target, grad)
            total = totals.get(target)
            if total is None:
                totals[target] = own(target, grad, dy, grads) if target in ends else grad
            elif target in ends or target in owned:
                add_into(target.device, total, grad)
            else:
                totals[target] = added(target.device, total, grad)
                owned.add(target)
        if target in ends:
            ends[target] -= 1
            if ends[target] == 0 and target in totals:
                deliver(target, totals.pop(target))
    node.release()


def gradients_of(node: Function, dy: Array | None) -> Sequence[Array | None]:
    """What a node's backward returns: a gradient per input.  Nothing flows from a node that nothing flowed to."""
    if dy is None:
        return [None] * len(node.inputs)
    if node.watched:
        node.check_unchanged()
    recorder = tracing.recorder
    grads = node.differentiate(dy) if recorder is None else recorder.backward(node, dy)
    if len(grads) != len(node.inputs):
        raise GraphError(f"{node.name}: backward returned {len(grads)} gradients for {len(node.inputs)} inputs")
    return grads


def checked(node: Function, position: int, target: Target, grad: Array) -> Array:
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


def own(target: Target, grad: Array, dy: Array | None, grads: Sequence[Array | None]) -> Array:
    """`grad`, or a copy if somebody else may read it: an end keeps its gradient, and adds to it."""
    on_cpu = isinstance(grad, np.ndarray)
    read_only = on_cpu and not grad.flags.writeable
    if read_only or may_share_memory(grad, dy) or sum(grad is other for other in grads) > 1:
        return grad.copy() if on_cpu else gpu.copied(target.device, grad)
    return grad
