"""The fast face of max_pool2d.py, on the CPU.

The largest value of a window is the largest of the largest values of its columns: so maxima are taken down the rows
first, then across the columns, kh + kw passes over an image in place of kh * kw.  Down comes first because a row of a
channels-last image is one run of memory, W * C numbers long.

The winner, the first maximum row by row, is the tap with the smallest number u*kw + v among those that have it.  So on
the way down each column keeps the smallest u that has its maximum, as kw*u, and on the way across the smallest
kw*u + v of the columns that have the window's maximum wins.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..device import Device
from ..engine import Array
from ..processor.memory import empty
from ._checks import Padding, Pair
from ._pooling import Taps, first_taps, images_per_tile, in_tiles, taps_inside
from ._runs import runs
from ._windows import channels_last, nchw

FEW_CHANNELS = 16  # below: at LeNet's 6 copies make the op 1.1 to 1.2 times as fast, from 16 on they slow it (measured)


def tap_type(kernel: Pair) -> np.dtype[Any]:
    """The smallest unsigned integer that can number the taps of a window."""
    return np.min_scalar_type(kernel[0] * kernel[1])


# ---------------------------------------------------------------- forward


def maxima(
    device: Device,
    x: Array,
    wanted: bool,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    outputs: Pair,
) -> tuple[Array, Array | None]:
    """y, (N, C, OH, OW), and the winners, (N, OH, OW, C), or None where they are not `wanted`."""
    down, across = taps_inside(x.shape[2:], kernel, stride, padding, dilation, outputs)
    x = channels_last(x)
    y = empty((len(x), *outputs, x.shape[3]), x.dtype)
    winner = empty(y.shape, tap_type(kernel)) if wanted else None

    def work(some: slice) -> None:
        _maxima(x[some], down, across, kernel, y[some], None if winner is None else winner[some])

    in_tiles(device, x.shape, work)
    return nchw(y), winner


def _maxima(x: Array, down: Taps, across: Taps, kernel: Pair, y: Array, winner: Array | None) -> None:
    """A few images: y = the maxima; winner = u*kw + v of the first tap (u, v) that has it, None where not wanted."""
    n, h, w, c = x.shape
    _, oh, ow, _ = y.shape
    pixels, windows = (n * oh, w, c), (n * oh, ow, c)
    t = empty((n, oh, w * c), x.dtype)
    if winner is None:
        _maxima_down(x.reshape(n, h, w * c), down, kernel[1], t)
        _maxima_across(t.reshape(pixels), across, y.reshape(windows))
        return
    kwu = empty(t.shape, winner.dtype)
    _maxima_down(x.reshape(n, h, w * c), down, kernel[1], t, kwu)
    seen = _maxima_across(t.reshape(pixels), across, y.reshape(windows))
    _first_across(seen, across, math.prod(kernel), y.reshape(windows), kwu.reshape(pixels), winner.reshape(windows))
    if winner.max() == math.prod(kernel):  # no tap: NaN equals nothing; the first NaN is the first maximum of isnan(x)
        first_nan = np.empty_like(winner)
        _maxima(np.isnan(x).astype(x.dtype), down, across, kernel, np.empty_like(y), first_nan)
        np.copyto(winner, first_nan, where=np.isnan(y))


def _maxima_down(x: Array, down: Taps, kw: int, t: Array, kwu: Array | None = None) -> None:
    """t[:,i] = max over the rows of window i; kwu[:,i] = kw * the number u of the first row that has it."""
    whole = slice(0, t.shape[1])
    copied = [i for _, i, _ in down[:2]] != [whole, whole]  # else t is written whole by the second row's maxima
    so_far = t if copied else x[:, down[0][2]]
    for u, i, h in first_taps(down, t.shape[1]):
        if copied:
            t[:, i] = x[:, h]
        if kwu is not None:
            kwu[:, i] = kw * u
    if kwu is not None:
        larger, number = empty(t.shape, np.bool_), empty(t.shape, kwu.dtype)
    for u, i, h in down[1:]:
        if kwu is not None:
            np.greater(x[:, h], so_far[:, i], out=larger[:, i])  # strictly: in a tie the earlier row stays
            np.multiply(larger[:, i].view(np.uint8), kwu.dtype.type(kw * u), out=number[:, i])
            np.maximum(kwu[:, i], number[:, i], out=kwu[:, i])  # the later row has the larger number
        np.maximum(so_far[:, i], x[:, h], out=t[:, i])
        so_far = t


def _maxima_across(t: Array, across: Taps, y: Array) -> dict[int, Array]:
    """y[:,j] = max of t over the columns of window j.  Returns what each column v of the windows sees of t."""
    seen = {v: _gathered(t, w) for v, _, w in across}
    for v, j, _ in first_taps(across, y.shape[1]):
        y[:, j] = seen[v]
    for v, j, _ in across[1:]:
        np.maximum(y[:, j], seen[v], out=y[:, j])
    return seen


def _first_across(seen: dict[int, Array], across: Taps, count: int, y: Array, kwu: Array, winner: Array) -> None:
    """winner = the smallest kwu + v among the columns v that see y; the count of taps where none does, as y is NaN.

    Found as the largest number of taps that are left from there on: where a column loses, a product makes it 0.
    """
    number = winner.dtype.type
    winner[...] = 0
    left, wins = empty(y.shape, winner.dtype), empty(y.shape, np.bool_)
    for v, j, w in across:
        np.subtract(number(count - v), _gathered(kwu, w), out=left[:, j])
        np.equal(seen[v], y[:, j], out=wins[:, j])
        np.multiply(left[:, j], wins[:, j].view(np.uint8), out=left[:, j])
        np.maximum(winner[:, j], left[:, j], out=winner[:, j])
    np.subtract(number(count), winner, out=winner)


def _gathered(x: Array, columns: slice) -> Array:
    """x[:, columns], contiguous where it pays: with few channels, which NumPy would go through a few at a time."""
    if x.shape[2] >= FEW_CHANNELS:
        return x[:, columns]
    y = empty((x.shape[0], len(range(*columns.indices(x.shape[1]))), x.shape[2]), x.dtype)
    runs(y)[...] = runs(x)[:, columns]
    return y


# ---------------------------------------------------------------- backward


def gradient(
    device: Device,
    dy: Array,
    winner: Array,
    x_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
) -> Array:
    """dx, (N, C, H, W): each dy added to the pixel under the tap that has won."""
    dy = channels_last(dy)
    n, oh, ow, c = dy.shape
    _, _, h, w = x_shape
    dx = empty((n, h, w, c), dy.dtype)
    # Where in a tile of images, counted in elements: the window's corner and channel + the winning tap.
    (top, _), (left, _) = padding
    corner = _corners((min(n, images_per_tile(x_shape)), h, w, c), (oh, ow), stride, (top, left))
    u, v = np.divmod(np.arange(kernel[0] * kernel[1]), kernel[1])
    tap = (dilation[0] * u * w + dilation[1] * v) * c

    def work(some: slice) -> None:
        where = empty(dy[some].shape, corner.dtype)
        np.take(tap, winner[some], out=where, mode="clip")  # nothing to clip: it is the mode without a copy
        where += corner[: len(where)]
        dx[some] = 0
        # Windows overlap, so dx[where] += dy would lose some of the dy.  add.at adds them one by one, in order.
        np.add.at(dx[some].reshape(-1), where.reshape(-1), dy[some].reshape(-1))

    in_tiles(device, dx.shape, work)
    return nchw(dx)


@lru_cache(maxsize=8)  # a net asks for the same few at every step
def _corners(images: tuple[int, int, int, int], outputs: Pair, stride: Pair, padding: Pair) -> Array:
    """(N, OH, OW, C): which element of images (N, H, W, C) is the top left pixel of each window."""
    n, h, w, c = images
    image, i, j, channel = np.ogrid[:n, : outputs[0], : outputs[1], :c]
    where = ((image * h + stride[0] * i - padding[0]) * w + stride[1] * j - padding[1]) * c + channel
    where.flags.writeable = False  # every caller gets the same array
    return where
