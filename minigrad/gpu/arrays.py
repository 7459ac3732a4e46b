"""Arrays in a card's memory: making them, and moving their elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base.casting import cast
from ..base.interrupts import hold
from ..device import Device
from .launching import THREADS, Array, Launching, Strided
from .layout import Shape, turn_of, walks
from .sources import constants


class CardArrays(Launching):
    # ---------------------------------------------------------------- memory

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """A new C-contiguous array, contents undefined."""
        return self.runtime.empty(tuple(shape), np.dtype(dtype))

    def empty_like(self, x: Array, dtype: Any = None) -> Array:
        """A new C-contiguous array of x's shape."""
        return self.runtime.empty(x.shape, x.dtype if dtype is None else np.dtype(dtype))

    def upload(self, values: Any, dtype: Any = None) -> Array:
        """A copy of a NumPy array (or number, or list) on the device, its memory in the same order."""
        return self.runtime.from_host(np.asarray(values, dtype))

    def full(self, shape: Shape, value: Any, dtype: Any) -> Array:
        """A new array, every element `value`."""
        return self.fill(self.empty(shape, dtype), value)

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        return self.full(shape, 0, dtype)

    def ones(self, shape: Shape, dtype: Any) -> Array:
        return self.full(shape, 1, dtype)

    def from_host(self, values: np.ndarray) -> Array:
        return self.upload(values)

    def to_host(self, x: Array) -> np.ndarray:
        return self.runtime.to_host(self.dense(x))

    def received(self, x: Array, source: Device) -> Array:
        if source.kind == self.kind:
            with hold():  # or x's memory might be reused while it is being read
                return self.runtime.copy_from(source.runtime, source.dense(x))
        return self.from_host(source.to_host(x))

    def owns(self, x: Any) -> bool:
        return self.runtime.owns(x)

    def writable(self, x: Array) -> bool:
        return True

    def shares(self, a: Array, b: Array) -> bool:
        """Whether two arrays lie in the same piece of memory, as an array and its views do."""
        return a.data.mem is b.data.mem

    def extent(self, x: Array) -> tuple[int, int]:
        """A number for the whole piece of memory that x is a part of, and the next."""
        return id(x.data.mem), id(x.data.mem) + 1

    # ---------------------------------------------------------------- moving elements

    def contiguous(self, x: Array) -> Array:
        """x itself, or a C-contiguous copy."""
        return x if x.flags.c_contiguous else self.copied(x)

    def copied(self, x: Array) -> Array:
        """A C-contiguous copy of x."""
        return self.assign(self.empty_like(x), x)

    def converted(self, x: Array, dtype: Any) -> Array:
        """A C-contiguous copy of x with another element type, as casting.cast converts."""
        return self.assign(self.empty_like(x, dtype), x)

    def assign(self, y: Array, x: Array) -> Array:
        """y[...] = x, which is broadcast and converted as needed; returns y.  The two must not overlap."""
        types = {"FROM": x.dtype, "TO": y.dtype}
        for walk in walks(y.shape, y, x):
            arrays, turn = map(Strided, walk.arrays), turn_of(walk.layout)
            if turn is None:
                self.launch("copy", "copy_strided", walk.blocks, THREADS, *arrays, walk.layout, walk.n, **types)
            else:
                block = constants("copy", "TILE", "STRIPE")
                self.launch("copy", "copy_turned", turn.blocks, block, *arrays, *turn[:-1], **types)
        return y

    def fill(self, y: Array, value: Any) -> Array:
        """y[...] = value, a number; returns y."""
        value = cast(np.asarray(value), y.dtype)
        for walk in walks(y.shape, y):
            args = Strided(*walk.arrays), walk.layout, walk.n, value[()]
            self.launch("copy", "fill", walk.blocks, THREADS, *args, TO=y.dtype, FROM=y.dtype)
        return y

    def arithmetic(self, operation: str, a: Array, b: Array, y: Array) -> Array:
        """y = a `operation` b: add, subtract, multiply, divide or power; returns y.

        a and b broadcast to y's shape; y may be a or b itself.  All three have one element type.
        """
        for walk in walks(y.shape, y, a, b):
            args = *map(Strided, walk.arrays), walk.layout, walk.n
            self.launch("arithmetic", operation, walk.blocks, THREADS, *args, T=y.dtype)
        return y

    def added(self, a: Array, b: Array) -> Array:
        return self.arithmetic("add", a, b, self.empty_like(a))

    def add_into(self, total: Array, part: Array) -> None:
        self.arithmetic("add", total, part, total)

    def reshaped(self, x: Array, shape: Shape) -> Array:
        """x with another shape: a view where x is contiguous, else a copy."""
        return self.contiguous(x).reshape(shape)

    # ---------------------------------------------------------------- memory order

    def empty_in_order_of(self, x: Array) -> Array:
        """A new array of x's shape and element type, without gaps, its axes in memory in the same order as x's."""
        order = memory_order(x)
        y = self.empty(tuple(x.shape[axis] for axis in order), x.dtype)
        return y.transpose(tuple(sorted(range(x.ndim), key=order.__getitem__))) if x.ndim else y

    def dense(self, x: Array) -> Array:
        """x itself where its elements lie in memory without gaps, in any order of axes; else such a copy."""
        if x.ndim == 0 or x.transpose(memory_order(x)).flags.c_contiguous:
            return x
        return self.assign(self.empty_in_order_of(x), x)


def memory_order(x: Array) -> tuple[int, ...]:
    """The axes of x from the one with the largest steps to the one with the smallest."""
    return tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
