"""The logistic sigmoid.

    y = 1 / (1 + e^-x)
    dx = dy y (1 - y)

e^-x overflows for large negative x.  Multiplied above and below by e^x where x < 0, no exponent is positive:

    y = e^min(x, 0) / (1 + e^-|x|)

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1: one of the two standard choices before ReLU.
"""

from __future__ import annotations

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..gpu import THREADS
from ..processor.memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating


@op
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("sigmoid", x=x)
    return apply(Sigmoid(), x)


class Sigmoid(Function):
    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.y = np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * self.y * (1 - self.y)

    # ---- fast, on the CPU: the same, in memory that is used again

    def forward_cpu(self, x: Array) -> Array:
        above = x.clip(-np.inf, 0, out=empty_like(x))  # min(x, 0)
        np.exp(above, out=above)
        below = np.abs(x, out=empty_like(x))
        np.exp(np.negative(below, out=below), out=below)
        below += 1
        self.y = np.divide(above, below, out=above)
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = np.subtract(1, self.y, out=empty_like(self.y))
        dx *= self.y
        dx *= dy
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x = self.device.contiguous(x)
        self.y = y = self.device.empty_like(x)
        self.device.launch("sigmoid", "sigmoid_forward", gpu.pack_blocks(x), THREADS, x, y, x.size, REAL=x.dtype)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        grid = gpu.pack_blocks(dy)
        self.device.launch("sigmoid", "sigmoid_backward", grid, THREADS, dy, self.y, dx, dy.size, REAL=dy.dtype)
        return dx
