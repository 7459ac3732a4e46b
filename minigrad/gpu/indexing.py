"""NumPy's indices, brought to a plain form for every device; and, with in-place operators, for arrays on a card.

Ints and slices are views, made without a kernel.  Where arrays of integers or masks are among the indices, the host
works out which rows are meant, and a kernel moves them (kernels/shape.cu).  A row is what the index leaves whole:

    x[[3, 0, 3]]          of x (5, 4): rows 3, 0 and 3, each of shape (4,)
    x[[3, 0], [1, 2]]     of x (5, 4): rows 13 and 2, each of shape ()

Rows are numbered as they lie in a C-contiguous x.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..casting import cast
from ..device import Device
from ..errors import DTypeError
from . import arrays
from .arrays import arithmetic, assign, contiguous, converted, copied, is_array, may_share_memory, upload
from .launching import THREADS, Array, blocks, launch
from .layout import Shape

# ---------------------------------------------------------------- what an index means


Index = tuple[Any, ...]  # what plain_index returns
_INDICES = "only integers, slices, ..., None and arrays of integers or booleans are indices"


def plain_index(index: Any) -> Index:
    """What NumPy makes of any index: ints, slices of ints, None, ... and arrays of int64 or bool.

    The arrays are copies on the host: tensors (of any device), lists, tuples within the index, buffers and all else
    that NumPy takes as an array become one, so that nobody else needs to know what may stand for an array, and a later
    change of it does not change the index.
    IndexError for what is no index, DTypeError for slices with other bounds than integers.
    """
    return tuple(map(_plain, index)) if isinstance(index, tuple) else (_plain(index),)


def _plain(part: Any) -> Any:
    if part is None or part is Ellipsis or type(part) is int:
        return part
    if isinstance(part, slice):
        try:
            return slice(*(n if n is None else operator.index(n) for n in (part.start, part.stop, part.step)))
        except TypeError:
            raise DTypeError(f"index: the bounds of a slice must be integers or None, got {part}") from None
    try:
        array = np.asarray(part)
    except (TypeError, ValueError):  # a ragged list, say
        raise IndexError(f"{_INDICES}, got {part!r:.60}") from None
    if array.dtype.kind == "b":
        return array.copy()
    if array.size == 0 and not hasattr(part, "dtype"):  # an empty list, of no type
        return array.astype(np.int64)
    if array.dtype.kind in "iu":
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise IndexError(f"index {array.max()} is out of bounds for any axis")  # NumPy would take it for negative
        return array.astype(np.int64) if array.ndim else int(array)
    if array.ndim == 0 and hasattr(part, "__index__") and not hasattr(part, "dtype"):
        return operator.index(part)
    seen = f"{array.dtype} {array.shape}" if hasattr(part, "dtype") else f"{part!r:.60}"
    raise IndexError(f"{_INDICES}, got {seen}")


def view(x: Array, index: Index) -> Array | None:
    """x[index] where ints, slices, None and ... are all there is; None for other indices.  IndexError as NumPy's."""
    if any(isinstance(part, np.ndarray) for part in index):
        return None
    np.broadcast_to(np.int8(0), x.shape)[index]  # takes no memory, and refuses what NumPy refuses
    return x[index]


def rows_of(index: Index, shape: Shape) -> tuple[np.ndarray, Shape]:
    """(numbers of the rows that x[index] picks, shape of a row) for an x of that shape; IndexError as NumPy's.

    x[index] has the shape of the numbers, followed by that of a row.
    """
    parts = list(index)
    if parts and parts[-1] is Ellipsis:
        parts.pop()
    used = len(shape) if any(part is Ellipsis for part in parts) else sum(map(_axes_used, parts))
    front = shape[:used]  # an index with too many parts keeps them, for NumPy to refuse
    numbers = np.broadcast_to(np.int64(0), front)[tuple(parts)]
    if len(parts) == 1 and parts[0].dtype != bool:  # by far the most frequent: x[rows]
        given = parts[0]
        return np.array(np.where(given < 0, given + shape[0], given), np.int64, order="C"), shape[1:]
    for axis, n in enumerate(front):
        rows_each = math.prod(front[axis + 1 :])
        along = np.arange(n).reshape(-1, *(1,) * (len(front) - axis - 1)) * rows_each
        numbers = numbers + np.broadcast_to(along, front)[tuple(parts)]
    return np.array(numbers, np.int64, order="C"), shape[used:]


def _axes_used(part: Any) -> int:
    """How many axes of x one part of an index takes."""
    if part is None:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == bool else 1


# ---------------------------------------------------------------- taking rows, and their gradient


def take(device: Device, x: Array, index: Any) -> Array:
    """x[index] with NumPy's rules; a view where ints and slices are all there is."""
    index = plain_index(index)
    picked = view(x, index)
    return take_rows(device, x, *rows_of(index, x.shape)) if picked is None else picked


