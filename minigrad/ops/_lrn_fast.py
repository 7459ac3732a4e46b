"""The fast face of lrn and lrn_within_map: the formula of lrn.py on tiles that fit the L2 cache, in place.

    s  = k + alpha * W(x * x)
    y  = x / s^beta
    dx = dy / s^beta - 2 alpha beta x * W(dy / s^beta * x / s)

W(a * b) stands for the sums of a_j * b_j over the windows: ChannelSums for lrn, PixelSums for lrn_within_map.
Everything is channels-last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..device import Device
from ..engine import Array
from ..processor.memory import empty
from ..processor.parallel import beside_others, split

TILE = 3 << 14  # elements: what one line of a formula writes, the next finds in the L2 cache


class Settings(Protocol):
    """What is read of the op."""

    device: Device
    k: float
    alpha: float
    beta: float


Sums = Callable[[Array, Array], Array]  # sums(a, b): W(a * b) for a tile; the next call overwrites it
Work = Callable[..., None]  # work(op, sums, spare, *tiles), with three spare arrays of the tiles' shape


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
        # were measured faster then, though their arrays leave the L2 cache.
        size = min(least * 4 if beside_others() else least, stop - start)
        shape, dtype = (size, *rest), arrays[0].dtype
        window_sums = sums(shape, *reach, dtype)
        spare = [empty(shape, dtype) for _ in range(3)]
        for i in range(start, stop, size):
            tiles = [a[i : min(i + size, stop)] for a in arrays]
            work(op, window_sums, [a[: len(tiles[0])] for a in spare], *tiles)

    split(op.device, count, piece, at_least=least)


def normalize(op: Settings, sums: Sums, spare: list[Array], x: Array, y: Array) -> None:
    """The forward pass of a tile."""
    s, s_beta, root = spare
    scale(op, sums, x, out=s)
    power(s, op.beta, out=s_beta, root=root)
    np.divide(x, s_beta, out=y)


def differentiate(op: Settings, sums: Sums, spare: list[Array], x: Array, dy: Array, dx: Array) -> None:
    """The backward pass of a tile."""
    s, s_beta, root = spare
    scale(op, sums, x, out=s)
    power(s, op.beta, out=s_beta, root=root)
    np.divide(dy, s_beta, out=dx)
    x_over_s = np.divide(x, s, out=s)  # s is not needed any more
    rest = np.multiply(sums(dx, x_over_s), x, out=s)  # nor is this, once its sums are made
    rest *= x.dtype.type(-2 * op.alpha * op.beta)
    dx += rest


def scale(op: Settings, sums: Sums, x: Array, out: Array) -> Array:
    """out = k + alpha * (sum of x^2)."""
    np.multiply(sums(x, x), x.dtype.type(op.alpha), out=out)
    out += x.dtype.type(op.k)
    return out


def power(s: Array, beta: float, out: Array, root: Array) -> Array:
    """out = s^beta.  For the paper's beta = 3/4 by two square roots: measured in about half the time of a power."""
    if beta != 0.75:
        return np.power(s, s.dtype.type(beta), out=out)
    np.sqrt(s, out=root)
    np.sqrt(root, out=out)
    out *= root
    return out


class ChannelSums:
    """W(a * b) over neighbouring channels; tiles are (pixels, channels).

    The products of all pixels go into one long row of memory, with a gap of zeros before every pixel,

        0 0 | p p p p p | 0 0 | p p p p p | 0 0             windows of 5: gaps of 2

    so that the row, and the row from its second element on, and so forth, added up, are all the window sums: few
    operations on long arrays.  (Slices of every pixel's channels, as in the textbook's face, were measured to
    take 2.5 to 3.3 times as long for n = 5.  The product with a band matrix of ones took 1.3 to 4.5 times as long, and
    would spread inf and NaN, since 0 * inf is NaN, to channels whose window does not contain them.)
    """

    def __init__(self, shape: tuple[int, int], reach: int, dtype: Any):
        pixels, channels = shape
        self.reach, self.stretch = reach, reach + channels
        self.row = empty((pixels * self.stretch + 2 * reach,), dtype)
        self.row[...] = 0
        self.products = self.row[: pixels * self.stretch].reshape(pixels, self.stretch)[:, reach:]
        self.sums = empty((pixels * self.stretch,), dtype)

    def __call__(self, a: Array, b: Array) -> Array:
        pixels, channels = a.shape
        products = np.multiply(a, b, out=self.products[:pixels])
        if self.reach == 0:
            return products
        size = pixels * self.stretch
        sums = np.add(self.row[:size], self.row[1 : size + 1], out=self.sums[:size])
        for shift in range(2, 2 * self.reach + 1):
            sums += self.row[shift : shift + size]
        return sums.reshape(pixels, self.stretch)[:, :channels]  # a window begins `reach` before its middle


class PixelSums:
    """W(a * b) over n x n pixels; tiles are (images, H, W, C).

    The sums down the rows, then their sums across the columns: 2 (n - 1) additions in place of n * n - 1.
    """

    def __init__(self, shape: tuple[int, int, int, int], down: int, across: int, dtype: Any):
        self.down, self.across = down, across
        self.total, self.column = empty(shape, dtype), empty(shape, dtype)

    def __call__(self, a: Array, b: Array) -> Array:
        n, h, w, c = a.shape
        total, column = self.total[:n], self.column[:n]
        np.multiply(a, b, out=total)
        add_neighbours(total.reshape(n, h, w * c), self.down, out=column.reshape(n, h, w * c))
        add_neighbours(column.reshape(n * h, w, c), self.across, out=total.reshape(n * h, w, c))
        return total


def add_neighbours(t: Array, reach: int, out: Array) -> None:
    """out[:, i] = the sum of t[:, i - reach : i + reach + 1], for t (A, B, K)."""
    out[...] = t
    for d in range(1, reach + 1):
        out[:, d:] += t[:, :-d]
        out[:, :-d] += t[:, d:]
