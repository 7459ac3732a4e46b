"""The logistic sigmoid.

    y = 1 / (1 + e^-x)
    dx = dy y (1 - y)

e^-x overflows for large negative x.  Multiplied above and below by e^x where x < 0, no exponent is positive:

    y = e^min(x, 0) / (1 + e^-|x|)

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1: one of the two standard choices before ReLU.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..tensor import Tensor, apply, op
from ._checks import check_floating


class Sigmoid(Function):
    def forward_cpu(self, x: Array) -> Array:
        zero, one = x.dtype.type(0), x.dtype.type(1)
        self.y = np.exp(np.minimum(x, zero)) / (one + np.exp(-np.abs(x)))
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = self.y * (self.y.dtype.type(1) - self.y)
        dx *= dy
        return dx


@op
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("sigmoid", x=x)
    return apply(Sigmoid(), x)
