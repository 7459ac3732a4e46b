"""`minigrad.draw`: the graph of a loss, op by op, or a model, layer by layer, as a picture.

    minigrad.draw(loss, "loss.svg", names=net)          # what backward will go through
    minigrad.draw(net, (1, 3, 224, 224), "net.svg")     # what the model does with images of this shape

A model is drawn from one run of it.  A box is a layer, together with what goes with it: ops that read one result which
nobody else reads, and have no weights of their own, or only scale and shift as batch_norm does.  So a box is often a
layer of Figure 2 of Krizhevsky, Sutskever, Hinton 2012: a convolution with its ReLU, normalisation and pooling.  Two
devices are two frames, and red edges lead from one to the other.  What is computed of weights alone has no box.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..base.arguments import one_of
from ..engine import Function
from ..errors import ArgumentError, GraphError
from ..nn import Module
from ..processor.chunks import InChunks
from ..tensor import Tensor
from .drawing import Drawing, Edge, Node
from .model_run import example_inputs, run, tensors_in


def draw(
    what: Tensor | Module,
    *inputs: Any,
    path: str | os.PathLike[str] | None = None,
    names: Module | Mapping[str, Tensor] | None = None,
    direction: str | None = None,
) -> Drawing:
    """The graph of a tensor or of a model, as a Drawing, which notebooks show; with a path, written there too.

    what: a tensor that backward could begin at, or a Module.
    inputs: for a model, for each argument of its forward the shape, batch included, or a Tensor, as for `summary`.
    path: may also come last among the inputs.  .svg, .png and .pdf are made by Graphviz, .dot and .mmd are text:
        see Drawing.save.
    names: for a tensor, how its leaves are called: a Module, for its parameters' names, or tensors by name.
    direction: "TB", from top to bottom, or "LR", from left to right; None: LR where there are several devices.
    GraphError for a tensor that has no graph, or whose graph backward has used.  ArgumentError for what is neither
    tensor nor Module, or is not given.
    """
    if inputs and isinstance(inputs[-1], (str, os.PathLike)):
        if path is not None:
            raise ArgumentError(f"draw: two paths, {inputs[-1]!r} and {path!r}: give one")
        *inputs, path = inputs  # type: ignore[assignment]
    if direction is not None:
        one_of("draw", "direction", direction, ("TB", "LR"))
    if isinstance(what, Tensor):
        if inputs:
            raise ArgumentError("draw: shapes are for models, this is a tensor: draw(loss, 'loss.svg')")
        nodes, edges = _of_tensor(what, names)
    elif isinstance(what, Module):
        if names is not None:
            raise ArgumentError("draw: names= is for tensors; a model has names of its own: leave it out")
        nodes, edges = _of_model(what, example_inputs("draw", what, tuple(inputs)))
    else:
        raise ArgumentError(f"draw: takes a Tensor or a Module, got {type(what).__name__}")
    devices = {node.group for node in nodes} - {""}
    if len(devices) < 2:
        nodes = [node._replace(group="") for node in nodes]
    drawing = Drawing(nodes, edges, direction or ("LR" if len(devices) > 1 else "TB"))
    if path is not None:
        drawing.save(path)
    return drawing


# ---------------------------------------------------------------- the graph of a tensor


def _of_tensor(tensor: Tensor, names: Module | Mapping[str, Tensor] | None) -> tuple[list[Node], list[Edge]]:
    """A box for each node that backward would go through, and for each leaf; edges go the way of forward."""
    if tensor.node is None:
        raise GraphError(
            "draw: this tensor has no graph: it is a leaf, or nothing that it was made of needs a gradient"
        )
    named = dict(names.named_parameters()) if isinstance(names, Module) else dict(names or {})
    known = {id(leaf): name for name, leaf in named.items()}
    places: dict[int, int] = {}
    nodes: list[Node] = []
    edges: list[Edge] = []
    found: list[Any] = [tensor.node]
    for one in found:  # which grows meanwhile
        if id(one) in places:
            continue
        places[id(one)] = len(nodes)
        if isinstance(one, Function):
            one.check_usable()  # GraphError where it is spent
            title = f"{one.name}, {len(one.bounds)} chunks" if isinstance(one, InChunks) else one.name
            nodes.append(Node("op", [title, _shape(one.shape)], str(one.device)))
            found.extend(target for target in one.inputs if target is not None)
        else:
            title = known.get(id(one), "leaf")
            nodes.append(Node("parameter", [title, _shape(one.shape)], str(one.device)))
    for one in {id(one): one for one in found}.values():
        for target in one.inputs if isinstance(one, Function) else ():
            if target is not None:
                edges.append(Edge(places[id(target)], places[id(one)], target.device is not one.device))
    return nodes, edges


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


# ---------------------------------------------------------------- a model, from one run


_ARRANGING = {"concat", "reshape", "flatten", "transpose", "getitem", "astype", "pad"}  # what brings inputs in order
_POINTWISE = {"batch_norm", "multiply", "divide", "add", "subtract"}  # what follows a layer though it may have weights


class _Unit:
    """A box in the making: one op, or all of one call of a layer; later with what is joined to it.

    reads: the units whose results it reads, in order.  Results of other devices come by way of the op `copy`, which has
    no box.
    """

    def __init__(self, device: str, layer: str = "", kind: str = ""):
        self.device, self.layer, self.kind = device, layer, kind
        self.ops: list[str] = []
        self.shapes: list[str] = []  # of what comes out after each op
        self.window = ""
        self.has_weights = False
        self.reads: dict[int, None] = {}


class _Recording:
    """What reads what in one run, by the arrays that the ops got and gave; they are kept until the end."""

    def __init__(self, model: Module, inputs: list[Tensor]):
        self.modules = dict(model.named_modules())
        self.calls = dict.fromkeys(self.modules, 0)
        self.weights = {id(p.data): name for name, p in model.named_parameters()}
        self.kept: list[Any] = [tensor.data for tensor in inputs]
        self.units: list[_Unit] = []
        self.source: dict[int, int] = {}  # array -> the unit that made it, on whatever device
        self.by_call: dict[tuple[str, int], int] = {}
        for i, tensor in enumerate(inputs):
            unit = _Unit("", kind="input" if len(inputs) == 1 else f"input {i}")
            unit.shapes.append(_shape(tensor.shape))
            self.source[id(tensor.data)] = i
            self.units.append(unit)

    def op_seen(self, function: Any, arrays: tuple[Any, ...], y: Any, name: str) -> None:
        self.kept += [*arrays, y]
        op = function.name.split(" at ")[0]  # debug() adds the line
        if op == "copy" and id(arrays[0]) in self.source:
            self.source[id(y)] = self.source[id(arrays[0])]
            return
        if not any(id(array) in self.source for array in arrays):  # of weights and constants alone
            named = [self.weights[id(array)] for array in arrays if id(array) in self.weights]
            if named:
                self.weights[id(y)] = named[0]
            return
        number = self._unit(name, str(function.device))
        unit = self.units[number]
        for array in arrays:
            if id(array) in self.source:
                start = self.source[id(array)]
                if start != number:
                    unit.reads[start] = None
            elif id(array) in self.weights:
                unit.has_weights = True
                if op.startswith("conv") and array.ndim == 4:
                    unit.window = " x ".join(map(str, array.shape[2:]))
                if not unit.layer:
                    unit.kind = ", ".join(filter(None, [unit.kind, self.weights[id(array)]]))
        unit.ops.append(op)
        unit.shapes.append(_shape(y.shape))
        self.source[id(y)] = number

    def _unit(self, name: str, device: str) -> int:
        """The unit of the layer at work: one without submodules.  What another module does by itself, op by op."""
        module = self.modules[name]
        call = name, self.calls[name]
        if call in self.by_call and self.units[self.by_call[call]].device == device:
            return self.by_call[call]
        is_layer = bool(name) and next(module.children(), None) is None
        self.units.append(_Unit(device, name, type(module).__name__) if is_layer else _Unit(device))
        if is_layer:
            self.by_call[call] = len(self.units) - 1
            stride = getattr(module, "stride", 1)
            if stride not in (1, (1, 1)):
                self.units[-1].kind += f", stride {stride}"
        return len(self.units) - 1

    def call_seen(self, name: str, output: Any) -> None:
        self.calls[name] += 1


def _of_model(model: Module, inputs: list[Tensor]) -> tuple[list[Node], list[Edge]]:
    seen = _Recording(model, inputs)
    output = run(model, inputs, seen.op_seen, seen.call_seen)
    units = seen.units
    results = [seen.source[id(t.data)] for t in tensors_in(output) if id(t.data) in seen.source]
    readers: dict[int, set[int]] = {i: set() for i in range(len(units))}
    for i, unit in enumerate(units):
        for start in unit.reads:
            readers[start].add(i)
    for start in results:
        readers[start].add(-1)
    joined: dict[int, int] = {}  # unit -> the first of the box that it belongs to
    boxes: dict[int, list[int]] = {}
    for i in range(len(units)):
        first = _joins(units, boxes, joined, readers, i)
        joined[i] = first
        boxes.setdefault(first, []).append(i)

    places: dict[int, int] = {}
    nodes: list[Node] = []
    edges: dict[Edge, None] = {}
    prefixes = _prefixes(units)
    for first, members in boxes.items():
        places[first] = len(nodes)
        nodes.append(_box([units[i] for i in members], prefixes))
        for start in map(joined.__getitem__, units[first].reads):
            crossing = units[start].device not in ("", units[first].device)
            edges[Edge(places[start], places[first], crossing)] = None
    for start in dict.fromkeys(results):
        nodes.append(Node("end", ["output", units[start].shapes[-1]]))
        edges[Edge(places[joined[start]], len(nodes) - 1)] = None
    return nodes, list(edges)


def _joins(
    units: list[_Unit],
    boxes: dict[int, list[int]],
    joined: dict[int, int],
    readers: dict[int, set[int]],
    i: int,
) -> int:
    """The first unit of the box that unit i belongs to: its own, or that of the one result it reads."""
    unit = units[i]
    if len(unit.reads) != 1:
        return i
    (start,) = unit.reads
    alone = readers[start] == {i} and units[start].device == unit.device
    before = {op for j in boxes[joined[start]] for op in units[j].ops}
    follows = not unit.has_weights or before <= _ARRANGING or _POINTWISE.issuperset(unit.ops)
    return joined[start] if alone and follows else i


def _prefixes(units: list[_Unit]) -> dict[str, str]:
    """Of each device, what the names of all its layers begin with: "columns.0."."""
    prefixes: dict[str, str] = {}
    for device in {unit.device for unit in units}:
        layers = [unit.layer.split(".") for unit in units if unit.device == device and unit.has_weights and unit.layer]
        shared = os.path.commonprefix([layer[:-1] for layer in layers])
        prefixes[device] = "".join(f"{part}." for part in shared)
    return prefixes


def _box(units: list[_Unit], prefixes: dict[str, str]) -> Node:
    """The lines of a box: the layer, its result, what comes before and after it, and the last result."""
    first = units[0]
    if not first.ops:  # an input
        return Node("end", [first.kind, *first.shapes])
    main = next((i for i, unit in enumerate(units) if unit.has_weights), None)
    if main is None:
        return Node("op", [*_words(units), units[-1].shapes[-1]], first.device)
    layer = units[main]
    if layer.layer:
        name, (kind, comma, rest) = layer.layer.removeprefix(prefixes[layer.device]), layer.kind.partition(", ")
        title = f"{name}: {kind}" if name else kind
    else:
        title, comma, rest = ", ".join(dict.fromkeys(layer.ops)), " with ", layer.kind
    title = f"{title} {layer.window}".rstrip() + comma + rest
    lines = [*_words(units[:main]), title, layer.shapes[-1], *_words(units[main + 1 :])]
    if units[-1].shapes[-1] != layer.shapes[-1]:
        lines.append(units[-1].shapes[-1])
    return Node("layer", lines, first.device)


def _words(units: list[_Unit]) -> list[str]:
    """The ops of these units in one line, or none."""
    ops = [op for unit in units for op in unit.ops]
    return [", ".join(ops)] if ops else []
