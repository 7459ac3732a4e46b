"""Exponential, logarithm and square root, element by element.

    y = exp(x)     dx = dy y
    y = log(x)     dx = dy / x
    y = sqrt(x)    dx = dy / (2 y)

Outside their range they give what NumPy gives, with its warning: log(0) = -inf, log(-1) = sqrt(-1) = NaN;
the slope of sqrt at 0 is infinite. exp and sqrt keep their result for backward, log its argument.
"""

from __future__ import annotations

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array, Function
from ..gpu import THREADS
from ..tensor import Tensor, apply, op
from ._checks import check_floating


@op
def exp(x: Tensor) -> Tensor:
    """e to the power x; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("exp", x=x)
    return apply(Exp(), x)


@op
def log(x: Tensor) -> Tensor:
    """The natural logarithm; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("log", x=x)
    return apply(Log(), x)


@op
def sqrt(x: Tensor) -> Tensor:
    """The square root; any shape, float32 or float64 (DTypeError otherwise)."""
    check_floating("sqrt", x=x)
    return apply(Sqrt(), x)


class Exp(Function):
    def forward(self, x: Array) -> Array:
        self.y = np.exp(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * self.y

    def forward_gpu(self, x: Array) -> Array:
        self.y = _forward(self.device, "exp_forward", self.device.contiguous(x))
        return self.y

    def backward_gpu(self, dy: Array) -> Array:
        return _backward(self.device, "exp_backward", dy, self.y)


class Log(Function):
    def forward(self, x: Array) -> Array:
        self.x = x
        return np.log(x)

    def backward(self, dy: Array) -> Array:
        return dy / self.x

    def forward_gpu(self, x: Array) -> Array:
        self.x = self.device.contiguous(x)
        return _forward(self.device, "log_forward", self.x)

    def backward_gpu(self, dy: Array) -> Array:
        return _backward(self.device, "log_backward", dy, self.x)


class Sqrt(Function):
    def forward(self, x: Array) -> Array:
        self.y = np.sqrt(x)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy / (2 * self.y)

    def forward_gpu(self, x: Array) -> Array:
        self.y = _forward(self.device, "sqrt_forward", self.device.contiguous(x))
        return self.y

    def backward_gpu(self, dy: Array) -> Array:
        return _backward(self.device, "sqrt_backward", dy, self.y)


def _forward(device: Device, kernel: str, x: Array) -> Array:
    """y of one of the kernels of pointwise.cu; x is contiguous."""
    y = device.empty_like(x)
    device.launch("pointwise", kernel, gpu.pack_blocks(x), THREADS, x, y, x.size, REAL=x.dtype)
    return y


def _backward(device: Device, kernel: str, dy: Array, kept: Array) -> Array:
    """dx of one of the kernels of pointwise.cu, from dy and the x or y that forward kept."""
    dy = device.contiguous(dy)
    dx = device.empty_like(dy)
    device.launch("pointwise", kernel, gpu.pack_blocks(dy), THREADS, dy, kept, dx, dy.size, REAL=dy.dtype)
    return dx
