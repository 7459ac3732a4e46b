"""ReLU, the rectified linear unit.

    y = max(x, 0)
    dx = dy where x > 0, else 0

At x = 0 the derivative is taken as 0.  NaN stays NaN, in x and in dy.  Since y > 0 exactly where x > 0, backward
keeps y, which the next layer keeps anyway, and x can be freed.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1; Nair, Hinton 2010.
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
def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("relu", x=x)
    return apply(ReLU(), x)


class ReLU(Function):
    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (self.y > 0)

    # ---- fast, on the CPU: in memory that is used again

    def forward_cpu(self, x: Array) -> Array:
        self.y = x.clip(0, np.inf, out=empty_like(x))  # max(x, 0); measured faster than np.maximum with a number
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = empty_like(self.y)
        np.copyto(dx, self.y > 0)  # 1 where x > 0, else 0; measured faster than a product of floats and booleans
        np.multiply(dy, dx, out=dx)
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x = self.device.contiguous(x)
        self.y = y = self.device.empty_like(x)
        self.device.launch("relu", "relu_forward", gpu.pack_blocks(x), THREADS, x, y, x.size, REAL=x.dtype)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        grid = gpu.pack_blocks(dy)
        self.device.launch("relu", "relu_backward", grid, THREADS, dy, self.y, dx, dy.size, REAL=dy.dtype)
        return dx
