"""What each operator of ONNX does here: the table OPERATORS, and the operators that compute number by number.

A handler takes a Call (the node, and where it runs) and the node's inputs, and returns its output, or a tuple of them.
Floating-point numbers are Tensors on the device of the net.  Integers, booleans and constants are NumPy arrays, and
computed on the host; `tensor` and `host` bring a value to where it is needed.  windows.py has convolution and pooling,
shapes.py what moves elements and computes shapes.

Operators have changed with the versions of the standard (the "opset"): settings became inputs, defaults changed.
Handlers look at `call.opset` where that matters.

Source: the specification, github.com/onnx/onnx/blob/main/docs/Operators.md, and Changelog.md for former versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .. import functional as F
from ..device import Device
from ..errors import ArgumentError
from ..tensor import Tensor
from .reading import Node

Value = Any  # Tensor | np.ndarray, and None for an input that is left out
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Call(NamedTuple):
    """One run of a node."""

    node: Node
    device: Device
    training: bool

    @property
    def opset(self) -> int:
        return self.node.opset

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return self.node.attributes.get(name, default)

    def tensor(self, value: Value) -> Tensor:
        return value if isinstance(value, Tensor) else Tensor(value, device=self.device)

    def setting(self, name: str, value: Value, default: Any = None) -> Any:
        """What was an attribute once and is an input since, as Python's numbers: a list, or one number."""
        given = self.get(name) if value is None else host(value).tolist()
        return default if given is None else given


class Operator(NamedTuple):
    """attributes: the names that the handler knows.  accepts: why a node cannot be run, or ""."""

    run: Callable[..., Any]
    attributes: frozenset[str]
    accepts: Callable[[Node], str]

    def refuses(self, node: Node) -> Iterator[str]:
        """Why a node cannot be run: there is nothing that is passed over in silence."""
        for name in node.attributes:
            if name not in self.attributes:
                yield f"with {name}={node.attributes[name]!r:.40}"
        reason = self.accepts(node)
        if reason:
            yield reason


OPERATORS: dict[str, Operator] = {}

_WITHOUT_MEANING = "consumed_inputs is_test saturate seed"  # hints, and what training or testing decides here


def operator(
    names: str, attributes: str = "", accepts: Callable[[Node], str] = lambda node: ""
) -> Callable[[Handler], Handler]:
    """Decorator: enters a handler in OPERATORS under these names, with the attributes it knows."""

    def enter(handler: Handler) -> Handler:
        known = frozenset(f"{attributes} {_WITHOUT_MEANING}".split())
        OPERATORS.update(dict.fromkeys(names.split(), Operator(handler, known, accepts)))
        return handler

    return enter


def host(value: Value) -> np.ndarray:
    return value.numpy() if isinstance(value, Tensor) else value


def on_host(*values: Value) -> bool:
    """Whether all are NumPy arrays."""
    return not any(isinstance(value, Tensor) for value in values)


# ---------------------------------------------------------------- normalisation, dropout


def _odd(node: Node) -> str:
    size = node.attributes["size"]
    return "" if size % 2 else f"with an even size={size}"


@operator("LRN", "alpha beta bias size", _odd)
def lrn(call: Call, x: Value) -> Tensor:
    size = call.get("size")
    alpha, beta, k = call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    return F.lrn(call.tensor(x), size, k, alpha / size, beta)


def _per_channel(node: Node) -> str:
    if node.opset < 14 and node.wants(1):
        return "with more than one output"
    return "" if node.attributes.get("spatial", 1) else "with spatial=0"


@operator("BatchNormalization", "epsilon momentum spatial training_mode", _per_channel)
def batch_normalization(call: Call, x: Value, weight: Value, bias: Value, mean: Value, var: Value) -> Any:
    """momentum is what running statistics keep, where ours is what they take.

    training_mode=1, whoever trains: the statistics of the batch, and new running ones, with the biased variance.
    """
    x, weight, bias, mean, var = map(call.tensor, (x, weight, bias, mean, var))
    eps, keep = call.get("epsilon", 1e-5), call.get("momentum", 0.9)
    if not call.get("training_mode", 0):
        return F.batch_norm(x, mean, var, weight, bias, call.training, 1 - keep, eps)
    y = F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    axes = (0, *range(2, x.ndim))
    centre = x.mean(axes, keepdims=True)
    batch_mean, batch_var = centre.reshape(-1), ((x - centre) ** 2).mean(axes)
    results = y, mean * keep + batch_mean * (1 - keep), var * keep + batch_var * (1 - keep)
    return results[: len(call.node.outputs)]


