"""Layouts: what a kernel is told about arrays with strides that it walks over together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .sources import LAYOUT, constants

Array = Any  # cupy.ndarray, or cudasim.SimArray
Shape = tuple[int, ...]

MAX_AXES = LAYOUT["size"].shape[0]


def walks(shape: Shape, *arrays: Array) -> Iterator[tuple[np.ndarray, int, tuple[Array, ...]]]:
    """(layout, number of elements, arrays) of each launch that it takes to walk over arrays broadcast to `shape`.

    The first array, which the kernel writes, has that shape, and is walked over in the order of its memory.  Axes that
    can be walked along with one step in all arrays become one axis of the kernel, so that one launch is nearly always
    enough; where more than MAX_AXES are left, there is one for every index of the first axis.  None for no elements.
    """
    n = math.prod(shape)
    if n == 0:
        return
    strides = tuple(strides_of(array, shape) for array in arrays)
    order = list(range(len(shape)))
    if not arrays[0].flags.c_contiguous:
        order.sort(key=lambda axis: -abs(strides[0][axis]))
    layout = layout_of(
        tuple(shape[axis] for axis in order), tuple(tuple(steps[axis] for axis in order) for steps in strides)
    )
    if layout is not None:
        yield layout, n, arrays
        return
    for i in range(shape[0]):
        yield from walks(shape[1:], *(_at(array, i, len(shape)) for array in arrays))


@lru_cache(maxsize=4096)
def layout_of(shape: Shape, strides: tuple[tuple[int, ...], ...]) -> np.ndarray | None:
    """The `Layout` of up to three arrays with these strides (in elements, 0 where repeated); None: too many axes."""
    axes: list[tuple[int, tuple[int, ...]]] = []
    for n, steps in zip(shape, zip(*strides)):
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1], steps)):
            axes[-1] = axes[-1][0] * n, steps
        else:
            axes.append((n, steps))
    axes = axes or [(1, (0,) * len(strides))]
    if len(axes) > MAX_AXES:
        return None
    layout = np.zeros(1, LAYOUT)
    layout["axes"] = len(axes)
    for i, (n, steps) in enumerate(axes):
        layout["size"][0, i] = n
        layout["stride"][0, : len(steps), i] = steps
    layout.flags.writeable = False
    return layout


class Turn(NamedTuple):
    """A copy that turns rows into columns, by copy_turned of kernels/copy.cu.

    Elements that are neighbours in the memory of x are not neighbours in that of y.
    """

    outer: np.ndarray  # Layout of all axes but two
    rows: int  # neighbours in x
    columns: int  # neighbours in y
    y_step: int  # from row to row
    x_step: int  # from column to column
    tiles: int


SHORTEST = 16  # with fewer rows or columns most of a tile would be empty


def turn_of(layout: np.ndarray) -> Turn | None:
    """The Turn of y and x with this Layout; None where a copy element by element is faster."""
    last = int(layout["axes"][0]) - 1
    size, (y, x, *_) = layout["size"][0].tolist(), layout["stride"][0].tolist()
    if x[last] == 1 or y[last] != 1 or size[last] < SHORTEST:
        return None
    row = next((axis for axis in range(last) if x[axis] == 1 and size[axis] >= SHORTEST), None)
    if row is None:
        return None
    rest = [axis for axis in range(last) if axis != row]
    outer = layout_of(tuple(size[i] for i in rest), (tuple(y[i] for i in rest), tuple(x[i] for i in rest)))
    (tile,) = constants("copy", "TILE")
    tiles = math.prod(size[i] for i in rest) * -(-size[row] // tile) * -(-size[last] // tile)
    assert outer is not None  # it has fewer axes than `layout`
    return Turn(outer, size[row], size[last], y[row], x[last], tiles)


def strides_of(array: Array, shape: Shape) -> tuple[int, ...]:
    """Strides in elements of an array broadcast to `shape`."""
    missing = len(shape) - array.ndim
    own = (0 if n == 1 else stride // array.itemsize for n, stride in zip(array.shape, array.strides))
    return (0,) * missing + tuple(own)


def _at(array: Array, i: int, ndim: int) -> Array:
    """array[i] of an array that is broadcast to `ndim` axes."""
    if array.ndim < ndim:
        return array
    return array[0 if array.shape[0] == 1 else i]
