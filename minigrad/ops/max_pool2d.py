"""Max-pooling: the largest value under each window.

    y[n,c,i,j] = max over taps (u,v) of x[n,c, s*i + d*u - p, s*j + d*v - p]     (padding is skipped)
    dx = dy, sent to the pixel that was the maximum, summed where windows overlap

A tie goes to the first maximum of the window, row by row (after ReLU, windows full of zeros are common).  A
NaN wins over every number, and the first NaN of a window takes its gradient.

Forward on the CPU is separable: maxima down the rows, then across the columns; a CUDA thread looks through its
window tap by tap.  For backward it keeps one small integer per output, the number of the tap that won, in place of
x and y: with stride 2 a sixteenth of x.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.4 (overlapping pooling, window 3, stride 2).  The
original code gave the gradient to every tied maximum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..gpu import THREADS
from ..memory import empty
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_rank, flag, padding_of, pair
from ._pooling import by_axis, copied, images_at_a_time, in_blocks, openers, taps_of_both_axes
from ._windows import channels_last, first


class MaxPool2d(Function, name="max_pool2d"):
    def __init__(self, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool):
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.ceil_mode = ceil_mode

    def forward_cpu(self, x: Array) -> Array:
        settings = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        self.rows, self.cols, (oh, ow) = taps_of_both_axes(self.name, x.shape, *settings)
        self.x_shape = x.shape
        x = channels_last(x)
        n, _, _, c = x.shape
        y = empty((n, oh, ow, c), x.dtype)
        tap_type = np.min_scalar_type(self.kernel[0] * self.kernel[1])
        winner = empty(y.shape, tap_type) if self.needs[0] else None

        def work(some: slice) -> None:
            self.maxima(x[some], y[some], None if winner is None else winner[some])

        in_blocks(self.device, x.shape, work)
        self.winner: Array = winner
        return first(y)

    def maxima(self, x: Array, y: Array, winner: Array | None) -> None:
        """A few images: y = the maxima; winner = u*kw + v of the first tap (u, v) that has it, None if unwanted."""
        n, h, w, c = x.shape
        _, oh, ow, _ = y.shape
        pixels, windows = (n * oh, w, c), (n * oh, ow, c)
        t = empty((n, oh, w * c), x.dtype)
        if winner is None:
            self.down(x.reshape(n, h, w * c), t)
            self.across(t.reshape(pixels), y.reshape(windows))
            return
        row = empty(t.shape, winner.dtype)
        self.down(x.reshape(n, h, w * c), t, row)
        self.across(t.reshape(pixels), y.reshape(windows), row.reshape(pixels), winner.reshape(windows))
        if np.isnan(np.max(y)):  # NaN equals nothing: but the first NaN of a window is the first maximum of isnan(x)
            first_nan = np.empty_like(winner)
            self.maxima(np.isnan(x).astype(x.dtype), np.empty_like(y), first_nan)
            np.copyto(winner, first_nan, where=np.isnan(y))

    def down(self, x: Array, t: Array, row: Array | None = None) -> None:
        """t[:,i] = max over the rows of window i; row[:,i] = kw * the number u of the first row that has it."""
        for u, i, h in openers(self.rows, t.shape[1]):
            t[:, i] = x[:, h]
            if row is not None:
                row[:, i] = u * self.kernel[1]
        if row is not None:
            larger, numbers = empty(t.shape, np.bool_), empty(t.shape, row.dtype)
        for u, i, h in self.rows[1:]:
            if row is not None:
                np.greater(x[:, h], t[:, i], out=larger[:, i])  # strictly: in a tie the earlier row stays
                number = row.dtype.type(u * self.kernel[1])
                np.multiply(larger[:, i].view(np.uint8), number, out=numbers[:, i])
                np.maximum(row[:, i], numbers[:, i], out=row[:, i])  # the later row has the larger number
            np.maximum(t[:, i], x[:, h], out=t[:, i])

    def across(self, t: Array, y: Array, row: Array | None = None, winner: Array | None = None) -> None:
        """y[:,j] = max of t over the columns of window j; winner = the smallest row + v among those that have it."""
        seen = {v: copied(t, w) for v, _, w in self.cols}
        for v, j, _ in openers(self.cols, y.shape[1]):
            y[:, j] = seen[v]
        for v, j, _ in self.cols[1:]:
            np.maximum(y[:, j], seen[v], out=y[:, j])
        if winner is None:
            return
        winner[...] = np.iinfo(winner.dtype).max
        for v, j, w in self.cols:
            tap = copied(row, w)
            tap += winner.dtype.type(v)
            loses = np.not_equal(seen[v], y[:, j], out=empty(tap.shape, np.bool_))
            np.minimum(winner[:, j], _all_ones_where(loses, tap), out=winner[:, j])

    def backward_cpu(self, dy: Array) -> Array:
        dy = channels_last(dy)
        n, oh, ow, c = dy.shape
        _, _, h, w = self.x_shape
        dx = empty((n, h, w, c), dy.dtype)
        block = min(n, images_at_a_time(self.x_shape))
        # Where in a block of images, counted in elements: the window's corner and channel + the winning tap.
        (top, _), (left, _) = self.padding
        corner = _corners((block, h, w, c), (oh, ow), self.stride, (top, left))
        u, v = np.divmod(np.arange(self.kernel[0] * self.kernel[1]), self.kernel[1])
        tap = (self.dilation[0] * u * w + self.dilation[1] * v) * c

        def work(some: slice) -> None:
            where = empty(dy[some].shape, corner.dtype)
            np.take(tap, self.winner[some], out=where, mode="clip")  # nothing to clip: it is the mode without a copy
            where += corner[: len(where)]
            dx[some] = 0
            # Windows overlap, so dx[where] += dy would lose parts; add.at adds them one by one, in order.
            np.add.at(dx[some].reshape(-1), where.reshape(-1), dy[some].reshape(-1))

        in_blocks(self.device, dx.shape, work)
        return first(dx)

    def forward_gpu(self, x: Array) -> Array:
        settings = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        _, _, counts = taps_of_both_axes(self.name, x.shape, *settings)
        (top, _), (left, _) = self.padding
        self.x_shape = x.shape
        taps = {"taps": self.kernel, "stride": self.stride, "padding": (top, left), "dilation": self.dilation}
        self.axes = by_axis("max_pool2d", size=x.shape[2:], windows=counts, **taps)
        x = gpu.contiguous(self.device, x)
        y = gpu.empty(self.device, (*x.shape[:2], *counts), x.dtype)
        if self.needs[0]:
            self.winner = gpu.empty_like(self.device, y, np.min_scalar_type(self.kernel[0] * self.kernel[1]))
            self.launch("max_pool2d_forward", x, y, self.winner, per_thread=y)
        else:
            self.launch("max_pool2d_values", x, y, per_thread=y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = gpu.contiguous(self.device, dy)
        dx = gpu.empty(self.device, self.x_shape, dy.dtype)
        self.launch("max_pool2d_backward", dy, self.winner, dx, per_thread=dx)
        return dx

    def launch(self, kernel: str, *arrays: Array, per_thread: Array) -> None:
        """`kernel` with one thread per element of an array."""
        types = {"REAL": per_thread.dtype, "TAP": np.min_scalar_type(self.kernel[0] * self.kernel[1])}
        size = per_thread.size
        gpu.launch(self.device, "max_pool2d", kernel, gpu.blocks(size), THREADS, *arrays, size, *self.axes, **types)


@lru_cache(maxsize=8)  # a net asks for the same few at every step
def _corners(images: tuple[int, int, int, int], counts: Pair, stride: Pair, padding: Pair) -> Array:
    """(N, OH, OW, C): which element of images (N, H, W, C) is the top left pixel of each window."""
    n, h, w, c = images
    image, i, j, channel = np.ogrid[:n, : counts[0], : counts[1], :c]
    where = ((image * h + stride[0] * i - padding[0]) * w + stride[1] * j - padding[1]) * c + channel
    where.flags.writeable = False  # every caller gets the same array
    return where


def _all_ones_where(loses: Array, tap: Array) -> Array:
    """`tap`, overwritten with the largest unsigned integer where `loses`.

    -1 is all ones in an unsigned integer, and all ones | tap = all ones: much faster than np.where.
    """
    mask = empty(tap.shape, tap.dtype)
    mask[...] = loses
    np.negative(mask, out=mask)
    return np.bitwise_or(tap, mask, out=tap)


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
    return apply(MaxPool2d(kernel, strides, pads, dilations, ceil_mode), x)
