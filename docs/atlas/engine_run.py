"""The run that the engine's page shows: a program of a reader's own, and what the real engine did, step by step.

`record()` runs the program's first half, and then `loss.backward()` of the engine itself, whose ten lines are looked at
while they run.  `printed()` runs the whole program, whose second half is a backward of the reader's own, and catches
what it prints.  The page has both, and tests/test_atlas_engine.py holds one against the other.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import sys
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import Tensor, engine
from minigrad.errors import GraphError
from minigrad.tools import tracing

FORWARD = """\
from minigrad import Tensor
from minigrad.engine import Function, gradients_of


def leaf(*numbers):
    return Tensor(numbers, requires_grad=True, device="textbook:0")


x, w, v = leaf(1.0, -2.0), leaf(3.0, 1.0), leaf(2.0, 5.0)

h = x * w
r = h.relu()
p = r * v
q = r + 1
m = p * q
loss = m.sum()
"""
OWN = """\
for tensor in (h, r, p, q, m, loss):
    print(tensor.node.order, tensor.node.name, tensor.numpy())

names = {h.node: "h", r.node: "r", p.node: "p", q.node: "q", m.node: "m",
         loss.node: "loss", x: "x", w: "w", v: "v"}
gradients, waiting = {loss.node: Tensor(1.0).numpy()}, [loss.node]
while waiting:
    node = max(waiting, key=lambda node: node.order)  # the newest
    waiting.remove(node)
    dy = gradients.pop(node)
    print(node.order, names[node], "has", dy)
    for target, part in zip(node.inputs, gradients_of(node, dy)):
        if part is None:
            continue
        print("    to", names[target], part)
        if target in gradients:  # another path has been here
            part = gradients[target] + part
            print("        sum", part)
        elif isinstance(target, Function):
            waiting.append(target)
        gradients[target] = part
    node.release()
"""
PROGRAM = f"{FORWARD}\n{OWN}"
LEAVES, MADE = ("x", "w", "v"), ("h", "r", "p", "q", "m", "loss")
READS = {"h": ("x", "w"), "r": ("h",), "p": ("r", "v"), "q": ("r",), "m": ("p", "q"), "loss": ("m",)}


@dataclass
class Node:
    """One node of the graph as the engine made it."""

    name: str  # of the program's variable
    op: str
    order: int
    value: np.ndarray
    inputs: tuple[str | None, ...]  # where its gradients go, by name; None: nobody wants one
    kept: dict[str, np.ndarray]  # what forward has saved for backward


@dataclass
class Back:
    """One turn of the engine's loop, and how things stand after it."""

    name: str  # of the node that ran
    dy: np.ndarray
    parts: list[tuple[str, np.ndarray]]  # what it sent, and to whom
    gradients: dict[str, np.ndarray]  # of everything that has one now
    waiting: list[str]  # the next first
    left: dict[str, int]  # of each node: how many arrays it still keeps


@dataclass
class Run:
    values: dict[str, np.ndarray]  # of leaves and nodes
    nodes: list[Node]
    backs: list[Back]
    grads: dict[str, np.ndarray]  # what the leaves have in the end


def afresh(work: Any) -> Any:
    """work() with creation numbers that begin at 1, as in a program that has just begun."""

    def run() -> Any:
        engine._clock.set(itertools.count(1))
        return work()

    return copy_context().run(run)


def arrays_of(node: Any) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in vars(node).items() if isinstance(value, np.ndarray)}


def record() -> Run:
    """Forward, and the engine's own backward."""
    return afresh(_record)


def _record() -> Run:
    names: dict[str, Any] = {}
    exec(compile(FORWARD, "engine.py", "exec"), names)
    tensors = {name: names[name] for name in (*LEAVES, *MADE)}
    called = {tensors[name] if name in LEAVES else tensors[name].node: name for name in tensors}
    values = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    nodes = [
        Node(
            name,
            tensors[name].node.name,
            tensors[name].node.order,
            values[name],
            tuple(called.get(target) if target is not None else None for target in tensors[name].node.inputs),
            arrays_of(tensors[name].node),
        )
        for name in MADE
    ]
    kept_now = {name: tensors[name].node for name in MADE}
    backs: list[Back] = []
    with watched(called, kept_now, backs):
        tensors["loss"].backward()
    return Run(values, nodes, backs, {name: tensors[name].grad.numpy().copy() for name in LEAVES})


@contextlib.contextmanager
def watched(called: dict[Any, str], kept_now: dict[str, Any], backs: list[Back]) -> Iterator[None]:
    """While the ten lines run: what each node is given and sends, and the loop's own variables after each turn.

    Nothing in the engine is changed for it: a recorder sees the ops, as that of `minigrad.profile()` does, and Python's
    tracing the loop, as a debugger does.
    """
    ten_lines = engine.backward_in_ten_lines.__code__
    source, first = inspect.getsourcelines(engine.backward_in_ten_lines)
    turn = first + next(i for i, line in enumerate(source) if "while waiting" in line)

    class Recorder(tracing.PassingOn):
        def backward(self, node: Any, dy: Any) -> Any:
            given = np.array(dy)
            grads = super().backward(node, dy)
            sent = [
                (called[target], np.array(part))
                for target, part in zip(node.inputs, grads)
                if target is not None and part is not None
            ]
            backs.append(Back(called[node], given, sent, {}, [], {}))
            return grads

    def look(frame: Any) -> None:
        if backs and not backs[-1].left:  # once for each turn
            back = backs[-1]
            back.gradients = {called[one]: np.array(grad) for one, grad in frame.f_locals["gradients"].items()}
            back.waiting = [called[node] for _, node in sorted(frame.f_locals["waiting"], key=lambda one: one[0])]
            back.left = {name: len(arrays_of(node)) for name, node in kept_now.items()}

    def in_frame(frame: Any, event: str, argument: Any) -> Any:
        if event == "return" or (event == "line" and frame.f_lineno == turn):
            look(frame)
        return in_frame

    def anywhere(frame: Any, event: str, argument: Any) -> Any:
        return in_frame if frame.f_code is ten_lines else None

    recorder, tracer = tracing.recorder, sys.gettrace()
    tracing.recorder = Recorder(recorder)
    sys.settrace(anywhere)
    try:
        yield
    finally:
        sys.settrace(tracer)
        tracing.recorder = recorder


