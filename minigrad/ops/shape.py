"""Ops that move elements without computing: reshape, flatten, transpose, indexing.

    y_j = x_i(j)                      every element of y is one element of x
    dx_i = sum of dy_j with i(j) = i  for reshape and transpose each i occurs once: the inverse move

Where NumPy can, the result is a view that shares the memory of x.  An element that an index picks several
times gets the sum of its gradients, an element that it never picks gets 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base.indexing import plain_index, rows_of, view
from ..engine import Array, Function
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, apply, op
from ._checks import check_tensors, integer, normalized_axis


@op
def reshape(x: Tensor, *shape: Any) -> Tensor:
    """x with another shape of the same size, elements in row-major order; one axis may be -1: what remains.

    `reshape(x, 2, -1)` and `reshape(x, (2, -1))` are the same.  ShapeError where the sizes differ.
    """
    check_tensors("reshape", x=x)
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    sizes = tuple(integer("reshape", "every axis of shape", n, -1) for n in shape)
    known = math.prod(n for n in sizes if n >= 0)
    if sizes.count(-1) == 1 and known and x.size % known == 0:
        sizes = tuple(x.size // known if n == -1 else n for n in sizes)
    if -1 in sizes or math.prod(sizes) != x.size:
        raise ShapeError(
            f"reshape: {x.shape} ({x.size} elements) does not fit shape {tuple(shape)}: one size may be -1"
        )
    return apply(Reshape(sizes), x)


@op
def flatten(x: Tensor, start_dim: int = 0) -> Tensor:
    """The axes from start_dim on as one axis: flatten(x, 1) turns (N, C, H, W) into (N, C H W)."""
    check_tensors("flatten", x=x)
    start = normalized_axis("flatten", start_dim, max(x.ndim, 1), "start_dim")
    return apply(Reshape((*x.shape[:start], math.prod(x.shape[start:]))), x)


@op
def transpose(x: Tensor, *axes: Any) -> Tensor:
    """x with its axes in the order given: `transpose(x, 1, 0)` or `(x, (1, 0))`; by default reversed."""
    check_tensors("transpose", x=x)
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = tuple(axes[0] or ())
    order = tuple(normalized_axis("transpose", axis, x.ndim) for axis in axes or reversed(range(x.ndim)))
    if sorted(order) != list(range(x.ndim)):
        raise ArgumentError(f"transpose: axes must name each of the {x.ndim} axes once, got {tuple(axes)}")
    return apply(Transpose(order), x)


@op
def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] with NumPy's rules: ints, slices, None, ..., integer arrays, boolean masks, tuples of them.

    An array may be a tensor, a list or anything else that NumPy takes as one; it is copied.  Ints and slices alone give
    a view.  IndexError for what is out of range or no index, DTypeError for slices with bounds that are no integers.
    """
    check_tensors("getitem", x=x)
    try:
        return apply(GetItem(plain_index(index)), x)
    except IndexError as error:
        raise IndexError(f"getitem: {error} (x {x.shape})") from None


class Reshape(Function):
    def __init__(self, y_shape: tuple[int, ...]):
        self.y_shape = y_shape

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x.reshape(self.y_shape)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.x_shape)

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        return self.device.reshaped(x, self.y_shape)

    def backward_gpu(self, dy: Array) -> Array:
        return self.device.reshaped(dy, self.x_shape)


class Transpose(Function):
    def __init__(self, axes: tuple[int, ...]):
        self.axes = axes

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, dy: Array) -> Array:
        return dy.transpose(sorted(range(dy.ndim), key=self.axes.__getitem__))

    forward_gpu, backward_gpu = forward, backward  # views


class GetItem(Function):
    def __init__(self, index: tuple[Any, ...]):
        self.index = index  # a plain one: its arrays are its own, and backward sees the index of today

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x[self.index]

    def backward(self, dy: Array) -> Array:
        dx = np.zeros(self.x_shape, dy.dtype)
        if any(isinstance(part, np.ndarray) and part.dtype != bool for part in self.index):
            np.add.at(dx, self.index, dy)  # integers in arrays may repeat
        else:
            dx[self.index] = dy
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        y = view(x, self.index)
        self.is_view = y is not None
        if self.is_view:
            return y
        self.rows, self.row_shape = rows_of(self.index, x.shape)
        return self.device.take_rows(x, self.rows, self.row_shape)

    def backward_gpu(self, dy: Array) -> Array:
        if not self.is_view:
            return self.device.sum_rows(self.x_shape, self.rows, self.row_shape, dy)
        dx = self.device.zeros(self.x_shape, dy.dtype)
        self.device.assign(dx[self.index], dy)
        return dx
