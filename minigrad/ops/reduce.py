"""Sum, mean and maximum over some axes or all, and where the largest or the smallest is.

    y = sum_i x_i          dx_i = dy
    y = sum_i x_i / n      dx_i = dy / n
    y = max_i x_i          dx_i = dy for the first i with x_i = y, else 0

One element takes the whole gradient of a maximum, also where several tie: then the gradient of y sums to
dy, and the same program gives the same bits.  A NaN among the x_i is the maximum, as in NumPy.

argmax and argmin give the number of the first such x_i, among those along the axis, or in row-major order among all;
they have no gradient.  argmin is the argmax of -x; of integers, of -1 - x, which does not overflow.

Axes are None (all), an int or a tuple; negative ones count from the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ShapeError
from ..gpu import THREADS
from ..tensor import OPS, Tensor, apply, op
from ._checks import axes_of, check_tensors, flag, normalized_axis
from ._reduction import Axes, added_up, largest, summed, total


@op
def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis` (None: all); keepdims leaves reduced axes in place with size 1.

    Floats keep their type; integers and booleans are summed as NumPy sums them, in 64 bits.
    """
    check_tensors("sum", x=x)
    return apply(Sum(axes_of("sum", axis, x.ndim), flag("sum", "keepdims", keepdims)), x)


