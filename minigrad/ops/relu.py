"""ReLU, the rectified linear unit.

    y = max(x, 0)
    dx = dy where x > 0, else 0

At x = 0 the derivative is taken as 0.  NaN stays NaN.  Since y > 0 exactly where x > 0, backward keeps y, which the
next layer keeps anyway, and x can be freed.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.1; Nair, Hinton 2010.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..tensor import Tensor, apply, op
from ._checks import check_floating


class ReLU(Function):
    def forward_cpu(self, x: Array) -> Array:
        self.y = np.maximum(x, x.dtype.type(0))
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        return dy * (self.y > 0)


@op
def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("relu", x=x)
    return apply(ReLU(), x)
