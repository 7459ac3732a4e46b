"""Hyperbolic tangent, the "saturating" nonlinearity that ReLU replaced.

    y = tanh(x) = (e^x - e^-x) / (e^x + e^-x)
    dx = dy (1 - y^2)

For |x| beyond about 10 (float32) y rounds to +-1 and the gradient to 0: the neuron is saturated.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1 and figure 1 (tanh against ReLU).
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
def tanh(x: Tensor) -> Tensor:
    """tanh(x), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("tanh", x=x)
    return apply(Tanh(), x)


class Tanh(Function):
    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (1 - self.y**2)

    # ---- fast, on the CPU: the same, in memory that is used again

    def forward_cpu(self, x: Array) -> Array:
        self.y = np.tanh(x, out=empty_like(x))
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = np.multiply(self.y, self.y, out=empty_like(self.y))
        np.subtract(1, dx, out=dx)
        dx *= dy
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x = self.device.contiguous(x)
        self.y = y = self.device.empty_like(x)
        self.device.launch("tanh", "tanh_forward", gpu.pack_blocks(x), THREADS, x, y, x.size, REAL=x.dtype)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        grid = gpu.pack_blocks(dy)
        self.device.launch("tanh", "tanh_backward", grid, THREADS, dy, self.y, dx, dy.size, REAL=dy.dtype)
        return dx
