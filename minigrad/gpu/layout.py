"""Layouts: what a kernel is told about arrays with strides that it walks over together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .launching import THREADS, Array, blocks
from .sources import LAYOUT, constants

Shape = tuple[int, ...]

MAX_AXES = LAYOUT["size"].shape[0]


def walks(shape: Shape, *arrays: Array, beside: tuple[Array, ...] = ()) -> Iterator[Walk]:
    """What each launch needs that it takes to walk over arrays broadcast to `shape`.

    The first array, which the kernel writes, has that shape, and is walked over in the order of its memory.  Axes that
    can be walked along with one step in all arrays become one axis of the kernel, so that one launch is nearly always
    enough; where more than MAX_AXES are left, there is one for every index of the first axis.  None for no elements.

    beside: more arrays that the kernel reads, and that lie as the first does; they come out behind the others.
    """
    n = math.prod(shape)
    if n == 0:
        return
    sizes: Shape = (n,)
    strides: tuple[Shape, ...] = ((1,),) * len(arrays)
    if not all([array.shape == shape and array.flags.c_contiguous for array in arrays]):
        sizes, strides = shape, tuple(strides_of(array, shape) for array in arrays)
    if not arrays[0].flags.c_contiguous:
        order = sorted(range(len(shape)), key=lambda axis: -abs(strides[0][axis]))
        sizes, strides = tuple(sizes[i] for i in order), tuple(tuple(steps[i] for i in order) for steps in strides)
    layout = _layout(sizes, strides, lanes_of(*arrays, *beside))
    if layout is not None:
        yield Walk(layout, n, (*arrays, *beside))
        return
    for i in range(shape[0]):
        parts = (_at(array, i, len(shape)) for array in arrays)
        yield from walks(shape[1:], *parts, beside=tuple(array[i] for array in beside))


class Walk(NamedTuple):
    """One launch of a kernel that walks over arrays."""

    layout: np.ndarray  # a `Layout`
    n: int  # elements
    arrays: tuple[Array, ...]

    @property
    def blocks(self) -> int:
        """How many blocks do that with `walk` of common.cuh."""
        return blocks(self.n, THREADS * int(self.layout["lanes"][0]))


def pack_blocks(x: Array) -> int:
    """How many blocks do all elements of x with `each` of common.cuh: one thread for 16 bytes of it."""
    return blocks(x.size, THREADS * (PACK // x.itemsize))


PACK = 16  # bytes that a thread loads and stores at once


def lanes_of(*arrays: Array) -> int:
    """How many elements of these arrays make a pack, `lanes_of` of common.cuh; 1 where one does not begin at one."""
    lanes = PACK // max([array.itemsize for array in arrays])
    for array in arrays:
        if array.data.ptr % (lanes * array.itemsize):
            return 1
    return lanes


def layout_of(shape: Shape, strides: tuple[tuple[int, ...], ...]) -> np.ndarray | None:
    """The `Layout` of up to four arrays with these strides (in elements, 0 where repeated); None: too many axes."""
    return _layout(shape, strides, 1)


@lru_cache(maxsize=4096)
def _layout(shape: Shape, strides: tuple[tuple[int, ...], ...], lanes: int) -> np.ndarray | None:
    """The same for kernels that take packs of so many elements where shape and strides allow it."""
    axes: list[tuple[int, tuple[int, ...]]] = []  # the outermost first
    for n, steps in zip(shape, zip(*strides)):
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1], steps)):
            axes[-1] = axes[-1][0] * n, steps
        else:
            axes.append((n, steps))
    axes = axes[::-1] or [(1, (0,) * len(strides))]
    if len(axes) > MAX_AXES:
        return None
    layout = np.zeros(1, LAYOUT)
    layout["axes"] = len(axes)
    layout["lanes"] = lanes if _by_packs(axes, lanes) else 1
    far = (sum((n - 1) * abs(step) for n, step in zip(shape, steps)) for steps in strides)
    layout["small"] = max(math.prod(shape), *far) < SMALL
    for i, (n, steps) in enumerate(axes):
        layout["size"][0, i] = n
        layout["stride"][0, : len(steps), i] = steps
        if layout["small"] and n > 1:
            layout["magic"][0, i], layout["shift"][0, i] = reciprocal(n)
    layout.flags.writeable = False
    return layout


SMALL = 2**31  # below it the number of an element, and its place, fits an int of C


def _by_packs(axes: list[tuple[int, tuple[int, ...]]], lanes: int) -> bool:
    """Whether `lanes` neighbours along axis 0 are a pack in all arrays, or one number, wherever a thread begins."""
    (n, steps), *outer = axes
    whole = not outer or n % lanes == 0  # of one axis, the last thread does what is left over
    along = [which for which, step in enumerate(steps) if step == 1]
    starts = all(others[which] % lanes == 0 for _, others in outer for which in along)
    return whole and starts and 0 in along and all(step in (0, 1) for step in steps)


def reciprocal(n: int) -> tuple[int, int]:
    """(magic, shift) with i // n = (i * magic) >> (32 + shift) for every 0 <= i < 2^31; n is 2 to 2^31.

    magic is 2^(32 + shift) / n rounded up, too large by less than 1.  The quotient is then too large by less than i /
    2^(32 + shift) < 1 / 2^(shift + 1) <= 1 / n, which does not carry i / n over the next integer.
    """
    shift = (n - 1).bit_length() - 1
    return -(-(1 << 32 + shift) // n), shift


class Turn(NamedTuple):
    """A copy that turns rows into columns, by copy_turned of kernels/copy.cu.

    Elements that are neighbours in the memory of x are not neighbours in that of y.
    """

    tiles: np.ndarray  # Layout of the tiles: where in y and x, at which row and column
    rows: int  # neighbours in x
    columns: int  # neighbours in y
    y_step: int  # from row to row
    x_step: int  # from column to column
    blocks: int


SHORTEST = 16  # with fewer rows or columns most of a tile would be empty


def turn_of(layout: np.ndarray) -> Turn | None:
    """The Turn of y and x with this Layout; None where a copy element by element, or by packs, is faster."""
    if layout["lanes"][0] > 1:
        return None
    axes = int(layout["axes"][0])
    size, (y, x, _, _) = layout["size"][0].tolist(), layout["stride"][0].tolist()
    if x[0] == 1 or y[0] != 1 or size[0] < SHORTEST:
        return None
    row = next((axis for axis in range(1, axes) if x[axis] == 1 and size[axis] >= SHORTEST), None)
    if row is None:
        return None
    rest = [axis for axis in range(axes - 1, 0, -1) if axis != row]
    (tile,) = constants("copy", "TILE")
    down, across, none = blocks(size[row], tile), blocks(size[0], tile), (0,) * len(rest)
    tiles = layout_of(
        (*(size[axis] for axis in rest), down, across),
        (
            (*(y[axis] for axis in rest), tile * y[row], tile),
            (*(x[axis] for axis in rest), tile, tile * x[0]),
            (*none, tile, 0),
            (*none, 0, tile),
        ),
    )
    assert tiles is not None  # it has no more axes than `layout`
    return Turn(tiles, size[row], size[0], y[row], x[0], math.prod(size[axis] for axis in rest) * down * across)


def strides_of(array: Array, shape: Shape) -> tuple[int, ...]:
    """Strides in elements of an array broadcast to `shape`."""
    missing = len(shape) - array.ndim
    itemsize = array.itemsize
    own = [0 if n == 1 else stride // itemsize for n, stride in zip(array.shape, array.strides)]
    return (0,) * missing + tuple(own)


def _at(array: Array, i: int, ndim: int) -> Array:
    """array[i] of an array that is broadcast to `ndim` axes."""
    if array.ndim < ndim:
        return array
    return array[0 if array.shape[0] == 1 else i]
