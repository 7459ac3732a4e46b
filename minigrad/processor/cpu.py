"""`cpu:N`, a lane of the processor: arrays are NumPy's, and ops run their fast face, on all cores that they may use."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ..base.casting import cast
from ..base.indexing import plain_index
from ..device import Array, Device, Shape
from .memory import empty_like
from .parallel import go_on, split

_LEAST = 1 << 18  # elements of a sum that are worth a thread


class CPU(Device, kind="cpu"):
    array_type = np.ndarray
    on_host = shares_cores = True

    @property
    def xp(self) -> ModuleType:
        return np

    # ---------------------------------------------------------------- running ops

    def forward(self, function: Any, *arrays: Array) -> Array:
        go_on()
        y = function.forward_cpu(*arrays)
        return y if type(y) is np.ndarray else np.asarray(y)  # NumPy turns 0-d results into scalars

    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        grads = node.backward_cpu(dy)
        return grads if isinstance(grads, tuple) else (grads,)

    def synchronize(self) -> None:
        pass  # what NumPy was asked for is done when it returns

    # ---------------------------------------------------------------- arrays

    def from_host(self, values: np.ndarray) -> Array:
        return np.array(values)

    def to_host(self, x: Array) -> np.ndarray:
        return x.view()

    def received(self, x: Array, source: Device) -> Array:
        values = source.to_host(x)
        if not source.on_host:
            return values
        y = empty_like(values)
        np.copyto(y, values)
        return y

    def ones(self, shape: Shape, dtype: Any) -> Array:
        return np.ones(shape, dtype)

    def copied(self, x: Array) -> Array:
        return x.copy()

    def converted(self, x: Array, dtype: Any) -> Array:
        return cast(x, dtype)

    def added(self, a: Array, b: Array) -> Array:
        if a.ndim == 0:
            return np.asarray(a + b)  # NumPy turns 0-d results into scalars
        # The sum gets a's order in memory, or b's where a is a broadcast view, whose strides of 0 tell of none.
        return _add(self, a, b, empty_like(b if 0 in a.strides else a))

    def add_into(self, total: Array, part: Array) -> None:
        if total.ndim == 0:
            total[()] += part[()]  # NumPy adds two numbers faster than two 0-d arrays in place
        else:
            _add(self, total, part, total)

    def put(self, x: Array, index: Any, values: Any) -> None:
        x[plain_index(index)] = values if values.dtype == x.dtype else cast(values, x.dtype)

    def update(self, operation: str, x: Array, other: Any) -> None:
        getattr(np, operation)(x, other, out=x, casting="same_kind")

    def owns(self, x: Any) -> bool:
        return isinstance(x, np.ndarray)

    def writable(self, x: Array) -> bool:
        return x.flags.writeable

    def shares(self, a: Array, b: Array) -> bool:
        if a.base is None and b.base is None:  # each owns its memory: by far the most frequent
            return a is b
        return np.may_share_memory(a, b)

    def extent(self, x: Array) -> tuple[int, int]:
        return byte_bounds(x)


def _add(where: Device, a: Array, b: Array, out: Array) -> Array:
    """out = a + b; large arrays on all threads of the device."""
    add = np.add
    if out.size < 2 * _LEAST:
        return add(a, b, out=out)
    longest = max(range(out.ndim), key=lambda axis: (out.shape[axis] > 1) * abs(out.strides[axis]))
    x, y, z = (array.swapaxes(0, longest) for array in (a, b, out))  # pieces that are whole runs of memory
    split(where, len(z), lambda i, j: add(x[i:j], y[i:j], out=z[i:j]), at_least=-(-_LEAST * len(z) // z.size))
    return out
