"""The fast face of conv2d on the CPU: which of three ways takes a convolution, and threads that share its images.

_conv2d_winograd.py   fewer multiplications, where kernels, channels and images are large enough, in float32
_conv2d_few.py        several outputs at once, where there are few channels
_conv2d_rows.py       products of matrices, for all others

All take images channels-last, (N, H, W, C), and kernels as matrices.  Threads share the images of a batch.  Each sums
its own dw and db, which are added in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..device import Device
from ..engine import Array
from ..processor.memory import empty
from ..processor.parallel import split
from . import _conv2d_few as few
from . import _conv2d_rows as by_rows
from . import _conv2d_winograd as winograd
from ._conv2d_rows import Sizes
from ._reduction import added_up
from ._windows import channels_last, nchw, nhwc

WAYS: Sequence[Any] = (winograd, few, by_rows)  # the first that suits is taken
_LEAST_WORK = 20_000_000  # multiplications worth waking a thread: fewer were measured slower on two than on one


def forward(device: Device, x: Array, w: Array, b: Array | None, sizes: Sizes) -> Array:
    (oh, ow), o = sizes.outputs, len(w)
    w = kernel_matrices(w, sizes.groups)
    y = empty((len(x), oh, ow, *w.shape[:2]), x.dtype)  # (..., groups, channels of a group)

    def piece(start: int, stop: int) -> None:
        way = next(way for way in WAYS if way.suits(stop - start, w, sizes))
        way.forward(nhwc(x)[start:stop], w, b, y[start:stop], sizes)

    share_out(device, len(x), piece, oh * ow * w.size)
    return nchw(y.reshape(-1, oh, ow, o))


def backward(
    device: Device, x: Array, w: Array, dy: Array, needs: tuple[bool, ...], sizes: Sizes
) -> tuple[Array | None, ...]:
    (n, c, h, l), (oh, ow), o = x.shape, sizes.outputs, len(w)
    w = kernel_matrices(w, sizes.groups)
    dx = empty((n, h, l, c), x.dtype) if needs[0] else None

    def piece(start: int, stop: int) -> tuple[Array | None, Array | None]:
        mine = channels_last(dy[start:stop]).reshape(-1, oh, ow, *w.shape[:2])  # (..., groups, channels of a group)
        way = next(way for way in WAYS if way.suits(stop - start, w, sizes))
        dw = way.gradient_of_w(nhwc(x)[start:stop], mine, w, sizes) if needs[1] else None
        db = added_up(mine.reshape(-1, o), (0,)) if any(needs[2:]) else None
        if dx is not None:
            way = next(way for way in WAYS if way.suits_gradient_of_x(stop - start, w, sizes))
            way.gradient_of_x(dx[start:stop], mine, w, sizes)
        return dw, db

    sums, *more = share_out(device, n, piece, oh * ow * w.size)
    for parts in more:
        for total, part in zip(sums, parts):
            if total is not None:
                device.add_into(total, part)
    dw, db = sums
    if dw is not None:
        dw = nchw(dw.reshape(o, *sizes.kernel, sizes.cg))
    return None if dx is None else nchw(dx), dw, db


def kernel_matrices(w: Array, groups: int) -> Array:
    """w[o, (u,v,c)] of each group: (groups, output channels of a group, kernel_h * kernel_w * input channels of one).

    A view of channels-last memory.
    """
    return channels_last(w).reshape(groups, len(w) // groups, -1)


def share_out(device: Device, n: int, piece: Callable[[int, int], Any], work: int) -> list[Any]:
    """piece(start, stop) for n images, each of so many multiplications, on the threads of the device.

    A single image is not cut: BLAS has threads of its own for its products, and they are awake sooner than ours.
    """
    return [piece(0, n)] if n == 1 else split(device, n, piece, at_least=1 + _LEAST_WORK // max(1, work))
