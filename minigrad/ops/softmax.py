"""Softmax and its logarithm.

    s = x - max(x)                       max and sums run along `axis`
    softmax:      y = exp(s) / sum(exp(s))          dx = y * (dy - sum(dy * y))
    log_softmax:  y = s - log(sum(exp(s)))          dx = dy - exp(y) * sum(dy)

Subtracting the maximum changes nothing in exact arithmetic and keeps exp within range: logits of 10,000 are
fine. A row that holds +inf or NaN, or nothing but -inf, has no maximum to subtract and becomes NaN.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5 (the 1000-way softmax); Bridle 1990.
"""

from __future__ import annotations

import math

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array, Function
from ..gpu import THREADS
from ..kernel import constants
from ..memory import empty_like
from ..tensor import Tensor, apply, op
from ._checks import check_floating, normalized_axis
from ._reduction import added_up


class Softmax(Function):
    def __init__(self, axis: int):
        self.axis = axis

    def forward_cpu(self, x: Array) -> Array:
        self.y = _shifted(x, self.axis)
        np.exp(self.y, out=self.y)
        self.y /= added_up(self.y, (self.axis,), keepdims=True)
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = np.multiply(dy, self.y, out=empty_like(self.y))
        np.subtract(dy, added_up(dx, (self.axis,), keepdims=True), out=dx)
        dx *= self.y
        return dx

    def forward_gpu(self, x: Array) -> Array:
        x = gpu.contiguous(self.device, x)
        self.y = y = gpu.empty_like(self.device, x)
        _launch(self.device, "softmax_forward", self.axis, x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = gpu.contiguous(self.device, dy)
        dx = gpu.empty_like(self.device, dy)
        _launch(self.device, "softmax_backward", self.axis, dy, self.y, dx)
        return dx


class LogSoftmax(Function, name="log_softmax"):
    def __init__(self, axis: int):
        self.axis = axis

    def forward_cpu(self, x: Array) -> Array:
        self.y = _shifted(x, self.axis)
        with np.errstate(divide="ignore"):  # the sum over an empty axis is 0, and nothing is subtracted from
            total = added_up(np.exp(self.y, out=empty_like(x)), (self.axis,), keepdims=True)
            self.y -= np.log(total, out=total)
        return self.y

    def backward_cpu(self, dy: Array) -> Array:
        dx = np.exp(self.y, out=empty_like(self.y))
        dx *= added_up(dy, (self.axis,), keepdims=True)
        return np.subtract(dy, dx, out=dx)

    def forward_gpu(self, x: Array) -> Array:
        x = gpu.contiguous(self.device, x)
        self.y = y = gpu.empty_like(self.device, x)
        _launch(self.device, "log_softmax_forward", self.axis, x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = gpu.contiguous(self.device, dy)
        dx = gpu.empty_like(self.device, dy)
        _launch(self.device, "log_softmax_backward", self.axis, dy, self.y, dx)
        return dx


def _shifted(x: Array, axis: int) -> Array:
    """x - max(x) along axis, a fresh array."""
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and meant to be
        return np.subtract(x, x.max(axis=axis, keepdims=True, initial=-np.inf), out=empty_like(x))


def _launch(device: Device, kernel: str, axis: int, *arrays: Array) -> None:
    """A kernel of softmax.cu on contiguous arrays of one shape: (outer, length, inner), `axis` in the middle."""
    x = arrays[0]
    length, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    if x.size == 0:
        return
    lines = x.size // length
    (warp,) = constants("softmax", "WARP")
    if inner == 1:  # a block for each line, no larger than the line
        grid, block = min(lines, gpu.MOST_BLOCKS), min(THREADS, warp * gpu.blocks(length, warp))
    else:  # a thread for each line
        grid, block = gpu.blocks(lines), THREADS
    gpu.launch(device, "softmax", kernel, grid, block, *arrays, lines, length, inner, REAL=x.dtype)


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
