"""Concatenate along an axis, and its inverse, split.

    y = [x_1, x_2, ...]      dx_k = the piece of dy where x_k went
    [y_1, y_2, ...] = x      dx = dy_k where y_k came from, 0 elsewhere

Source: Krizhevsky, Sutskever, Hinton 2012, figure 2: layer 3 reads the maps of both columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..engine import Array, Function
from ..errors import ArgumentError, DTypeError, ShapeError
from ..tensor import Tensor, apply, op
from ._checks import check_tensors, integer, normalized_axis


@op
def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors one after the other along `axis`; ShapeError unless all their other axes are equal.

    Memory order is kept on the CPU: channels-last images stay channels-last.  DTypeError for mixed element types.
    """
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence) or not tensors:
        raise ArgumentError("concat: expects a list of at least one tensor: concat([a, b], axis=1)")
    check_tensors("concat", **{f"tensors[{i}]": x for i, x in enumerate(tensors)})
    shapes = [x.shape for x in tensors]
    if len({x.dtype for x in tensors}) > 1:
        seen = ", ".join(str(x.dtype) for x in tensors)
        raise DTypeError(f"concat: tensors must have one element type, got {seen}: convert with .astype")
    along = normalized_axis("concat", axis, len(shapes[0]))
    if len({(len(shape), shape[:along], shape[along + 1 :]) for shape in shapes}) > 1:
        seen = ", ".join(map(str, shapes))
        raise ShapeError(
            f"concat: shapes must be equal except along axis {axis}, got {seen}: reshape them, or name another axis"
        )
    return apply(Concat(along), *tensors)


@op
def split(x: Tensor, sections_or_indices: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Pieces of x along `axis`, as np.split: an int makes that many equal ones, a list says where to cut.

    split(x, [2, 5]) is [x[:2], x[2:5], x[5:]].  The pieces are views.  ShapeError where x cannot be cut so.
    """
    check_tensors("split", x=x)
    along = normalized_axis("split", axis, x.ndim)
    n = x.shape[along]
    if isinstance(sections_or_indices, (list, tuple)):
        cuts = [0, *(integer("split", "each cut", cut, 0) for cut in sections_or_indices), n]
        if cuts != sorted(cuts):
            raise ShapeError(f"split: cuts must rise from 0 to {n}, size of axis {axis}, not {cuts[1:-1]}")
    else:
        sections = integer("split", "sections", sections_or_indices, 1)
        if n % sections:
            raise ShapeError(
                f"split: axis {axis} of x {x.shape} does not divide into {sections} equal sections: give a list of cuts"
            )
        cuts = [n // sections * i for i in range(sections + 1)]
    return [apply(Split(along, start, stop), x) for start, stop in zip(cuts, cuts[1:])]


class Concat(Function):
    def __init__(self, axis: int):
        self.axis = axis

    # ---- the textbook's face

    def forward(self, *xs: Array) -> Array:
        self.sizes = [x.shape[self.axis] for x in xs]
        return np.concatenate(xs, axis=self.axis)

    def backward(self, dy: Array) -> Any:
        return tuple(dy[piece] for piece in self._pieces())

    # ---- on a card

    def forward_gpu(self, *xs: Array) -> Array:
        self.sizes = [x.shape[self.axis] for x in xs]
        shape = (*xs[0].shape[: self.axis], sum(self.sizes), *xs[0].shape[self.axis + 1 :])
        y = self.device.empty(shape, xs[0].dtype)
        for x, piece in zip(xs, self._pieces()):
            self.device.assign(y[piece], x)
        return y

    def backward_gpu(self, dy: Array) -> Any:
        return tuple(dy[piece] for piece in self._pieces())

    def _pieces(self) -> list[tuple[slice, ...]]:
        """Where each x is in y."""
        before = (slice(None),) * self.axis
        return [(*before, slice(end - size, end)) for size, end in zip(self.sizes, accumulate(self.sizes))]


class Split(Function):
    """One piece of the split: each has a node of its own, since a node has one output."""

    def __init__(self, axis: int, start: int, stop: int):
        self.piece = (slice(None),) * axis + (slice(start, stop),)

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x[self.piece]

    def backward(self, dy: Array) -> Array:
        dx = np.zeros_like(dy, shape=self.x_shape)  # memory in the order of dy: channels-last stays so
        dx[self.piece] = dy
        return dx

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x[self.piece]

    def backward_gpu(self, dy: Array) -> Array:
        dx = self.device.zeros(self.x_shape, dy.dtype)
        self.device.assign(dx[self.piece], dy)
        return dx
