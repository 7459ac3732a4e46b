"""Operators that move elements, and those that compute shapes and indices: on tensors, and on arrays of integers.

See operators.py for what a handler is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor
from .operators import Call, Value, host, on_host, operator


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} is out of range for {ndim} axes")
    return axis % ndim


# ---------------------------------------------------------------- shapes


@operator("Shape", "end start")
def shape(call: Call, x: Value) -> np.ndarray:
    return np.array(x.shape[call.get("start", 0) : call.get("end")], np.int64)


@operator("Size")
def size(call: Call, x: Value) -> np.ndarray:
    return np.array(x.size, np.int64)


@operator("Reshape", "allowzero shape")
def reshape(call: Call, x: Value, to: Value = None) -> Value:
    """0 stands for the size that x has there, unless allowzero is set; -1 for what remains."""
    sizes = [int(n) for n in call.setting("shape", to)]
    if not call.get("allowzero", 0):
        sizes = [x.shape[i] if n == 0 and i < x.ndim else n for i, n in enumerate(sizes)]
    return x.reshape(tuple(sizes))


@operator("Flatten", "axis")
def flatten(call: Call, x: Value) -> Value:
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", "axes")
def squeeze(call: Call, x: Value, axes: Value = None) -> Value:
    given = call.setting("axes", axes)
    chosen = [i for i, n in enumerate(x.shape) if n == 1] if given is None else [_axis(i, x.ndim) for i in given]
    if any(x.shape[i] != 1 for i in chosen):
        raise ShapeError(f"axes {chosen} of x {x.shape} must have size 1")
    return x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in chosen))


@operator("Unsqueeze", "axes")
def unsqueeze(call: Call, x: Value, axes: Value = None) -> Value:
    given = call.setting("axes", axes)
    ndim = x.ndim + len(given)
    new = {_axis(i, ndim) for i in given}
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if i in new else next(sizes) for i in range(ndim)))


@operator("Transpose", "perm")
def transpose(call: Call, x: Value) -> Value:
    return x.transpose(tuple(call.get("perm", reversed(range(x.ndim)))))


@operator("Expand")
def expand(call: Call, x: Value, to: Value) -> Value:
    target = np.broadcast_shapes(x.shape, tuple(host(to).tolist()))
    if on_host(x):
        return np.broadcast_to(x, target)
    return x * Tensor(np.ones(target), device=x.device, dtype=x.dtype)


@operator("ConstantOfShape", "value")
def constant_of_shape(call: Call, to: Value) -> np.ndarray:
    value = call.get("value", np.zeros(1, np.float32))
    return np.full(host(to).tolist(), value.reshape(-1)[0], value.dtype)


# ---------------------------------------------------------------- elements


@operator("Concat", "axis")
def concat(call: Call, *values: Value) -> Value:
    axis = call.get("axis", 1)
    if on_host(*values):
        return np.concatenate(values, axis)
    return F.concat([call.tensor(value) for value in values], axis)


@operator("Split", "axis num_outputs split")
def split(call: Call, x: Value, sizes: Value = None) -> tuple[Any, ...]:
    """As many pieces as outputs, nearly equal, or of the sizes given."""
    axis, count = _axis(call.get("axis", 0), x.ndim), len(call.node.outputs)
    pieces = call.setting("split", sizes)
    if pieces is None:
        each = -(-x.shape[axis] // count)
        pieces = [max(0, min(each, x.shape[axis] - i * each)) for i in range(count)]
    if sum(pieces) != x.shape[axis] or len(pieces) != count:
        raise ShapeError(
            f"split={pieces} must be {count} sizes that add up to {x.shape[axis]}, axis {axis} of {x.shape}"
        )
    cuts = np.cumsum(pieces[:-1]).tolist()
    return tuple(np.split(x, cuts, axis) if on_host(x) else F.split(x, cuts, axis))


@operator("Slice", "axes ends starts")
def slice_(
    call: Call, x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
) -> Value:
    first, last = call.setting("starts", starts), call.setting("ends", ends)
    along = call.setting("axes", axes, list(range(len(first))))
    jumps = call.setting("steps", steps, [1] * len(first))
    index = [slice(None)] * x.ndim
    for axis, i, j, step in zip(along, first, last, jumps):
        index[_axis(axis, x.ndim)] = slice(i, j, step)  # Python's, with bounds beyond the ends cut off likewise
    return x[tuple(index)]


@operator("Gather", "axis")
def gather(call: Call, x: Value, indices: Value) -> Value:
    axis, places = _axis(call.get("axis", 0), x.ndim), host(indices)
    index = (*(slice(None),) * axis, int(places) if places.ndim == 0 else places)
    return x[index]


@operator("Pad", "mode paddings pads value")
def pad(call: Call, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> Value:
    """Sizes for the beginnings of all axes, or of those given, and then for their ends; negative ones cut off."""
    amounts = call.setting("pads" if call.opset > 1 else "paddings", pads)
    number = call.setting("value", None if value is None else host(value).reshape(()), 0.0)
    chosen = list(range(x.ndim)) if axes is None else [_axis(i, x.ndim) for i in host(axes).tolist()]
    pairs = [(0, 0)] * x.ndim
    for axis, before, after in zip(chosen, amounts, amounts[len(chosen) :]):
        pairs[axis] = (before, after)
    x = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs))]
    wider, mode = [(max(a, 0), max(b, 0)) for a, b in pairs], call.get("mode", "constant")
    if mode == "constant":
        return np.pad(x, wider, constant_values=number) if on_host(x) else F.pad(x, wider, number)
    for axis, pair in enumerate(wider):  # the rows of x that stand there
        if any(pair):
            index = (*(slice(None),) * axis, np.pad(np.arange(x.shape[axis]), pair, mode=mode))
            x = x[index]
    return x


# ---------------------------------------------------------------- element types

_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 11: "float64",
    12: "uint32", 13: "uint64",
}  # fmt: skip
_NAMES = {"FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BOOL": 9, "DOUBLE": 11,
          "UINT32": 12, "UINT64": 13}  # fmt: skip


def _type(to: Any) -> str | None:
    return _TYPES.get(_NAMES.get(to, 0) if isinstance(to, str) else to)


@operator("Cast", "to", lambda node: "" if _type(node.attributes["to"]) else f"with to={node.attributes['to']}")
def cast(call: Call, x: Value) -> Value:
    """To a floating-point type: a tensor; to another: an array of the host."""
    kind = np.dtype(_type(call.get("to")))
    if kind.kind == "f":
        return call.tensor(x).astype(kind)
    values = host(x)
    if values.dtype.kind == "f" and kind.kind != "b" and not np.isfinite(values).all():
        raise ArgumentError(f"nan or inf has no value as {kind}")
    return values.astype(kind)
