"""Comparisons, element by element: equal, not_equal, less, less_equal, greater, greater_equal.

    y = a < b, ...

The result is a bool tensor that is not part of the graph: a comparison is constant almost everywhere.
NaN compares as in NumPy: unequal to everything, and never less or greater.

Source: IEEE 754, section 5.11 (comparison predicates).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import DTypeError
from ..gpu import THREADS, Strided
from ..tensor import Tensor, TensorLike, apply, op, wrap
from ._mixing import check_broadcast, constant

_NUMBERS = (int, float, np.number, np.bool_)


@op
def equal(a: TensorLike, b: TensorLike) -> Any:
    """a == b as a bool tensor, with broadcasting.  Plain False when b is no number or array: x == None."""
    return _compare("equal", a, b) if _comparable(a) and _comparable(b) else False


@op
def not_equal(a: TensorLike, b: TensorLike) -> Any:
    """a != b as a bool tensor, with broadcasting.  Plain True when b is no number or array: x != None."""
    return _compare("not_equal", a, b) if _comparable(a) and _comparable(b) else True


@op
def less(a: TensorLike, b: TensorLike) -> Tensor:
    """a < b as a bool tensor, with broadcasting."""
    return _compare("less", a, b)


@op
def less_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a <= b as a bool tensor, with broadcasting."""
    return _compare("less_equal", a, b)


@op
def greater(a: TensorLike, b: TensorLike) -> Tensor:
    """a > b as a bool tensor, with broadcasting."""
    return _compare("greater", a, b)


@op
def greater_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a >= b as a bool tensor, with broadcasting."""
    return _compare("greater_equal", a, b)


class Compare(Function):
    def __init__(self, relation: str):
        self.name = self.relation = relation

    def forward(self, a: Array, b: Array) -> Array:
        return getattr(np, self.relation)(a, b)

    def forward_gpu(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype:  # uint64 with signed integers: as float64
            common = np.promote_types(a.dtype, b.dtype)
            a, b = (x if x.dtype == common else self.device.converted(x, common) for x in (a, b))
        y = self.device.empty(np.broadcast_shapes(a.shape, b.shape), np.bool_)
        for walk in gpu.walks(y.shape, y, a, b):
            args = *map(Strided, walk.arrays), walk.layout, walk.n
            self.device.launch("compare", self.relation, walk.blocks, THREADS, *args, T=a.dtype)
        return y


def _comparable(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, list, tuple, *_NUMBERS))


def _compare(relation: str, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor):
        b = b if isinstance(b, Tensor) else _other(relation, b, a)
    elif isinstance(b, Tensor):
        a = _other(relation, a, b)
    else:
        raise DTypeError(
            f"{relation}: one of a, b must be a Tensor, got {a!r:.40}, {b!r:.40}: wrap it in minigrad.Tensor"
        )
    check_broadcast(relation, a.shape, b.shape)
    return apply(Compare(relation), a.detach(), b.detach())


def _other(relation: str, value: Any, tensor: Tensor) -> Tensor:
    if isinstance(value, _NUMBERS) and tensor.dtype.kind != "f":
        # Against integers a number keeps its own type: int8 < 300 and int8 < 0.5 have answers.
        number, where = np.asarray(value), tensor.device
        if number.dtype == object:  # beyond 64 bits, and so beyond all that the tensor may hold
            number = np.asarray(np.inf if value > 0 else -np.inf)
        return wrap(where.from_host(number), where)
    return constant(relation, value, tensor)
