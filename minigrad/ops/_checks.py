"""Checks of arguments that many ops share.  Each raises with op, rule and the values seen."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..base.arguments import Padding, Pair, flag, integer, is_number, one_of, padding_of, pair  # noqa: F401 (for the rooms)
from ..base.foreign import type_name
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor

_FLOATING = [{np.dtype(np.float32)}, {np.dtype(np.float64)}]


def check_tensors(op: str, **named: Any) -> None:
    """Every argument is a Tensor."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise DTypeError(f"{op}: {name} must be a Tensor, got {type_name(value)}: wrap it in minigrad.Tensor")


def check_floating(op: str, **named: Any) -> None:
    """Every argument (a bias of None excepted) is a Tensor, and all are float32 or all float64."""
    if "bias" in named and named["bias"] is None:
        del named["bias"]
    if {value.data.dtype if isinstance(value, Tensor) else None for value in named.values()} in _FLOATING:
        return
    check_tensors(op, **named)
    seen = ", ".join(f"{name} {value.dtype}" for name, value in named.items())
    rule = "expects floating-point input" if len(named) == 1 else "inputs must be all float32 or all float64"
    raise DTypeError(f"{op}: {rule}, got {seen}: convert with .astype")


def check_rank(op: str, name: str, x: Tensor, ndim: int, axes: str) -> None:
    """x has `ndim` axes, named in `axes`: check_rank("lrn", "x", x, 4, "(N, C, H, W)")."""
    if x.ndim != ndim:
        advice = ": a batch of one is x[None]" if x.ndim == ndim - 1 else ": reshape it"
        raise ShapeError(f"{op}: {name} must have {ndim} axes {axes}, it has {x.ndim}: {x.shape}{advice}")


@lru_cache(maxsize=256)
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
        raise ShapeError(f"{op}: {name} {number} is out of range for a tensor with {ndim} axes: the last is -1")
    return number % ndim


def axes_of(op: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `axis` names (None: all; an int or several), counted from the front and sorted."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(sorted(normalized_axis(op, one, ndim) for one in given))
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"{op}: the same axis twice in {axis} (a tensor with {ndim} axes): name each once")
    return axes