def printed(program: str = PROGRAM, names: dict[str, Any] | None = None) -> str:
    """What a program prints, run with creation numbers that begin at 1; its variables are left in `names`."""
    out = io.StringIO()

    def run() -> None:
        with contextlib.redirect_stdout(out):
            exec(compile(program, "program.py", "exec"), {"__name__": "program"} if names is None else names)

    afresh(run)
    return out.getvalue()


# ---------------------------------------------------------------- what goes wrong in another order


def oldest_first(check: bool = True) -> tuple[str, dict[str, Any]]:
    """The ten lines, made to take the oldest node first: (the error's message or "", the gradients of the leaves).

    check: whether a node that has run already is refused, as the engine does.
    """
    source = inspect.getsource(engine.backward_in_ten_lines)
    changed = source.replace("heappush(waiting, (-target.order, target))", "heappush(waiting, (target.order, target))")
    assert changed != source, "the line of the engine that the page takes for its experiment has changed"
    names = dict(vars(engine))
    if not check:
        names["gradients_of"] = lambda node, dy: (
            [None] * 2 if node.freed else engine.gradients_of(node, dy)  # what comes too late is lost
        )
    exec(compile(changed, "engine.py", "exec"), names)
    program: dict[str, Any] = {}
    exec(compile(FORWARD, "engine.py", "exec"), program)
    loss = program["loss"]
    try:
        found = names["backward_in_ten_lines"](loss.node, np.ones((), "float32"))
    except GraphError as error:
        return str(error), {}
    return "", {name: found[program[name]] for name in LEAVES}


# ---------------------------------------------------------------- what is kept, and for how long

FREEING = f"""\
{FORWARD}
import weakref

from minigrad import GraphError

array_h, array_m = weakref.ref(h.data), weakref.ref(m.data)
print(vars(r.node)["y"], r.node.freed)
del h, m  # the program needs them no more, and no op has kept them
print(array_h() is None, array_m() is None)
loss.backward()
print("y" in vars(r.node), r.node.freed, r.node.inputs)
try:
    loss.backward()
except GraphError as error:
    print(error)
"""
CHANGED = f"""\
{FORWARD}
from minigrad import GraphError, no_grad

with no_grad():
    v *= 10  # an update too early
try:
    loss.backward()
except GraphError as error:
    print(error)
"""


def after_forward(program: str) -> str:
    """The part of such a program that comes after FORWARD, for the page."""
    assert program.startswith(FORWARD)
    return program.removeprefix(FORWARD).strip("\n")


# ---------------------------------------------------------------- two devices

DEVICES = """\
import minigrad
from minigrad import Tensor

x0, x1 = (Tensor([1.0, 2.0], device=f"cpu:{i}") for i in (0, 1))
w0 = Tensor([3.0, -1.0], requires_grad=True, device="cpu:0")
w1 = Tensor([0.5, 2.0], requires_grad=True, device="cpu:1")


def column(x, w):
    return (x * w).relu()


with minigrad.profile() as prof:
    devices = "cpu:0", "cpu:1"
    h0, h1 = minigrad.on_devices(devices, column, [x0, x1], [w0, w1])
    sent = h1.to("cpu:0")
    m = h0 * sent
    loss = m.sum()
    loss.backward()

events = sorted(prof.events, key=lambda event: event.start)
for phase in "forward", "backward":
    for device in devices:
        for event in events:
            if (event.phase, event.device) == (phase, device):
                print(phase, device, event.name, "by", event.thread[1])
print(w0.grad.numpy(), w1.grad.numpy())
"""


@dataclass
class Placed:
    """A node of the second program's graph."""

    name: str
    op: str
    order: int
    device: str
    value: np.ndarray
    inputs: tuple[str, ...]


def on_two_devices() -> tuple[str, list[Placed], dict[str, np.ndarray]]:
    """(what the second program prints, its nodes, the gradients of its leaves)."""
    program = DEVICES.replace("    loss.backward()\n", "    nodes = looked_at(globals())\n    loss.backward()\n")
    assert program != DEVICES
    names: dict[str, Any] = {"__name__": "program", "looked_at": _placed}
    text = printed(program, names)
    return text, names["nodes"], {name: names[name].grad.numpy().copy() for name in ("w0", "w1")}


def _placed(names: dict[str, Any]) -> list[Placed]:
    tensors = {name: value for name, value in names.items() if isinstance(value, Tensor)}
    called: dict[Any, str] = {}
    for name, tensor in tensors.items():
        called.setdefault(tensor.node or tensor, name)
    for name in "h0", "h1":  # what `column` has made on the way, which has no name outside
        called.setdefault(tensors[name].node.inputs[0], f"x{name[1]} w{name[1]}")
    values = {name: tensor.numpy() for name, tensor in tensors.items()}
    found = []
    for node, name in called.items():
        if isinstance(node, engine.Function):
            value = values.get(name, np.zeros(0))
            inputs = tuple(called[target] for target in node.inputs if target is not None)
            found.append(Placed(name, node.name, node.order, str(node.device), value, inputs))
    return sorted(found, key=lambda one: one.order)
