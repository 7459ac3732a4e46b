"""What the ops of two operands share: element types that mix, and shapes that broadcast.

The rules for element types:

- numbers (Python's and NumPy's scalars) are weak: they take the type of the tensor they meet, except that
  a float makes integers float32 and an integer makes booleans int64;
- an integer or boolean tensor takes the type of the floating-point tensor it meets;
- float32 with float64 becomes float64, by an `astype` op that returns the gradient in float32;
- integers among themselves follow NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.foreign import type_name
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import OPS, Tensor, wrap
from ._reduction import added_up, summed, total

_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


def operands(op: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """a and b as tensors of one element type with shapes that broadcast; one is a tensor."""
    if type(a) is type(b) is Tensor and a.data.dtype == b.data.dtype and a.data.shape == b.data.shape:
        return a, b  # nothing to mix: by far the most frequent
    if not isinstance(b, Tensor):
        if not isinstance(a, Tensor):
            raise DTypeError(
                f"{op}: one of a, b must be a Tensor, got {a!r:.40}, {b!r:.40}: wrap it in minigrad.Tensor"
            )
        b = constant(op, b, a)
    elif not isinstance(a, Tensor):
        a = constant(op, a, b)
    x, y = a.data, b.data
    if x.dtype != y.dtype:
        dtype = mixed_dtype(x.dtype, y.dtype)
        a, b = OPS["astype"](a, dtype), OPS["astype"](b, dtype)
    check_broadcast(op, x.shape, y.shape)
    return a, b


def mixed_dtype(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)


def constant(op: str, value: Any, other: Tensor) -> Tensor:
    """`value` as a tensor on the device of `other`; a number takes the dtype of `other` (see above)."""
    dtype, where = other.data.dtype, other.device
    if type(value) is float and dtype.kind == "f" and where.on_host:  # by far the most frequent: no questions
        return wrap(np.asarray(value, dtype), where)
    if isinstance(value, np.ndarray):
        return Tensor(value, device=where)
    if isinstance(value, (list, tuple)):  # of Python numbers, as weak as one
        return Tensor(list(value), device=where, dtype=dtype if dtype.kind == "f" else None)
    if not isinstance(value, (int, float, np.number, np.bool_)):
        raise DTypeError(
            f"{op}: operands must be tensors, arrays or numbers, got {type_name(value)}: wrap it in minigrad.Tensor"
        )
    if isinstance(value, (complex, np.complexfloating)):
        raise DTypeError(f"{op}: operands must be real, got {value!r}: take its .real or abs()")
    if isinstance(value, (float, np.floating)) and dtype.kind != "f":
        dtype = _FLOAT32
    elif dtype.kind == "b" and not isinstance(value, (bool, np.bool_)):
        dtype = _INT64
    try:
        # As a Python number: one of NumPy's would wrap around.
        number = np.asarray(value.item() if isinstance(value, np.generic) else value, dtype)
        return wrap(number if where.on_host else where.from_host(number), where)
    except OverflowError:
        raise ArgumentError(f"{op}: {value} is out of range for {dtype}: convert the tensor first") from None


def check_broadcast(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """The two shapes broadcast: counted from the last axis, sizes are equal or one of them is 1."""
    for m, n in zip(reversed(a), reversed(b)):
        if m != n and m != 1 and n != 1:
            raise ShapeError(
                f"{op}: shapes {a} and {b} do not broadcast: from the last axis, sizes must be equal or 1, "
                f"here {m} meets {n}: reshape one, or give it an axis of 1 with x[:, None]"
            )


def fitted(grad: Array, operand: Any) -> Array:
    """The gradient of an operand: an element that was repeated to fit gets the sum over its copies.

    grad: that of the operand as it was after it had been repeated.  operand: where its gradient goes, as the engine
    has it in `node.inputs`; where that is None, nobody asks for a gradient, and there is none.
    """
    if operand is None:
        return None
    return grad if grad.shape == operand.shape else _copies_added(operand.device, grad, operand.shape)


def _copies_added(where: Device, grad: Array, shape: tuple[int, ...]) -> Array:
    if where.plain:
        return total(grad, _repeated(grad, shape)).reshape(shape)
    return unbroadcast(grad, shape) if where.on_host else unbroadcast_gpu(where, grad, shape)


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an operand of that shape: an element used several times gets the sum over its uses."""
    return grad if grad.shape == shape else added_up(grad, _repeated(grad, shape)).reshape(shape)


def unbroadcast_gpu(device: Device, grad: Array, shape: tuple[int, ...]) -> Array:
    """`unbroadcast` for an array on a graphics card."""
    return grad if grad.shape == shape else summed(device, grad, _repeated(grad, shape)).reshape(shape)


def _repeated(grad: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of `grad` along which an operand of that shape was repeated."""
    extra = grad.ndim - len(shape)
    return tuple(i for i, n in enumerate(grad.shape) if i < extra or (n != 1 and shape[i - extra] == 1))
