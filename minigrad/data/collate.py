"""From the items of a batch to the batch, as PyTorch's default_collate does it, with arrays in place of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.errors import DataError, printable, some


def default_collate(items: Sequence[Any], indices: Sequence[int] | None = None) -> Any:
    """One batch of N items, all of one structure.

    - numbers: an array (N,).  Python's integers become int64, booleans bool; floats, and integers among them, float32,
      as in a Tensor (PyTorch: float64).  NumPy's numbers keep their type;
    - arrays of one shape and type: an array (N, ...);
    - texts and bytes: a list, as they are;
    - tuples, named tuples, lists and dicts: the same, member by member, each member a batch of its own.

    `indices`: the items' numbers in their dataset, for messages; None: their places in the batch.
    Raises DataError where items differ in shape, type, length or keys, and for anything else; what differs in length
    needs a collate of your own, Loader(collate=...), which may pad it.
    """
    if not len(items):
        raise DataError("default_collate: need one item or more, got none")
    return _collate(items, range(len(items)) if indices is None else indices, "")


def _collate(items: Sequence[Any], indices: Sequence[int], where: str) -> Any:
    """`where`: the way from the item to this member of it, such as "[1]['size']", for messages."""
    first = items[0]
    kind = _kind(first)
    for item, index in zip(items, indices):
        if _kind(item) is not kind:
            raise _unlike(where, indices[0], type(first).__name__, index, type(item).__name__)
    if kind in (str, bytes):
        return list(items)
    if kind is np.ndarray:
        for item, index in zip(items, indices):
            if item.shape != first.shape:
                raise _unlike(where, indices[0], f"the shape {first.shape}", index, str(item.shape))
            if item.dtype != first.dtype:
                raise _unlike(where, indices[0], f"the type {first.dtype}", index, str(item.dtype))
        if first.dtype.hasobject:
            raise _unknown(where, indices[0], f"an array of {first.dtype}")
        return np.stack(items)
    if kind is bool:
        return np.array(items, np.bool_)
    if kind is float:
        return _numbers(items, indices, where)
    if kind is dict:
        for item, index in zip(items, indices):
            if item.keys() != first.keys():
                raise _unlike(where, indices[0], f"the keys {some(map(repr, first))}", index, some(map(repr, item)))
        return {key: _collate([item[key] for item in items], indices, f"{where}[{key!r}]") for key in first}
    if kind in (tuple, list):
        for item, index in zip(items, indices):
            if len(item) != len(first):
                raise _unlike(where, indices[0], f"the length {len(first)}", index, str(len(item)))
        members = [_collate(member, indices, f"{where}[{k}]") for k, member in enumerate(zip(*items))]
        return members if kind is list else tuple(members)
    if isinstance(first, tuple):
        return kind(*(_collate(member, indices, f"{where}.{f}") for f, member in zip(kind._fields, zip(*items))))
    raise _unknown(where, indices[0], kind.__name__)


def _kind(item: Any) -> Any:
    """What makes items alike: the class of a named tuple, and for all else the class that they are treated as."""
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)
    if isinstance(item, np.generic) and not isinstance(item, (str, bytes)):  # a number of NumPy's is an array ()
        return np.ndarray
    for kind in (str, bytes, np.ndarray, bool, float, tuple, list):
        if isinstance(item, kind):
            return kind
    if isinstance(item, int):  # 1 among 0.5 and 2.5 is a number as they are
        return float
    return dict if isinstance(item, Mapping) else type(item)


def _numbers(items: Sequence[Any], indices: Sequence[int], where: str) -> Any:
    if not all(isinstance(item, int) for item in items):
        return np.array(items, np.float32)
    for item, index in zip(items, indices):
        if not -(2**63) <= item < 2**63:
            raise DataError(f"default_collate: item {index}{printable(where)} is {item}, and int64 ends at 2**63 - 1")
    return np.array(items, np.int64)


def _unlike(where: str, first: int, one: str, index: int, other: str) -> DataError:
    return DataError(
        f"default_collate: the items of a batch must be alike, but{' at ' + printable(where) if where else ''} item "
        f"{index} has {printable(other)} and item {first} {printable(one)}; make them alike, or give Loader a collate "
        "of your own, which may pad them"
    )


def _unknown(where: str, index: int, what: str) -> DataError:
    return DataError(
        f"default_collate: item {index}{printable(where)} is {printable(what)}, and only numbers, arrays, texts and "
        "tuples, lists and dicts of them are known; give arrays, or give Loader a collate of your own"
    )
