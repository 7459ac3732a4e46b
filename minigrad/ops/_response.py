"""What the two response normalisations share: their settings, the window sums, and the power of the scale.

    y = x * s^-beta     with s = k + alpha * (sum of x^2 over a window)

    dx = dy * s^-beta - 2 alpha beta x * (sum of dy * y / s over the same window)

They differ in the window alone: neighbouring channels (lrn) or neighbouring pixels (lrn_within_map).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import integer, number
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError
from ..memory import empty
from ..parallel import beside_others, split
from ._runs import runs


class WindowSums:
    """The sums over the windows around every element of a block (A, B, K), all of them at once.

    The terms of the sums go into one long row of memory, with zeros between one stretch and the next,

        0 0 | t t t t t | 0 0 | t t t t t | 0 0 ...         windows of 5: gaps of 2

    so that shifted slices of the row, added up, are all the window sums: few operations on long arrays.

    (The product with a band matrix of ones was no faster here, even cut into pieces near the diagonal, and it would
    spread inf and NaN, since 0 * inf is NaN, to elements whose window does not contain them.)
    """

    def __init__(self, shape: tuple[int, int, int], reach: tuple[int, int], step: int, dtype: Any):
        """Windows reach so far to both sides along B, and along K in steps of so many elements."""
        self.shape = a, b, k = shape
        framed = a, b + reach[0], k + reach[1] * step
        # First along B, where the next term is a row of the frame away; the sums are the terms along K.
        axes = [(n, jump) for n, jump in ((reach[0], framed[2]), (reach[1], step)) if n > 0]
        margin = sum(n * jump for n, jump in axes)
        size = math.prod(framed)
        row = empty((margin + size + margin,), dtype)
        row[...] = 0
        self.terms = runs(row[margin : margin + size].reshape(framed)[:, :b, :k])
        self.pairs = empty(row.shape, dtype)
        self.passes = []
        for n, jump in axes:
            sums = empty((row.size - 2 * n * jump,), dtype)
            self.passes.append((row, n, jump, self.pairs, sums))
            row = sums
        self.totals = runs(row.reshape(framed)[:, :b, :k])
        self.spare = [empty(shape, dtype) for _ in range(3)]  # for the caller: its temporaries of a block

    def __call__(self, terms: Array, out: Array) -> Array:
        """out = the window sums of `terms`, both of the block's shape."""
        self.terms[...] = runs(terms)
        for rows in self.passes:
            sliding_sum(*rows)
        runs(out)[...] = self.totals
        return out


def sliding_sum(a: Array, reach: int, step: int, pairs: Array, out: Array) -> None:
    """out[i] = a[i] + a[i + step] + ... + a[i + 2*reach*step]: 2*reach + 1 terms in reach + 1 additions."""
    pairs = np.add(a[:-step], a[step:], out=pairs[: a.size - step])
    np.add(pairs[: out.size], a[2 * reach * step :], out=out)  # the first pair and the last term
    for shift in range(2 * step, 2 * reach * step, 2 * step):
        out += pairs[shift : shift + out.size]


def scale(window: WindowSums, x: Array, k: float, alpha: float, out: Array) -> Array:
    """out = k + alpha * (sum of x^2)."""
    np.multiply(x, x, out=out)
    s = window(out, out=out)
    s *= x.dtype.type(alpha)
    s += x.dtype.type(k)
    return s


def power(s: Array, beta: float, out: Array, buffer: Array) -> Array:
    """out = s^beta.  The paper's beta = 3/4 is two square roots: much faster than a power."""
    if beta != 0.75:
        return np.power(s, s.dtype.type(beta), out=out)
    np.sqrt(s, out=buffer)
    np.sqrt(buffer, out=out)
    out *= buffer
    return out


def in_blocks(
    device: Device, elements: int, reach: tuple[int, int], step: int, work: Callable[..., None], *arrays: Array
) -> None:
    """work(window, *blocks) on blocks of about so many elements, cut along the first axis of arrays (A, B, K)."""
    count, *rest = arrays[0].shape
    if arrays[0].size == 0:
        return
    least = max(1, elements // math.prod(rest))

    def piece(start: int, stop: int) -> None:
        # With another thread beside this one, every call of NumPy has to get Python's lock back: fewer, longer calls
        # were measured faster then, though their arrays leave the L2 cache.
        size = least * 4 if beside_others() else least
        window = None
        for i in range(start, stop, size):
            blocks = [a[i : min(i + size, stop)] for a in arrays]
            if window is None or window.shape != blocks[0].shape:  # the last block may be smaller
                window = WindowSums(blocks[0].shape, reach, step, arrays[0].dtype)
            work(window, *blocks)

    split(device, count, piece, at_least=least)


def check_response(op: str, n: Any, k: Any, alpha: Any, beta: Any) -> tuple[int, float, float, float]:
    """The settings as numbers; ArgumentError where they are out of range."""
    n = integer(op, "n", n, 1)
    if n % 2 == 0:
        raise ArgumentError(f"{op}: n must be odd, got {n}: even windows have no middle, use {n + 1}")
    k, alpha, beta = number(op, "k", k), number(op, "alpha", alpha), number(op, "beta", beta)
    if k <= 0:
        raise ArgumentError(f"{op}: k must be > 0, got {k}: where all x are 0, s would be 0 and y undefined")
    if alpha < 0:
        raise ArgumentError(f"{op}: alpha must be >= 0, got {alpha}: s would turn negative for large x")
    return n, k, alpha, beta
