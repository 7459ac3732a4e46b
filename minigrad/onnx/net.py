"""A module that runs the graph of an ONNX file, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..device import Device, DeviceLike, default_device
from ..device import device as device_named
from ..errors import ArgumentError, CheckpointError, MinigradError, ShapeError, one_line, printable
from ..nn import Buffer, Module, Parameter
from ..tensor import Tensor
from . import shapes, windows  # noqa: F401 (they enter their operators)
from .operators import OPERATORS, Call, host
from .reading import Graph, Node, PathLike, graph_of, model_of


def load(path: PathLike, device: DeviceLike | None = None) -> Net:
    """A module that computes what the graph in an ONNX file says, on any device, with gradients.

    device: where its weights are; the first of default_devices() when left out.

    Weights are Parameters under the names that they have in the file; "layer1.0.weight" is that of
    `net.state_dict()`.  It comes as `net.eval()`, in which the file's numbers come out; `net.train()` makes Dropout
    drop, and batch norm take the statistics of the batch and keep running ones.  Float32 and float64 are read.

    MissingDependencyError without the package onnx.  CheckpointError where there is no such file, it is damaged, or
    needs what minigrad does not have: all of it is listed, with the nodes' names.
    """
    where = printable(path)
    try:
        return Net(graph_of(model_of(path), where, OPERATORS), device).eval()
    except MemoryError:
        raise CheckpointError(f"onnx.load: {where}: no memory for its weights: free some") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, MinigradError):
            raise
        raise CheckpointError(  # what onnx.checker lets pass
            f"onnx.load: {where} is damaged, or wrongly made: {one_line(error)[:300]}: take another copy"
        ) from error


class Net(Module):
    """The module that `load` returns.  `graph` is the file's graph, as plain Python.

    Forward: as many Tensors (or arrays) as the graph has inputs, in its order, to its output; a tuple where it has
    several.  Integers and booleans are computed on the host.
    """

    def __init__(self, graph: Graph, device: DeviceLike | None = None):
        self.graph = graph
        self.made_on = default_device() if device is None else device_named(device)
        self.places: dict[str, tuple[str, ...]] = {}  # name in the graph -> where its tensor is held here
        for name in graph.weights:
            self._hold(name, Parameter(graph.constants.pop(name), device=self.made_on))
        for name in graph.statistics:
            self._hold(name, Buffer(graph.constants.pop(name), self.made_on))
        self.drop = _last_uses(graph)

    def _hold(self, name: str, value: Any) -> None:
        """Make `value` a member of this module under its name in the graph, its dots being levels.

        What cannot be a name here (an attribute that a Module has, "a" beside "a.b") gets underscores.
        """
        parts = name.split(".")
        if not all(parts) or not self._fits(parts):
            parts = [name.replace(".", "_") or "_"]
            while not self._fits(parts):
                parts = [parts[0] + "_"]
        at: dict[str, Any] = vars(self)
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = value
        self.places[name] = tuple(parts)

    def _fits(self, parts: list[str]) -> bool:
        at: Any = vars(self)
        if hasattr(type(self), parts[0]) or parts[0] in ("graph", "made_on", "places", "drop"):
            return False
        for part in parts[:-1]:
            at = at.get(part, {})
            if not isinstance(at, dict):
                return False
        return parts[-1] not in at

    def tensor_of(self, name: str) -> Tensor:
        """The weight, or running statistic, that has this name in the file."""
        at: Any = vars(self)
        for part in self.places[name]:
            at = at[part]
        return at

    def _device(self) -> Device:
        """Where the weights are now."""
        return next((self.tensor_of(name).device for name in self.places), self.made_on)

    def forward(self, *inputs: Any) -> Any:
        known: dict[str, Any] = {"": None, **self.graph.constants, **self._given(inputs)}
        known.update((name, self.tensor_of(name)) for name in self.places)
        device = self._device()
        for node, dead in zip(self.graph.nodes, self.drop):
            results = _run(Call(node, device, self.training), [known[name] for name in node.inputs])
            known.update(zip(node.outputs, results))
            known[""] = None
            for name in dead:
                del known[name]
        outputs = [known[name] for name in self.graph.outputs]
        tensors = [value if isinstance(value, Tensor) else Tensor(value, device=device) for value in outputs]
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def _given(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        expected, who = self.graph.inputs, f"onnx net {printable(self.graph.name)!r}"
        if len(inputs) != len(expected):
            names = ", ".join(printable(entry.name) for entry in expected)
            raise ArgumentError(f"{who}: takes {len(expected)} input(s), {names}, got {len(inputs)}")
        given: dict[str, Any] = {}
        for entry, value in zip(expected, inputs):
            array = value if isinstance(value, (Tensor, np.ndarray)) else np.asarray(value)
            if entry.shape is not None and not _matches(array.shape, entry.shape):
                free = tuple("any" if size is None else size for size in entry.shape)
                raise ShapeError(
                    f"{who}: input {printable(entry.name)} must have the shape {free}, as the file says (another first "
                    f"size may do), it has {array.shape}"
                )
            if array.dtype.kind != "f":
                given[entry.name] = host(array)
            else:
                given[entry.name] = array if isinstance(array, Tensor) else Tensor(array, device=self._device())
        return given

    def settings(self) -> str:
        return f"{printable(self.graph.name)!r}, {len(self.graph.nodes)} nodes"


def _matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether the sizes fit; the first is that of the batch, which many files give without needing it."""
    pairs = list(zip(shape, expected))
    return len(shape) == len(expected) and all(size is None or n == size for n, size in pairs[1:])


def _last_uses(graph: Graph) -> list[list[str]]:
    """For each node the names that nobody reads after it: their memory can go."""
    last: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys([*node.inputs, *node.outputs], i))
    dead: list[list[str]] = [[] for _ in graph.nodes]
    for name, i in last.items():
        if name and name not in graph.outputs:
            dead[i].append(name)
    return dead


def _run(call: Call, values: list[Any]) -> tuple[Any, ...]:
    """The outputs of a node; its errors say where."""
    node = call.node
    try:
        results = OPERATORS[node.op].run(call, *values)
    except MinigradError as error:
        raise type(error)(f"{_place(node)}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        seen = ", ".join("none" if value is None else str(value.shape) for value in values)
        raise ArgumentError(f"{_place(node)}: its inputs {seen} do not fit: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    if len(results) < len(node.outputs):
        raise CheckpointError(f"{_place(node)}: minigrad makes {len(results)} of its {len(node.outputs)} outputs")
    return results


def _place(node: Node) -> str:
    return f"onnx: node {node.position}, {node.op} {node}"