@operator("Dropout", "ratio")
def dropout(call: Call, x: Value, ratio: Value = None, training_mode: Value = None) -> Any:
    """Drops while the net trains, or where the file says that it always does."""
    x, p = call.tensor(x), float(call.setting("ratio", ratio, 0.5))
    always = training_mode is not None and bool(host(training_mode))
    y = F.dropout(x, p, call.training or always)
    if not call.node.wants(1):
        return y
    if y is not x:
        raise ArgumentError("which elements were dropped is not told (a second output): read the first alone")
    return y, np.ones(x.shape, bool if call.opset >= 10 else x.dtype)


# ---------------------------------------------------------------- matrices


@operator("Gemm", "alpha beta broadcast transA transB")
def gemm(call: Call, a: Value, b: Value, c: Value = None) -> Tensor:
    a, b = call.tensor(a), call.tensor(b)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    c = None if c is None or beta == 0 else call.tensor(c)
    if call.get("transA", 0):
        a = a.transpose()
    if call.get("transB", 0) and alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
        return F.linear(a, b, c)
    y = a @ (b.transpose() if call.get("transB", 0) else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@operator("MatMul")
def matmul(call: Call, a: Value, b: Value) -> Value:
    return np.matmul(a, b) if on_host(a, b) else call.tensor(a) @ call.tensor(b)


# ---------------------------------------------------------------- softmax


@operator("Softmax LogSoftmax", "axis")
def softmax(call: Call, x: Value) -> Tensor:
    """Before opset 13 all axes from `axis` on are one, and it is 1 where it is left out."""
    x = call.tensor(x)
    function = F.softmax if call.node.op == "Softmax" else F.log_softmax
    if call.opset >= 13:
        return function(x, call.get("axis", -1))
    axis = call.get("axis", 1) % max(x.ndim, 1)
    rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return function(rows, 1).reshape(x.shape)


# ---------------------------------------------------------------- element by element

_UNARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Relu": (F.relu, lambda x: np.maximum(x, 0)),
    "Sigmoid": (F.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": (F.tanh, np.tanh),
    "Exp": (F.exp, np.exp),
    "Log": (F.log, np.log),
    "Sqrt": (F.sqrt, np.sqrt),
    "Neg": (F.negative, np.negative),
    "Abs": (F.abs, np.abs),
    "Not": (lambda x: F.equal(x, False), np.logical_not),
    "Identity": (lambda x: x, lambda x: x),
    "Softplus": (lambda x: F.relu(x) + F.log(F.exp(-F.abs(x)) + 1), lambda x: np.logaddexp(x, x.dtype.type(0))),
    "HardSwish": (lambda x: x * F.clip(x / 6 + 0.5, 0.0, 1.0), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Reciprocal": (lambda x: 1 / x, lambda x: 1 / x),
}


@operator(" ".join(_UNARY))
def unary(call: Call, x: Value) -> Value:
    with_tensors, with_arrays = _UNARY[call.node.op]
    return with_arrays(x) if on_host(x) else with_tensors(x)


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of integers the part before the point, as in C."""
    return a / b if a.dtype.kind == "f" else (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _power(a: Tensor, b: Tensor) -> Tensor:
    return F.power(a, b.astype(a.dtype))


_BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Add": (F.add, np.add),
    "Sub": (F.subtract, np.subtract),
    "Mul": (F.multiply, np.multiply),
    "Div": (F.divide, _quotient),
    "Pow": (_power, lambda a, b: np.power(a, b).astype(a.dtype)),
    "Equal": (F.equal, np.equal),
    "Greater": (F.greater, np.greater),
    "GreaterOrEqual": (F.greater_equal, np.greater_equal),
    "Less": (F.less, np.less),
    "LessOrEqual": (F.less_equal, np.less_equal),
}


@operator(" ".join(_BINARY), "axis broadcast")
def binary(call: Call, a: Value, b: Value) -> Value:
    """Before opset 7 shapes were made to fit where broadcast=1: b begins at `axis` of a."""
    if call.get("broadcast", 0) and call.get("axis") is not None:
        b = b.reshape(*b.shape, *(1,) * (a.ndim - call.get("axis") % a.ndim - b.ndim))
    with_tensors, with_arrays = _BINARY[call.node.op]
    return with_arrays(a, b) if on_host(a, b) else with_tensors(call.tensor(a), call.tensor(b))


@operator("Sum Mean Max Min")
def of_several(call: Call, first: Value, *others: Value) -> Value:
    """The sum, mean, maximum or minimum of several tensors, element by element."""
    if on_host(first, *others):
        together: Any = {"Sum": np.add, "Mean": np.add, "Max": np.maximum, "Min": np.minimum}[call.node.op]
    else:
        together = {"Sum": F.add, "Mean": F.add}.get(call.node.op) or (
            F.maximum if call.node.op == "Max" else F.minimum
        )
        first, others = call.tensor(first), tuple(map(call.tensor, others))
    y = first
    for other in others:
        y = together(y, other)
    return y / (1 + len(others)) if call.node.op == "Mean" else y


@operator("Clip", "max min")
def clip(call: Call, x: Value, low: Value = None, high: Value = None) -> Value:
    low, high = call.setting("min", low), call.setting("max", high)
    if on_host(x):
        y = x if low is None else np.maximum(x, x.dtype.type(low))
        return y if high is None else np.minimum(y, x.dtype.type(high))
    if low is not None and high is not None:
        low = min(low, high)  # the upper bound counts where they cross
    return x if low is None and high is None else F.clip(x, low, high)


@operator("LeakyRelu", "alpha")
def leaky_relu(call: Call, x: Value) -> Tensor:
    x = call.tensor(x)
    return F.relu(x) - F.relu(-x) * call.get("alpha", 0.01)


@operator("PRelu")
def prelu(call: Call, x: Value, slope: Value) -> Tensor:
    x, slope = call.tensor(x), call.tensor(slope)
    if call.opset < 7 and slope.ndim == 1:  # a number per channel, before slopes were broadcast
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return F.relu(x) - F.relu(-x) * slope


@operator("HardSigmoid", "alpha beta")
def hard_sigmoid(call: Call, x: Value) -> Tensor:
    return F.clip(call.tensor(x) * call.get("alpha", 0.2) + call.get("beta", 0.5), 0.0, 1.0)


@operator("Where")
def where(call: Call, condition: Value, a: Value, b: Value) -> Value:
    if on_host(condition, a, b):
        return np.where(condition, a, b)
    return F.where(call.tensor(condition), call.tensor(a), call.tensor(b))


# ---------------------------------------------------------------- reductions


@operator("ReduceSum ReduceMean ReduceMax ReduceMin", "axes keepdims noop_with_empty_axes")
def reduce(call: Call, x: Value, axes: Value = None) -> Value:
    """Over all axes where none is given.  The maximum of nothing is the lowest number of its type."""
    along, keep = call.setting("axes", axes, []), bool(call.get("keepdims", 1))
    if not along and call.get("noop_with_empty_axes", 0):
        return x
    axis = tuple(along) if along else None
    kind = call.node.op[len("Reduce") :].lower()
    if kind in ("max", "min") and (on_host(x) or 0 in x.shape):
        lowest, highest = _ends_of(x.dtype)
        array = getattr(host(x), kind)(axis=axis, keepdims=keep, initial=lowest if kind == "max" else highest)
        return np.asarray(array, x.dtype)
    if on_host(x):
        return np.asarray(getattr(x, kind)(axis=axis, keepdims=keep), x.dtype)
    if kind == "min":
        return -F.max(-x, axis, keep)
    return {"sum": F.sum, "mean": F.mean, "max": F.max}[kind](x, axis, keep)


@operator("ArgMax ArgMin", "axis keepdims select_last_index")
def place_of(call: Call, x: Value) -> np.ndarray:
    values, axis = host(x), call.get("axis", 0)
    last = bool(call.get("select_last_index", 0))
    function = np.argmax if call.node.op == "ArgMax" else np.argmin
    places = function(np.flip(values, axis) if last else values, axis, keepdims=bool(call.get("keepdims", 1)))
    return np.asarray(values.shape[axis] - 1 - places if last else places, np.int64)


def _ends_of(dtype: Any) -> tuple[Any, Any]:
    """The lowest and the highest number of a type."""
    if dtype.kind in "fb":
        return (-np.inf, np.inf) if dtype.kind == "f" else (False, True)
    return np.iinfo(dtype).min, np.iinfo(dtype).max
