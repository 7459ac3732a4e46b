"""From a model to a file: two recordings of its ops, one graph, and a look whether that gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..base import files
from ..base.grad_mode import no_grad
from ..errors import ArgumentError, CheckpointError, DTypeError, GraphError, MinigradError
from ..nn import Buffer, Module, Parameter
from ..tensor import Tensor
from .net import Net
from .operators import OPERATORS
from .reading import PathLike, graph_of, library
from .recording import Recording, listening, merged
from .writers import WRITERS

OPSET, IR_VERSION = 17, 8  # what onnxruntime has read since 1.12, of 2022
_MOST_BYTES = 2**31 - 1  # of a protobuf message
_CLOSE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}  # of the largest number: see _compare


def export(model: Module, example: Any, path: PathLike) -> None:
    """Write a model as an ONNX file, whole or not at all: any model that is made of minigrad's ops.

    model: is run as in testing, `model.eval()`, and goes back to what it was: dropout is left out, batch norm has its
    running statistics.  Its parameters keep the names of `model.state_dict()`.
    example: what the model is called with: a Tensor or an array, images along the first axis, at least one; or a tuple
    of them, equally long.  All sizes but the number of images are fixed in the file.
    The file's inputs are called "input" ("input_0", ... where there are several), its outputs "output" likewise.

    The model is run twice, on `example` and on made-up numbers of its range, one image more.  The file is checked by
    onnx.checker, and must give what the model has given for the second.

    GraphError for ops that ONNX does not have, for values that depend on the images though no op computes them
    (`.numpy()` or `if` in forward), and where the numbers differ.  CheckpointError where the file cannot be written.
    MissingDependencyError without the package onnx.
    """
    onnx = library()
    if not isinstance(model, Module):
        raise ArgumentError(f"export: model must be a minigrad.nn.Module, got {type(model).__name__}")
    inputs = _inputs(model, example)
    others = [_other(x) for x in inputs]
    held = _held(model)
    with _as_in_testing(model):
        first = _recorded(model, held, inputs)
        if first.recording.refused:
            kinds = ", ".join(f"{kind} ({count} times)" for kind, count in first.recording.refused.items())
            raise GraphError(
                f"export: {type(model).__name__} runs ops that have no counterpart in ONNX: {kinds}: leave them out of "
                "forward (a loss, or dropout with training=True, belongs to training), or use others"
            )
        try:
            second = _recorded(model, held, others)
        except MinigradError as error:
            raise GraphError(
                f"export: the model runs on {len(inputs[0])} image(s) and not on {len(others[0])}, but their number is "
                f"free in the file: take it from the input's shape: {error}"
            ) from error
    constants = merged(first.recording, second.recording, (len(inputs[0]), len(others[0])))
    weights = sum(tensor.data.nbytes for tensor in held.values())
    if weights > _MOST_BYTES:
        raise CheckpointError(
            f"export: {weights / 1e9:.1f} GB of weights, an ONNX file holds 2.1 at most: save them apart"
        )
    proto = _proto(onnx, type(model).__name__, held, constants, first, second)
    content = proto.SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    _compare(proto, second)
    with files.writing(path, lambda message: CheckpointError(f"export: {message}")) as file:
        file.write(content)


# ---------------------------------------------------------------- running the model


class Run(NamedTuple):
    """A model's run: what went in, what came out, and what happened."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    recording: Recording


def _inputs(model: Module, example: Any) -> list[Tensor]:
    given = list(example) if isinstance(example, (tuple, list)) else [example]
    device = next((parameter.device for parameter in model.parameters()), None)
    inputs = [x.detach() if isinstance(x, Tensor) else Tensor(np.asarray(x), device=device) for x in given]
    if not inputs or any(x.size == 0 or x.ndim == 0 or len(x) != len(inputs[0]) for x in inputs):
        shapes = ", ".join(str(x.shape) for x in inputs) or "nothing"
        raise ArgumentError(f"export: example must hold images along its first axis, at least one, got {shapes}")
    return inputs


def _other(x: Tensor) -> Tensor:
    """One image more, and other numbers: drawn from the range of x, or from 1 above where all are the same.

    Integers, which may be indices, are those of x in another order.
    """
    values = x.numpy()
    if x.dtype.kind != "f":
        return Tensor(np.concatenate([np.roll(values, 1), values[:1]]), device=x.device)
    if not np.isfinite(values).all():
        raise ArgumentError("export: example holds nan or inf: give images as the model gets them")
    low, high = float(values.min()), float(values.max())
    drawn = np.random.default_rng(0).random((len(values) + 1, *values.shape[1:]))
    return Tensor(low + drawn * ((high - low) or 1.0), device=x.device, dtype=x.dtype)


