"""Conversion to another element type.

    y = x, rounded to the new type
    dx = dy, rounded to the old type

Between float32 and float64 the gradient passes through, converted back; integers and booleans have no
gradient. Numbers that the new type does not have become, on every device,

    to float32              the nearest that it has; infinity beyond the largest
    to bool                 x != 0: NaN is True
    integers to integers    x modulo 2^bits: the last bits of x
    floats to integers      the same of x without its fraction; of NaN and infinities, 0

so that -1.0 is 255 as a uint8, and 300.7 is 44. minigrad/base/casting.py tells why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.casting import cast
from ..engine import Array, Function
from ..errors import DTypeError
from ..tensor import DTYPES, Tensor, apply, op
from ._checks import check_tensors


@op
def astype(x: Tensor, dtype: Any) -> Tensor:
    """x converted to `dtype`: float32, float64, an integer type or bool (DTypeError for any other).

    Numbers out of range: floats become infinite; integers wrap around (300 is 44 as a uint8), and so do floats without
    their fraction where they become integers; NaN and infinities become 0 there, on the CPU with NumPy's warning.
    The memory order is kept on the CPU.  x itself when it is of that type already.
    """
    check_tensors("astype", x=x)
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in DTYPES:
        raise DTypeError(f"astype: dtype must be float32, float64, an integer type or bool, got {dtype!r}")
    if x.dtype == wanted:
        return x
    return apply(AsType(wanted), x if wanted.kind == "f" else x.detach())


class AsType(Function):
    def __init__(self, dtype: np.dtype[Any]):
        self.to = dtype

    def forward(self, x: Array) -> Array:
        self.back = x.dtype
        return cast(x, self.to)

    def backward(self, dy: Array) -> Array:
        return cast(dy, self.back)

    def forward_gpu(self, x: Array) -> Array:
        self.back = x.dtype
        return self.device.converted(x, self.to)

    def backward_gpu(self, dy: Array) -> Array:
        return self.device.converted(dy, self.back)
