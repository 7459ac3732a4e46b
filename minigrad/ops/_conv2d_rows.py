"""conv2d on the CPU by rows of windows: the sums of conv2d.py as products of matrices, a tile at a time.

A window of an image has kernel_h rows.  Write what one row of it sees as one row of a matrix, "wide",

    wide[(h,j), (v,c)] = x[n, c, s*h - p, s*j + d*v - p]            w[o, (u,v,c)]

Row u of the window of output (i,j) is row (i + d*u/s, j) of wide, where s divides d*u: as many rows of the image
further down for all i and j.  So what all windows see with row u of the kernel is one run of wide's memory, from row
d*u/s on, and the formulas of the room read

    y = b + sum over u of  wide[from d*u/s on] @ w[u].T
    dw[u]                  = dy.T @ wide[from d*u/s on]
    dwide[from d*u/s on]  += dy @ w[u],         and each row of dwide is added back to the pixels that it came from

with nearly all the time in these products, by BLAS, which adds each to what is there (blas.add_product).  Where s does
not divide d*u, or a row of a window has few numbers, which makes a slow product, wide has several rows of the kernel, a
"band", side by side: wide[(h,j), (t,v,c)] = x[n, c, s*h + d*t - p, ...], and u counts bands.  One band of all rows is
what is called im2col, the matrix of whole windows.

Why not whole windows always: those of AlexNet's conv2, 5 x 5 taps, are 25 times their image, 3.5 MB, more than the
second-level cache, and have to be written and read; rows of windows are 5 times their image.  Measured against whole
windows at AlexNet's shapes: 0.77 (conv2's dx) to 1.03 (conv1's dw) of the time.

Channels-last.  All images are (N, H, W, C) in memory here: the kernel_w * channels numbers of a window's row are
neighbours, and y comes out of its product in place.

Groups.  A group is a convolution of its own.  Its channels of a tile are copied with their border of zeros, and then
windows are read from that copy.

Source: Chellapilla, Puri, Simard 2006 (im2col).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from ..engine import Array
from ..processor.blas import add_product
from ..processor.memory import empty
from ._checks import Padding, Pair
from ._pooling import taps_inside
from ._runs import runs
from ._windows import small_buffers

TILE_BYTES = 2e6  # of wide at a time
LEAST_DEPTH = 100  # numbers in a row of wide
LEAST_WINDOWS = 100_000  # numbers in the whole windows of an image; where there are fewer, one band is as good


class Sizes(NamedTuple):
    """What a convolution is, but for its numbers."""

    s: Pair  # stride
    p: Padding
    d: Pair  # dilation
    groups: int
    kernel: Pair  # (kernel_h, kernel_w)
    cg: int  # input channels of a group
    outputs: Pair  # (OH, OW)


class Band(NamedTuple):
    """Some rows of the kernel."""

    shift: int  # from which row of wide on they see what output row 0 and those after it need
    w: slice  # where they are in a kernel's kernel_h * kernel_w * channels numbers


class Plan(NamedTuple):
    """How the rows of a kernel are cut into bands."""

    rows: int  # of the kernel in a band; the last may have fewer
    depth: int  # numbers in a row of wide
    bands: tuple[Band, ...]


class Tile(NamedTuple):
    """Output rows i to j of images a to z (j and z not among them)."""

    a: int
    z: int
    i: int
    j: int


def suits(images: int, w: Array, sizes: Sizes) -> bool:
    """It always does."""
    return True


suits_gradient_of_x = suits


def forward(x: Array, w: Array, b: Array | None, y: Array, sizes: Sizes) -> None:
    """Fill y (N, OH, OW, groups, channels of a group) for x (N, H, W, C); w as `kernel_matrices` makes it."""
    for tile, g, wide in unrolled(x, sizes):
        there = pixels_of(y, tile, g, sizes)
        out = as_matrix(there, filled=False)
        out[...] = 0 if b is None else b.reshape(sizes.groups, -1)[g]
        for seen, band in by_bands(wide, tile, sizes):
            add_product(seen, w[g, :, band].T, out)
        if not np.may_share_memory(out, there):
            there[...] = out.reshape(there.shape)


def gradient_of_w(x: Array, dy: Array, w: Array, sizes: Sizes) -> Array:
    """dw of these images, in the shape of w, which are the kernels as matrices."""
    dw = empty(w.shape, w.dtype)
    dw[...] = 0
    for tile, g, wide in unrolled(x, sizes):
        dy_tile = as_matrix(pixels_of(dy, tile, g, sizes))
        for seen, band in by_bands(wide, tile, sizes):
            add_product(dy_tile.T, seen, dw[g, :, band])
    return dw


@small_buffers()
def gradient_of_x(dx: Array, dy: Array, w: Array, sizes: Sizes) -> None:
    """Into dx (N, H, W, C) what dy (N, OH, OW, groups, channels of a group) sends to each pixel: dwide, added back."""
    dx[...] = 0
    by_group, memory = dx.reshape(*dx.shape[:3], sizes.groups, sizes.cg), wide_memory(len(dx), sizes, dx.dtype)
    for g in range(sizes.groups):
        for tile in tiles_of(len(dx), sizes, dx.itemsize):
            dwide = wide_in(memory, tile, sizes)
            dwide[...] = 0
            dy_tile = as_matrix(pixels_of(dy, tile, g, sizes))
            for seen, band in by_bands(dwide, tile, sizes):
                add_product(dy_tile, w[g, :, band], seen)
            add_back(dwide, by_group[tile.a : tile.z, :, :, g], tile, sizes)


def add_back(dwide: Array, dx: Array, tile: Tile, sizes: Sizes) -> None:
    """Each row of windows added to the pixels of images dx that it came from, tap by tap."""
    (_, h, l, c), ((top, _), left), (_, kw), plan = dx.shape, sizes.p, sizes.kernel, plan_of(sizes)
    windows = axes_of_wide(dwide.reshape(*wide_shape(tile, sizes), plan.rows, kw, c), sizes)
    padding = (top - sizes.s[0] * tile.i, 0), left  # as if the image began at the tile's first row
    count = windows.shape[1], sizes.outputs[1]
    down, across = taps_inside((h, l), (plan.rows, kw), sizes.s, padding, sizes.d, count)
    if sizes.d[1] == 1 and count[1] < kw:  # few windows in a row of the image: each is added as one run
        for t, i, rows in down:
            for window in range(count[1]):
                at = sizes.s[1] * window - left[0]
                first, end = max(0, -at), min(kw, l - at)
                if first < end:  # else it is in the padding
                    dx[:, rows, at + first : at + end] += windows[:, i, window, t, first:end]
        return
    for t, i, rows in down:
        for v, j, columns in across:
            dx[:, rows, columns] += windows[:, i, j, t, v]


# ---------------------------------------------------------------- bands and tiles


@lru_cache(maxsize=256)
def plan_of(sizes: Sizes) -> Plan:
    """Bands of as few rows of the kernel as give wide rows of LEAST_DEPTH numbers, and a shift by whole rows."""
    (s, _), (d, _), (kh, kw) = sizes.s, sizes.d, sizes.kernel
    whole, row = s // gcd(s, d), kw * sizes.cg
    rows = whole * -(-LEAST_DEPTH // (whole * row))
    if rows > kh or math.prod(sizes.outputs) * kh * row < LEAST_WINDOWS:  # of one image
        rows = kh
    bands = tuple(Band(d * u // s, slice(u * row, min(u + rows, kh) * row)) for u in range(0, kh, rows))
    return Plan(rows, rows * row, bands)


def tiles_of(n: int, sizes: Sizes, itemsize: int) -> list[Tile]:
    """n images in tiles whose wide fits the cache."""
    (oh, ow), plan = sizes.outputs, plan_of(sizes)
    return tiles_in(TILE_BYTES, n, oh, plan.bands[-1].shift, ow * plan.depth * itemsize)


def tiles_in(room: float, n: int, oh: int, more: int, row_bytes: int) -> list[Tile]:
    """n images of oh output rows in tiles of `room` bytes, some images or rows of one; each needs `more` rows."""
    if (oh + more) * row_bytes <= room:
        return [Tile(a, z, 0, oh) for a, z in evenly(n, int(room / ((oh + more) * row_bytes)))]
    rows = evenly(oh, int(room / row_bytes) - more)
    return [Tile(a, a + 1, i, j) for a in range(n) for i, j in rows]


def evenly(count: int, most: int) -> list[Pair]:
    """0 to `count` cut into (start, stop), as few as can be with `most` in each, all equal or one more than others."""
    ranges = max(1, -(-count // max(1, most)))
    bounds = [-(-count * i // ranges) for i in range(ranges + 1)]
    return list(zip(bounds, bounds[1:]))


# With several bands, images are the innermost of a tile's axes, in wide and in all that is multiplied with it:
# (h, j, n).  So a shift by some rows is one run of memory for all images of the tile; with images outermost, each would
# have to be multiplied by itself.


def axes_of_pixels(y: Array, sizes: Sizes) -> Array:
    """(N, H, W, ...) with its axes in the order that they have in matrices."""
    return y.swapaxes(0, 1).swapaxes(1, 2) if len(plan_of(sizes).bands) > 1 else y


def axes_of_wide(y: Array, sizes: Sizes) -> Array:
    """The way back: (N, H, W, ...) from the order of matrices."""
    return y.swapaxes(1, 2).swapaxes(0, 1) if len(plan_of(sizes).bands) > 1 else y


def pixels_of(y: Array, tile: Tile, g: int, sizes: Sizes) -> Array:
    """The tile's part of y (N, OH, OW, groups, channels of a group), its axes in the order of matrices."""
    return axes_of_pixels(y[tile.a : tile.z, tile.i : tile.j, :, g], sizes)


