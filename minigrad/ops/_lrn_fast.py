"""The fast face of lrn and lrn_within_map: the formula of lrn.py on tiles that fit the L2 cache, in place.

    s  = k + alpha * W(x * x)
    y  = x / s^beta
    dx = dy / s^beta - 2 alpha beta x * W(dy / s^beta * x / s)

W(a * b) stands for the sums of a_j * b_j over the windows: BandSums or ChannelSums for lrn, PixelSums for
lrn_within_map.  Everything is channels-last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from ..device import Device
from ..engine import Array
from ..processor.memory import empty
from ..processor.parallel import beside_others, split

TILE = 3 << 14  # elements: what one line of a formula writes, the next finds in the L2 cache
PIECE = 200_000  # elements worth another thread; measured: one image of AlexNet takes 4 % less time in one thread
BLOCK = 16  # channels whose sums BandSums makes by one matrix; measured: 24 and 32 are slower


class Settings(Protocol):
    """What is read of the op."""

    device: Device
    k: float
    alpha: float
    beta: float


# sums(a, b, weight, out): out = weight * W(a * b), for a tile
Sums = Callable[[Array, Array, float, Array], None]
Work = Callable[..., None]  # work(op, sums, spare, *tiles), with two spare arrays of the tiles' shape


def in_tiles(op: Settings, work: Work, sums: Callable[..., Sums], reach: tuple[int, ...], *arrays: Array) -> None:
    """work(op, sums, spare, *tiles) on tiles of `arrays`, cut along their first axis, on the threads of the device.

    A thread gets its spare memory once: new memory for every tile was measured up to a quarter slower on one thread.
    """
    count, *rest = arrays[0].shape
    if arrays[0].size == 0:
        return
    least = max(1, TILE // math.prod(rest))

    def piece(start: int, stop: int) -> None:
        # With another thread beside this one, every call of NumPy has to get Python's lock back: fewer, longer calls
        # were measured faster by 6 % then.  In a thread alone they are slower by 15 %.
        size = min(least * 2 if beside_others() else least, stop - start)
        shape, dtype = (size, *rest), arrays[0].dtype
        window_sums = sums(shape, *reach, dtype)
        spare = [empty(shape, dtype) for _ in range(2)]
        for i in range(start, stop, size):
            tiles = [a[i : min(i + size, stop)] for a in arrays]
            work(op, window_sums, [a[: len(tiles[0])] for a in spare], *tiles)

    split(op.device, count, piece, at_least=max(least, PIECE // math.prod(rest)))


def normalize(op: Settings, sums: Sums, spare: list[Array], x: Array, y: Array) -> None:
    """The forward pass of a tile."""
    s, root = spare
    scale(op, sums, x, out=s)
    power(s, op.beta, out=y, root=root)
    np.divide(x, y, out=y)


def differentiate(op: Settings, sums: Sums, spare: list[Array], x: Array, dy: Array, dx: Array) -> None:
    """The backward pass of a tile."""
    s, root = spare
    scale(op, sums, x, out=s)
    power(s, op.beta, out=dx, root=root)
    np.divide(dy, dx, out=dx)
    x_over_s = np.divide(x, s, out=root)
    sums(dx, x_over_s, -2 * op.alpha * op.beta, s)  # s is not needed any more
    s *= x
    dx += s


def scale(op: Settings, sums: Sums, x: Array, out: Array) -> None:
    """out = k + alpha * (sum of x^2)."""
    sums(x, x, op.alpha, out)
    out += x.dtype.type(op.k)


def power(s: Array, beta: float, out: Array, root: Array) -> Array:
    """out = s^beta.  For the paper's beta = 3/4 by two square roots: measured in about half the time of a power."""
    if beta != 0.75:
        return np.power(s, s.dtype.type(beta), out=out)
    np.sqrt(s, out=root)
    np.sqrt(root, out=out)
    out *= root
    return out


