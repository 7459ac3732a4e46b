"""What max-pooling and average-pooling share: which pixels each tap of the window meets along one axis.

Both ops are separable: first down the rows, then across the columns, kh + kw passes over an image in place of
kh * kw.  Rows come first because a row of a channels-last image is one long run of memory.
"""

from __future__ import annotations

from ..errors import ShapeError
from ._checks import Padding, Pair
from ._windows import output_shape

# (number of the tap in the window, outputs whose tap of that number is inside the image, the pixels it meets)
Tap = tuple[int, slice, slice]


def taps(size: int, window: int, stride: int, padding: Pair, dilation: int, count: int) -> list[Tap]:
    """The taps of `count` windows along an axis of `size` pixels.  Padding is never read."""
    found = []
    for tap in range(window):
        offset = tap * dilation - padding[0]  # output position o meets pixel offset + stride * o
        low = max(0, -(offset // stride))
        high = min(count, (size - 1 - offset) // stride + 1)
        if low < high:
            pixel = offset + stride * low
            found.append((tap, slice(low, high), slice(pixel, pixel + stride * (high - low - 1) + 1, stride)))
    return found


def taps_of_both_axes(
    op: str,
    shape: tuple[int, ...],
    window: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
) -> tuple[list[Tap], list[Tap]]:
    """The taps down the rows and across the columns of images (N, C, H, W).

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
    return both[0], both[1]
