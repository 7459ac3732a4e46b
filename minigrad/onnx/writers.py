"""Which nodes of ONNX do what one op of minigrad does: the table WRITERS, from an op's class to a function.

A writer takes a Ran, adds nodes to its recording, and returns the name of the output.  The nodes are those of opset 17.
Where ONNX has no such op, several nodes together do the same; windows that overhang (ceil_mode) become padding, since
runtimes do not agree about them.

Source: the specification, github.com/onnx/onnx/blob/main/docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..ops import arithmetic, compare, extremes, pointwise, reduce, shape
from ..ops._windows import frame
from ..ops.astype import AsType
from ..ops.avg_pool2d import AvgPool2d
from ..ops.batch_norm import BatchNorm
from ..ops.concat import Concat, Split
from ..ops.conv2d import Conv2d, ConvTranspose2d
from ..ops.copy import Copy
from ..ops.linear import Linear
from ..ops.lrn import LRN, LRNWithinMap
from ..ops.matmul import MatMul
from ..ops.max_pool2d import MaxPool2d
from ..ops.pad import Pad
from ..ops.relu import ReLU
from ..ops.sigmoid import Sigmoid
from ..ops.softmax import LogSoftmax, Softmax
from ..ops.tanh import Tanh
from ..ops.where import Where
from .recording import Ran, UnwritableError, Writers

WRITERS: Writers = {}


def writes(*classes: type) -> Callable[[Callable[[Ran], str]], Callable[[Ran], str]]:
    """Decorator: enters a writer for these classes of ops."""

    def enter(writer: Callable[[Ran], str]) -> Callable[[Ran], str]:
        WRITERS.update(dict.fromkeys(classes, writer))
        return writer

    return enter


# ---------------------------------------------------------------- the same op there

_SAME: dict[type, str] = {
    arithmetic.Add: "Add", arithmetic.Subtract: "Sub", arithmetic.Multiply: "Mul", arithmetic.Divide: "Div",
    arithmetic.Power: "Pow", arithmetic.Negative: "Neg", pointwise.Exp: "Exp", pointwise.Log: "Log",
    pointwise.Sqrt: "Sqrt", ReLU: "Relu", Sigmoid: "Sigmoid", Tanh: "Tanh", MatMul: "MatMul", Where: "Where",
    extremes.Maximum: "Max", extremes.Minimum: "Min", extremes.Abs: "Abs",
}  # fmt: skip


@writes(*_SAME)
def same(ran: Ran) -> str:
    return ran.out.node(_SAME[type(ran.function)], *ran.names)


@writes(Copy)
def copy(ran: Ran) -> str:
    """There are no devices in a file."""
    return ran.names[0]


@writes(AsType)
def astype(ran: Ran) -> str:
    return ran.out.node("Cast", ran.names[0], to=np.dtype(ran.function.to))


@writes(extremes.Clip)
def clip(ran: Ran) -> str:
    """Bounds that are infinite are none."""
    f, out, dtype = ran.function, ran.out, ran.xs[0].dtype
    bounds = [out.number(bound, dtype) if np.isfinite(bound) else "" for bound in (f.low, f.high)]
    return out.node("Clip", ran.names[0], *bounds[: 2 if bounds[1] else 1])


_RELATIONS = {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual",
}  # fmt: skip


@writes(compare.Compare)
def relation(ran: Ran) -> str:
    if ran.function.relation == "not_equal":
        return ran.out.node("Not", ran.out.node("Equal", *ran.names))
    return ran.out.node(_RELATIONS[ran.function.relation], *ran.names)


@writes(Softmax, LogSoftmax)
def softmax(ran: Ran) -> str:
    return ran.out.node(type(ran.function).__name__, ran.names[0], axis=ran.function.axis)


# ---------------------------------------------------------------- layers


def _ends(padding: Any) -> list[int]:
    """ONNX's order: top, left, bottom, right."""
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


@writes(Conv2d)
def conv2d(ran: Ran) -> str:
    f, (kh, kw) = ran.function, ran.xs[1].shape[2:]
    return ran.out.node(
        "Conv", *ran.names, kernel_shape=[kh, kw], strides=list(f.s), pads=_ends(f.p), dilations=list(f.d),
        group=f.groups,
    )  # fmt: skip


