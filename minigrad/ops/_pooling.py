"""What the fast faces of max-pooling and average-pooling share: which pixels each tap of the window meets, and images a
tile at a time; and what the kernels of both are told.

On the CPU both ops are separable: first down the rows, then across the columns, kh + kw passes over an image in place
of kh * kw.  Down comes first because a row of a channels-last image is one run of memory, W * C numbers long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..device import Device
from ..gpu import layout_of
from ..gpu.sources import remembered, struct
from ..processor.parallel import split
from ._checks import Padding, Pair

# The taps of a window along one axis that are inside the image for one window or more.  Each has its number in the
# window, the windows for which it is inside, and the pixels that it meets there.
Taps = tuple[tuple[int, slice, slice], ...]

TILE = 1 << 18  # elements of x at a time: many images where they are small, else one


@lru_cache(maxsize=256)
def taps_inside(
    size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, outputs: Pair
) -> tuple[Taps, Taps]:
    """The taps down the rows and across the columns of images of this (H, W)."""
    down, across = (
        _along(*settings) for settings in zip(size, kernel, stride, (padding[0][0], padding[1][0]), dilation, outputs)
    )
    return down, across


def _along(size: int, kernel: int, stride: int, before: int, dilation: int, count: int) -> Taps:
    """The taps of `count` windows along an axis of `size` pixels and padding `before`.  Padding is never read."""
    found = []
    for tap in range(kernel):
        offset = tap * dilation - before  # window o meets pixel offset + stride * o
        low = max(0, -(offset // stride))
        high = min(count, (size - 1 - offset) // stride + 1)
        if low < high:
            pixel = offset + stride * low
            found.append((tap, slice(low, high), slice(pixel, pixel + stride * (high - low - 1) + 1, stride)))
    return tuple(found)


def first_taps(taps: Taps, count: int) -> Taps:
    """What to copy, one over the other in this order, so that each of `count` windows has its first tap inside.

    That is tap 0 alone, unless some windows start in the padding.
    """
    _, windows, _ = taps[0]
    return taps[:1] if windows == slice(0, count) else taps[::-1]


def images_per_tile(shape: tuple[int, ...]) -> int:
    """How many images of this shape (N, ...) make up a tile."""
    return max(1, TILE // max(1, math.prod(shape[1:])))


def in_tiles(device: Device, shape: tuple[int, ...], work: Callable[[slice], None]) -> None:
    """work(some) for a few images at a time, on the device's threads; `shape` (N, ...) is that of the larger array."""
    if not math.prod(shape):
        return
    tile = images_per_tile(shape)
    if shape[0] <= tile:  # LeNet's: no threads to ask, no BLAS to tell
        work(slice(0, shape[0]))
        return

    def piece(start: int, stop: int) -> None:
        for i in range(start, stop, tile):
            work(slice(i, min(i + tile, stop)))

    split(device, shape[0], piece, at_least=tile)


@remembered
def axis_structs(kernel: str, **pairs: Pair) -> tuple[np.ndarray, np.ndarray]:
    """What kernels/<kernel>.cu is told of the two axes, down the rows and across: a `struct Axis` each.

    Only a stride or a dilation can pass 2^31, with a single window or a single tap: there any number does the same.
    """
    down, across = ({name: min(pair[axis], 2**31 - 1) for name, pair in pairs.items()} for axis in (0, 1))
    return struct(kernel, "Axis", **down), struct(kernel, "Axis", **across)


@remembered
def places(maps: int, size: Pair, *of: tuple[int, int, int]) -> np.ndarray:
    """A Layout that tells thread number i where it works: up to four numbers, all 0 for row 0, column 0 of map 0.

    There are so many maps of (rows, columns) = size.  of: by how much each number grows from map to map, from row to
    row, and from column to column.
    """
    layout = layout_of((max(1, maps), *size), of)
    assert layout is not None  # three axes at most
    return layout


@remembered
def cells_3_by_2(x_shape: tuple[int, ...], outputs: Pair, padding: Padding) -> tuple[int, np.ndarray]:
    """The threads, and their places, of a gradient's kernel for windows of 3 x 3 pixels, 2 apart.

    A thread has the 2 x 2 pixels where one window begins, in the padded image.  Its numbers: where that window lies in
    dy, where its first pixel lies in dx, the window's row and column.
    """
    (n, c, h, w), (oh, ow), ((top, _), (left, _)) = x_shape, outputs, padding
    cells = -(-(h + top) // 2), -(-(w + left) // 2)
    of_cell = places(n * c, cells, (oh * ow, ow, 1), (h * w, 2 * w, 2), (0, 1, 0), (0, 0, 1))
    return n * c * math.prod(cells), of_cell
