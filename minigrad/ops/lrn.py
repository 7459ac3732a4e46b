"""Local response normalisation across channels.

    s_i = k + alpha * sum of x_j^2,  j = max(0, i - n//2) .. min(C - 1, i + n//2)
    y_i = x_i * s_i^-beta

    dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j) over the same window

(x_i is in the window of j exactly when x_j is in the window of i: the sum of the forward pass, once more.)
Backward keeps x alone and computes s again: that costs less than a second array of x's size going to memory and back.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ShapeError
from ..kernel import constants, struct
from ..memory import empty
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank, integer
from ._response import WindowSums, check_response, in_blocks, power, scale
from ._windows import channels_last, first

BLOCK = 3 << 14  # elements at a time: what one line of a formula writes, the next finds in the L2 cache


class LRN(Function):
    def __init__(self, n: int, k: float, alpha: float, beta: float, groups: int):
        self.n, self.k, self.alpha, self.beta, self.groups = n, k, alpha, beta, groups

    def forward_cpu(self, x: Array) -> Array:
        self.x = x
        x = channels_last(x)
        y = empty(x.shape, x.dtype)

        def normalize(window: WindowSums, x: Array, y: Array) -> None:
            s, s_beta, buffer = window.spare
            scale(window, x, self.k, self.alpha, out=s)
            power(s, self.beta, out=s_beta, buffer=buffer)
            np.divide(x, s_beta, out=y)

        self.in_blocks(normalize, x, y)
        return first(y)

    def backward_cpu(self, dy: Array) -> Array:
        x, dy = channels_last(self.x), channels_last(dy)
        dx = empty(x.shape, x.dtype)

        def differentiate(window: WindowSums, x: Array, dy: Array, dx: Array) -> None:
            s, s_beta, total = window.spare
            scale(window, x, self.k, self.alpha, out=s)
            power(s, self.beta, out=s_beta, buffer=total)
            np.divide(dy, s_beta, out=dx)
            terms = np.multiply(dx, x, out=s_beta)  # dy_j * y_j
            terms /= s
            window(terms, out=total)
            total *= x.dtype.type(-2 * self.alpha * self.beta)
            total *= x
            dx += total

        self.in_blocks(differentiate, x, dy, dx)
        return first(dx)

    def in_blocks(self, work: Any, *images: Array) -> None:
        """work(window, *blocks) on blocks of pixels (P, groups, C / groups): a pixel needs none of its neighbours."""
        n, h, w, c = images[0].shape
        channels = c // self.groups
        pixels = [a.reshape(n * h * w, self.groups, channels) for a in images]
        reach = min(self.n // 2, max(0, channels - 1))  # further out there are no channels
        in_blocks(self.device, BLOCK, (0, reach), 1, work, *pixels)

    def forward_gpu(self, x: Array) -> Array:
        self.x = x = gpu.contiguous(self.device, x)
        y = gpu.empty_like(self.device, x)
        self.launch("lrn_forward", x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = gpu.contiguous(self.device, dy)
        dx = gpu.empty_like(self.device, dy)
        self.launch("lrn_backward", self.x, dy, dx)
        return dx

    def launch(self, kernel: str, *images: Array) -> None:
        """`kernel` with a block of threads for every CHANNELS channels of a group, of every PIXELS pixels."""
        n, c, h, w = images[0].shape
        channels = c // self.groups
        reach = min(self.n // 2, max(0, channels - 1))
        pixels_each, channels_each, rows = constants("lrn", "PIXELS", "CHANNELS", "ROWS")
        grid = gpu.blocks(n * h * w, pixels_each) * self.groups * gpu.blocks(channels, channels_each)
        maps = struct("lrn", "Maps", pixels=n * h * w, area=h * w, groups=self.groups, channels=channels, reach=reach)
        numbers = maps, self.k, self.alpha, self.beta
        gpu.launch(self.device, "lrn", kernel, grid, (pixels_each, rows), *images, *numbers, REAL=images[0].dtype)


@op
def lrn(x: Tensor, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, groups: int = 1) -> Tensor:
    """x / (k + alpha * sum of x^2 over n neighbouring channels)^beta, the paper's formula.

    x: (N, C, H, W), float32 or float64; the result has the same shape and dtype.
    n: how many channels the window spans, odd, the channel itself in the middle; clipped at both ends.
    k > 0, alpha >= 0, beta: as in the formula.  alpha is *not* divided by n.
    groups: the channels are normalised within each of this many equal groups.  A net of two columns on one
    device needs groups=2: in the paper no column sees the other's maps here.

    Settings of others, written as lrn(x, n, k, alpha, beta):

        the paper                                        lrn(x, 5, 2, 1e-4, 0.75), the defaults
        cuda-convnet (the original code):
            size, scale, pow, minDiv                     lrn(x, size, minDiv, scale / size, pow)
        Caffe: local_size, k, alpha, beta                lrn(x, local_size, k, alpha / local_size, beta)
        PyTorch: LocalResponseNorm(size, alpha, beta, k) lrn(x, size, k, alpha / size, beta)
        ONNX: size, bias, alpha, beta                    lrn(x, size, bias, alpha / size, beta)
        TensorFlow: depth_radius, bias, alpha, beta      lrn(x, 2 * depth_radius + 1, bias, alpha, beta)

    An even n is refused: PyTorch's window then has n//2 channels before the middle, ONNX's (n-1)//2.
    Raises ArgumentError for settings out of range, ShapeError where C is no multiple of groups, DTypeError
    for anything but floating point.
    Source: Krizhevsky et al. 2012, section 3.3.
    """
    check_floating("lrn", x=x)
    check_rank("lrn", "x", x, 4, "(N, C, H, W)")
    settings = check_response("lrn", n, k, alpha, beta)
    groups = integer("lrn", "groups", groups, 1)
    if x.shape[1] % groups:
        raise ShapeError(f"lrn: the channels must divide into {groups} groups, x has {x.shape[1]}: {x.shape}")
    return apply(LRN(*settings, groups), x)