def take_rows(device: Device, x: Array, rows: np.ndarray, row_shape: Shape) -> Array:
    """The rows of x with these numbers (see rows_of), as one array."""
    y = arrays.empty(device, (*rows.shape, *row_shape), x.dtype)
    args = y, contiguous(device, x), upload(device, rows), math.prod(row_shape), y.size
    launch(device, "shape", "take_rows", blocks(y.size), THREADS, *args, T=x.dtype)
    return y


def sum_rows(device: Device, shape: Shape, rows: np.ndarray, row_shape: Shape, dy: Array) -> Array:
    """The gradient of take_rows: dx of that shape; each of its rows is the sum of the rows of dy picked from it.

    Summed in dy's order, and so the same bits every time.
    """
    dx = arrays.zeros(device, shape, dy.dtype)
    # The picks of one row come next to each other, in their old order: picks[first[k]], ... up to first[k + 1].
    picks = np.argsort(rows, axis=None, kind="stable")
    touched, first = np.unique(rows.reshape(-1)[picks], return_index=True)
    lists = [upload(device, numbers, np.int64) for numbers in (touched, np.append(first, rows.size), picks)]
    length = math.prod(row_shape)
    n = touched.size * length
    args = dx, contiguous(device, dy), *lists, length, n
    launch(device, "shape", "sum_rows", blocks(n), THREADS, *args, T=dy.dtype)
    return dx


# ---------------------------------------------------------------- in place


def put(device: Device, x: Array, index: Any, values: Any) -> None:
    """x[index] = values, in place; values (array on the card, NumPy array, list, number) are broadcast and converted.

    Where an index picks an element twice, the last value stays.  Errors are NumPy's.
    """
    index = plain_index(index)
    picked = view(x, index)
    if picked is not None:
        _write(device, picked, values)
        return
    rows, row_shape = rows_of(index, x.shape)
    y = arrays.empty(device, (*rows.shape, *row_shape), x.dtype)
    _write(device, y, values)
    to, before_end = np.unique(rows.reshape(-1)[::-1], return_index=True)
    source = rows.size - 1 - before_end  # the last pick of each row
    length = math.prod(row_shape)
    n = to.size * length
    dense = contiguous(device, x)
    args = dense, y, upload(device, to), upload(device, source, np.int64), length, n
    launch(device, "shape", "put_rows", blocks(n), THREADS, *args, T=x.dtype)
    if dense is not x:
        assign(device, x, dense)


def _write(device: Device, x: Array, values: Any) -> None:
    """x[...] = values."""
    if not is_array(values):
        host = np.empty(np.shape(values), x.dtype)
        # NumPy refuses what it refuses, and converts Python's numbers.
        host[...] = cast(np.asarray(values), x.dtype) if isinstance(values, (np.ndarray, np.generic)) else values
        if host.size == 1:
            arrays.fill(device, x, host.reshape(())[()])
            return
        values = upload(device, host)
    while values.ndim > x.ndim and values.shape[0] == 1:
        values = values[0]
    if _broadcast(values.shape, x.shape) != x.shape:
        raise ValueError(f"could not broadcast input array from shape {values.shape} into shape {x.shape}")
    assign(device, x, copied(device, values) if may_share_memory(x, values) else values)


def update(device: Device, operation: str, x: Array, other: Any) -> None:
    """x = x `operation` other, in place: add, subtract, multiply, divide.

    other: array on the card, NumPy array, list or number, which broadcasts to x.  It is computed in the type that
    NumPy would take, and converted back.  Errors are NumPy's: TypeError where its rule "same_kind" forbids that,
    ValueError where the shapes do not fit.
    """
    ufunc = getattr(np, operation)
    if not is_array(other) and not isinstance(other, (int, float, np.generic)):
        other = np.asarray(other)  # a list, a tuple
    # Rehearsed with one element on the host: NumPy says what it would compute in, or refuses.
    sample = np.ones(1, other.dtype) if is_array(other) or isinstance(other, np.ndarray) else other
    with np.errstate(all="ignore"):
        ufunc(np.ones(1, x.dtype), sample, out=np.ones(1, x.dtype), casting="same_kind")
        dtype = ufunc(np.ones(1, x.dtype), sample).dtype
    b = other if is_array(other) else upload(device, other, dtype)
    shape = _broadcast(x.shape, b.shape)
    if shape != x.shape:
        raise ValueError(
            f"operands could not be broadcast together with shapes {x.shape} {b.shape}"
            if shape is None
            else f"non-broadcastable output operand with shape {x.shape} doesn't match the broadcast shape {shape}"
        )
    if b.dtype != dtype:
        b = converted(device, b, dtype)
    elif may_share_memory(x, b) and (b.data.ptr, b.shape, b.strides) != (x.data.ptr, x.shape, x.strides):
        b = copied(device, b)  # x += x.T: an element would be read after it was written
    a = x if x.dtype == dtype else converted(device, x, dtype)
    arithmetic(device, operation, a, b, a)
    if a is not x:
        assign(device, x, a)


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape that both broadcast to; None: there is none."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None