@writes(ConvTranspose2d)
def conv_transpose2d(ran: Ran) -> str:
    """What no window had seen is output_padding, which is to be less than the stride: of one row any stride will do."""
    conv, sizes, kernel = ran.function.conv, ran.xs[0].shape[2:], ran.xs[1].shape[2:]
    seen = [s * (n - 1) + d * (k - 1) + 1 - sum(p) for n, k, s, d, p in zip(sizes, kernel, conv.s, conv.d, conv.p)]
    more = [size - n for size, n in zip(ran.y.shape[2:], seen)]
    strides = [m + 1 if n == 1 else s for n, s, m in zip(sizes, conv.s, more)]
    return ran.out.node(
        "ConvTranspose", *ran.names, kernel_shape=list(kernel), strides=strides, pads=_ends(conv.p),
        dilations=list(conv.d), group=conv.groups, output_padding=more,
    )  # fmt: skip


@writes(Linear)
def linear(ran: Ran) -> str:
    """x w^T + b: Gemm for rows, and for more axes a product of matrices."""
    out, (x, w, *b) = ran.out, ran.names
    if ran.xs[0].ndim == 2:
        return out.node("Gemm", x, w, *b, transB=1)
    y = out.node("MatMul", x, out.node("Transpose", w, perm=[1, 0]))
    return out.node("Add", y, b[0]) if b else y


@writes(BatchNorm)
def batch_norm(ran: Ran) -> str:
    """A net without running statistics takes those of the batch in testing, too."""
    f, out, x, dtype = ran.function, ran.out, ran.names[0], ran.xs[0].dtype
    if not f.training:
        return out.node("BatchNormalization", *ran.names, epsilon=f.eps)
    axes = [0, *range(2, ran.xs[0].ndim)]
    centred = out.node("Sub", x, out.node("ReduceMean", x, axes=axes, keepdims=1))
    var = out.node("ReduceMean", out.node("Mul", centred, centred), axes=axes, keepdims=1)
    h = out.node("Div", centred, out.node("Sqrt", out.node("Add", var, out.number(f.eps, dtype))))
    per_channel = [1, ran.xs[0].shape[1], *[1] * (ran.xs[0].ndim - 2)]
    weight, bias = (out.node("Reshape", name, out.shape(per_channel)) for name in ran.names[1:3])
    return out.node("Add", out.node("Mul", h, weight), bias)


