"""New tensors: zeros, ones, full, arange, rand, randn, and those that are like another."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.arguments import integer, is_number
from ..device import DeviceLike, default_device
from ..device import device as device_named
from ..errors import ArgumentError, DTypeError
from ..tensor import Tensor


def zeros(*shape: Any, dtype: Any = "float32", device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros: zeros(2, 3) or zeros((2, 3)).

    dtype, device, requires_grad: as Tensor's.  ArgumentError for a shape that is not made of integers >= 0.
    """
    return full(_shape("zeros", shape), 0, dtype, device, requires_grad)


def ones(*shape: Any, dtype: Any = "float32", device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones; arguments as those of zeros."""
    return full(_shape("ones", shape), 1, dtype, device, requires_grad)


def full(
    shape: Any, fill_value: Any, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of one number everywhere.

    shape: an int or several.  dtype: by default that of Tensor(fill_value), float32, int64 or bool.
    """
    value = Tensor(fill_value, device="cpu:0", dtype=dtype)
    if value.ndim:
        raise ArgumentError(f"full: fill_value must be one number, it has shape {value.shape}")
    return Tensor(np.full(_shape("full", (shape,)), value.numpy()), requires_grad, device)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: DeviceLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... below stop; arange(n) is 0, 1, ..., n - 1.

    dtype: by default int64 where all three are integers, else float32.  ArgumentError for a step of 0, and for numbers
    that are not finite.
    """
    start, stop = (0, start) if stop is None else (start, stop)
    for name, value in (("start", start), ("stop", stop), ("step", step)):
        if not is_number(value):
            raise ArgumentError(f"arange: {name} must be a finite number, got {value!r}")
    if step == 0:
        raise ArgumentError("arange: step must not be 0: it would never end")
    values = np.arange(start, stop, step)
    if dtype is None:
        dtype = np.float32 if values.dtype.kind == "f" else np.int64
    return Tensor(values, requires_grad, device, dtype)


def randn(*shape: Any, dtype: Any = "float32", device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers, mean 0 and variance 1, from the generator of the device (manual_seed).

    shape, device, requires_grad: as those of zeros.  dtype: float32 or float64 (DTypeError otherwise).
    """
    return _random("randn", "standard_normal", shape, dtype, device, requires_grad)


def rand(*shape: Any, dtype: Any = "float32", device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """Random numbers evenly spread over [0, 1); arguments as those of randn."""
    return _random("rand", "random", shape, dtype, device, requires_grad)


def zeros_like(x: Tensor, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """zeros of the shape, element type and device of x, unless others are given."""
    return zeros(x.shape, **_like("zeros_like", x, dtype, device), requires_grad=requires_grad)


def ones_like(x: Tensor, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """ones of the shape, element type and device of x, unless others are given."""
    return ones(x.shape, **_like("ones_like", x, dtype, device), requires_grad=requires_grad)


def full_like(
    x: Tensor, fill_value: Any, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False
) -> Tensor:
    """full of the shape, element type and device of x, unless others are given."""
    return full(x.shape, fill_value, **_like("full_like", x, dtype, device), requires_grad=requires_grad)


def randn_like(x: Tensor, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """randn of the shape, element type and device of x, unless others are given."""
    return randn(x.shape, **_like("randn_like", x, dtype, device), requires_grad=requires_grad)


def rand_like(x: Tensor, dtype: Any = None, device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """rand of the shape, element type and device of x, unless others are given."""
    return rand(x.shape, **_like("rand_like", x, dtype, device), requires_grad=requires_grad)


def _shape(name: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """(2, 3) of 2, 3 or of (2, 3)."""
    sizes = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    return tuple(integer(name, "shape", size, 0) for size in sizes)


def _like(name: str, x: Any, dtype: Any, device: DeviceLike | None) -> dict[str, Any]:
    if not isinstance(x, Tensor):
        raise DTypeError(f"{name}: x must be a Tensor, got {type(x).__name__}: wrap it in minigrad.Tensor")
    return {"dtype": x.dtype if dtype is None else dtype, "device": x.device if device is None else device}


def _random(
    name: str, kind: str, given: tuple[Any, ...], dtype: Any, device: DeviceLike | None, requires_grad: bool
) -> Tensor:
    where = default_device() if device is None else device_named(device)
    wanted, shape = Tensor([], device="cpu:0", dtype=dtype).dtype, _shape(name, given)
    if wanted.kind != "f":
        raise DTypeError(f"{name}: dtype must be float32 or float64, got {wanted}: convert with .astype")
    return Tensor(getattr(where.generator, kind)(shape, wanted), requires_grad, where)
