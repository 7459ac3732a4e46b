"""The fast face of conv2d on the CPU: the sums of conv2d.py as products of matrices, a tile at a time.

Write what the window of output pixel (n,i,j) sees as one row of a matrix, and each kernel as one, too ("im2col"):

    cols[(n,i,j), (u,v,c)] = x[n, c, s*i + d*u - p, s*j + d*v - p]        w[o, (u,v,c)]

Then the formulas of the room read

    y = cols @ w.T + b        dw = dy.T @ cols        dcols = dy @ w,  each row added back to the window it came from

and nearly all the time is spent in these products, by BLAS.  Four rules keep the rest small:

Channels-last.  All images are (N, H, W, C) in memory here: the kernel_w * channels numbers of a window's row are
neighbours, and y comes out of its product in place.

Tiles.  The whole of cols would be 25 times the input of AlexNet's conv2, so that a tile of it is made at a time, small
enough to stay in the cache: some output rows of one image, or, where images are small, several images.

Groups.  A group is a convolution of its own.  Its channels of a tile are copied with their border of zeros, and then
windows are read from that copy.

Taps.  dcols is never stored: tap (u,v) of it is dy @ w[:, (u,v)], and goes to the pixels that the tap has seen.

Threads share the images of a batch.  Each sums its own dw and db, which are added in a fixed order.

Source: Chellapilla, Puri, Simard 2006 (im2col).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..device import Device
from ..engine import Array
from ..processor.memory import empty
from ..processor.parallel import split
from ._checks import Padding, Pair
from ._reduction import added_up
from ._runs import runs
from ._windows import channels_last, nchw, nhwc, small_buffers, taps

# Bytes of cols at a time.  BLAS packs what it reads into the second-level cache by itself, so a tile need only stay
# in the third; larger tiles feed BLAS larger matrices, and there are fewer products of dw to add.  Measured on
# AlexNet's layers: a third of this, which cuts conv3's images of 13x13 in two, is slower, and twice this gains nothing.
_TILE_BYTES = 3.2e6
_MAP_BYTES = 2e6  # of one group's dx and one tap's share of it at a time; measured: half of this is slower at 13x13
_LEAST_WORK = 20_000_000  # multiplications worth waking a thread: fewer were measured slower on two than on one


class Sizes(NamedTuple):
    """What a convolution is, but for its numbers."""

    s: Pair  # stride
    p: Padding
    d: Pair  # dilation
    groups: int
    kernel: Pair  # (kernel_h, kernel_w)
    cg: int  # input channels of a group
    outputs: Pair  # (OH, OW)


class Tile(NamedTuple):
    """Output rows i to j of images a to z (j and z not among them)."""

    a: int
    z: int
    i: int
    j: int


def forward(device: Device, x: Array, w: Array, b: Array | None, sizes: Sizes) -> Array:
    (oh, ow), o = sizes.outputs, len(w)
    w = kernel_matrices(w, sizes.groups)
    y = empty((len(x) * oh * ow, *w.shape[:2]), x.dtype)  # (pixels, groups, channels of a group)

    def piece(start: int, stop: int) -> None:
        mine = y[start * oh * ow : stop * oh * ow]
        for pixels, g, cols in unrolled(nhwc(x)[start:stop], sizes):
            np.matmul(cols, w[g].T, out=mine[pixels, g])
            if b is not None:
                add_to_rows(mine[pixels, g], b.reshape(sizes.groups, -1)[g], ow)

    share_out(device, len(x), piece, oh * ow * w.size)
    return nchw(y.reshape(-1, oh, ow, o))


def backward(
    device: Device, x: Array, w: Array, dy: Array, needs: tuple[bool, ...], sizes: Sizes
) -> tuple[Array | None, ...]:
    (n, c, h, l), (oh, ow), o = x.shape, sizes.outputs, len(w)
    w = kernel_matrices(w, sizes.groups)
    dx = empty((n, h, l, c), x.dtype) if needs[0] else None

    def piece(start: int, stop: int) -> tuple[Array | None, Array | None]:
        mine = channels_last(dy[start:stop]).reshape(-1, *w.shape[:2])  # (pixels, groups, channels of a group)
        dw = gradient_of_w(nhwc(x)[start:stop], mine, w, sizes) if needs[1] else None
        db = added_up(mine.reshape(-1, o), (0,)) if any(needs[2:]) else None
        if dx is not None:
            fill_gradient_of_x(dx[start:stop], mine, w, sizes)
        return dw, db

    sums, *more = share_out(device, n, piece, oh * ow * w.size)
    for parts in more:
        for total, part in zip(sums, parts):
            if total is not None:
                device.add_into(total, part)
    dw, db = sums
    if dw is not None:
        dw = nchw(dw.reshape(o, *sizes.kernel, sizes.cg))
    return None if dx is None else nchw(dx), dw, db


def kernel_matrices(w: Array, groups: int) -> Array:
    """w[o, (u,v,c)] of each group: (groups, output channels of a group, kernel_h * kernel_w * input channels of one).

    A view of channels-last memory.
    """
    return channels_last(w).reshape(groups, len(w) // groups, -1)


def share_out(device: Device, n: int, piece: Callable[[int, int], Any], work: int) -> list[Any]:
    """piece(start, stop) for n images, each of so many multiplications, on the threads of the device.

    A single image is not cut: BLAS has threads of its own for its products, and they are awake sooner than ours.
    """
    return [piece(0, n)] if n == 1 else split(device, n, piece, at_least=1 + _LEAST_WORK // max(1, work))


# ---------------------------------------------------------------- y and dw: cols, a tile at a time


def gradient_of_w(x: Array, dy: Array, w: Array, sizes: Sizes) -> Array:
    """dy.T @ cols for each group, summed tile by tile: the shape of w, which are the kernels as matrices."""
    dw, product = empty(w.shape, w.dtype), empty(w.shape[1:], w.dtype)
    dw[...] = 0
    for pixels, g, cols in unrolled(x, sizes):
        dw[g] += weight_product(dy[pixels, g], cols, product)
    return dw


def weight_product(dy: Array, cols: Array, out: Array) -> Array:
    """dy.T @ cols.  By np.dot: np.matmul keeps Python's lock while it makes a small matrix of long sums."""
    if cols.flags.c_contiguous:
        return np.dot(dy.T, cols, out=out)
    return np.dot(cols.T, dy).T  # faster here: both are read along their rows


