"""What max-pooling and average-pooling share: which pixels each tap of the window meets, and how to fetch them.

On the CPU both ops are separable: first down the rows, then across the columns, kh + kw passes over an image in
place of kh * kw.  Rows come first because a row of a channels-last image is one long run of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..device import Device
from ..engine import Array
from ..errors import ShapeError
from ..kernel import struct
from ..memory import empty
from ..parallel import split
from ._checks import Padding, Pair
from ._runs import runs
from ._windows import output_shape

# (number of the tap in the window, outputs whose tap of that number is inside the image, the pixels it meets)
Tap = tuple[int, slice, slice]

BLOCK = 1 << 20  # elements of x at a time: many images where they are small, else one or two


def copied(x: Array, pixels: slice) -> Array:
    """x[:, pixels] in one piece of memory; x (A, L, C)."""
    y = empty((x.shape[0], len(range(*pixels.indices(x.shape[1]))), x.shape[2]), x.dtype)
    runs(y)[...] = runs(x)[:, pixels]
    return y


def images_at_a_time(shape: tuple[int, ...]) -> int:
    """How many images of this shape (N, ...) make up a block."""
    return max(1, BLOCK // max(1, math.prod(shape[1:])))


def in_blocks(device: Device, shape: tuple[int, ...], work: Callable[[slice], None]) -> None:
    """work(some) for a few images at a time, on the device's threads; `shape` (N, ...) is that of the larger array."""
    if not math.prod(shape):
        return
    block = images_at_a_time(shape)

    def piece(start: int, stop: int) -> None:
        for i in range(start, stop, block):
            work(slice(i, min(i + block, stop)))

    split(device, shape[0], piece, at_least=block)


def taps(size: int, window: int, stride: int, padding: Pair, dilation: int, count: int) -> tuple[Tap, ...]:
    """The taps of `count` windows along an axis of `size` pixels.  Padding is never read."""
    found = []
    for tap in range(window):
        offset = tap * dilation - padding[0]  # output position o meets pixel offset + stride * o
        low = max(0, -(offset // stride))
        high = min(count, (size - 1 - offset) // stride + 1)
        if low < high:
            pixel = offset + stride * low
            found.append((tap, slice(low, high), slice(pixel, pixel + stride * (high - low - 1) + 1, stride)))
    return tuple(found)


def openers(found: tuple[Tap, ...], count: int) -> tuple[Tap, ...]:
    """Taps that, copied one over the other, leave each of `count` outputs with the first tap that is its own.

    That is tap 0 alone, unless some windows start in the padding.
    """
    _, outputs, _ = found[0]
    return found[:1] if outputs == slice(0, count) else found[::-1]


def by_axis(kernel: str, **pairs: Pair) -> tuple[np.ndarray, np.ndarray]:
    """What kernels/<kernel>.cu is told of the two axes, down the rows and across: a `struct Axis` each.

    Only a stride or a dilation can pass 2^31, with a single window or a single tap: there any number does the same.
    """
    down, across = ({name: min(pair[axis], 2**31 - 1) for name, pair in pairs.items()} for axis in (0, 1))
    return struct(kernel, "Axis", **down), struct(kernel, "Axis", **across)


@lru_cache(maxsize=256)
def taps_of_both_axes(
    op: str,
    shape: tuple[int, ...],
    window: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
) -> tuple[tuple[Tap, ...], tuple[Tap, ...], Pair]:
    """The taps down the rows and across the columns of images (N, C, H, W), and (OH, OW).

    ShapeError where the window does not fit, or where some window would meet no pixel at all.
    """
    counts = output_shape(op, shape, window, stride, padding, dilation, ceil_mode)
    both = []
    for axis, count in enumerate(counts):
        settings = window[axis], stride[axis], padding[axis], dilation[axis]
        found = taps(shape[2 + axis], *settings, count)
        if any(padding[axis]):
            seen = set().union(*(range(outputs.start, outputs.stop) for _, outputs, _ in found))
            if len(seen) < count:
                where = "height" if axis == 0 else "width"
                raise ShapeError(
                    f"{op}: {count - len(seen)} of {count} windows along the {where} would see padding only: "
                    f"kernel {window[axis]}, stride {stride[axis]}, padding {padding[axis]}, "
                    f"dilation {dilation[axis]}, x {shape}: use less padding"
                )
        both.append(found)
    return both[0], both[1], counts
