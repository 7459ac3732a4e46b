"""One of two, element by element, by a condition.

    y = a where the condition is true, else b
    da = dy where it is true, else 0          db = 0 where it is true, else dy

All three broadcast; an operand that was repeated to fit gets the sum of the gradients of its copies.  What is not
chosen has no say: NaN or infinity there, in a or in dy, goes nowhere.  (A product with 0 and 1 would make NaN of them.)
But a and b are there in full before one is chosen: where(x > 0, log(x), 0) has a gradient of NaN at x = 0, from
0 / 0 in log's backward; choose the argument first: log(where(x > 0, x, 1)).

Source: NumPy's where.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import DTypeError
from ..gpu import THREADS, Strided
from ..tensor import Tensor, TensorLike, apply, op
from ._mixing import check_broadcast, fitted, operands


@op
def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """a where `condition` is true, else b, with broadcasting.

    condition: a bool Tensor, or a NumPy array or list of bools (DTypeError for other element types: compare with 0
    first).  a, b: tensors, arrays or numbers; their element types mix as those of a + b.  ShapeError where the shapes
    do not broadcast, DeviceError for tensors on several devices.
    """
    tensors = [value for value in (condition, a, b) if isinstance(value, Tensor)]
    on = tensors[0].device if tensors else None
    condition = condition if isinstance(condition, Tensor) else Tensor(condition, device=on)
    if condition.dtype.kind != "b":
        raise DTypeError(f"where: condition must be bool, it is {condition.dtype}: compare first, as in x != 0")
    x, y = operands("where", a if isinstance(a, Tensor) or isinstance(b, Tensor) else Tensor(a, device=on), b)
    check_broadcast("where", condition.shape, np.broadcast_shapes(x.shape, y.shape))
    return apply(Where(), condition, x, y)


class Where(Function):
    # ---- the textbook's face

    def forward(self, condition: Array, a: Array, b: Array) -> Array:
        self.condition = condition
        return np.where(condition, a, b)

    def backward(self, dy: Array) -> Any:
        nothing = dy.dtype.type(0)
        da = fitted(np.where(self.condition, dy, nothing), self.inputs[1]) if self.needs[1] else None
        db = fitted(np.where(self.condition, nothing, dy), self.inputs[2]) if self.needs[2] else None
        return None, da, db

    # ---- on a card

    def forward_gpu(self, condition: Array, a: Array, b: Array) -> Array:
        self.condition = condition
        y = self.device.empty(np.broadcast_shapes(condition.shape, a.shape, b.shape), a.dtype)
        for walk in gpu.walks(y.shape, y, condition, a, b):
            args = *map(Strided, walk.arrays), walk.layout, walk.n
            self.device.launch("where", "where_forward", walk.blocks, THREADS, *args, T=y.dtype)
        return y

    def backward_gpu(self, dy: Array) -> Any:
        dy = self.device.contiguous(dy)
        da = fitted(self.chosen("where_backward_a", dy), self.inputs[1]) if self.needs[1] else None
        db = fitted(self.chosen("where_backward_b", dy), self.inputs[2]) if self.needs[2] else None
        return None, da, db

    def chosen(self, kernel: str, dy: Array) -> Array:
        dx = self.device.empty_like(dy)
        for walk in gpu.walks(dy.shape, dx, self.condition, beside=(dy,)):
            args = *map(Strided, walk.arrays), walk.layout, walk.n
            self.device.launch("where", kernel, walk.blocks, THREADS, *args, T=dy.dtype)
        return dx
