"""The larger and the smaller of two, clipping, and the absolute value, element by element.

    y = maximum(a, b)     da = dy where a > b, dy / 2 where a = b, else 0;     db likewise with a and b exchanged
    y = minimum(a, b)     the same with a < b
    y = clip(x)           = low where x < low, high where x > high, else x
                          dx = dy where low <= x <= high, else 0
    y = abs(x)            dx = dy sign(x)

At a tie of two both get half; at the ends of clip, dx is dy; the slope of abs at 0 is taken as 0.  All as in PyTorch.

NaN is larger and smaller than anything, as in NumPy: where a or b is NaN so is y, and both get dy (PyTorch's rule).
clip leaves NaN as it is, with the gradient 0.  The smallest integer of a type has no absolute value: it stays.

Source: NumPy's and PyTorch's functions of these names.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import gpu
from ..base.arguments import is_number
from ..device import Device
from ..engine import Array, Function
from ..errors import ArgumentError, DTypeError
from ..gpu import THREADS, Strided
from ..tensor import Tensor, TensorLike, apply, op
from ._checks import check_tensors
from ._mixing import fitted, operands


@op
def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """The larger of a and b with broadcasting; at least one is a tensor.  ShapeError where they do not broadcast."""
    return apply(Maximum(), *operands("maximum", a, b))


@op
def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """The smaller of a and b with broadcasting; at least one is a tensor.  ShapeError where they do not broadcast."""
    return apply(Minimum(), *operands("minimum", a, b))


@op
def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """x, but no less than `min` and no more than `max`: numbers, of which one may be left out.

    x: floating-point or integers (DTypeError for booleans).  ArgumentError where there is no bound, one is NaN, min is
    above max, or x is of integers and a bound is not.  Bounds that differ from element to element: maximum, minimum.
    """
    check_tensors("clip", x=x)
    if x.dtype.kind == "b":
        raise DTypeError("clip: is not defined for bool: convert with .astype first")
    if min is None and max is None:
        raise ArgumentError("clip: needs min, max or both: there is nothing to clip to")
    low, high = _bound("min", min, -math.inf, x.dtype), _bound("max", max, math.inf, x.dtype)
    if low > high:
        raise ArgumentError(f"clip: min must be at most max, got min={min}, max={max}: exchange them")
    return apply(Clip(low, high), x)


@op
def abs(x: Tensor) -> Tensor:
    """The absolute value; any shape and element type."""
    check_tensors("abs", x=x)
    return apply(Abs(), x)


class Maximum(Function):
    a: Array
    b: Array

    # ---- the textbook's face

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = (a, b) if any(self.needs) else (None, None)
        return np.maximum(a, b)

    def backward(self, dy: Array) -> Any:
        a, b, half, nothing = self.a, self.b, dy / 2, dy.dtype.type(0)
        da = fitted(np.where(a == b, half, np.where(a < b, nothing, dy)), self.inputs[0]) if self.needs[0] else None
        db = fitted(np.where(a == b, half, np.where(a > b, nothing, dy)), self.inputs[1]) if self.needs[1] else None
        return da, db

    # ---- on a card

    def forward_gpu(self, a: Array, b: Array) -> Array:
        self.a, self.b = (a, b) if any(self.needs) else (None, None)
        y = self.device.empty(np.broadcast_shapes(a.shape, b.shape), a.dtype)
        return _walk(self.device, f"{self.name}_forward", y, (a, b))

    def backward_gpu(self, dy: Array) -> Any:
        dy, gradients = self.device.contiguous(dy), []
        for needed, target, pair in zip(self.needs, self.inputs, ((self.a, self.b), (self.b, self.a))):
            part = None
            if needed:
                part = _walk(self.device, f"{self.name}_backward", self.device.empty_like(dy), pair, dy)
                part = fitted(part, target)
            gradients.append(part)
        return tuple(gradients)


class Minimum(Maximum):
    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = (a, b) if any(self.needs) else (None, None)
        return np.minimum(a, b)

    def backward(self, dy: Array) -> Any:
        a, b, half, nothing = self.a, self.b, dy / 2, dy.dtype.type(0)
        da = fitted(np.where(a == b, half, np.where(a > b, nothing, dy)), self.inputs[0]) if self.needs[0] else None
        db = fitted(np.where(a == b, half, np.where(a < b, nothing, dy)), self.inputs[1]) if self.needs[1] else None
        return da, db


class Clip(Function):
    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.clip(x, x.dtype.type(self.low), x.dtype.type(self.high))

    def backward(self, dy: Array) -> Array:
        low, high = dy.dtype.type(self.low), dy.dtype.type(self.high)
        return np.where((low <= self.x) & (self.x <= high), dy, dy.dtype.type(0))

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x = x
        return _walk(self.device, "clip_forward", self.device.empty_like(x), (x,), *(self.low, self.high))

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        return _walk(self.device, "clip_backward", self.device.empty_like(dy), (self.x,), dy, self.low, self.high)


class Abs(Function):
    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.abs(x)

    def backward(self, dy: Array) -> Array:
        return dy * np.sign(self.x)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x = x
        return _walk(self.device, "abs_forward", self.device.empty_like(x), (x,))

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        return _walk(self.device, "abs_backward", self.device.empty_like(dy), (self.x,), dy)


def _bound(name: str, value: Any, otherwise: float, dtype: np.dtype[Any]) -> float:
    """A bound as a number of x's type; for one that is left out, or beyond, the least or the largest that it has."""
    infinite = isinstance(value, (float, np.floating)) and math.isinf(value)
    if value is not None and not infinite and not is_number(value):
        raise ArgumentError(f"clip: {name} must be a number or None, got {value!r}: of tensors, use maximum, minimum")
    bound = otherwise if value is None else value
    if dtype.kind == "f":
        return float(bound)
    if math.isfinite(bound) and bound != int(bound):
        raise ArgumentError(f"clip: {name} must be an integer for x of {dtype}, got {value!r}: convert x with .astype")
    least, largest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return least if bound <= least else largest if bound >= largest else int(bound)


def _walk(device: Device, kernel: str, y: Array, operands: tuple[Array, ...], *more: Any) -> Array:
    """A kernel of extremes.cu; more: dy, which lies as y does, and numbers."""
    beside = tuple(array for array in more if device.owns(array))
    for walk in gpu.walks(y.shape, y, *operands, beside=beside):
        args = *map(Strided, walk.arrays), *more[len(beside) :], walk.layout, walk.n
        device.launch("extremes", kernel, walk.blocks, THREADS, *args, T=y.dtype)
    return y
