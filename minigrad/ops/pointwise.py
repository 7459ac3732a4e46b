"""Exponential, logarithm and square root, element by element.

    y = exp(x)     dx = dy y
    y = log(x)     dx = dy / x
    y = sqrt(x)    dx = dy / (2 y)

Outside their range they give what NumPy gives, with its warning: log(0) = -inf, log(-1) = sqrt(-1) = NaN;
the slope of sqrt at 0 is infinite. exp and sqrt keep their result for backward, log its argument.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating


class Exp(Function):
    def forward_cpu(self, x: Array) -> Array:
        self.y = np.exp(x, out=empty_like(x))
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        return np.multiply(dy, self.y, out=empty_like(self.y))


class Log(Function):
    def forward_cpu(self, x: Array) -> Array:
        self.x = x
        return np.log(x, out=empty_like(x))

    def backward_cpu(self, dy: Array) -> Array:
        return np.divide(dy, self.x, out=empty_like(self.x))


class Sqrt(Function):
    def forward_cpu(self, x: Array) -> Array:
        self.y = np.sqrt(x, out=empty_like(x))
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = np.add(self.y, self.y, out=empty_like(self.y))
        return np.divide(dy, dx, out=dx)


@op
def exp(x: Tensor) -> Tensor:
    """e to the power x; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("exp", x=x)
    return apply(Exp(), x)


@op
def log(x: Tensor) -> Tensor:
    """The natural logarithm; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("log", x=x)
    return apply(Log(), x)


@op
def sqrt(x: Tensor) -> Tensor:
    """The square root; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("sqrt", x=x)
    return apply(Sqrt(), x)
