"""An ONNX file as plain Python: nodes with their attributes, constants as NumPy arrays, inputs and outputs by name.

Source: the specification, github.com/onnx/onnx/blob/main/docs/IR.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base import files
from ..errors import CheckpointError, MissingDependencyError, one_line, printable, some

PathLike = str | os.PathLike[str]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_CORE = ("", "ai.onnx")  # the names of the standard's own operators


def library() -> Any:
    """The package onnx, imported when it is needed first."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.inliner
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            f"onnx: files need the package onnx ({error}): pip install 'minigrad[onnx]'"
        ) from None
    return onnx


@dataclass
class Node:
    """One operator of the graph.  opset: the version of the standard that the file is written in."""

    op: str
    name: str
    inputs: list[str]  # "" for one that is left out
    outputs: list[str]  # "" for one that nobody reads
    attributes: dict[str, Any]
    opset: int
    position: int  # in the file, from 0

    def __str__(self) -> str:
        """How messages call it: the outputs of nodes have names, nodes need none."""
        return printable(repr(self.name or f"-> {', '.join(self.outputs)}"))

    def wants(self, output: int) -> bool:
        """Whether somebody reads this output."""
        return len(self.outputs) > output and bool(self.outputs[output])


@dataclass
class Input:
    """What goes into the graph.  shape: None for a size that is free, or None for all of it."""

    name: str
    shape: tuple[int | None, ...] | None


@dataclass
class Graph:
    name: str
    inputs: list[Input]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray] = field(default_factory=dict)  # what is known without running anything
    weights: list[str] = field(default_factory=list)  # the names of those among them that may be trained
    statistics: list[str] = field(default_factory=list)  # running means and variances


def model_of(path: PathLike) -> Any:
    """The ModelProto in a file, checked by onnx.checker; CheckpointError where it is none."""
    onnx, where = library(), printable(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"onnx.load: there is no file {where}: check the path")
    try:
        with files.open_regular(path):
            pass
        model = onnx.load(os.fspath(path))
        onnx.checker.check_model(os.fspath(path))
    except OSError as error:
        raise CheckpointError(f"onnx.load: cannot read {where}: {files.reason(error)}") from error
    except MemoryError:
        raise
    except Exception as error:  # protobuf's, the checker's and the library's own, which share no class
        raise CheckpointError(
            f"onnx.load: {where} is no ONNX file that can be used: {one_line(error)[:300]}: check that it is the right "
            "file, or write it anew"
        ) from error
    return model


def graph_of(model: Any, where: str, operators: Any) -> Graph:
    """The graph of a ModelProto; CheckpointError lists all that minigrad does not have.

    operators: name -> what can be run (operators.py).  where: the file, for messages.
    """
    onnx = library()
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in _CORE), 1)
    proto, wrong = model.graph, _Missing()
    constants = {tensor.name: _array(onnx, tensor, wrong) for tensor in proto.initializer}
    for tensor in proto.sparse_initializer:
        wrong.add("sparse weights", repr(tensor.values.name))
    nodes = []
    read = {name for entry in proto.node for name in entry.input} | {entry.name for entry in proto.output}
    for position, entry in enumerate(proto.node):
        outputs = [name if name in read or i == 0 else "" for i, name in enumerate(entry.output)]
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        node = Node(entry.op_type, entry.name, list(entry.input), outputs, {}, opset, position)
        if entry.domain not in _CORE:
            wrong.add(f"{entry.domain}.{entry.op_type}", node)
        elif entry.op_type not in operators and entry.op_type != "Constant":
            wrong.add(entry.op_type, node)
        else:
            node.attributes = {a.name: _attribute(onnx, a, wrong) for a in entry.attribute}
            nodes.append(node)
            if entry.op_type != "Constant":
                for reason in operators[entry.op_type].refuses(node):
                    wrong.add(f"{entry.op_type} {reason}", node)
    wrong.report(where)
    inputs = [_input(entry) for entry in proto.input if entry.name not in constants]
    graph = Graph(proto.name, inputs, [entry.name for entry in proto.output], nodes, constants)
    _sort_constants(graph, model.producer_name == "minigrad")
    return graph


