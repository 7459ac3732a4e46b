"""The logistic sigmoid.

    y = 1 / (1 + e^-x)
    dx = dy y (1 - y)

e^-x overflows for large negative x, so both signs are computed from e = exp(-|x|), which never exceeds 1:

    y = 1 / (1 + e) for x >= 0,    e / (1 + e) for x < 0

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1: one of the two standard choices before ReLU.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..tensor import Tensor, apply, op
from ._checks import check_floating


class Sigmoid(Function):
    def forward_cpu(self, x: Array) -> Array:
        one = x.dtype.type(1)
        e = np.exp(-np.abs(x))
        self.y = np.where(x >= 0, one, e) / (one + e)
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
