"""How arrays are summed over some of their axes; and, on a card, what the host does for kernels/reduce.cu.

A sum of many numbers of one type is only as good as the order of its additions: 2^24 ones, added to one float32 one
after the other, stay at 2^24 from there on.  The textbook's sum (`total`) takes a wider type.  That costs two to four
times as much as float32 (measured), so the fast ones keep the type, and add no more than a hundred numbers or so before
they add the sums.  NumPy does that by itself along neighbours in memory, and nowhere else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array
from ..gpu.sources import constants, remembered

Axes = tuple[int, ...]
Shape = tuple[int, ...]

# ---------------------------------------------------------------- the textbook's


def total(x: Array, axes: Axes, keepdims: bool = False) -> Any:
    """x.sum(axes, keepdims=keepdims), where floats are added in float64 and the sum is rounded once, at the end."""
    if x.dtype.kind != "f":
        return x.sum(axes, keepdims=keepdims)
    return x.sum(axes, np.float64, keepdims=keepdims).astype(x.dtype)


# ---------------------------------------------------------------- fast, on the CPU

DEPTH = 128  # numbers added one after the other, as in NumPy's own sums along neighbours
WIDTH = 1024  # elements at a time: the loops of NumPy are short of work with less (measured)


def added_up(x: Array, axes: Axes, keepdims: bool = False) -> Any:
    """x.sum(axes, keepdims=keepdims), the additions of floats in pieces wherever the elements lie."""
    if x.size <= DEPTH or x.dtype.kind != "f":
        return x.sum(axes, keepdims=keepdims)
    n = math.prod([x.shape[axis] for axis in axes])
    if n <= DEPTH or n == x.size and x.flags.forc:
        return x.sum(axes, keepdims=keepdims)
    # Axes in the order of memory; those next to each other that stay, or that go, become one where they are one run.
    order = sorted((axis for axis in range(x.ndim) if x.shape[axis] > 1), key=lambda axis: -abs(x.strides[axis]))
    sizes: list[int] = []
    goes: list[bool] = []
    for before, axis in zip([None, *order], order):
        run = before is not None and x.strides[before] == x.shape[axis] * x.strides[axis]
        if run and goes[-1] == (axis in axes):
            sizes[-1] *= x.shape[axis]
        else:
            sizes.append(x.shape[axis])
            goes.append(axis in axes)
    y = x.transpose(*order, *(axis for axis in range(x.ndim) if x.shape[axis] == 1)).reshape(sizes)
    if goes[-1] and sizes[-1] >= DEPTH:  # long runs first; short ones, which are slow, when little else is left
        y = y.sum(-1)
        goes.pop()
    while any(goes):
        axis = goes.index(True)
        y = _summed_along(y, axis)
        goes.pop(axis)
    kept = [axis for axis in order if axis not in axes]
    y = y.reshape([x.shape[axis] for axis in kept]).transpose(np.argsort(kept))
    ones = [1 if axis in axes else n for axis, n in enumerate(x.shape) if keepdims or axis not in axes]
    return y.reshape(ones)


def _summed_along(x: Array, axis: int) -> Array:
    """x.sum(axis), in pieces unless the axis is the last: the one of neighbours."""
    n, inner = x.shape[axis], x.shape[axis + 1 :]
    if n <= DEPTH or not inner:
        return x.sum(axis)
    # Of rows that follow each other in memory, some are taken for one, as wide as the loops should be.
    adjacent = all(x.strides[i] == x.shape[i + 1] * x.strides[i + 1] for i in range(axis, x.ndim - 1))
    rows = max(1, min(WIDTH // math.prod(inner), n // DEPTH)) if adjacent else 1
    whole = n - n % (DEPTH * rows)
    before: tuple[slice, ...] = (slice(None),) * axis
    head, rest = x[before + (slice(whole),)], x[before + (slice(whole, None),)]
    wide = (rows * math.prod(inner),) if adjacent else inner
    sums = head.reshape(*x.shape[:axis], -1, DEPTH, *wide).sum(axis + 1).reshape(*x.shape[:axis], -1, *inner)
    y = _summed_along(sums, axis)
    return y + _summed_along(rest, axis) if whole < n else y


# ---------------------------------------------------------------- on a card

EACH = 32  # elements of a row for each of its threads, where a row is cut in pieces


class Rows:
    """An array (any strides) as rows: one for each element of the output, with n elements, along the axes that go.

    shape: that of the output, which has `outputs` elements.
    order: None, or the array has too many axes for the kernels: then it is copied, with its axes in this order.
    kept, reduced: Layouts of the array, or of the copy, along the axes that stay and those that go.
    along: whether the elements of a row are neighbours in memory, so that a warp is to share one.
    pieces, piece: a row is taken in so many pieces, of at most so many elements each.
    pieces_shape, pieces_axes: of the array of all pieces' outputs, and the axes along which to reduce it in turn.
    blocks, threads: of the kernels.
    """

    def __init__(self, x_shape: Shape, strides: Shape, itemsize: int, axes: Axes):
        strides = tuple(step // itemsize for step in strides)
        kept = tuple(axis for axis in range(len(x_shape)) if axis not in axes)
        self.shape = tuple(x_shape[axis] for axis in kept)
        self.outputs, self.n = math.prod(self.shape), math.prod(x_shape[axis] for axis in axes)
        row_axes, warp, tall = constants("reduce", "ROW_AXES", "WARP", "TALL")
        self.order: Axes | None = None
        if _layout(x_shape, strides, kept) is None or _layout(x_shape, strides, axes, row_axes) is None:
            self.order = *kept, *axes
            x_shape, strides, kept, axes = (self.outputs, self.n), (self.n, 1), (0,), (1,)
        self.kept, self.reduced = _layout(x_shape, strides, kept), _layout(x_shape, strides, axes)
        longer = [axis for axis in range(len(x_shape)) if x_shape[axis] > 1]
        nearest = min(longer, key=lambda axis: abs(strides[axis]), default=None)
        self.along = nearest in axes and self.n >= warp  # with fewer, most lanes of a warp would have nothing to do
        self.piece = EACH * (warp if self.along else tall)
        self.pieces = gpu.blocks(self.n, self.piece)
        self.pieces_shape = (self.outputs, self.pieces) if self.along else (self.pieces, self.outputs)
        self.pieces_axes = (1,) if self.along else (0,)
        warps_each = gpu.blocks(self.outputs * self.pieces, tall)
        self.blocks = warps_each if self.along else gpu.blocks(self.outputs, warp) * self.pieces
        self.threads = warp, tall

    def regular(self, device: Device, x: Array) -> Array:
        """The array itself, or the copy."""
        return x if self.order is None else device.reshaped(x.transpose(self.order), (self.outputs, self.n))

    def launch(self, device: Device, kernel: str, y: Array, *args: Any, **types: Any) -> None:
        """Run kernel "<name>_rows<...>" or "<name>_columns<...>"; `_rows` in its name stands for either."""
        name = kernel if self.along else kernel.replace("_rows", "_columns")
        device.launch("reduce", name, self.blocks, self.threads, y, *args, **types)


_rows = remembered(Rows)


def rows_of(x: Array, axes: Axes) -> Rows:
    return _rows(x.shape, x.strides, x.itemsize, axes)


def _layout(shape: Shape, strides: Shape, axes: Axes, most: int = gpu.MAX_AXES) -> np.ndarray | None:
    """The Layout of an array along some of its axes; None: it would have too many."""
    layout = gpu.layout_of(tuple(shape[axis] for axis in axes), (tuple(strides[axis] for axis in axes),))
    return None if layout is None or layout["axes"][0] > most else layout


def summed(device: Device, x: Array, axes: Axes, dtype: Any = None, divisor: int = 1) -> Array:
    """The sum of x over some axes (which go), divided by a number, in another element type if so wanted.

    C-contiguous.  Sums of nothing are 0, divided by 0 NaN.
    """
    rows = rows_of(x, axes)
    shape, dtype = rows.shape, np.dtype(dtype or x.dtype)
    if rows.n == 0:
        return device.full(shape, 0 if divisor else np.nan, dtype)
    while True:
        x, y = rows.regular(device, x), device.empty(rows.pieces_shape, dtype)
        last = divisor if rows.pieces == 1 else 1
        args = gpu.Strided(x), rows.kept, rows.reduced, rows.outputs, rows.n, rows.piece, last
        rows.launch(device, "sum_rows", y, *args, FROM=x.dtype, TO=dtype)
        if rows.pieces == 1:
            return y.reshape(shape)
        x, rows = y, rows_of(y, rows.pieces_axes)


def largest(device: Device, x: Array, axes: Axes) -> tuple[Array, Array]:
    """The maximum of x over some axes (which go), and the number of the winner in its row; there is one in each."""
    rows = rows_of(x, axes)
    shape, kernel = rows.shape, "max_rows"
    numbers: tuple[Array, ...] = ()
    while True:
        x, y = rows.regular(device, x), device.empty(rows.pieces_shape, x.dtype)
        winner = device.empty(rows.pieces_shape, np.int64)
        args = winner, gpu.Strided(x), *numbers, rows.kept, rows.reduced, rows.outputs, rows.n, rows.piece
        rows.launch(device, kernel, y, *args, FROM=x.dtype, TO=x.dtype)
        if rows.pieces == 1:
            return y.reshape(shape), winner.reshape(shape)
        x, rows, kernel, numbers = y, rows_of(y, rows.pieces_axes), "max_rows_of_pieces", (winner,)