@contextmanager
def _as_in_testing(model: Module) -> Iterator[None]:
    """eval() inside, and then what it was, module by module."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _recorded(model: Module, held: dict[str, Tensor], inputs: list[Tensor]) -> Run:
    """Run the model.  Gradients stay on: with them, `x += 1` in forward is an op."""
    recording = Recording()
    for name, tensor in held.items():
        recording.enter(tensor.data, name)
    fresh = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    for name, x in zip(_numbered(recording, "input", len(inputs)), fresh):
        recording.enter(x.data, name)
    with listening(recording, WRITERS):
        result = model(*fresh)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for y in outputs:
        if not isinstance(y, Tensor):
            raise DTypeError(f"export: the model must return Tensors, a tuple of them or one, got {type(y).__name__}")
    for name, y in zip(_numbered(recording, "output", len(outputs)), outputs):
        recording.name_output(recording.name_of(y.data, y.device), name)
    return Run(inputs, [y.detach() for y in outputs], recording)


def _numbered(recording: Recording, word: str, count: int) -> list[str]:
    """The names of inputs or outputs: "input", or "input_0", "input_1", ..."""
    names = [word] if count == 1 else [f"{word}_{i}" for i in range(count)]
    clash = sorted(set(names) & recording.taken)
    if clash:
        raise ArgumentError(f"export: the model has a tensor {clash[0]!r}, which is a name of the file's: rename it")
    recording.taken.update(names)
    return names


def _held(model: Module) -> dict[str, Tensor]:
    """Name -> tensor: what state_dict() saves, by its names there, and then what else modules hold."""
    saved: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    held = dict(_named_as_saved(saved, model.state_dict()))
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not any(value is tensor for tensor in held.values()):
                held[f"{path}.{name}".lstrip(".")] = value
    return held


def _named_as_saved(tensors: dict[str, Tensor], saved: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """A model may have names of its own in state_dict(): then each is an end of a name here, with the same values, or
    all stand in the same order."""
    if set(saved) == set(tensors):
        return tensors
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        for end in (".".join(parts[i:]) for i in range(len(parts))):
            if end in saved and end not in found and np.array_equal(saved[end], tensor.numpy(), equal_nan=True):
                found[end] = tensor
                break
    if set(found) == set(saved) and len(found) == len(tensors):
        return found
    pairs = list(zip(saved.values(), tensors.values()))
    same = len(saved) == len(tensors) and all(np.array_equal(a, b.numpy(), equal_nan=True) for a, b in pairs)
    return dict(zip(saved, tensors.values())) if same else tensors


# ---------------------------------------------------------------- writing


def _proto(
    onnx: Any, name: str, held: dict[str, Tensor], constants: dict[str, np.ndarray], first: Run, second: Run
) -> Any:
    """The ModelProto.

    Parameters and running statistics are initializers; other constants are in Constant nodes, for `load` to tell.
    """
    helper, steps, nodes, weights = onnx.helper, first.recording.steps, [], []
    statistics = {name for step in steps if step.op == "BatchNormalization" for name in step.inputs[3:]}
    for used in dict.fromkeys(name for step in steps for name in step.inputs):
        tensor = held.get(used)
        if tensor is None and used not in constants:
            continue
        values = np.asarray(constants[used] if tensor is None else tensor.numpy(), order="C")
        array = onnx.numpy_helper.from_array(values, used)
        if isinstance(tensor, Parameter) or (isinstance(tensor, Buffer) and used in statistics):
            weights.append(array)
        else:
            nodes.append(helper.make_node("Constant", [], [used], used, value=array))
    for step in steps:
        settings = {
            key: helper.np_dtype_to_tensor_dtype(value) if isinstance(value, np.dtype) else value
            for key, value in step.attributes.items()
        }
        nodes.append(helper.make_node(step.op, list(step.inputs), [step.output], step.output, **settings))
    ends = []
    for word, one, other in ("input", first.inputs, second.inputs), ("output", first.outputs, second.outputs):
        names = [word] if len(one) == 1 else [f"{word}_{i}" for i in range(len(one))]
        ends.append([_described(helper, *facts) for facts in zip(names, one, other)])
    graph = helper.make_graph(nodes, name, *ends, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="minigrad")


def _described(helper: Any, name: str, one: Tensor, other: Tensor) -> Any:
    """Name, type and shape; sizes that differ are the number of images, "N", or depend on it."""
    sizes: list[Any] = [m if m == n else None for m, n in zip(one.shape, other.shape)]
    if sizes and sizes[0] is None and len(one) == len(other) - 1:
        sizes[0] = "N"
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(one.dtype), sizes)


def _compare(proto: Any, run: Run) -> None:
    """GraphError where the graph, read again, gives other numbers than the model: better no file than a wrong one."""
    net = Net(graph_of(proto, "the graph", OPERATORS), "cpu:0").eval()
    with no_grad():
        results = net(*(x.to("cpu:0") for x in run.inputs))
    for name, y, result in zip(net.graph.outputs, run.outputs, results if isinstance(results, tuple) else [results]):
        expected, found = y.numpy(), result.numpy()
        most = np.abs(expected[np.isfinite(expected)]).max(initial=0) if expected.dtype.kind == "f" else 0
        close = _CLOSE.get(expected.dtype, 0)
        if expected.shape != found.shape or not np.allclose(found, expected, close, close * most, equal_nan=True):
            raise GraphError(
                f"export: the graph gives other numbers than the model, {name}, and was not written: forward does "
                "what is no op, such as a change in place inside no_grad(), or of .data"
            )
