"""Max-pooling: the largest value under each window.

    y[n,c,i,j] = max over taps (u,v) of x[n,c, s*i + d*u - p, s*j + d*v - p]     (padding is skipped)
    dx = dy, sent to the pixel that was the maximum, summed where windows overlap

Where the pixel under one tap is larger than all others of the window, y is that pixel, and still is after a small
change of x: dy/dx is 1 for that pixel and 0 for the rest.  A pixel that wins several windows gets the sum of their
dy, as always where a number is used more than once.

At a tie the maximum has no derivative: dy goes to the first maximum of the window, row by row (after ReLU, windows
full of zeros are common).  A NaN wins over every number, and the first NaN of a window takes its gradient.

For backward it is enough to know which tap has won: forward keeps its number, winner = u*kw + v, one small integer per
output, and neither x nor y.

The fast face, which takes maxima down the rows first and then across the columns, is in _max_pool2d_fast.py; that for
windows which do not overlap, tap by tap, in _max_pool2d_apart.py.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.4 (overlapping pooling, window 3, stride 2).  The
original code gave the gradient to every tied maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..gpu import THREADS
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_pixels, check_rank, flag, padding_of, pair
from ._max_pool2d_apart import apart, gradient_apart, maxima_apart
from ._max_pool2d_fast import gradient, maxima, tap_type
from ._pooling import axis_structs, cells_3_by_2, places
from ._windows import frame, output_shape, padded, taps


@op
def max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value under each window of every channel.

    x: (N, C, H, W), float32 or float64; the result is (N, C, OH, OW), same dtype,
    OH = floor((H + padding - dilation*(kernel_size - 1) - 1) / stride) + 1.
    kernel_size, stride, dilation: an int or (vertical, horizontal); stride is kernel_size when left out.
    padding: an int, (vertical, horizontal) or ((top, bottom), (left, right)).  Padding never wins.
    ceil_mode: round OH up, so that the last window may overhang the image (also the only one, over an image that is
    smaller); a window that would start in the trailing padding or beyond is dropped.

    Ties go to the first maximum (row by row) and NaN wins over every number, as in PyTorch; of several NaN
    the first takes the gradient, in PyTorch the last.
    Raises ArgumentError for settings out of range, ShapeError where the window does not fit or would see
    padding only, DTypeError for anything but floating point.
    Source: Krizhevsky et al. 2012, section 3.4.
    """
    check_floating("max_pool2d", x=x)
    check_rank("max_pool2d", "x", x, 4, "(N, C, H, W)")
    kernel = pair("max_pool2d", "kernel_size", kernel_size, 1)
    strides = kernel if stride is None else pair("max_pool2d", "stride", stride, 1)
    dilations = pair("max_pool2d", "dilation", dilation, 1)
    pads, ceil_mode = padding_of("max_pool2d", padding), flag("max_pool2d", "ceil_mode", ceil_mode)
    outputs = output_shape("max_pool2d", x.shape, kernel, strides, pads, dilations, ceil_mode)
    check_pixels("max_pool2d", x.shape, kernel, strides, pads, dilations, outputs)
    return apply(MaxPool2d(kernel, strides, pads, dilations, outputs), x)


class MaxPool2d(Function, name="max_pool2d"):
    def __init__(self, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, outputs: Pair):
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.outputs = outputs  # (OH, OW)

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        self.frame = frame(self.padding, x.shape[2:], self.kernel, self.stride, self.dilation, self.outputs)
        windows = self.windows(x, -np.inf)
        y = windows.max(-1)  # NaN where the window has one
        winner = windows.argmax(-1)  # the number of the first maximum, or of the first NaN
        # Where all pixels of a window are -inf, that may be a tap on padding: the first tap on a pixel takes its place.
        # It is found in an image of ones with padding of zeros, where the first maximum is the first pixel.
        first_inside = self.windows(np.ones((1, 1, *x.shape[2:])), 0).argmax(-1)
        self.winner = np.where(y == -np.inf, first_inside, winner)
        return y

    def backward(self, dy: Array) -> Array:
        dxp = padded(np.zeros(self.x_shape, dy.dtype), self.frame)
        for u, v, seen in taps(dxp, self.kernel, self.stride, self.dilation, self.outputs):
            seen += np.where(self.winner == u * self.kernel[1] + v, dy, 0)
        (top, _), (left, _), (h, w) = *self.padding, self.x_shape[2:]
        return dxp[:, :, top : top + h, left : left + w]

    def windows(self, x: Array, padding: float) -> Array:
        """What each window sees of x, and of padding of this value, tap after tap: (N, C, OH, OW, KH * KW)."""
        xp = padded(x, self.frame, padding)
        return np.stack([seen for _, _, seen in taps(xp, self.kernel, self.stride, self.dilation, self.outputs)], -1)

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        settings = self.kernel, self.stride, self.padding, self.dilation, self.outputs
        self.apart = apart(x.shape, *settings)
        if self.apart:
            y, self.winner = maxima_apart(self.device, x, self.needs[0], self.kernel, self.outputs)
        else:
            y, self.winner = maxima(self.device, x, self.needs[0], *settings)
        return y

    def backward_cpu(self, dy: Array) -> Array:
        if self.apart:
            return gradient_apart(self.device, dy, self.winner, self.x_shape, self.kernel)
        settings = self.kernel, self.stride, self.padding, self.dilation
        return gradient(self.device, dy, self.winner, self.x_shape, *settings)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        (n, c, h, w), (sh, sw), ((top, _), (left, _)) = x.shape, self.stride, self.padding
        self.x_shape = x.shape
        window = {"taps": self.kernel, "stride": self.stride, "padding": (top, left), "dilation": self.dilation}
        self.axes = axis_structs("max_pool2d", size=(h, w), windows=self.outputs, **window)
        x = self.device.contiguous(x)
        y = self.device.empty((n, c, *self.outputs), x.dtype)
        of_window = places(n * c, self.outputs, (h * w, sh * w, sw), (0, sh, 0), (0, 0, sw))
        if self.needs[0]:
            self.winner = self.device.empty_like(y, tap_type(self.kernel))
            self.launch("max_pool2d_forward", x, y, self.winner, threads=y.size, places=of_window)
        else:
            self.launch("max_pool2d_values", x, y, threads=y.size, places=of_window)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty(self.x_shape, dy.dtype)
        if (self.kernel, self.stride, self.dilation) == ((3, 3), (2, 2), (1, 1)):
            threads, of_cell = cells_3_by_2(self.x_shape, self.outputs, self.padding)
            self.launch("max_pool2d_backward_3_by_2", dy, self.winner, dx, threads=threads, places=of_cell)
        else:
            (n, c, h, w), (oh, ow) = self.x_shape, self.outputs
            of_pixel = places(n * c, (h, w), (oh * ow, 0, 0), (0, 1, 0), (0, 0, 1))
            self.launch("max_pool2d_backward", dy, self.winner, dx, threads=dx.size, places=of_pixel)
        return dx

    def launch(self, kernel: str, *arrays: Array, threads: int, places: np.ndarray) -> None:
        """`kernel` with so many threads, whose places are as it wants them (kernels/max_pool2d.cu)."""
        types = {"REAL": arrays[0].dtype, "TAP": tap_type(self.kernel)}
        grid, args = gpu.blocks(threads), (threads, places, *self.axes)
        self.device.launch("max_pool2d", kernel, grid, THREADS, *arrays, *args, **types)