class BandSums:
    """W(a * b) over neighbouring channels as products of matrices; tiles are (pixels, channels).

    The sums over windows are a product with a band matrix.  It is all zeros but for the window, so that it is cut into
    blocks of 16 columns, which are the channels of 16 sums.  Their rows are the channels that these sums see, 2 * reach
    more of them: for n = 5 a block is 20 x 16,

        w w w . . .         w = weight, two channels before the block
        . w w w . .
        . . w w w .  ...

    and one call multiplies all pixels with all blocks.  Measured at AlexNet's two layers on two threads, in a train
    step: the op takes a sixth less time than with ChannelSums.

    0 * inf and 0 * NaN are NaN, which would reach channels whose window has neither.  Where a sum of the tile is not
    finite, ChannelSums makes them all again.
    """

    def __init__(self, shape: tuple[int, int], reach: int, dtype: Any):
        pixels, channels = self.shape = shape
        self.reach, self.blocks = reach, channels // BLOCK
        self.careful: ChannelSums | None = None
        # The first block and the last one see `reach` numbers beyond the row, and those at the ends of a pixel see the
        # neighbouring pixels: their rows there are zeros.  The gap before is of whole lines of the cache, since
        # products that are written across two of them take twice as long.
        gap = -(-reach // BLOCK) * BLOCK
        row = empty((gap + pixels * channels + reach,), dtype)
        row[:gap] = row[gap + pixels * channels :] = 0
        self.products = row[gap : gap + pixels * channels].reshape(shape)
        size = self.blocks, pixels, BLOCK + 2 * reach
        strides = BLOCK * row.itemsize, channels * row.itemsize, row.itemsize
        self.seen = np.ndarray(size, dtype, row, (gap - reach) * row.itemsize, strides)  # a view

    def __call__(self, a: Array, b: Array, weight: float, out: Array) -> None:
        pixels, channels = a.shape
        np.multiply(a, b, out=self.products[:pixels])
        sums = out.reshape(pixels, self.blocks, BLOCK).transpose(1, 0, 2)
        with np.errstate(all="ignore"):  # ChannelSums will warn
            np.matmul(self.seen[:, :pixels], band(channels, self.reach, weight, a.dtype), out=sums)
        if not math.isfinite(np.dot(out.reshape(-1), out.reshape(-1))):
            self.careful = self.careful or ChannelSums(self.shape, self.reach, a.dtype)
            self.careful(a, b, weight, out)


@lru_cache(maxsize=16)  # a net asks for the same few at every step
def band(channels: int, reach: int, weight: float, dtype: Any) -> Array:
    """For each block, BandSums' matrix: `weight` where the window of a column has the channel of a row, else 0."""
    column = np.arange(channels).reshape(-1, 1, BLOCK)
    row = column[:, :, :1] + np.arange(-reach, BLOCK + reach)[:, None]
    band = np.where((row >= 0) & (row < channels) & (abs(row - column) <= reach), weight, 0).astype(dtype)
    band.flags.writeable = False  # every caller gets the same array
    return band


class ChannelSums:
    """W(a * b) over neighbouring channels, any number of them; tiles are (pixels, channels).

    The products of all pixels go into one long row of memory, with a gap of zeros before every pixel,

        0 0 | p p p p p | 0 0 | p p p p p | 0 0             windows of 5: gaps of 2

    so that the row, and the row from its second element on, and so forth, added up, are all the window sums: few
    operations on long arrays.  (Slices of every pixel's channels, as in the textbook's face, were measured to
    take 2.5 to 3.3 times as long for n = 5.)
    """

    def __init__(self, shape: tuple[int, int], reach: int, dtype: Any):
        pixels, channels = shape
        self.reach, self.stretch = reach, reach + channels
        self.row = empty((pixels * self.stretch + 2 * reach,), dtype)
        self.row[...] = 0
        self.products = self.row[: pixels * self.stretch].reshape(pixels, self.stretch)[:, reach:]
        self.sums = empty((pixels * self.stretch,), dtype)

    def __call__(self, a: Array, b: Array, weight: float, out: Array) -> None:
        pixels, channels = a.shape
        products = np.multiply(a, b, out=self.products[:pixels])
        if self.reach:
            size = pixels * self.stretch
            sums = np.add(self.row[:size], self.row[1 : size + 1], out=self.sums[:size])
            for shift in range(2, 2 * self.reach + 1):
                sums += self.row[shift : shift + size]
            products = sums.reshape(pixels, self.stretch)[:, :channels]  # a window begins `reach` before its middle
        np.multiply(products, a.dtype.type(weight), out=out)


class PixelSums:
    """W(a * b) over n x n pixels; tiles are (images, H, W, C).

    The sums down the rows, then their sums across the columns: 2 (n - 1) additions in place of n * n - 1.
    """

    def __init__(self, shape: tuple[int, int, int, int], down: int, across: int, dtype: Any):
        self.down, self.across = down, across
        self.total, self.column = empty(shape, dtype), empty(shape, dtype)

    def __call__(self, a: Array, b: Array, weight: float, out: Array) -> None:
        n, h, w, c = a.shape
        total, column = self.total[:n], self.column[:n]
        np.multiply(a, b, out=total)
        add_neighbours(total.reshape(n, h, w * c), self.down, out=column.reshape(n, h, w * c))
        add_neighbours(column.reshape(n * h, w, c), self.across, out=total.reshape(n * h, w, c))
        np.multiply(total, a.dtype.type(weight), out=out)


def add_neighbours(t: Array, reach: int, out: Array) -> None:
    """out[:, i] = the sum of t[:, i - reach : i + reach + 1], for t (A, B, K)."""
    out[...] = t
    for d in range(1, reach + 1):
        out[:, d:] += t[:, :-d]
        out[:, :-d] += t[:, d:]
