"""Arrays and tensors of other libraries: PyTorch, JAX, TensorFlow, pandas, Pillow, ....

No library is imported: what has `__array__`, the buffer protocol or `__dlpack__`, in this order, is asked for a NumPy
array of its memory.  A gradient of another library would end here, and is refused.  So is what NumPy cannot read, such
as PyTorch's tensors on a card.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DeviceError, DTypeError, GraphError, printable

_ON_THE_HOST = (1, 3)  # DLPack's kDLCPU, and kDLCUDAHost: memory of the host that a card can reach


def array_of(data: Any, who: str = "Tensor") -> np.ndarray | None:
    """The NumPy array of another library's array, of its memory where that can be; None for what is none.

    who: whom errors name.  GraphError for one that requires a gradient, DeviceError for one on a card that NumPy cannot
    read, DTypeError for one of an element type that NumPy does not have.
    """
    if isinstance(data, (np.ndarray, np.generic)):
        return np.asarray(data)
    kind = type(data)
    if isinstance(data, (list, tuple, int, float)) or not (
        hasattr(kind, "__array__") or hasattr(kind, "__dlpack__") or _has_a_buffer(data)
    ):
        return None
    name = type_name(data)
    if getattr(data, "requires_grad", False) is True:
        raise GraphError(f"{who}: this {name} requires a gradient, which would end here: give its .detach()")
    try:
        if hasattr(kind, "__dlpack__") and not hasattr(kind, "__array__"):
            return np.from_dlpack(data)
        return np.asarray(data)
    except Exception as error:
        if hasattr(kind, "__dlpack_device__") and _dlpack_device(data) not in _ON_THE_HOST:
            raise DeviceError(
                f"{who}: NumPy cannot read this {name} in the memory of a card: copy it to the host first, with .cpu() "
                "in PyTorch, .get() in CuPy"
            ) from error
        raise DTypeError(
            f"{who}: NumPy cannot read this {name} of {printable(getattr(data, 'dtype', 'unknown type'))}: "
            f"{printable(error)}: convert it to float32 or another type of NumPy's first, .float() in PyTorch"
        ) from error


def weights_of(value: Any, who: str) -> np.ndarray:
    """A weight of another library as a NumPy array: a copy of values, for which a gradient does not matter.

    bfloat16, which NumPy does not have, comes as float32, which holds all its values.  Errors as those of array_of.
    """
    if getattr(value, "requires_grad", False) is True and hasattr(value, "detach"):
        value = value.detach()
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()
    array = array_of(value, who)
    array = np.asarray(value) if array is None else array
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array  # JAX's, which brings the type along


def type_name(value: Any) -> str:
    """The type as messages show it: "list", "torch.Tensor" for a Tensor that is not ours."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in ("builtins", "minigrad", "numpy") else f"{library}.{kind.__name__}"


def _has_a_buffer(data: Any) -> bool:
    try:
        memoryview(data)
    except TypeError:
        return False
    return True


def _dlpack_device(data: Any) -> int:
    """DLPack's number of the kind of device; that of the host where the array cannot say."""
    try:
        return int(data.__dlpack_device__()[0])
    except Exception:
        return _ON_THE_HOST[0]
