"""What convolution and pooling share: the memory order of images, and windows that slide over them.

Images are (N, C, H, W) to the caller and channels-last in memory: `nhwc(x)` is the same memory seen as (N, H, W, C),
free of charge when x came from one of our own ops.  Channels-last makes a pixel one contiguous run of C values, so
that window rows are copied and compared in long runs, and a convolution's result comes out of its matrix product in
place, where the order N, C, H, W would have to turn it round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import product

import numpy as np

from ..engine import Array
from ..errors import ShapeError
from ..processor.memory import empty
from ._checks import Padding, Pair

# ---------------------------------------------------------------- windows, as the textbook has them


def padded(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """Images (N, C, H, W) with rows and columns of `value` around them."""
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=value)


def taps(xp: Array, kernel: Pair, stride: Pair, dilation: Pair, outputs: Pair) -> Iterator[tuple[int, int, Array]]:
    """(u, v, seen) for each tap of a window that slides over images xp (N, C, H, W): what the tap sees, (N, C, OH, OW),

        seen[n,c,i,j] = xp[n, c, s*i + d*u, s*j + d*v]

    which is a view: `seen += ...` adds to the pixels that the tap has read, the way back of a window.
    """
    for u, v in product(range(kernel[0]), range(kernel[1])):
        rows = slice(dilation[0] * u, dilation[0] * u + stride[0] * (outputs[0] - 1) + 1, stride[0])
        cols = slice(dilation[1] * v, dilation[1] * v + stride[1] * (outputs[1] - 1) + 1, stride[1])
        yield u, v, xp[:, :, rows, cols]


def frame(padding: Padding, sizes: Pair, kernel: Pair, stride: Pair, dilation: Pair, outputs: Pair) -> Padding:
    """The padding of images of these sizes (H, W), with more at the end where the last window overhangs (ceil_mode)."""
    return tuple(
        (before, max(after, s * (count - 1) + d * (k - 1) + 1 - before - size))
        for (before, after), size, k, s, d, count in zip(padding, sizes, kernel, stride, dilation, outputs)
    )  # type: ignore[return-value]


# ---------------------------------------------------------------- memory order, and sizes


def nhwc(x: Array) -> Array:
    """(N, C, H, W) seen as (N, H, W, C); a view."""
    return x.transpose(0, 2, 3, 1)


def nchw(x: Array) -> Array:
    """(N, H, W, C) seen as (N, C, H, W); a view."""
    return x.transpose(0, 3, 1, 2)


def channels_last(x: Array) -> Array:
    """(N, C, H, W) as a contiguous (N, H, W, C) array: a view of x where its memory is in that order, else a copy."""
    x = nhwc(x)
    if x.flags.c_contiguous:
        return x
    y = empty(x.shape, x.dtype)
    y[...] = x
    return y


def output_size(size: int, window: int, stride: int, padding: Pair, dilation: int = 1, ceil_mode: bool = False) -> int:
    """The number of windows along one axis: floor((size + padding - reach) / stride) + 1, reach = dilated window.

    With ceil_mode the quotient is rounded up, so that the last window may overhang (be it the only one), but a window
    that would start beyond the image and its leading padding is dropped (PyTorch's rule).  Zero or less: the window
    does not fit.
    """
    reach = dilation * (window - 1) + 1
    room = size + sum(padding) - reach  # negative where a single window would overhang already
    count = -(-room // stride) + 1 if ceil_mode else room // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding[0]:
        count -= 1
    return count


@lru_cache(maxsize=256)
def output_shape(
    op: str,
    shape: tuple[int, ...],
    window: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Pair:
    """(OH, OW) of a window sliding over images (N, C, H, W); ShapeError where it is larger than the padded image."""
    oh, ow = (output_size(*axis, ceil_mode) for axis in zip(shape[2:], window, stride, padding, dilation))
    if oh < 1 or ow < 1:
        reach = tuple(d * (w - 1) + 1 for w, d in zip(window, dilation))
        whole = tuple(size + sum(p) for size, p in zip(shape[2:], padding))
        raise ShapeError(
            f"{op}: window {reach[0]}x{reach[1]} (kernel {window[0]}x{window[1]}, dilation {dilation}) does not fit "
            f"the padded input {whole[0]}x{whole[1]}: x {shape}, padding {padding}: use a smaller kernel"
            f"{', less dilation' if max(dilation) > 1 else ''} or more padding"
        )
    return oh, ow


@contextmanager
def small_buffers() -> Iterator[None]:
    """For arithmetic on views of images whose rows are not adjacent in memory, but long (some 250 numbers and more).

    NumPy gathers the runs of such views in a buffer of 8,192 numbers, which costs more than the addition of a long run
    itself.  A buffer too small for two runs leaves them where they are (measured twice as fast at 1,300 numbers a run);
    short runs are still gathered, as they should be.  The setting holds in the calling context only.
    """
    before = np.setbufsize(1024)
    try:
        yield
    finally:
        np.setbufsize(before)
