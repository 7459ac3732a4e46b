"""ReLU, the rectified linear unit.

    y = max(x, 0)
    dx = dy where x > 0, else 0

At x = 0 the derivative is taken as 0.  NaN stays NaN, in x and in dy.  Since y > 0 exactly where x > 0, backward
keeps y, which the next layer keeps anyway, and x can be freed.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1; Nair, Hinton 2010.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating


class ReLU(Function):
    def forward_cpu(self, x: Array) -> Array:
        self.y = x.clip(0, np.inf, out=empty_like(x))  # max(x, 0); measured faster than np.maximum with a number
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = empty_like(self.y)
        np.copyto(dx, self.y > 0)  # 1 where x > 0, else 0; measured faster than a product of floats and booleans
        np.multiply(dy, dx, out=dx)
        return dx


@op
def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("relu", x=x)
    return apply(ReLU(), x)