class _Missing:
    """What a file needs and minigrad lacks, by kind."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, node: Any) -> None:
        self.found.setdefault(printable(kind), []).append(str(node))

    def report(self, where: str) -> None:
        """CheckpointError with all of it, if there is any."""
        if self.found:
            lines = (f"\n  {kind}: node{'s' * (len(at) > 1)} {some(at, 5)}" for kind, at in self.found.items())
            raise CheckpointError(
                f"onnx.load: {where} needs {len(self.found)} thing(s) that minigrad does not have: export the model "
                f"without them, or run it with onnxruntime{''.join(lines)}"
            )


# ---------------------------------------------------------------- constants, and which of them are weights

# Inputs that are weights, and are trained, wherever they come from.
_WEIGHT_SLOTS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "PRelu": (1,),
    "BatchNormalization": (1, 2),
}  # fmt: skip
_STATISTICS_SLOTS = {"BatchNormalization": (3, 4)}


def _sort_constants(graph: Graph, ours: bool) -> None:
    """Take what is known without running out of the nodes, and tell weights from other constants.

    Weights are the floating-point initializers with at least one axis (a single number seldom is one, but in a file
    of ours); the outputs of ConstantOfShape with a known shape, which stand for weights in files without them; and
    whatever goes in where only weights do.  The output of a Constant node anywhere else stays what it is.
    """
    constants, weights = graph.constants, dict.fromkeys(graph.constants)
    rest: list[Node] = []
    same: dict[str, str] = {}
    for node in graph.nodes:
        node.inputs = [same.get(name, name) for name in node.inputs]
        if node.op == "Constant":
            constants[node.outputs[0]] = _value_of(node)
        elif node.op == "ConstantOfShape" and node.inputs[0] in constants:
            constants[node.outputs[0]] = _filled(node, constants[node.inputs[0]])
            weights[node.outputs[0]] = None
        elif node.op == "Identity" and node.inputs[0] in constants and node.outputs[0] not in graph.outputs:
            same[node.outputs[0]] = node.inputs[0]
        else:
            rest.append(node)
    graph.nodes = rest
    used: dict[str, None] = {}
    statistics: dict[str, None] = {}
    for node in rest:
        for slot, name in enumerate(node.inputs):
            if name not in constants or constants[name].dtype not in FLOATS or not (constants[name].ndim or ours):
                continue
            if slot in _STATISTICS_SLOTS.get(node.op, ()):
                statistics[name] = None
            elif name in weights or slot in _WEIGHT_SLOTS.get(node.op, ()):
                used[name] = None
    graph.statistics = list(statistics)
    graph.weights = [name for name in used if name not in statistics]


def _value_of(node: Node) -> np.ndarray:
    """What a Constant node holds."""
    ((name, value),) = node.attributes.items()
    if name == "value":
        return value
    return np.array(value, np.float32 if name.startswith("value_float") else np.int64)


def _filled(node: Node, shape: np.ndarray) -> np.ndarray:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(shape.tolist(), value.reshape(-1)[0], value.dtype)


def _array(onnx: Any, tensor: Any, wrong: _Missing) -> np.ndarray:
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind not in "fiub" or array.dtype == np.float16:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        wrong.add(f"numbers of type {kind} (float32, float64, integers and booleans are read)", repr(tensor.name))
    return array


def _attribute(onnx: Any, attribute: Any, wrong: _Missing) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _array(onnx, value, wrong)
    return list(value) if isinstance(value, Iterable) else value


def _input(entry: Any) -> Input:
    if not entry.type.HasField("tensor_type"):
        raise CheckpointError(
            f"onnx.load: input {printable(repr(entry.name))} is no tensor: minigrad knows tensors only"
        )
    if not entry.type.tensor_type.HasField("shape"):
        return Input(entry.name, None)
    sizes = entry.type.tensor_type.shape.dim
    return Input(entry.name, tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes))
