"""Indices: NumPy's, brought to a plain form for every device.

Ints and slices make views.  Where arrays of integers or masks are among the indices, rows are picked.  A row is what
the index leaves whole:

    x[[3, 0, 3]]          of x (5, 4): rows 3, 0 and 3, each of shape (4,)
    x[[3, 0], [1, 2]]     of x (5, 4): rows 13 and 2, each of shape ()

Rows are numbered as they lie in a C-contiguous x.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..errors import DTypeError

Array = Any
Shape = tuple[int, ...]
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
