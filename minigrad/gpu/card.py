"""A graphics card as a device, real (cuda.py) or emulated (cudasim/device.py): what it does with arrays by index.

Ints and slices are views, made without a kernel.  Where arrays of integers or masks are among the indices, the host
works out which rows are meant (indexing.py), and a kernel moves them (kernels/shape.cu).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..base.casting import cast
from ..base.indexing import plain_index, rows_of, view
from .arrays import CardArrays
from .launching import THREADS, Array, blocks
from .layout import Shape
from .sources import constants, remembered, struct


class Card(CardArrays):
    """Everything a card does.  Each kind of card is a subclass that makes its runtime."""

    @property
    def has_matrix_units(self) -> bool:
        """Whether multiply_add_tf32 of kernels/instructions.cuh works: on cards since sm_80, and on the emulator."""
        return bool(self.runtime.has_matrix_units)

    # ---------------------------------------------------------------- taking rows, and their gradient

    def take(self, x: Array, index: Any) -> Array:
        """x[index] with NumPy's rules; a view where ints and slices are all there is."""
        index = plain_index(index)
        picked = view(x, index)
        return self.take_rows(x, *rows_of(index, x.shape)) if picked is None else picked

    def take_rows(self, x: Array, rows: np.ndarray, row_shape: Shape) -> Array:
        """The rows of x with these numbers (see rows_of), as one array."""
        y = self.empty((*rows.shape, *row_shape), x.dtype)
        args = y, self.contiguous(x), self.upload(rows), math.prod(row_shape), y.size
        self.launch("shape", "take_rows", blocks(y.size), THREADS, *args, T=x.dtype)
        return y

    def sum_rows(self, shape: Shape, rows: np.ndarray, row_shape: Shape, dy: Array) -> Array:
        """The gradient of take_rows: dx of that shape; each of its rows is the sum of the rows of dy picked from it.

        Summed in dy's order, and so the same bits every time.
        """
        dx = self.zeros(shape, dy.dtype)
        # The picks of one row come next to each other, in their old order: picks[first[k]], ... up to first[k + 1].
        picks = np.argsort(rows, axis=None, kind="stable")
        touched, first = np.unique(rows.reshape(-1)[picks], return_index=True)
        lists = [self.upload(numbers, np.int64) for numbers in (touched, np.append(first, rows.size), picks)]
        length = math.prod(row_shape)
        n = touched.size * length
        args = dx, self.contiguous(dy), *lists, length, n
        self.launch("shape", "take_rows_backward", blocks(n), THREADS, *args, T=dy.dtype)
        return dx

    # ---------------------------------------------------------------- in place

    def put(self, x: Array, index: Any, values: Any) -> None:
        """x[index] = values, in place; values (array on the card, NumPy array, list, number) are broadcast, converted.

        Where an index picks an element twice, the last value stays.  Errors are NumPy's.
        """
        index = plain_index(index)
        picked = view(x, index)
        if picked is not None:
            self._write(picked, values)
            return
        rows, row_shape = rows_of(index, x.shape)
        y = self.empty((*rows.shape, *row_shape), x.dtype)
        self._write(y, values)
        to, before_end = np.unique(rows.reshape(-1)[::-1], return_index=True)
        source = rows.size - 1 - before_end  # the last pick of each row
        length = math.prod(row_shape)
        n = to.size * length
        dense = self.contiguous(x)
        args = dense, y, self.upload(to), self.upload(source, np.int64), length, n
        self.launch("shape", "put_rows", blocks(n), THREADS, *args, T=x.dtype)
        if dense is not x:
            self.assign(x, dense)

    def _write(self, x: Array, values: Any) -> None:
        """x[...] = values."""
        if not self.owns(values):
            host = np.empty(np.shape(values), x.dtype)
            # Here NumPy raises its errors for values that do not fit, and converts Python's numbers.
            host[...] = cast(np.asarray(values), x.dtype) if isinstance(values, (np.ndarray, np.generic)) else values
            if host.size == 1:
                self.fill(x, host.reshape(())[()])
                return
            values = self.upload(host)
        while values.ndim > x.ndim and values.shape[0] == 1:
            values = values[0]
        if _broadcast(values.shape, x.shape) != x.shape:
            raise ValueError(f"could not broadcast input array from shape {values.shape} into shape {x.shape}")
        self.assign(x, self.copied(values) if self.shares(x, values) else values)

    def update(self, operation: str, x: Array, other: Any) -> None:
        """x = x `operation` other, in place: add, subtract, multiply, true_divide.

        other: array on the card, NumPy array, list or number, which broadcasts to x.  It is computed in the type that
        NumPy would take, and converted back.  Errors are NumPy's: TypeError where its rule "same_kind" forbids that,
        ValueError where the shapes do not fit.
        """
        ufunc, here = getattr(np, operation), self.owns(other)
        if not here and not isinstance(other, (int, float, np.generic)):
            other = np.asarray(other)  # a list, a tuple
        # Tried with one element on the host: NumPy says which type it would compute in, or raises its error.
        sample = np.ones(1, other.dtype) if here or isinstance(other, np.ndarray) else other
        with np.errstate(all="ignore"):
            ufunc(np.ones(1, x.dtype), sample, out=np.ones(1, x.dtype), casting="same_kind")
            dtype = ufunc(np.ones(1, x.dtype), sample).dtype
        b = other if here else self.upload(other, dtype)
        shape = _broadcast(x.shape, b.shape)
        if shape != x.shape:
            raise ValueError(
                f"operands could not be broadcast together with shapes {x.shape} {b.shape}"
                if shape is None
                else f"non-broadcastable output operand with shape {x.shape} doesn't match the broadcast shape {shape}"
            )
        if b.dtype != dtype:
            b = self.converted(b, dtype)
        elif self.shares(x, b) and (b.data.ptr, b.shape, b.strides) != (x.data.ptr, x.shape, x.strides):
            b = self.copied(b)  # x += x.T: an element would be read after it was written
        a = x if x.dtype == dtype else self.converted(x, dtype)
        self.arithmetic(ufunc.__name__, a, b, a)
        if a is not x:
            self.assign(x, a)

    # ---------------------------------------------------------------- optimisers

    def update_weights(
        self, file: str, kernel: str, changed: Sequence[Sequence[Array]], gradients: Sequence[Array], *numbers: float
    ) -> None:
        """Run an optimiser's kernel (kernels/update.cuh) on many weights, in one launch or a few.

        changed: the weights, and each kind of state; one C-contiguous array for each gradient, of its size and type.
        numbers: the kernel's other arguments.
        """
        dtype = gradients[0].dtype
        for some, lengths, grid in _together(file, tuple([g.size for g in gradients]), dtype.itemsize):
            lists = [[arrays[k] for k in some] for arrays in (*changed, gradients)]
            self.launch(file, kernel, grid, THREADS, *lists, lengths, *numbers, REAL=dtype)


@remembered
def _together(file: str, sizes: Shape, itemsize: int) -> list[tuple[list[int], np.ndarray, int]]:
    """The launches for arrays of these sizes, largest first: numbers of arrays, their `Lengths`, how many blocks."""
    (many,) = constants(file, "MANY")
    largest_first, launches = sorted(range(len(sizes)), key=lambda k: -sizes[k]), []
    for at in range(0, len(sizes), many):
        some = largest_first[at : at + many]
        n, unused = [sizes[k] for k in some], (many - len(some)) * [0]
        ends = list(accumulate(blocks(size, 16 // itemsize * THREADS) for size in n))
        launches.append((some, struct(file, "Lengths", n=n + unused, end=ends + unused), ends[-1]))
    return launches


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape that both broadcast to; None: there is none."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None
