"""What a tensor can do: methods and operators, one line each; the op of that name in minigrad/ops does the work.

Ops are built on top of tensors, and imports go one way.  So ops enter themselves in `OPS` (the `@op` decorator), and
tensors look them up there by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .device import DeviceLike
    from .tensor import Tensor, TensorLike

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])

OPS: dict[str, Callable[..., Any]] = {}


def op(function: AnyCallable) -> AnyCallable:
    """Decorator of an op's public function: enters it in OPS under its name."""
    OPS[function.__name__] = function
    return function


class Operators:
    """The methods and operators of Tensor."""

    __slots__ = ()

    if TYPE_CHECKING:

        def item(self) -> Any: ...

    def to(self, device: DeviceLike) -> Tensor:
        """This tensor on another device, an op with a gradient (ops/copy.py); itself if it is there already."""
        return OPS["copy"](self, device)

    def astype(self, dtype: Any) -> Tensor:
        """Converted to another element type; between float types the gradient is converted back."""
        return OPS["astype"](self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        return OPS["reshape"](self, *shape)

    def transpose(self, *axes: Any) -> Tensor:
        return OPS["transpose"](self, *axes)

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return OPS["transpose"](self)

    def flatten(self, start_dim: int = 0) -> Tensor:
        return OPS["flatten"](self, start_dim)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPS["sum"](self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPS["mean"](self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPS["max"](self, axis, keepdims)

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPS["argmax"](self, axis, keepdims)

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return OPS["argmin"](self, axis, keepdims)

    def abs(self) -> Tensor:
        return OPS["abs"](self)

    def exp(self) -> Tensor:
        return OPS["exp"](self)

    def log(self) -> Tensor:
        return OPS["log"](self)

    def sqrt(self) -> Tensor:
        return OPS["sqrt"](self)

    def tanh(self) -> Tensor:
        return OPS["tanh"](self)

    def sigmoid(self) -> Tensor:
        return OPS["sigmoid"](self)

    def relu(self) -> Tensor:
        return OPS["relu"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return OPS["getitem"](self, index)

    def __add__(self, other: TensorLike) -> Tensor:
        return OPS["add"](self, other)

    def __sub__(self, other: TensorLike) -> Tensor:
        return OPS["subtract"](self, other)

    def __mul__(self, other: TensorLike) -> Tensor:
        return OPS["multiply"](self, other)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return OPS["divide"](self, other)

    def __pow__(self, other: TensorLike) -> Tensor:
        return OPS["power"](self, other)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return OPS["matmul"](self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return OPS["add"](other, self)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return OPS["subtract"](other, self)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return OPS["multiply"](other, self)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return OPS["divide"](other, self)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return OPS["power"](other, self)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return OPS["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return OPS["negative"](self)

    def __abs__(self) -> Tensor:
        return OPS["abs"](self)

    def __format__(self, spec: str) -> str:
        """f"{loss:.3f}": the one value of a tensor of size 1; without a format, what print shows."""
        return format(self.item(), spec) if spec else str(self)

    def __round__(self, digits: int | None = None) -> Any:
        """round(loss, 4): of the one value of a tensor of size 1, as a Python number."""
        return round(self.item(), digits)

    def __eq__(self, other: Any) -> Any:
        return OPS["equal"](self, other)

    def __ne__(self, other: Any) -> Any:
        return OPS["not_equal"](self, other)

    def __lt__(self, other: Any) -> Tensor:
        return OPS["less"](self, other)

    def __le__(self, other: Any) -> Tensor:
        return OPS["less_equal"](self, other)

    def __gt__(self, other: Any) -> Tensor:
        return OPS["greater"](self, other)

    def __ge__(self, other: Any) -> Tensor:
        return OPS["greater_equal"](self, other)

    __hash__ = object.__hash__  # tensors are dictionary keys by identity; == compares elements
