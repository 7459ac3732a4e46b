"""The tensor: an array on a device, and where its gradient goes.

What tensors can do, `x + y`, `x.sum()`, is in operators.py; each op is in minigrad/ops.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Union

import numpy as np

from .backward import run_backward
from .base.casting import cast
from .base.foreign import array_of
from .base.grad_mode import is_grad_enabled
from .base.spellings import Size
from .device import Array, Device, DeviceLike, default_device
from .device import device as device_named
from .engine import Function, Version, next_order
from .errors import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError
from .operators import OPS, Operators, op  # noqa: F401 (a room takes Tensor, apply and op from here)
from .tools import tracing

TensorLike = Union["Tensor", np.ndarray, float, int, bool, list]

DTYPES = frozenset(np.dtype(t) for t in (np.float32, np.float64, np.bool_)) | frozenset(
    np.dtype(t) for t in "bBhHiIlLqQ"
)


class Tensor(Operators):
    """An n-dimensional array on a device, with an optional gradient.

    data: array, nested list, number or Tensor; it is copied.  Python floats and lists of them become float32; float32
    and float64 arrays keep their precision, integers and booleans stay what they are.  float16, complex and object
    arrays are refused (DTypeError).  Arrays and tensors of other libraries count as arrays (base/foreign.py).
    requires_grad: whether backward() should leave a gradient in `.grad` (floating-point tensors only).
    device: a name such as "cpu:1" or a Device; the first of default_devices() by default.
    dtype: converts to that type, arrays and tensors as `astype` does.  Python's numbers must be in its range: 300 or
    NaN as a uint8 is an ArgumentError.

    `.data` is the bare array.  Writing into it behind the tensor's back escapes the check that backward sees what
    forward saw: change tensors with `t[...] = `, `+=` and the like, or call `mark_modified()` afterwards.
    """

    __slots__ = ("data", "device", "requires_grad", "grad", "node", "version", "__weakref__")
    __array_ufunc__ = None  # numpy_array * tensor asks the tensor; np.exp(tensor) is refused, not silently detached

    data: Array
    device: Device
    requires_grad: bool
    grad: Tensor | None
    node: Function | None
    version: Version

    def __init__(
        self,
        data: TensorLike,
        requires_grad: bool = False,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        if isinstance(data, Tensor):
            device = data.device if device is None else device
            data = data.device.to_host(data.data)
        where = default_device() if device is None else device_named(device)
        self.data = where.from_host(_as_array(data, dtype))
        self.device, self.node, self.grad, self.requires_grad, self.version = where, None, None, False, Version()
        if requires_grad:
            self.requires_grad_()

    # ---------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements, as NumPy has it (an attribute, not PyTorch's method)."""
        return Size(self.data.size)

    @property
    def is_leaf(self) -> bool:
        """True for a tensor that no recorded op made: where gradients end up."""
        return self.node is None

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("len: a 0-d tensor has no length: .item() is its number")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        kind = type(self).__name__
        text = np.array2string(self.numpy(), separator=", ", prefix=f"{kind}(", threshold=60, precision=4)
        facts = [f"shape={self.shape}", f"dtype={self.dtype}", f"device='{self.device}'"]
        if self.node is not None:
            facts.append(f"op={self.node.name}")
        elif self.requires_grad:
            facts.append("requires_grad=True")
        return f"{kind}({text}, {', '.join(facts)})"

    # ---------------------------------------------------------------- out of the graph

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: on the CPU a read-only view of this memory (`.copy()` to change it)."""
        view = self.device.to_host(self.data)
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad and is_grad_enabled() and (dtype is None or np.dtype(dtype) != "O"):
            raise GraphError(
                "np.asarray, or a list of tensors: this one requires a gradient, which would end here without a word: "
                "use .numpy() or .detach() where it may, and minigrad.stack to make one tensor of several"
            )
        array = self.numpy()
        return cast(array, dtype or array.dtype) if copy or dtype not in (None, array.dtype) else array

    def item(self) -> Any:
        """The one value of a tensor of size 1 as a Python number; ShapeError for any other size."""
        if self.size != 1:
            raise ShapeError(
                f"item: the tensor must have exactly one element, it has {self.size}: {self.shape}: "
                "index one first, or take .numpy()"
            )
        return self.numpy().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"bool: the truth of a tensor {self.shape} is ambiguous: compare one element")
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"index: only integer tensors can index, this one is {self.dtype}: convert with .astype")
        return int(self.item())

    def detach(self) -> Tensor:
        """The same values, sharing memory and version, cut off from the graph."""
        return wrap(self.data, self.device, version=self.version)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy.deepcopy: an array on a card travels by way of the host."""
        state = {name: getattr(self, name) for name in Tensor.__slots__ if name != "__weakref__"}
        return state if self.device.on_host else {**state, "data": self.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if not self.device.on_host:
            self.data = self.device.from_host(self.data)

    # ---------------------------------------------------------------- gradients

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch `requires_grad` of a leaf, in place; DTypeError for integers, GraphError for the result of an op."""
        if self.node is not None:
            raise GraphError(
                f"requires_grad_: this tensor is the result of {self.node.name}; only leaves can switch: .detach() it"
            )
        if requires_grad and self.dtype.kind != "f":
            raise DTypeError(
                f"requires_grad: only floating-point tensors have gradients, this one is {self.dtype}: "
                "use .astype('float32')"
            )
        self.requires_grad = requires_grad
        return self

    def backward(self, gradient: TensorLike | None = None) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it depends on, and free the graph.

        gradient: the gradient of some later scalar with respect to this tensor, same shape; may be left out when
        this tensor has one element (it is 1 then).  GraphError where there is no graph or it was freed already.
        """
        if not self.requires_grad:
            raise GraphError("backward: nothing here requires a gradient: make a leaf with requires_grad=True")
        if gradient is None:
            if self.size != 1:
                raise ShapeError(
                    f"backward: a tensor {self.shape} needs a gradient of that shape: make it one number, "
                    ".sum() or .mean(), or give it"
                )
            start = self.device.ones(self.shape, self.dtype)
        else:
            given = gradient if isinstance(gradient, Tensor) else Tensor(gradient, False, self.device, self.dtype)
            if given.device is not self.device:
                raise DeviceError(
                    f"backward: the tensor is on {self.device}, its gradient on {given.device}: use .to()"
                )
            if given.shape != self.shape:
                raise ShapeError(f"backward: the gradient must have shape {self.shape}, it has {given.shape}")
            start = self.device.converted(given.data, self.dtype)  # a copy: the graph may hand views of it on
        if self.node is None:
            self.accumulate_grad(start)
        else:
            run_backward(self.node, start)

    def accumulate_grad(self, grad: Array) -> None:
        """Add to `.grad`; the array becomes this tensor's own."""
        if self.grad is None:
            self.grad = wrap(grad, self.device)
        else:
            self.device.add_into(self.grad.data, grad)
            self.grad.mark_modified()

    # ---------------------------------------------------------------- in place: counted, so that backward can tell

    def mark_modified(self) -> None:
        """Say that the memory of this tensor was written to."""
        self.version.changed(self.device.extent(self.data), self.shape)

    def __setitem__(self, index: Any, value: TensorLike) -> None:
        self._check_in_place("assignment to elements", value)
        self.device.put(self.data, index, self._converted(value))
        self.mark_modified()

    def copy_(self, source: TensorLike) -> Tensor:
        """Overwrite the values with those of `source` (same shape), in place; returns self."""
        self._check_in_place("copy_", source)
        values = self._converted(source)
        if np.shape(values) != self.shape:
            raise ShapeError(f"copy_: source must have shape {self.shape}, it has {np.shape(values)}")
        self.device.put(self.data, ..., values)
        self.mark_modified()
        return self

    def _update(self, other: TensorLike, ufunc: Any) -> Any:
        # Where a gradient would be lost: at NotImplemented Python goes on to `x = x + other`, which records an op.
        if is_grad_enabled() and (self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)):
            return NotImplemented
        self.device.update(ufunc.__name__, self.data, self._bare(other))
        self.mark_modified()
        return self

    def __iadd__(self, other: TensorLike) -> Any:
        return self._update(other, np.add)

    def __isub__(self, other: TensorLike) -> Any:
        return self._update(other, np.subtract)

    def __imul__(self, other: TensorLike) -> Any:
        return self._update(other, np.multiply)

    def __itruediv__(self, other: TensorLike) -> Any:
        return self._update(other, np.true_divide)

    def _check_in_place(self, what: str, value: TensorLike) -> None:
        gradient = self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
        if gradient and is_grad_enabled():
            raise GraphError(f"{what}: would lose a gradient: do it inside `with minigrad.no_grad():`")

    def _bare(self, value: TensorLike) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.device is not self.device:
            raise DeviceError(f"in-place change of a tensor on {self.device} from {value.device}: use .to() first")
        return value.data

    def _converted(self, value: TensorLike) -> Any:
        """A value to be assigned, as an array: of a tensor as it is, of anything else of this tensor's element type."""
        if isinstance(value, Tensor):
            return self._bare(value)
        if isinstance(value, int) and self.dtype.kind == "f":
            value = float(value)  # of any size
        return _as_array(value, self.dtype)


