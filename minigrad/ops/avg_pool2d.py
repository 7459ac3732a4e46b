"""Average-pooling: the mean under each window.

    y[n,c,i,j] = sum over taps (u,v) of x[n,c, s*i + u - p, s*j + v - p] / divisor[i,j]     (padding is 0)
    dx = the sum over the windows that see a pixel of dy / divisor

divisor[i,j] is the area of window (i,j): with count_include_pad its part within the padded image (what
ceil_mode lets overhang further is not counted), without it its part within the image.  Either is a rectangle: height
times width.

Each pixel under a window goes into y with the weight 1 / divisor, whatever its value: that is its derivative, and a
pixel that several windows see gets the sum of what comes back from them.

The fast face adds down the rows first, then across the columns.

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
from ..processor.memory import empty
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_pixels, check_rank, flag, padding_of, pair
from ._pooling import axis_structs, cells_3_by_2, in_tiles, places, taps_inside
from ._reduction import DEPTH
from ._windows import channels_last, frame, nchw, output_shape, padded, taps


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
    pads, ceil_mode = padding_of("avg_pool2d", padding), flag("avg_pool2d", "ceil_mode", ceil_mode)
    count_include_pad = flag("avg_pool2d", "count_include_pad", count_include_pad)
    outputs = output_shape("avg_pool2d", x.shape, kernel, strides, pads, (1, 1), ceil_mode)
    check_pixels("avg_pool2d", x.shape, kernel, strides, pads, (1, 1), outputs)
    return apply(AvgPool2d(kernel, strides, pads, outputs, count_include_pad), x)


class AvgPool2d(Function, name="avg_pool2d"):
    def __init__(self, kernel: Pair, stride: Pair, padding: Padding, outputs: Pair, count_include_pad: bool):
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.outputs, self.count_include_pad = outputs, count_include_pad  # outputs: (OH, OW)

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        self.frame = frame(self.padding, x.shape[2:], self.kernel, self.stride, (1, 1), self.outputs)
        self.divisor = np.outer(self.extent(0), self.extent(1)).astype(x.dtype)
        seen = [seen for _, _, seen in taps(padded(x, self.frame), self.kernel, self.stride, (1, 1), self.outputs)]
        return np.stack(seen, -1).sum(-1) / self.divisor  # side by side: see _reduction.py on long sums

    def backward(self, dy: Array) -> Array:
        dxp = padded(np.zeros(self.x_shape, dy.dtype), self.frame)
        for _, _, seen in taps(dxp, self.kernel, self.stride, (1, 1), self.outputs):
            seen += dy / self.divisor
        (top, _), (left, _), (h, w) = *self.padding, self.x_shape[2:]
        return dxp[:, :, top : top + h, left : left + w]

    def extent(self, axis: int) -> Array:
        """How many positions of each window count, along one axis."""
        size, (before, after) = self.x_shape[2 + axis], self.padding[axis]
        start = np.arange(self.outputs[axis]) * self.stride[axis] - before
        stop = start + self.kernel[axis]
        if self.count_include_pad:
            return np.minimum(stop, size + after) - start
        return np.minimum(stop, size) - np.maximum(start, 0)

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        self.divisor = np.outer(self.extent(0), self.extent(1))[:, :, None].astype(x.dtype)
        down, across = taps_inside(x.shape[2:], self.kernel, self.stride, self.padding, (1, 1), self.outputs)
        x = channels_last(x)
        n, h, w, c = x.shape
        oh, ow = self.outputs
        y = empty((n, oh, ow, c), x.dtype)

        def work(some: slice) -> None:
            few = some.stop - some.start
            t, pixels = empty((few, oh, w * c), x.dtype), x[some].reshape(few, h, w * c)
            _add_parts(t, [(i, rows) for _, i, rows in down], lambda rows: pixels[:, rows])
            sums, t = y[some].reshape(few * oh, ow, c), t.reshape(few * oh, w, c)
            _add_parts(sums, [(j, cols) for _, j, cols in across], lambda cols: t[:, cols])
            y[some] /= self.divisor

        in_tiles(self.device, x.shape, work)
        return nchw(y)

    def backward_cpu(self, dy: Array) -> Array:
        down, across = taps_inside(self.x_shape[2:], self.kernel, self.stride, self.padding, (1, 1), self.outputs)
        dy = channels_last(dy)
        n, oh, ow, c = dy.shape
        _, _, h, w = self.x_shape
        dx = empty((n, h, w, c), dy.dtype)

        def work(some: slice) -> None:
            few = some.stop - some.start
            share = np.divide(dy[some], self.divisor, out=empty((few, oh, ow, c), dy.dtype)).reshape(few * oh, ow, c)
            t = empty((few, oh, w * c), dy.dtype)
            _add_parts(t.reshape(few * oh, w, c), [(cols, j) for _, j, cols in across], lambda j: share[:, j])
            _add_parts(dx[some].reshape(few, h, w * c), [(rows, i) for _, i, rows in down], lambda i: t[:, i])

        in_tiles(self.device, dx.shape, work)
        return nchw(dx)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        (top, bottom), (left, right) = self.padding
        self.x_shape = x.shape
        taps = {"taps": self.kernel, "stride": self.stride, "before": (top, left), "after": (bottom, right)}
        self.axes = axis_structs("avg_pool2d", size=x.shape[2:], windows=self.outputs, **taps)
        x = self.device.contiguous(x)
        y = self.device.empty((*x.shape[:2], *self.outputs), x.dtype)
        n, c, h, w = x.shape
        of_window = places(n * c, self.outputs, (h * w, 0, 0), (0, 1, 0), (0, 0, 1))
        self.launch("avg_pool2d_forward", x, y, y.size, of_window)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty(self.x_shape, dy.dtype)
        if (self.kernel, self.stride) == ((3, 3), (2, 2)):
            threads, of_cell = cells_3_by_2(self.x_shape, self.outputs, self.padding)
            self.launch("avg_pool2d_backward_3_by_2", dy, dx, threads, of_cell)
        else:
            (n, c, h, w), (oh, ow) = self.x_shape, self.outputs
            of_pixel = places(n * c, (h, w), (oh * ow, 0, 0), (0, 1, 0), (0, 0, 1))
            self.launch("avg_pool2d_backward", dy, dx, dx.size, of_pixel)
        return dx

    def launch(self, kernel: str, a: Array, out: Array, threads: int, places: np.ndarray) -> None:
        """`kernel` with so many threads, whose places are as it wants them (kernels/avg_pool2d.cu)."""
        grid, args = gpu.blocks(threads), (threads, places, *self.axes, self.count_include_pad)
        self.device.launch("avg_pool2d", kernel, grid, THREADS, a, out, *args, REAL=out.dtype)


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
