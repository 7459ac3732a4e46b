"""Average-pooling: the mean under each window.

    y[n,c,i,j] = sum over taps (u,v) of x[n,c, s*i + u - p, s*j + v - p] / divisor[i,j]     (padding is 0)
    dx = the sum over the windows that see a pixel of dy / divisor

divisor[i,j] is the area of window (i,j): with count_include_pad its part within the padded image (what
ceil_mode lets overhang further is not counted), without it its part within the image.  The area is a product,
height times width; on the CPU the sum is one down the rows, then across the columns.

Source: LeCun et al. 1998 (subsampling); PyTorch's divisor rules.  The original AlexNet code divides by the
window clipped to the image, that is count_include_pad=False.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..gpu import THREADS
from ..memory import empty
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_rank, flag, padding_of, pair
from ._pooling import by_axis, copied, in_blocks, taps_of_both_axes
from ._reduction import DEPTH
from ._runs import runs
from ._windows import channels_last, first


class AvgPool2d(Function, name="avg_pool2d"):
    def __init__(self, kernel: Pair, stride: Pair, padding: Padding, ceil_mode: bool, count_include_pad: bool):
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward_cpu(self, x: Array) -> Array:
        settings = self.kernel, self.stride, self.padding, (1, 1), self.ceil_mode
        self.rows, self.cols, (oh, ow) = taps_of_both_axes(self.name, x.shape, *settings)
        self.x_shape = x.shape
        height, width = self.extent(0, oh), self.extent(1, ow)
        self.divisor = np.multiply.outer(height, width)[:, :, None].astype(x.dtype)
        x = channels_last(x)
        n, h, w, c = x.shape
        y = empty((n, oh, ow, c), x.dtype)

        def work(some: slice) -> None:
            k = some.stop - some.start
            t, pixels = empty((k, oh, w * c), x.dtype), x[some].reshape(k, h, w * c)
            _add_parts(t, [(i, rows) for _, i, rows in self.rows], lambda rows: pixels[:, rows])
            sums, t = y[some].reshape(k * oh, ow, c), t.reshape(k * oh, w, c)
            _add_parts(sums, [(j, cols) for _, j, cols in self.cols], lambda cols: copied(t, cols))
            y[some] /= self.divisor

        in_blocks(self.device, x.shape, work)
        return first(y)

    def extent(self, axis: int, count: int) -> Array:
        """How many positions of each window count, along one axis."""
        size, (before, after) = self.x_shape[2 + axis], self.padding[axis]
        start = np.arange(count) * self.stride[axis] - before
        stop = start + self.kernel[axis]
        if self.count_include_pad:
            return np.minimum(stop, size + after) - start
        return np.minimum(stop, size) - np.maximum(start, 0)

    def backward_cpu(self, dy: Array) -> Array:
        dy = channels_last(dy)
        n, oh, ow, c = dy.shape
        _, _, h, w = self.x_shape
        dx = empty((n, h, w, c), dy.dtype)

        def work(some: slice) -> None:
            k = some.stop - some.start
            share = np.divide(dy[some], self.divisor, out=empty((k, oh, ow, c), dy.dtype))
            t = empty((k, oh, w * c), dy.dtype)
            self.spread(share.reshape(k * oh, ow, c), t.reshape(k * oh, w, c))
            _add_parts(dx[some].reshape(k, h, w * c), [(rows, i) for _, i, rows in self.rows], lambda i: t[:, i])

        in_blocks(self.device, dx.shape, work)
        return first(dx)

    def spread(self, share: Array, t: Array) -> None:
        """t[:,w] = the sum of share[:,j] over the windows j that see column w.

        The columns w, w + s, w + 2s, ... (s the stride) are seen by neighbouring windows: they are summed side by
        side, in long runs of memory, before they go to their places.
        """
        s = self.stride[1]
        for phase in range(min(s, t.shape[1])):
            columns = runs(t)[:, phase::s]
            sums = empty((*columns.shape, t.shape[2]), t.dtype)
            seen = [
                (slice(w.start // s, w.start // s + j.stop - j.start), j)
                for _, j, w in self.cols
                if w.start % s == phase
            ]
            _add_parts(sums, seen, lambda j: share[:, j])
            columns[...] = runs(sums)

    def forward_gpu(self, x: Array) -> Array:
        settings = self.kernel, self.stride, self.padding, (1, 1), self.ceil_mode
        _, _, counts = taps_of_both_axes(self.name, x.shape, *settings)
        (top, bottom), (left, right) = self.padding
        self.x_shape = x.shape
        taps = {"taps": self.kernel, "stride": self.stride, "before": (top, left), "after": (bottom, right)}
        self.axes = by_axis("avg_pool2d", size=x.shape[2:], windows=counts, **taps)
        x = gpu.contiguous(self.device, x)
        y = gpu.empty(self.device, (*x.shape[:2], *counts), x.dtype)
        self.launch("avg_pool2d_forward", x, y)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = gpu.contiguous(self.device, dy)
        dx = gpu.empty(self.device, self.x_shape, dy.dtype)
        self.launch("avg_pool2d_backward", dy, dx)
        return dx

    def launch(self, kernel: str, a: Array, out: Array) -> None:
        """`kernel` with one thread per element of `out`."""
        grid, settings = gpu.blocks(out.size), (*self.axes, self.count_include_pad)
        gpu.launch(self.device, "avg_pool2d", kernel, grid, THREADS, a, out, out.size, *settings, REAL=out.dtype)


def _add_parts(y: Array, places: list[tuple[slice, slice]], part: Callable[[slice], Array]) -> None:
    """y[:, to] = the sum of part(source) over all places (to, source), no more than DEPTH one after the other."""
    if len(places) <= DEPTH:
        y[...] = 0
        for to, source in places:
            y[:, to] += part(source)
        return
    half, more = len(places) // 2, empty(y.shape, y.dtype)
    _add_parts(y, places[:half], part)
    _add_parts(more, places[half:], part)
    y += more


@op
def avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean under each window of every channel.

    x: (N, C, H, W), float32 or float64; the result is (N, C, OH, OW), same dtype,
    OH = floor((H + padding - kernel_size) / stride) + 1.
    kernel_size, stride: an int or (vertical, horizontal); stride is kernel_size when left out.
    padding: an int, (vertical, horizontal) or ((top, bottom), (left, right)), of zeros.
    ceil_mode: round OH up, so that the last window may overhang the image (also the only one, over an image that is
    smaller); a window that would start in the trailing padding or beyond is dropped.  The overhang does not count in
    the divisor.
    count_include_pad: divide by the window's area within the padded image; if False, within the image.  False
    is what the original AlexNet code does.

    Raises ArgumentError for settings out of range, ShapeError where the window does not fit or would see
    padding only, DTypeError for anything but floating point.
    """
    check_floating("avg_pool2d", x=x)
    check_rank("avg_pool2d", "x", x, 4, "(N, C, H, W)")
    kernel = pair("avg_pool2d", "kernel_size", kernel_size, 1)
    strides = kernel if stride is None else pair("avg_pool2d", "stride", stride, 1)
    pads = padding_of("avg_pool2d", padding)
    ceil_mode = flag("avg_pool2d", "ceil_mode", ceil_mode)
    count_include_pad = flag("avg_pool2d", "count_include_pad", count_include_pad)
    return apply(AvgPool2d(kernel, strides, pads, ceil_mode, count_include_pad), x)