@op
def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis` (None: all); integers and booleans give float32: `(a == b).mean()` is a fraction.

    The mean of nothing is NaN, with NumPy's warning.
    """
    check_tensors("mean", x=x)
    floating = x if x.dtype.kind == "f" else OPS["astype"](x, np.float32)
    return apply(Mean(axes_of("mean", axis, x.ndim), flag("mean", "keepdims", keepdims)), floating)


@op
def max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The maximum over `axis` (None: all); ShapeError where there is nothing to choose from."""
    check_tensors("max", x=x)
    axes = axes_of("max", axis, x.ndim)
    if math.prod(x.shape[i] for i in axes) == 0:
        raise ShapeError(f"max: of no elements is undefined: x {x.shape}, axis {axis}: leave empty batches out")
    return apply(Max(axes, flag("max", "keepdims", keepdims)), x)


@op
def argmax(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The index of the first maximum along one axis (None: in the flattened x), int64, without a gradient.

    NaN counts as the maximum.  ShapeError where there is nothing to choose from.
    """
    return _place_of("argmax", x, axis, keepdims)


@op
def argmin(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The index of the first minimum along one axis (None: in the flattened x), int64, without a gradient.

    NaN counts as the minimum.  ShapeError where there is nothing to choose from.
    """
    return _place_of("argmin", x, axis, keepdims)


class Sum(Function):
    def __init__(self, axes: Axes, keepdims: bool):
        self.axes, self.keepdims, self.gone = axes, keepdims, () if keepdims else axes  # gone: axes that y lacks

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        return total(x, self.axes, self.keepdims)

    def backward(self, dy: Array) -> Array:
        return np.broadcast_to(np.expand_dims(dy, self.gone), self.inputs[0].shape)

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        return added_up(x, self.axes, self.keepdims)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        y = summed(self.device, x, self.axes, np.zeros(0, x.dtype).sum().dtype)
        return _with_axes(y, self.x_shape, self.axes) if self.keepdims else y

    def backward_gpu(self, dy: Array) -> Array:
        dx = self.device.empty(self.x_shape, dy.dtype)
        return self.device.assign(dx, _with_axes(dy, self.x_shape, self.axes))


class Mean(Function):
    def __init__(self, axes: Axes, keepdims: bool):
        self.axes, self.keepdims, self.gone = axes, keepdims, () if keepdims else axes  # gone: axes that y lacks

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.n = math.prod(x.shape[axis] for axis in self.axes)
        return x.mean(self.axes, np.float64, keepdims=self.keepdims).astype(x.dtype)  # added in float64: see `total`

    def backward(self, dy: Array) -> Array:
        share = dy / dy.dtype.type(self.n or 1)  # of 0 elements none gets a share
        return np.broadcast_to(np.expand_dims(share, self.gone), self.inputs[0].shape)

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        self.n = math.prod(x.shape[axis] for axis in self.axes)
        if self.n == 0:
            return x.mean(axis=self.axes, keepdims=self.keepdims)  # NaN, and the warning
        return added_up(x, self.axes, self.keepdims) / x.dtype.type(self.n)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        self.n = math.prod(x.shape[axis] for axis in self.axes)
        y = summed(self.device, x, self.axes, divisor=self.n)
        return _with_axes(y, self.x_shape, self.axes) if self.keepdims else y

    def backward_gpu(self, dy: Array) -> Array:
        share = summed(self.device, dy, (), divisor=self.n or 1)  # each dy by itself: dy / n
        dx = self.device.empty(self.x_shape, dy.dtype)
        return self.device.assign(dx, _with_axes(share, self.x_shape, self.axes))


class Max(Function):
    def __init__(self, axes: Axes, keepdims: bool):
        self.axes, self.keepdims = axes, keepdims

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        # The axes to reduce go last and become one, along which argmax finds the first maximum.
        self.kept = tuple(axis for axis in range(x.ndim) if axis not in self.axes)
        moved = x.transpose(*self.kept, *self.axes)
        self.moved_shape = moved.shape
        rows = moved.reshape(*moved.shape[: len(self.kept)], math.prod(moved.shape[len(self.kept) :]))
        self.winner = rows.argmax(axis=-1)[..., None]
        y = np.take_along_axis(rows, self.winner, axis=-1)[..., 0]
        return np.expand_dims(y, self.axes) if self.keepdims else y

    def backward(self, dy: Array) -> Array:
        rows = np.zeros((*self.winner.shape[:-1], math.prod(self.moved_shape[len(self.kept) :])), dy.dtype)
        np.put_along_axis(rows, self.winner, dy.reshape(self.winner.shape), axis=-1)
        return rows.reshape(self.moved_shape).transpose(np.argsort((*self.kept, *self.axes)))

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.kept = tuple(axis for axis in range(x.ndim) if axis not in self.axes)
        self.moved_shape = tuple(x.shape[axis] for axis in (*self.kept, *self.axes))
        y, self.winner = largest(self.device, x, self.axes)
        return _with_axes(y, x.shape, self.axes) if self.keepdims else y

    def backward_gpu(self, dy: Array) -> Array:
        dy, rows = self.device.contiguous(dy), self.device.zeros(self.moved_shape, dy.dtype)
        args = rows, dy, self.winner, dy.size, math.prod(self.moved_shape[len(self.kept) :])
        grid = gpu.blocks(dy.size)
        self.device.launch("reduce", "max_backward", grid, THREADS, *args, FROM=dy.dtype, TO=dy.dtype)
        return rows.transpose(np.argsort((*self.kept, *self.axes)).tolist())


class ArgMax(Function):
    def __init__(self, name: str, axis: int | None, keepdims: bool):
        self.name, self.axis, self.keepdims = name, axis, keepdims

    def forward(self, x: Array) -> Array:
        return np.asarray(getattr(np, self.name)(x, self.axis, keepdims=self.keepdims), np.int64)

    def forward_gpu(self, x: Array) -> Array:
        if self.name == "argmin":
            x = self.turned(x)
        axes = tuple(range(x.ndim)) if self.axis is None else (self.axis,)
        _, place = largest(self.device, x, axes)
        return _with_axes(place, x.shape, axes) if self.keepdims else place

    def turned(self, x: Array) -> Array:
        """The same elements in reverse order of size: -x, or -1 - x of integers, which wraps around if unsigned."""
        if x.dtype.kind == "b":
            x = self.device.converted(x, np.int8)
        first = np.asarray(0 if x.dtype.kind == "f" else np.invert(x.dtype.type(0)), x.dtype)
        return self.device.arithmetic("subtract", self.device.from_host(first), x, self.device.empty_like(x))


def _place_of(name: str, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    check_tensors(name, x=x)
    axis = None if axis is None else normalized_axis(name, axis, x.ndim)
    if (x.size if axis is None else x.shape[axis]) == 0:
        raise ShapeError(f"{name}: of no elements is undefined: x {x.shape}, axis {axis}: leave empty batches out")
    return apply(ArgMax(name, axis, flag(name, "keepdims", keepdims)), x.detach())


def _with_axes(dy: Array, x_shape: tuple[int, ...], axes: Axes) -> Array:
    """dy with the reduced axes back, of size 1."""
    return dy.reshape(tuple(1 if axis in axes else n for axis, n in enumerate(x_shape)))
