"""Checks of arguments that many ops share.  Each raises with op, rule and the values seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import Padding, Pair, flag, integer, is_number, one_of, padding_of, pair  # noqa: F401 (for the rooms)
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor

_FLOATING = np.dtype(np.float32), np.dtype(np.float64)


def check_tensors(op: str, **named: Any) -> None:
    """Every argument is a Tensor."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise DTypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}: wrap it in minigrad.Tensor")


def check_floating(op: str, **named: Any) -> None:
    """Every argument (a bias of None excepted) is a Tensor, and all are float32 or all float64."""
    dtype = None
    for name, value in named.items():  # this runs in every call of an op: nothing is built until something is wrong
        if value is None and name == "bias":
            continue
        if not isinstance(value, Tensor):
            break
        dtype = value.data.dtype if dtype is None else dtype
        if value.data.dtype != dtype or dtype not in _FLOATING:
            break
    else:
        return
    given = {name: value for name, value in named.items() if value is not None or name != "bias"}
    check_tensors(op, **given)
    seen = ", ".join(f"{name} {value.dtype}" for name, value in given.items())
    rule = "expects floating-point input" if len(given) == 1 else "inputs must be all float32 or all float64"
    raise DTypeError(f"{op}: {rule}, got {seen}: convert with .astype")


def check_rank(op: str, name: str, x: Tensor, ndim: int, axes: str) -> None:
    """x has `ndim` axes, named in `axes`: check_rank("lrn", "x", x, 4, "(N, C, H, W)")."""
    if x.ndim != ndim:
        raise ShapeError(f"{op}: {name} must have {ndim} axes {axes}, it has {x.ndim}: {x.shape}")


def check_pixels(
    op: str, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, outputs: Pair
) -> None:
    """Each of the OH x OW windows over images (N, C, H, W) meets a pixel: none sees padding only."""
    for axis, where in (0, "height"), (1, "width"):
        size, count, (before, after) = shape[2 + axis], outputs[axis], padding[axis]
        if before == after == 0:
            continue
        seeing: set[int] = set()  # the windows with a tap on a pixel
        for tap in range(kernel[axis]):
            offset = dilation[axis] * tap - before  # under this tap window i sees pixel offset + stride * i
            first, last = -(offset // stride[axis]), (size - 1 - offset) // stride[axis]
            seeing.update(range(max(first, 0), min(last + 1, count)))
        if len(seeing) < count:
            raise ShapeError(
                f"{op}: {count - len(seeing)} of {count} windows along the {where} would see padding only: "
                f"kernel {kernel[axis]}, stride {stride[axis]}, padding {padding[axis]}, "
                f"dilation {dilation[axis]}, x {shape}: use less padding"
            )


def normalized_axis(op: str, axis: Any, ndim: int, name: str = "axis") -> int:
    """`axis` counted from the front; ShapeError where x has no such axis."""
    number = integer(op, name, axis)
    if not -ndim <= number < ndim:
        raise ShapeError(f"{op}: {name} {number} is out of range for a tensor with {ndim} axes")
    return number % ndim
