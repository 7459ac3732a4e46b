"""Arithmetic, element by element: add, subtract, multiply, divide, power, negative.

    y = a + b     da = dy                  db = dy
    y = a - b     da = dy                  db = -dy
    y = a * b     da = dy b                db = dy a
    y = a / b     da = dy / b              db = -dy y / b
    y = a ^ b     da = dy b a^(b-1)        db = dy y ln(a)
    y = -a        da = -dy

Shapes broadcast as NumPy's do: an operand that was repeated to fit gets the sum of the gradients of its
copies.  How element types mix is told in _mixing.py.  Each op keeps only what a wanted gradient needs: x * 2
keeps nothing of x.

Powers at the edge: x ^ 0 is 1 everywhere, so its derivative is 0, also at x = 0 where the formula says
0 * infinity; 0 ^ b is 0 for every b > 0, so the derivative in b is 0 there, where the formula says 0 * -infinity.

Source: NumPy user guide, "Broadcasting"; the power rule and d(a^b)/db = a^b ln(a) from any calculus book.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array, Function
from ..errors import ArgumentError, DTypeError
from ..gpu import THREADS, Strided
from ..tensor import OPS, Tensor, TensorLike, apply, op
from ._checks import check_tensors
from ._mixing import fitted, operands


@op
def add(a: TensorLike, b: TensorLike) -> Tensor:
    """a + b with broadcasting; at least one is a tensor.  ShapeError where the shapes do not broadcast."""
    return apply(Add(), *operands("add", a, b))


@op
def subtract(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b with broadcasting; at least one is a tensor.  DTypeError for two booleans, as in NumPy."""
    x, y = operands("subtract", a, b)
    _refuse_bool("subtract", x)
    return apply(Subtract(), x, y)


@op
def multiply(a: TensorLike, b: TensorLike) -> Tensor:
    """a * b with broadcasting; at least one is a tensor.  ShapeError where the shapes do not broadcast."""
    return apply(Multiply(), *operands("multiply", a, b))


