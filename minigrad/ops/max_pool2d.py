"""Max-pooling: the largest value under each window.

    y[n,c,i,j] = max over taps (u,v) of x[n,c, s*i + d*u - p, s*j + d*v - p]     (padding is skipped)
    dx = dy, sent to the pixel that was the maximum, summed where windows overlap

A tie goes to the first maximum of the window, row by row (after ReLU, windows full of zeros are common).  A
NaN wins over every number, and the first NaN of a window takes its gradient.

Forward is separable: maxima down the columns, then across.  For backward it keeps one small integer per
output, the number of the tap that won, in place of x and y: with stride 2 a sixteenth of x.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.4 (overlapping pooling, window 3, stride 2).  The
original code gave the gradient to every tied maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Array, Function
from ..parallel import split
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_rank, padding_of, pair
from ._pooling import taps_of_both_axes
from ._windows import channels_last, first, output_shape, scratch


class MaxPool2d(Function, name="max_pool2d"):
    def __init__(self, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool):
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.ceil_mode = ceil_mode

    def forward_cpu(self, x: Array) -> Array:
        settings = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        self.rows, self.cols = taps_of_both_axes(self.name, x.shape, *settings)
        oh, ow = output_shape(self.name, x.shape, *settings)
        self.x_shape = x.shape
        x = channels_last(x)
        n, _, _, c = x.shape
        y = np.empty((n, oh, ow, c), x.dtype)
        tap_type = np.min_scalar_type(self.kernel[0] * self.kernel[1])
        winner = np.empty(y.shape, tap_type) if self.needs[0] else None

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                t = scratch("max_pool2d", (oh, *x.shape[2:]), x.dtype)
                self.maxima(x[i], t, y[i])
                if winner is not None:
                    self.find_winners(x[i], t, y[i], winner[i])

        split(self.device, n, work)
        self.winner: Array = winner
        return first(y)

    def maxima(self, x: Array, t: Array, y: Array) -> None:
        """t[i,w] = max over the rows of window i, y[i,j] = max of t over the columns of window j."""
        t[...] = -np.inf
        for _, i, h in self.rows:
            np.maximum(t[i], x[h], out=t[i])
        y[...] = -np.inf
        for _, j, w in self.cols:
            np.maximum(y[:, j], t[:, w], out=y[:, j])

    def find_winners(self, x: Array, t: Array, y: Array, winner: Array) -> None:
        """One image: winner[i,j] = the smallest tap number u*kw + v whose pixel equals the maximum."""
        kw = self.kernel[1]
        nobody = np.iinfo(winner.dtype).max
        first_row = np.full(t.shape, nobody, winner.dtype)
        for u, i, h in self.rows:
            tap = winner.dtype.type(u * kw)
            np.minimum(first_row[i], _tap_or_all_ones(x[h] != t[i], tap), out=first_row[i])
        winner[...] = nobody
        for v, j, w in self.cols:
            tap = first_row[:, w] + winner.dtype.type(v)
            np.minimum(winner[:, j], _tap_or_all_ones(t[:, w] != y[:, j], tap), out=winner[:, j])
        is_nan = np.isnan(y)
        if is_nan.any():  # NaN equals nothing: but the first NaN of a window is the first maximum of isnan(x)
            x, t, y = np.isnan(x).astype(x.dtype), np.empty_like(t), np.empty_like(y)
            self.maxima(x, t, y)
            first_nan = np.empty_like(winner)
            self.find_winners(x, t, y, first_nan)
            np.copyto(winner, first_nan, where=is_nan)

    def backward_cpu(self, dy: Array) -> Array:
        dy = channels_last(dy)
        n, oh, ow, c = dy.shape
        _, _, h, w = self.x_shape
        dx = np.zeros((n, h, w, c), dy.dtype)
        # Where in an image (H, W, C), counted in elements: the window's corner and channel + the winning tap.
        (top, _), (left, _) = self.padding
        i, j, channel = np.ogrid[:oh, :ow, :c]
        corner = ((self.stride[0] * i - top) * w + self.stride[1] * j - left) * c + channel
        u, v = np.divmod(np.arange(self.kernel[0] * self.kernel[1]), self.kernel[1])
        tap = (self.dilation[0] * u * w + self.dilation[1] * v) * c

        def work(start: int, stop: int) -> None:
            for image in range(start, stop):
                where = tap[self.winner[image]]
                where += corner
                # Windows overlap, so dx[where] += dy would lose parts; add.at adds them one by one, in order.
                np.add.at(dx[image].reshape(-1), where.reshape(-1), dy[image].reshape(-1))

        split(self.device, n, work)
        return first(dx)


def _tap_or_all_ones(loses: Array, tap: Any) -> Array:
    """`tap` where `loses` is False, else the largest unsigned integer; `tap` is one or an array of them.

    -1 is all ones in an unsigned integer, and all ones | tap = all ones: four times as fast as np.where.
    """
    mask = loses.astype(tap.dtype)
    np.negative(mask, out=mask)
    mask |= tap
    return mask


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
    ceil_mode: round OH up, so that the last window may overhang the image; a window that would start in the
    trailing padding or beyond is dropped.

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
    return apply(MaxPool2d(kernel, strides, padding_of("max_pool2d", padding), dilations, bool(ceil_mode)), x)