@writes(LRN)
def lrn(ran: Ran) -> str:
    """Groups are images of their own for a moment."""
    f, out, x = ran.function, ran.out, ran.names[0]
    n, c, h, w = ran.xs[0].shape
    settings = {"size": f.n, "alpha": f.alpha * f.n, "beta": f.beta, "bias": f.k}
    if f.groups == 1:
        return out.node("LRN", x, **settings)
    apart = out.node("Reshape", x, out.shape([n * f.groups, c // f.groups, h, w]))
    return out.node("Reshape", out.node("LRN", apart, **settings), out.shape([n, c, h, w]))


@writes(LRNWithinMap)
def lrn_within_map(ran: Ran) -> str:
    """x (k + alpha n^2 mean(x^2))^-beta, the mean of a window with its zeros."""
    f, out, x, dtype = ran.function, ran.out, ran.names[0], ran.xs[0].dtype
    half = [f.n // 2] * 4
    mean = out.node(
        "AveragePool", out.node("Mul", x, x), kernel_shape=[f.n, f.n], strides=[1, 1], pads=half, count_include_pad=1
    )
    s = out.node("Add", out.node("Mul", mean, out.number(f.alpha * f.n**2, dtype)), out.number(f.k, dtype))
    return out.node("Mul", x, out.node("Pow", s, out.number(-f.beta, dtype)))


@writes(MaxPool2d)
def max_pool2d(ran: Ran) -> str:
    f = ran.function
    whole = frame(f.padding, ran.xs[0].shape[2:], f.kernel, f.stride, f.dilation, f.outputs)
    return ran.out.node(
        "MaxPool", ran.names[0], kernel_shape=list(f.kernel), strides=list(f.stride), pads=_ends(whole),
        dilations=list(f.dilation),
    )  # fmt: skip


@writes(AvgPool2d)
def avg_pool2d(ran: Ran) -> str:
    """The mean of the pixels alone, times their share of the divisor: runtimes differ about padding that counts."""
    f, out, size = ran.function, ran.out, ran.xs[0].shape[2:]
    whole = frame(f.padding, size, f.kernel, f.stride, (1, 1), f.outputs)
    y = out.node(
        "AveragePool", ran.names[0], kernel_shape=list(f.kernel), strides=list(f.stride), pads=_ends(whole),
        count_include_pad=0,
    )  # fmt: skip
    if not f.count_include_pad or not any(map(any, f.padding)):
        return y
    shares = []
    for n, k, s, (before, after), count in zip(size, f.kernel, f.stride, f.padding, f.outputs):
        first = np.arange(count) * s - before
        last = np.minimum(first + k, n + after)
        shares.append((np.minimum(last, n) - np.maximum(first, 0)) / (last - first))
    return out.node("Mul", y, out.constant(np.outer(*shares).astype(ran.y.dtype)))


@writes(Pad)
def pad(ran: Ran) -> str:
    f, out = ran.function, ran.out
    ends = [before for before, _ in f.padding] + [after for _, after in f.padding]
    return out.node("Pad", ran.names[0], out.integers(*ends), out.number(f.value, ran.xs[0].dtype))


# ---------------------------------------------------------------- reductions


@writes(reduce.Sum, reduce.Mean, reduce.Max)
def reduction(ran: Ran) -> str:
    f, out, x = ran.function, ran.out, ran.names[0]
    if not f.axes:  # of each number by itself
        return out.node("Identity", x)
    if isinstance(f, reduce.Sum):
        if ran.y.dtype != ran.xs[0].dtype:
            x = out.node("Cast", x, to=np.dtype(ran.y.dtype))
        return out.node("ReduceSum", x, out.integers(*f.axes), keepdims=int(f.keepdims))
    return out.node(f"Reduce{type(f).__name__}", x, axes=list(f.axes), keepdims=int(f.keepdims))


@writes(reduce.ArgMax)
def place_of(ran: Ran) -> str:
    """Among all elements: of x as one row."""
    f, out, x = ran.function, ran.out, ran.names[0]
    op = "ArgMin" if f.name.startswith("argmin") else "ArgMax"
    if f.axis is not None:
        return out.node(op, x, axis=f.axis, keepdims=int(f.keepdims))
    place = out.node(op, out.node("Reshape", x, out.shape([ran.xs[0].size])), axis=0, keepdims=0)
    return out.node("Reshape", place, out.shape(ran.y.shape)) if f.keepdims else place


# ---------------------------------------------------------------- what moves elements


@writes(Concat)
def concat(ran: Ran) -> str:
    return ran.out.node("Concat", *ran.names, axis=ran.function.axis)


@writes(shape.Reshape)
def reshape(ran: Ran) -> str:
    return ran.out.node("Reshape", ran.names[0], ran.out.shape(ran.y.shape))


@writes(shape.Transpose)
def transpose(ran: Ran) -> str:
    return ran.out.node("Transpose", ran.names[0], perm=list(ran.function.axes))


@writes(Split)
def split(ran: Ran) -> str:
    return _sliced(ran, ran.function.piece)


@writes(shape.GetItem)
def getitem(ran: Ran) -> str:
    """Slices, ints and None; or slices and one array of integers."""
    index, ndim = list(ran.function.index), ran.xs[0].ndim
    places = [i for i, part in enumerate(index) if part is Ellipsis]
    if places:
        used = sum(part is not None for part in index) - 1
        index[places[0] : places[0] + 1] = [slice(None)] * (ndim - used)
    arrays = [i for i, part in enumerate(index) if isinstance(part, np.ndarray)]
    if not arrays:
        return _sliced(ran, tuple(index))
    if len(arrays) > 1 or not all(isinstance(part, (slice, np.ndarray)) for part in index):
        raise UnwritableError("indexing with several arrays, or with an array beside ints and None")
    axis, array = arrays[0], index[arrays[0]]
    if array.dtype == bool:
        raise UnwritableError("indexing with a mask")
    index[axis] = slice(None)
    return ran.out.node("Gather", _sliced(ran, tuple(index)), ran.out.constant(array), axis=axis)


def _sliced(ran: Ran, index: tuple[Any, ...]) -> str:
    """x[index] of ints, slices and None: Slice, and a Reshape where axes go or come."""
    out, x, axis, cuts = ran.out, ran.names[0], 0, []
    for part in index:
        if part is None:
            continue
        if isinstance(part, int):
            cuts.append((axis, part, part + 1 if part != -1 else 2**63 - 1, 1))
        elif part != slice(None):
            step = 1 if part.step is None else part.step
            first = (0 if step > 0 else 2**63 - 1) if part.start is None else part.start
            last = (2**63 - 1 if step > 0 else -(2**63)) if part.stop is None else part.stop
            cuts.append((axis, first, last, step))
        axis += 1
    if cuts:
        axes, starts, ends, steps = zip(*cuts)
        x = out.node("Slice", x, out.integers(*starts), out.integers(*ends), out.integers(*axes), out.integers(*steps))
    if any(part is None or isinstance(part, int) for part in index):
        x = out.node("Reshape", x, out.shape(ran.y.shape))
    return x if cuts or x != ran.names[0] else out.node("Identity", x)
