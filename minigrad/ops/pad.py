"""Pad with a constant.

    y = x inside, `value` around it
    dx = the inside of dy

Convolution and pooling pad by themselves; this op is for other borders and other values.

Source: NumPy, `numpy.pad` with mode "constant", for the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine import Array, Function
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, apply, op
from ._checks import check_tensors, integer, is_number


@op
def pad(x: Tensor, padding: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with `value` around it; padding says, for each axis, how much (before, after), as np.pad.

    pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))) pads height and width by 2 on each side.
    """
    check_tensors("pad", x=x)
    if not isinstance(padding, (tuple, list)) or any(
        not isinstance(part, (tuple, list)) or len(part) != 2 for part in padding
    ):
        raise ArgumentError(f"pad: padding must be ((before, after), ...), a pair per axis, got {padding!r}")
    if len(padding) != x.ndim:
        raise ShapeError(f"pad: x {x.shape} has {x.ndim} axes, padding names {len(padding)}: give a pair for each axis")
    pairs = [(integer("pad", "before", b, 0), integer("pad", "after", a, 0)) for b, a in padding]
    if not is_number(value) and not isinstance(value, (float, np.floating)):  # NaN and infinity will do
        raise ArgumentError(f"pad: value must be a number, got {value!r}")
    if x.dtype.kind != "f" and not _has(x.dtype, value):
        raise ArgumentError(f"pad: value must be an integer for a {x.dtype} tensor, within its range, got {value!r}")
    return apply(Pad(pairs, value), x)


class Pad(Function):
    def __init__(self, padding: list[tuple[int, int]], value: Any):
        self.padding, self.value = padding, value

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        y = np.full_like(x, self.value, shape=self._padded(x))  # memory in the order of x: channels-last stays so
        y[self.inside] = x
        return y

    def backward(self, dy: Array) -> Array:
        return dy[self.inside]

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        y = self.device.full(self._padded(x), self.value, x.dtype)
        self.device.assign(y[self.inside], x)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        return dy[self.inside]

    def _padded(self, x: Array) -> tuple[int, ...]:
        """The shape of y; notes where x is in it."""
        self.inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, self.padding))
        return tuple(before + n + after for n, (before, after) in zip(x.shape, self.padding))


def _has(dtype: np.dtype[Any], value: Any) -> bool:
    """Whether the number is a value of this type, of integers or booleans."""
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return lowest <= value <= highest and value == int(value)  # not so for NaN
