"""Backward: from the loss to the leaves, on one device or on several at the same time.

On one, the walk of engine.py: nodes newest first (its ten lines, where the loss is on textbook:0).  With several
devices in the graph, each has a queue of its own, and its worker takes the newest node that is ready:

- Order.  A node is ready when all parts of its gradient are there.  Parts are added newest consumer first, in whatever
  order they come: the bits do not depend on which thread was faster.
- No deadlock.  Of the nodes that have not run, the newest has no consumer left, so it is ready, in the queue of its
  device.  The worker there takes it as soon as the node that it is at has run, so some worker always has work.
- Errors, Ctrl-C.  Whoever fails tells all; every worker ends with the node that it is at.  Leaves get their gradients
  at the very end, all or none.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from typing import Any

from .base.interrupts import Hold, hold
from .device import Array, Device
from .engine import Deliver, Function, Sums, backward_in_ten_lines, gradients_of, own, plan, walk
from .processor.parallel import inside_worker, on_devices
from .tools import tracing


def run_backward(root: Function, gradient: Array, deliver: Deliver | None = None, since: int | None = None) -> None:
    """Send `gradient`, that of root's output, back to the leaves; every node is spent afterwards.

    All leaves get their gradients, by `leaf.accumulate_grad(grad)`, when all are known; where an op fails, or Ctrl-C
    comes, none does.

    gradient: is only read.
    deliver: `deliver(leaf, grad)` takes each leaf's gradient instead, as soon as it is complete; the array is the
    receiver's own.  On one device the calls are made in this thread, in an order that depends on the graph alone; on
    several, in the thread that has made the last part of it, one call at a time.
    since: a creation number.  Nodes made before it are not run: they are ends, as leaves are, and the gradient that
    reaches one goes to `deliver(node, grad)`.  All is done in this thread then, and many threads may be here at a time,
    each with nodes of its own; ends they may share.
    """
    root.check_usable()
    if root.device.plain and deliver is None:
        for leaf, grad in backward_in_ten_lines(root, gradient).items():
            leaf.accumulate_grad(leaf.device.copied(grad))  # a copy: the parts may be views of each other
        return
    if deliver is not None and since is not None and root.order < since:
        deliver(root, root.device.copied(gradient))
        return
    nodes, ends = plan(root, -1 if since is None else since)
    complete: list[tuple[Any, Array]] = []
    with hold() as held:
        devices = list(dict.fromkeys(node.device for node in nodes))
        # Inside a worker there is no other worker; and a textbook's devices take turns.
        alone = since is not None or len(devices) == 1 or inside_worker() or any(device.plain for device in devices)
        run = walk if alone else _Concurrent
        run(root, gradient, nodes, ends, deliver or (lambda leaf, grad: complete.append((leaf, grad))), held)
        if not held.stopping:
            while complete:
                leaf, grad = complete.pop()
                leaf.accumulate_grad(grad)


class _Parts:
    """The parts of one sum, from several threads: they are added newest consumer first, in whatever order they come.

    Floating-point sums depend on their order, and the same program must give the same bits.
    """

    __slots__ = ("awaited", "early")

    def __init__(self) -> None:
        self.awaited: list[tuple[int, int]] = []  # (order, position) of consumers; pop() gives the next to add
        self.early: dict[tuple[int, int], Array | None] = {}  # parts that came before their turn

    def in_order(self, key: tuple[int, int], part: Array | None) -> Iterator[Array | None]:
        """The parts that can be added now that this one has come."""
        self.early[key] = part
        while self.awaited and self.awaited[-1] in self.early:
            yield self.early.pop(self.awaited.pop())


class _Concurrent:
    """Backward with a worker and a queue of ready nodes for each device; called like `walk`: making one runs it."""

    def __init__(
        self,
        root: Function,
        gradient: Array,
        nodes: list[Function],
        ends: dict[Any, int],
        deliver: Deliver,
        held: Hold,
    ) -> None:
        self.sums, self.left = Sums(ends, deliver), len(nodes)
        self.parts: dict[Any, _Parts] = {}
        for node in reversed(nodes):
            for position in reversed(range(len(node.inputs))):
                target = node.inputs[position]
                if target is not None:
                    self.parts.setdefault(target, _Parts()).awaited.append((node.order, position))
        self.lock = threading.Condition()
        self.failed = False
        devices = list(dict.fromkeys(node.device for node in nodes))
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
        parts = [None] * len(node.inputs) if dy is None else gradients_of(node, dy)
        for position, (target, part) in enumerate(zip(node.inputs, parts)):
            if target is not None:
                if part is not None and target in self.sums.expected:
                    part = own(target, part, dy, parts)
                self._send((node.order, position), target, part)
        node.release()
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.lock.notify_all()

    def _send(self, key: tuple[int, int], target: Any, part: Array | None) -> None:
        with self.lock:
            parts, end = self.parts[target], target in self.sums.expected
            for ready in parts.in_order(key, part):
                if ready is not None:
                    self.sums.add(target, ready, end)
                if end:
                    self.sums.one_less(target)
            if not end and not parts.awaited:
                self._push(target, self.sums.take(target))
                self.lock.notify_all()