@op
def divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b with broadcasting; at least one is a tensor.  Integers divided by integers give float32.

    Division by zero gives inf or NaN, with NumPy's warning.
    """
    x, y = operands("divide", a, b)
    if x.dtype.kind != "f":
        x, y = OPS["astype"](x, np.float32), OPS["astype"](y, np.float32)
    return apply(Divide(), x, y)


@op
def power(a: TensorLike, b: TensorLike) -> Tensor:
    """a to the power b with broadcasting; either or both are tensors, and both get their gradient.

    A negative base with a fractional exponent gives NaN.  ArgumentError for integers to a negative power.
    """
    base, exponent = operands("power", a, b)
    _refuse_bool("power", base)
    if exponent.dtype.kind == "i" and (exponent.numpy() < 0).any():
        raise ArgumentError("power: integers to a negative power are no integers: convert with .astype first")
    return apply(Power(), base, exponent)


@op
def negative(a: Tensor) -> Tensor:
    """-a.  DTypeError for booleans."""
    check_tensors("negative", a=a)
    _refuse_bool("negative", a)
    return apply(Negative(), a)


def _refuse_bool(op: str, a: Tensor) -> None:
    if a.data.dtype.kind == "b":
        raise DTypeError(f"{op}: is not defined for bool: convert with .astype first")


class Add(Function):
    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Array) -> Any:
        return fitted(dy, self.inputs[0]), fitted(dy, self.inputs[1])

    def forward_gpu(self, a: Array, b: Array) -> Array:
        return _computed(self.device, "add", a, b)

    backward_gpu = backward


class Subtract(Function):
    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Array) -> Any:
        da = fitted(dy, self.inputs[0])
        db = -fitted(dy, self.inputs[1]) if self.needs[1] else None
        return da, db

    def forward_gpu(self, a: Array, b: Array) -> Array:
        return _computed(self.device, "subtract", a, b)

    def backward_gpu(self, dy: Array) -> Any:
        da = fitted(dy, self.inputs[0])
        db = _negated(self.device, fitted(dy, self.inputs[1])) if self.needs[1] else None
        return da, db


class Multiply(Function):
    a: Array
    b: Array

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = (a if self.needs[1] else None), (b if self.needs[0] else None)
        return a * b

    def backward(self, dy: Array) -> Any:
        da = fitted(dy * self.b, self.inputs[0]) if self.needs[0] else None
        db = fitted(dy * self.a, self.inputs[1]) if self.needs[1] else None
        return da, db

    def backward_cpu(self, dy: Array) -> Any:
        if dy.ndim:
            return self.backward(dy)
        dy, (needs_a, needs_b) = dy[()], self.needs  # as numbers, which NumPy multiplies in a ninth of the time
        da = np.asarray(dy * self.b[()]) if needs_a else None
        db = np.asarray(dy * self.a[()]) if needs_b else None
        return da, db

    def forward_gpu(self, a: Array, b: Array) -> Array:
        self.a, self.b = (a if self.needs[1] else None), (b if self.needs[0] else None)
        return _computed(self.device, "multiply", a, b)

    def backward_gpu(self, dy: Array) -> Any:
        da = db = None
        if self.needs[0]:
            da = fitted(_computed(self.device, "multiply", dy, self.b), self.inputs[0])
        if self.needs[1]:
            db = fitted(_computed(self.device, "multiply", dy, self.a), self.inputs[1])
        return da, db


class Divide(Function):
    def forward(self, a: Array, b: Array) -> Array:
        y = a / b
        self.b, self.y = (b if any(self.needs) else None), (y if self.needs[1] else None)
        return y

    def backward(self, dy: Array) -> Any:
        over_b = dy / self.b
        da = fitted(over_b, self.inputs[0])
        db = -fitted(over_b * self.y, self.inputs[1]) if self.needs[1] else None
        return da, db

    def forward_gpu(self, a: Array, b: Array) -> Array:
        y = _computed(self.device, "divide", a, b)
        self.b, self.y = (b if any(self.needs) else None), (y if self.needs[1] else None)
        return y

    def backward_gpu(self, dy: Array) -> Any:
        da = db = None
        if self.needs[0]:
            da = fitted(_computed(self.device, "divide", dy, self.b), self.inputs[0])
        if self.needs[1]:
            db = fitted(_gradient(self.device, "divide_backward_b", dy, (self.y,), (self.b,)), self.inputs[1])
        return da, db


class Power(Function):
    a: Array
    b: Array

    def forward(self, a: Array, b: Array) -> Array:
        y = _power(a, b)
        self.a, self.b = (a, b) if any(self.needs) else (None, None)
        self.y = y if self.needs[1] else None
        return y

    def backward(self, dy: Array) -> Any:
        a, b = self.a, self.b
        da = db = None
        if self.needs[0]:
            one_less: Array = np.where(b == 0, b, b - b.dtype.type(1))  # where b is 0, b a^0 is 0 for any a
            da = fitted(dy * (b * _power(a, one_less)), self.inputs[0])
        if self.needs[1]:
            y_is_0 = (a == 0) & (b >= 0)
            log_a = np.log(np.where(y_is_0, a.dtype.type(1), a))  # 0 there, without taking the logarithm of 0
            db = fitted(dy * (self.y * log_a), self.inputs[1])
        return da, db

    def forward_gpu(self, a: Array, b: Array) -> Array:
        y = _computed(self.device, "power", a, b)
        self.a, self.b = (a, b) if any(self.needs) else (None, None)
        self.y = y if self.needs[1] else None
        return y

    def backward_gpu(self, dy: Array) -> Any:
        a, b = self.a, self.b
        da = db = None
        if self.needs[0]:
            da = fitted(_gradient(self.device, "power_backward_a", dy, (), (a, b)), self.inputs[0])
        if self.needs[1]:
            db = fitted(_gradient(self.device, "power_backward_b", dy, (self.y,), (a, b)), self.inputs[1])
        return da, db


def _power(a: Array, b: Array) -> Array:
    # One exponent for many elements, as a Python number: NumPy has short cuts then, a square root for 0.5.
    return a ** (b.item() if a.ndim and not b.ndim else b)


class Negative(Function):
    def forward(self, a: Array) -> Array:
        return -a

    def backward(self, dy: Array) -> Array:
        return -dy

    def forward_gpu(self, a: Array) -> Array:
        return _negated(self.device, a)

    def backward_gpu(self, dy: Array) -> Array:
        return _negated(self.device, dy)


# ---------------------------------------------------------------- on a graphics card


def _computed(device: Device, operation: str, a: Array, b: Array) -> Array:
    """a `operation` b, two arrays of one element type."""
    y = device.empty(np.broadcast_shapes(a.shape, b.shape), a.dtype)
    return device.arithmetic(operation, a, b, y)


def _negated(device: Device, a: Array) -> Array:
    y = device.empty_like(a)
    for walk in gpu.walks(a.shape, y, a):
        args = *map(Strided, walk.arrays), walk.layout, walk.n
        device.launch("arithmetic", "negative", walk.blocks, THREADS, *args, T=a.dtype)
    return y


def _gradient(
    device: Device,
    kernel: str,
    dy: Array,
    same: tuple[Array, ...],
    operands: tuple[Array, ...],
) -> Array:
    """The gradient of an operand element by element of the output, in the shape of dy.

    same: further arrays of the shape of dy; operands: those that broadcast to it.
    """
    dy = device.contiguous(dy)
    gradient = device.empty_like(dy)
    for walk in gpu.walks(dy.shape, gradient, *operands, beside=(dy, *same)):
        to, *others = map(Strided, walk.arrays)
        args = to, *others[len(operands) :], *others[: len(operands)], walk.layout, walk.n
        device.launch("arithmetic_backward", kernel, walk.blocks, THREADS, *args, REAL=dy.dtype)
    return gradient
