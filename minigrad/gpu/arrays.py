"""Arrays in a card's memory: making them, and moving their elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..casting import cast
from ..device import Device
from .launching import THREADS, Array, Strided, blocks, launch
from .layout import TILE, Shape, turn_of, walks

# ---------------------------------------------------------------- memory


def empty(device: Device, shape: Shape, dtype: Any) -> Array:
    """A new C-contiguous array, contents undefined."""
    return device.runtime.empty(tuple(shape), np.dtype(dtype))


def empty_like(device: Device, x: Array, dtype: Any = None) -> Array:
    """A new C-contiguous array of x's shape."""
    return empty(device, x.shape, dtype or x.dtype)


def upload(device: Device, values: Any, dtype: Any = None) -> Array:
    """A copy of a NumPy array (or number, or list) on the device, its memory in the same order."""
    return device.runtime.from_host(np.asarray(values, dtype))


def full(device: Device, shape: Shape, value: Any, dtype: Any) -> Array:
    """A new array, every element `value`."""
    return fill(device, empty(device, shape, dtype), value)


def zeros(device: Device, shape: Shape, dtype: Any) -> Array:
    return full(device, shape, 0, dtype)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of some graphics card, real or emulated."""
    return hasattr(value, "data") and hasattr(value.data, "ptr")


def may_share_memory(a: Array, b: Array) -> bool:
    """Whether two arrays lie in the same piece of memory, as views of one another do."""
    return is_array(a) and is_array(b) and a.data.mem is b.data.mem


# ---------------------------------------------------------------- moving elements


def contiguous(device: Device, x: Array) -> Array:
    """x itself, or a C-contiguous copy."""
    return x if x.flags.c_contiguous else copied(device, x)


def copied(device: Device, x: Array) -> Array:
    """A C-contiguous copy of x."""
    return assign(device, empty_like(device, x), x)


def converted(device: Device, x: Array, dtype: Any) -> Array:
    """A C-contiguous copy of x with another element type, as casting.cast converts."""
    return assign(device, empty_like(device, x, dtype), x)


def assign(device: Device, y: Array, x: Array) -> Array:
    """y[...] = x, which is broadcast and converted as needed; returns y.  The two must not overlap."""
    types = {"FROM": x.dtype, "TO": y.dtype}
    for layout, n, (to, source) in walks(y.shape, y, x):
        arrays, turn = (Strided(to), Strided(source)), turn_of(layout)
        if turn is None:
            launch(device, "copy", "copy_strided", blocks(n), THREADS, *arrays, layout, n, **types)
        else:
            launch(device, "copy", "copy_turned", turn.tiles, (TILE, 8), *arrays, *turn[:-1], **types)
    return y


def fill(device: Device, y: Array, value: Any) -> Array:
    """y[...] = value, a number; returns y."""
    value = cast(np.asarray(value), y.dtype)
    for layout, n, (to,) in walks(y.shape, y):
        launch(device, "copy", "fill", blocks(n), THREADS, Strided(to), layout, n, value[()], TO=y.dtype, FROM=y.dtype)
    return y


def arithmetic(device: Device, operation: str, a: Array, b: Array, y: Array) -> Array:
    """y = a `operation` b: add, subtract, multiply, divide or power; a and b broadcast to y, which may be one of them.

    All three have one element type.  Returns y.
    """
    for layout, n, arrays in walks(y.shape, y, a, b):
        strided = (Strided(array) for array in arrays)
        launch(device, "arithmetic", operation, blocks(n), THREADS, *strided, layout, n, T=y.dtype)
    return y


def add(device: Device, a: Array, b: Array, y: Array) -> Array:
    """y = a + b, arrays of one shape and element type; y may be a or b.  Returns y."""
    return arithmetic(device, "add", a, b, y)


def reshaped(device: Device, x: Array, shape: Shape) -> Array:
    """x with another shape: a view where x is contiguous, else a copy."""
    return contiguous(device, x).reshape(shape)


# ---------------------------------------------------------------- memory order


def memory_order(x: Array) -> tuple[int, ...]:
    """The axes of x from the one with the largest steps to the one with the smallest."""
    return tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))


def empty_in_order_of(device: Device, x: Array) -> Array:
    """A new array of x's shape and element type, without gaps, its axes in memory in the order that x's are in."""
    order = memory_order(x)
    y = empty(device, tuple(x.shape[axis] for axis in order), x.dtype)
    return y.transpose(tuple(sorted(range(x.ndim), key=order.__getitem__))) if x.ndim else y


def dense(device: Device, x: Array) -> Array:
    """x itself where its elements lie in memory without gaps, in any order of axes; else a copy that does."""
    if x.ndim == 0 or x.transpose(memory_order(x)).flags.c_contiguous:
        return x
    return assign(device, empty_in_order_of(device, x), x)
