"""Backward: from the loss to the leaves, on one device or on several at the same time.

On one, the walk of engine.py: nodes newest first.  With several devices in the graph, each has a queue of its own, and
its worker takes the newest node that is ready:

- Order.  A node is ready when all parts of its gradient are there.  Parts are added newest consumer first, in whatever
  order they come: the bits do not depend on which thread was faster.
- No deadlock.  Of the nodes that have not run, the newest has no consumer left, so it is ready, in the queue of its
  device, and that device's worker is the only one that could be busy.
- Errors, Ctrl-C.  Whoever fails tells all; every worker ends with the node that it is at.  Leaves get their gradients
  at the very end, all or none.
"""

from __future__ import annotations

import heapq
import threading
from typing import Any

from . import gpu, tracing
from .device import Device
from .engine import Array, Deliver, Function, checked, gradients_of, own, plan, walk
from .interrupts import hold
from .parallel import add_into, added, inside_worker, on_devices


def run_backward(root: Function, gradient: Array, deliver: Deliver | None = None, since: int | None = None) -> None:
    """Send `gradient`, that of root's output, back to the leaves; every node is spent afterwards.

    All leaves get their gradients, by `leaf.accumulate_grad(grad)`, when all are known; where an op fails, or Ctrl-C
    comes, none does.

    gradient: is only read.
    deliver: `deliver(leaf, grad)` takes each leaf's gradient instead, as soon as it is complete; the array is the
    receiver's own, and the order of the calls depends on the graph alone.
    since: a creation number.  Nodes made before it are not run: they are ends, as leaves are, and the gradient that
    reaches one goes to `deliver(node, grad)`.

    With `deliver`, all is done in the calling thread, and many threads may be here at a time, each with nodes of its
    own; ends they may share.
    """
    if deliver is not None and since is not None and root.order < since:
        deliver(root, gradient.copy() if root.device.is_cpu else gpu.copied(root.device, gradient))
        return
    nodes, ends = plan(root, -1 if since is None else since)
    if deliver is not None:
        walk(root, gradient, nodes, ends, deliver)
        return
    complete: list[tuple[Any, Array]] = []
    with hold() as held:
        devices = list(dict.fromkeys(node.device for node in nodes))
        if len(devices) == 1 or inside_worker():  # inside a worker there is no other worker
            walk(root, gradient, nodes, ends, lambda leaf, grad: complete.append((leaf, grad)))
        else:
            _Concurrent(root, gradient, nodes, ends, complete, devices)
        if not held.stopping:
            while complete:
                leaf, grad = complete.pop()
                leaf.accumulate_grad(grad)


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


class _Concurrent:
    """Backward with a worker and a queue of ready nodes for each device."""

    def __init__(
        self,
        root: Function,
        gradient: Array,
        nodes: list[Function],
        ends: dict[Any, int],
        complete: list[tuple[Any, Array]],
        devices: list[Device],
    ):
        self.ends, self.left, self.complete = ends, len(nodes), complete
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
        on_devices(devices, self._work, devices, when_stopped=self._stop)

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
                self._stop()
                raise
            dy = node = None  # type: ignore[assignment]  # waiting must not keep the last gradient alive

    def _stop(self) -> None:
        """Let no worker begin another node, and none wait for one."""
        with self.lock:
            self.failed = True
            self.lock.notify_all()

    def _run(self, node: Function, dy: Array | None) -> None:
        grads = gradients_of(node, dy)
        for position, (target, grad) in enumerate(zip(node.inputs, grads)):
            if target is None:
                continue
            if grad is not None:
                grad = checked(node, position, target, grad)
                if target in self.ends:
                    grad = own(target, grad, dy, grads)
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
            elif total is not None:
                self.complete.append((target, total))
