"""The tensors that a module holds: parameters, which are trained, and buffers, which are not."""

from __future__ import annotations

from typing import Any

from ..base.arguments import flag
from ..device import DeviceLike
from ..errors import GraphError
from ..tensor import Tensor, TensorLike


class Parameter(Tensor):
    """A leaf tensor that a module trains: `self.weight = Parameter(array)`.

    data, device and dtype as in Tensor (floating-point: DTypeError otherwise).  `requires_grad_(False)` freezes it.
    """

    __slots__ = ()

    def __init__(
        self,
        data: TensorLike,
        requires_grad: bool = True,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        super().__init__(data, requires_grad=True, device=device, dtype=dtype)
        self.requires_grad = flag("Parameter", "requires_grad", requires_grad)


class Buffer(Tensor):
    """What a module keeps besides parameters: `self.running_mean = Buffer(array)`.  Saved and moved, but not trained.

    data, device and dtype as in Tensor; any element type.
    """

    __slots__ = ()

    def __init__(self, data: TensorLike, device: DeviceLike | None = None, dtype: Any = None):
        super().__init__(data, device=device, dtype=dtype)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """GraphError for True."""
        if requires_grad:
            raise GraphError("requires_grad_: a Buffer is not trained: make it a Parameter")
        return super().requires_grad_(requires_grad)


State = (Parameter, Buffer)  # what state_dict() has, and to() moves
