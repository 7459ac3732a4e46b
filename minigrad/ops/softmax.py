"""Softmax and its logarithm.

    s = x - max(x)                       max and sums run along `axis`
    softmax:      y = exp(s) / sum(exp(s))          dx = y * (dy - sum(dy * y))
    log_softmax:  y = s - log(sum(exp(s)))          dx = dy - exp(y) * sum(dy)

With respect to s, y_i = exp(s_i) / sum(exp(s)) has the derivatives dy_i/ds_j = y_i * ([i = j] - y_j), where [i = j] is
1 if i is j and else 0: summed over i with the weights dy_i, they are dx_j.  Those of log(y_i) are [i = j] - y_j.  The
maximum cancels out of both.

Subtracting it changes nothing in exact arithmetic and keeps exp within range: logits of 10,000 are fine.  A row that
holds +inf or NaN, or nothing but -inf, has no maximum to subtract and becomes NaN.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5 (the 1000-way softmax); Bridle 1990.
"""

from __future__ import annotations

import math

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array, Function
from ..gpu import THREADS
from ..gpu.sources import constants
from ..tensor import Tensor, apply, op
from ._checks import check_floating, normalized_axis
from ._reduction import added_up


@op
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along axis: positive numbers that add up to 1.

    x: any shape with that axis (ShapeError otherwise), float32 or float64 (DTypeError otherwise); same shape
    out. Rows with +inf or NaN, and rows of nothing but -inf, become NaN, as in PyTorch.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5.
    """
    check_floating("softmax", x=x)
    return apply(Softmax(normalized_axis("softmax", axis, x.ndim)), x)


@op
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log(softmax(x)) along axis, without the overflow and the loss of digits of taking the two in turn.

    x: any shape with that axis (ShapeError otherwise), float32 or float64 (DTypeError otherwise); same shape out.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5.
    """
    check_floating("log_softmax", x=x)
    return apply(LogSoftmax(normalized_axis("log_softmax", axis, x.ndim)), x)


class Softmax(Function):
    def __init__(self, axis: int):
        self.axis = axis

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        powers = np.exp(_shifted(x, self.axis))
        self.y = powers / added_up(powers, (self.axis,), keepdims=True)
        return self.y

    def backward(self, dy: Array) -> Array:
        return self.y * (dy - added_up(dy * self.y, (self.axis,), keepdims=True))

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x = self.device.contiguous(x)
        self.y = y = self.device.empty_like(x)
        _launch(self.device, "softmax_forward", self.axis, x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        _launch(self.device, "softmax_backward", self.axis, dy, self.y, dx)
        return dx


class LogSoftmax(Function, name="log_softmax"):
    def __init__(self, axis: int):
        self.axis = axis

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        s = _shifted(x, self.axis)
        with np.errstate(divide="ignore"):  # the sum over an empty axis is 0, and nothing is subtracted from
            self.y = s - np.log(added_up(np.exp(s), (self.axis,), keepdims=True))
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy - np.exp(self.y) * added_up(dy, (self.axis,), keepdims=True)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        x = self.device.contiguous(x)
        self.y = y = self.device.empty_like(x)
        _launch(self.device, "log_softmax_forward", self.axis, x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        _launch(self.device, "log_softmax_backward", self.axis, dy, self.y, dx)
        return dx


def _shifted(x: Array, axis: int) -> Array:
    """s = x - max(x) along axis."""
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and meant to be
        return x - x.max(axis=axis, keepdims=True, initial=-np.inf)


def _launch(device: Device, kernel: str, axis: int, *arrays: Array) -> None:
    """A kernel of softmax.cu on contiguous arrays of one shape: (outer, length, inner), `axis` in the middle."""
    x = arrays[0]
    length, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    if x.size == 0:
        return
    lines = x.size // length
    if inner == 1:  # a block for each line, no larger than the line
        (warp,) = constants("softmax", "WARP")
        grid, block = min(lines, gpu.MOST_BLOCKS), min(THREADS, warp * gpu.blocks(length, warp))
    else:  # a thread for each line
        grid, block = gpu.blocks(lines), THREADS
    device.launch("softmax", kernel, grid, block, *arrays, lines, length, inner, REAL=x.dtype)