# ---------------------------------------------------------------- making tensors, running ops


def wrap(array: Array, where: Device, node: Function | None = None, version: Version | None = None) -> Tensor:
    """A tensor around an array as it is: no copy, no checks.  For ops and the engine."""
    tensor = Tensor.__new__(Tensor)
    tensor.data, tensor.device, tensor.node, tensor.grad = array, where, node, None
    tensor.requires_grad, tensor.version = node is not None, version or Version()
    return tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """A CPU tensor on the default device that shares the memory of `array`: writing to one changes the other."""
    checked = _as_array(array, None)
    where = default_device()
    return wrap(checked, where if where.on_host else device_named("cpu:0"))


def as_tensor(value: TensorLike, where: Device) -> Tensor:
    """`value` itself if it is a tensor, else a constant tensor on that device."""
    return value if isinstance(value, Tensor) else Tensor(value, device=where)


def apply(function: Function, *tensors: Tensor, on: Device | None = None) -> Tensor:
    """Run an op: check the devices, compute, and leave `function` as a graph node if a gradient may be asked for.

    The node keeps edges to the nodes of its inputs (or to the leaves), not the input tensors: an intermediate array
    lives as long as somebody holds its tensor or an op kept it for backward, and no longer.

    on: the device of the output, where inputs may be on another: only the op `copy` needs that.
    """
    where = on or tensors[0].device
    enabled = is_grad_enabled()
    arrays, inputs, needs, newest = [], [], [], 0
    latest, versions, values = Version.latest, [], []
    for tensor in tensors:
        if tensor.device is not where and on is None:
            raise DeviceError(
                f"{function.name}: inputs on {', '.join(str(t.device) for t in tensors)}: "
                "bring them to one device with .to()"
            )
        needed, node, version = enabled and tensor.requires_grad, tensor.node, tensor.version
        arrays.append(tensor.data)
        inputs.append((node or tensor) if needed else None)
        needs.append(needed)
        versions.append(version)
        values.append(version.value)
        if node is not None and node.order > newest:
            newest = node.order
    function.device, function.needs = where, tuple(needs)
    y = (tracing.recorder or where).forward(function, *arrays)
    shared = None
    if on is None:
        for array, version in zip(arrays, versions):
            if where.shares(y, array):
                shared = version  # a view of an input: writing to either changes both
                break
    if True not in needs:
        return wrap(y, where, None, shared)
    output = wrap(y, where, function, shared)
    versions.append(output.version)
    values.append(output.version.value)
    function.inputs, function.shape, function.dtype = tuple(inputs), y.shape, y.dtype
    function.order, function.watched = next_order(newest), (latest, versions, values)
    return output


