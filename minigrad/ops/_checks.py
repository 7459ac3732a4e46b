"""Checks of arguments that many ops share.  Each raises with op, rule and the values seen."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))

_FLOATING = np.dtype(np.float32), np.dtype(np.float64)


def check_tensors(op: str, **named: Any) -> None:
    """Every argument is a Tensor."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise DTypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}: wrap it in minigrad.Tensor")


def check_floating(op: str, **named: Any) -> None:
    """Every argument (None excepted) is a Tensor, and all are float32 or all float64."""
    dtype = None
    for value in named.values():  # this runs in every call of an op: nothing is built until something is wrong
        if value is None:
            continue
        if not isinstance(value, Tensor):
            break
        dtype = value.data.dtype if dtype is None else dtype
        if value.data.dtype != dtype or dtype not in _FLOATING:
            break
    else:
        return
    given = {name: value for name, value in named.items() if value is not None}
    check_tensors(op, **given)
    seen = ", ".join(f"{name} {value.dtype}" for name, value in given.items())
    rule = "expects floating-point input" if len(given) == 1 else "inputs must be all float32 or all float64"
    raise DTypeError(f"{op}: {rule}, got {seen}: convert with .astype")


def check_rank(op: str, name: str, x: Tensor, ndim: int, axes: str) -> None:
    """x has `ndim` axes, named in `axes`: check_rank("lrn", "x", x, 4, "(N, C, H, W)")."""
    if x.ndim != ndim:
        raise ShapeError(f"{op}: {name} must have {ndim} axes {axes}, it has {x.ndim}: {x.shape}")


def integer(op: str, name: str, value: Any, minimum: int) -> int:
    """`value` as an int >= minimum; ArgumentError otherwise (booleans and 2.0 are not integers)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ArgumentError(f"{op}: {name} must be an integer >= {minimum}, got {value!r}")
    return number


def pair(op: str, name: str, value: Any, minimum: int) -> Pair:
    """An int, or two of them as (vertical, horizontal)."""
    if not isinstance(value, (tuple, list)):
        return (integer(op, name, value, minimum),) * 2
    if len(value) != 2:
        raise ArgumentError(f"{op}: {name} must be an int or (vertical, horizontal), got {value!r}")
    return integer(op, name, value[0], minimum), integer(op, name, value[1], minimum)


def padding_of(op: str, value: Any) -> Padding:
    """int, (ph, pw) or ((top, bottom), (left, right)) as the last form."""
    if isinstance(value, (tuple, list)) and any(isinstance(part, (tuple, list)) for part in value):
        if len(value) != 2 or any(not isinstance(part, (tuple, list)) or len(part) != 2 for part in value):
            raise ArgumentError(
                f"{op}: padding must be an int, (ph, pw) or ((top, bottom), (left, right)), got {value!r}"
            )
        (top, bottom), (left, right) = value
        return (
            (integer(op, "padding", top, 0), integer(op, "padding", bottom, 0)),
            (integer(op, "padding", left, 0), integer(op, "padding", right, 0)),
        )
    ph, pw = pair(op, "padding", value, 0)
    return (ph, ph), (pw, pw)


def normalized_axis(op: str, axis: Any, ndim: int) -> int:
    """`axis` counted from the front; ShapeError where x has no such axis."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ArgumentError(f"{op}: axis must be an integer, got {axis!r}")
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise ShapeError(f"{op}: axis {number} is out of range for a tensor with {ndim} axes")
    return number % ndim