def as_matrix(pixels: Array, filled: bool = True) -> Array:
    """Pixels as the rows of a matrix: the same memory where it can be seen so, else a copy, `filled` or not."""
    shape = math.prod(pixels.shape[:3]), pixels.shape[3]
    axes = [axis for axis in zip(pixels.shape[:3], pixels.strides) if axis[0] > 1]
    if all(step == size * smaller for (_, step), (size, smaller) in zip(axes, axes[1:])):
        return pixels.reshape(shape)  # a view: the steps along the first three axes are those of a single one
    matrix = empty(shape, pixels.dtype)
    if filled:
        matrix.reshape(pixels.shape)[...] = pixels
    return matrix


def wide_shape(tile: Tile, sizes: Sizes) -> tuple[int, int, int]:
    """The three axes of wide's rows for a tile."""
    n, h, w = tile.z - tile.a, tile.j - tile.i + plan_of(sizes).bands[-1].shift, sizes.outputs[1]
    return (h, w, n) if len(plan_of(sizes).bands) > 1 else (n, h, w)


def wide_memory(n: int, sizes: Sizes, dtype: Any) -> Array:
    """Memory for wide of the largest tile, which is the first, of n images.

    Never less than TILE_BYTES, so that `empty` lends what the layer before gave back, still in the cache.
    """
    tiles = tiles_of(n, sizes, dtype.itemsize)[:1]
    most = max((math.prod(wide_shape(tile, sizes)) for tile in tiles), default=0) * plan_of(sizes).depth
    return empty((max(most, int(TILE_BYTES) // dtype.itemsize),), dtype)


def wide_in(memory: Array, tile: Tile, sizes: Sizes) -> Array:
    """A tile's wide in this memory, yet to be filled."""
    rows, depth = math.prod(wide_shape(tile, sizes)), plan_of(sizes).depth
    return memory[: rows * depth].reshape(rows, depth)


def by_bands(wide: Array, tile: Tile, sizes: Sizes) -> Iterator[tuple[Array, slice]]:
    """What the tile's windows see with each band of the kernel, rows of wide, and where the band is in a kernel."""
    n, ow = tile.z - tile.a, sizes.outputs[1]
    count = n * (tile.j - tile.i) * ow
    for band in plan_of(sizes).bands:
        start = band.shift * ow * n
        yield wide[start : start + count, : band.w.stop - band.w.start], band.w


# ---------------------------------------------------------------- wide


def unrolled(x: Array, sizes: Sizes) -> Iterator[tuple[Tile, int, Array]]:
    """wide of images x (N, H, W, C), tile by tile: (tile, group, wide of both).

    It is good until the next is asked for: all are written to the same memory.
    """
    by_group, memory = x.reshape(*x.shape[:3], sizes.groups, sizes.cg), wide_memory(len(x), sizes, x.dtype)
    for g in range(sizes.groups):
        for tile in tiles_of(len(x), sizes, x.itemsize):
            yield tile, g, filled_wide(by_group[tile.a : tile.z, :, :, g], tile, memory, sizes)


def filled_wide(x: Array, tile: Tile, memory: Array, sizes: Sizes) -> Array:
    """wide[(h,j,n), (t,v,c)] = x[n, s*h + d*t - p, s*j + d*v - p, c], in the memory of `memory`.

    A kernel of one pixel and stride 1 unrolls nothing: then wide is the images themselves.
    """
    (kh, kw), (sh, sw), (dh, dw), plan = sizes.kernel, sizes.s, sizes.d, plan_of(sizes)
    # Where the last band has fewer rows of the kernel, wide has some below those that windows see.
    first, last = sh * tile.i - sizes.p[0][0], tile.j - 1 + plan.bands[-1].shift
    end = sh * last + dh * (plan.rows - 1) + 1 - sizes.p[0][0]
    xp = bordered(x, first, end, *sizes.p[1])
    (n, _, l, c), (a, b, d) = xp.shape, wide_shape(tile, sizes)
    if kh == kw == sh == sw == 1:
        return xp[:, :b, :d].reshape(n * b * d, c)
    # Steps of memory.  NumPy says anything about those along axes of size 1: a group of one channel, a single image.
    image, channel = xp.strides[0], xp.itemsize
    row, pixel = l * c * channel, c * channel
    steps = (sh * row, sw * pixel, image) if len(plan.bands) > 1 else (image, sh * row, sw * pixel)
    if len(plan.bands) == 1 and sw == 1 and kw * c < d:
        # With few channels a row of the image is a longer run than a row of a window: so wide is written, and lies in
        # memory, column by column.
        windows = np.ndarray((kh, kw, c, n, b, d), xp.dtype, xp, 0, (dh * row, dw * pixel, channel, *steps))
        wide = memory[: windows.size]
        wide.reshape(windows.shape)[...] = windows
        return wide.reshape(plan.depth, -1).T
    # A run is copied as one: a whole row of a window, (v,c), or, where dilation leaves gaps, a pixel of it.
    count, run = (1, kw * c) if dw == 1 else (kw, c)
    windows = np.ndarray((a, b, d, plan.rows, count, run), xp.dtype, xp, 0, (*steps, dh * row, dw * pixel, channel))
    wide = wide_in(memory, tile, sizes)
    runs(wide.reshape(windows.shape))[...] = runs(windows)
    return wide


def bordered(x: Array, begin: int, end: int, left: int, right: int) -> Array:
    """Rows begin to end of images x (N, H, W, C), which may lie outside, and their columns with a border of zeros.

    Contiguous; or a view of x where there is nothing to add, which may go on below those rows.
    """
    n, h, l, c = x.shape
    if begin >= 0 and end <= h and left == right == 0 and x.flags.c_contiguous:
        return x[:, begin:]
    x = x[:, max(begin, 0) : max(end, 0)]
    xp = empty((n, end - begin, left + l + right, c), x.dtype)
    above = max(-begin, 0)
    below = above + x.shape[1]
    xp[:, :above] = xp[:, below:] = xp[:, :, :left] = xp[:, :, left + l :] = 0
    xp[:, above:below, left : left + l] = x
    return xp


def finite(x: Array) -> bool:
    """Whether all numbers are; also False where some are so large that their squares are not."""
    x = x.reshape(-1)
    return bool(np.isfinite(np.dot(x, x)))