def _as_array(data: Any, dtype: Any) -> np.ndarray:
    """The NumPy array that a tensor of `data` will hold: the dtype rules of Tensor's docstring."""
    if dtype is not None and not (isinstance(dtype, np.dtype) and dtype in DTYPES):
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            rule = f"Tensor: dtype must name an element type, got {dtype!r}: give it as text, 'float32'"
            raise DTypeError(rule) from None
        if dtype not in DTYPES:
            raise DTypeError(f"Tensor: dtype must be float32, float64, an integer or bool, got {dtype}")
    array = array_of(data)
    typed = array is not None
    if array is None:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"Tensor: data is not rectangular: {error}") from None
    if dtype is not None and array.dtype.kind in "fiub":
        return array if array.dtype == dtype else _fitting(array, dtype, typed)
    if array.dtype == np.float64 and not typed:
        array = array.astype(np.float32)  # Python floats carry no precision of their own
    if array.dtype not in DTYPES:
        raise DTypeError(
            f"Tensor: expected float32, float64, integers or bool, got {array.dtype}: convert with dtype= or astype"
        )
    return array


def _fitting(array: np.ndarray, dtype: Any, typed: bool) -> np.ndarray:
    """`array` with another element type; Python's numbers (not typed) must be in its range if it is one of integers."""
    if typed or np.dtype(dtype).kind not in "iu":
        return cast(array, dtype)
    with np.errstate(invalid="ignore"):
        y = cast(array, dtype)
    beyond = y != (np.trunc(array) if array.dtype.kind == "f" else array)
    if beyond.any():
        raise ArgumentError(f"Tensor: {array[beyond][0]} is out of range for {y.dtype}: take another dtype")
    return y