def unrolled(x: Array, sizes: Sizes) -> Iterator[tuple[slice, int, Array]]:
    """im2col of images x (N, H, W, C), tile by tile: (output pixels of the tile, group, cols of both).

    cols is good until the next is asked for: all are written to the same memory.
    """
    oh, ow = sizes.outputs
    k = sizes.kernel[0] * sizes.kernel[1] * sizes.cg
    tiles = tiles_of(len(x), oh, ow * k * x.itemsize)
    most = max(((t.z - t.a) * (t.j - t.i) * ow * k for t in tiles), default=0)
    # Never smaller than this, so that `empty` lends the memory that the layer before gave back, still in the cache.
    memory = empty((max(most, int(_TILE_BYTES) // x.itemsize),), x.dtype)
    by_group = x.reshape(*x.shape[:3], sizes.groups, sizes.cg)
    for g in range(sizes.groups):
        for a, z, i, j in tiles:
            xp = bordered(by_group[a:z, :, :, g], i, j, sizes)
            yield slice((a * oh + i) * ow, ((z - 1) * oh + j) * ow), g, cols_of(xp, j - i, memory, sizes)


def tiles_of(n: int, oh: int, row_bytes: int) -> list[Tile]:
    """n images of oh output rows in tiles whose cols, with so many bytes for each output row, fit the cache."""
    if oh * row_bytes <= _TILE_BYTES:
        return [Tile(a, z, 0, oh) for a, z in evenly(n, int(_TILE_BYTES / (oh * row_bytes)))]
    return [Tile(a, a + 1, i, j) for a in range(n) for i, j in evenly(oh, int(_TILE_BYTES / row_bytes))]


def evenly(count: int, most: int) -> list[Pair]:
    """0 to `count` cut into (start, stop), as few as can be with `most` in each, all equal or one more than others."""
    ranges = max(1, -(-count // max(1, most)))
    bounds = [-(-count * i // ranges) for i in range(ranges + 1)]
    return list(zip(bounds, bounds[1:]))


def bordered(x: Array, i: int, j: int, sizes: Sizes) -> Array:
    """What the windows of output rows i to j see of images x (N, H, W, C): their rows, with the border of zeros.

    Contiguous; or a view of x where there is nothing to add, which may go on below those rows.
    """
    (top, _), (left, right) = sizes.p
    n, h, l, c = x.shape
    begin = sizes.s[0] * i - top
    end = sizes.s[0] * (j - 1) + sizes.d[0] * (sizes.kernel[0] - 1) + 1 - top
    if begin >= 0 and end <= h and left == right == 0 and x.flags.c_contiguous:
        return x[:, begin:]
    x = x[:, max(begin, 0) : max(end, 0)]
    xp = empty((n, end - begin, left + l + right, c), x.dtype)
    above = max(-begin, 0)
    below = above + x.shape[1]
    xp[:, :above] = xp[:, below:] = xp[:, :, :left] = xp[:, :, left + l :] = 0
    xp[:, above:below, left : left + l] = x
    return xp


def cols_of(xp: Array, rows: int, memory: Array, sizes: Sizes) -> Array:
    """cols[(n,i,j), (u,v,c)] = xp[n, s*i + d*u, s*j + d*v, c] for so many output rows, in the memory of `memory`.

    A kernel of one pixel and stride 1 unrolls nothing: then cols is xp itself.
    """
    (n, _, l, c), (kh, kw), (_, ow), (sh, sw), (dh, dw) = xp.shape, sizes.kernel, sizes.outputs, sizes.s, sizes.d
    pixels, k = n * rows * ow, kh * kw * c
    if kh == kw == sh == sw == 1:
        return xp[:, :rows, :ow].reshape(pixels, k)
    # Steps of memory.  NumPy says anything about those along axes of size 1: a group of one channel, a single image.
    image, channel = xp.strides[0], xp.itemsize
    row, pixel = l * c * channel, c * channel
    cols = memory[: pixels * k]
    if sw == 1 and kw * c < ow:
        # With few channels a row of the image is a longer run than a row of a window: so cols is written, and lies in
        # memory, column by column.
        strides = (dh * row, dw * pixel, channel, image, sh * row, sw * pixel)
        windows = np.ndarray((kh, kw, c, n, rows, ow), xp.dtype, xp, 0, strides)  # a view: windows[u,v,c,n,i,j]
        cols.reshape(windows.shape)[...] = windows
        return cols.reshape(k, pixels).T
    # A run is copied as one: a whole row of a window, (v,c), or, where dilation leaves gaps, a pixel of it.
    steps, run = (1, kw * c) if dw == 1 else (kw, c)
    strides = (image, sh * row, sw * pixel, dh * row, dw * pixel, channel)
    windows = np.ndarray((n, rows, ow, kh, steps, run), xp.dtype, xp, 0, strides)
    runs(cols.reshape(windows.shape))[...] = runs(windows)
    return cols.reshape(pixels, k)


def add_to_rows(y: Array, b: Array, ow: int) -> None:
    """y (pixels, channels) += b; NumPy's loops are longer where y, in one run of memory, is taken by rows of pixels."""
    if y.flags.c_contiguous:
        y, b = y.reshape(-1, ow * len(b)), np.tile(b, ow)
    y += b


# ---------------------------------------------------------------- dx: a tap at a time


@small_buffers()
def fill_gradient_of_x(dx: Array, dy: Array, w: Array, sizes: Sizes) -> None:
    """Into dx (N, H, W, C) the sum of what dy (pixels, groups, channels of a group) @ w sends to each pixel.

    As in the textbook: each tap's share is added to the pixels that the tap has seen, in images with a border, which
    is then cut off.  Here for a few images of one group at a time, so that both stay in the cache.
    """
    (top, bottom), (left, right) = sizes.p
    (n, h, l, _), (oh, ow), cg = dx.shape, sizes.outputs, sizes.cg
    height, width = top + h + bottom, left + l + right
    m = max(1, int(_MAP_BYTES / ((height * width + oh * ow) * cg * dx.itemsize)))  # images at a time
    w = w.reshape(*w.shape[:2], *sizes.kernel, cg)
    by_group = dx.reshape(n, h, l, sizes.groups, cg)
    for a in range(0, n, m):
        z = min(a + m, n)
        dxp = empty((z - a, height, width, cg), dx.dtype)
        share = empty(((z - a) * oh * ow, cg), dx.dtype)
        share_of_images = nchw(share.reshape(z - a, oh, ow, cg))
        dy_az = dy[a * oh * ow : z * oh * ow]
        for g in range(sizes.groups):
            dxp[...] = 0
            for u, v, seen in taps(nchw(dxp), sizes.kernel, sizes.s, sizes.d, sizes.outputs):
                np.matmul(dy_az[:, g], w[g, :, u, v], out=share)
                seen += share_of_images
            by_group[a:z, :, :, g] = dxp[:, top : top + h, left : left + l]
