"""Views of pictures, prepared for a net: cut out, mirrored, the mean subtracted, the colours shifted, scaled.

    y[n, v, c, i, j] = (x[n, top + i, left + k, c] - mean[top + i, left + k, c] + colour[n, c]) * scale

k is j, or size - 1 - j in a mirrored view; top, left and mirrored belong to view v of picture n.  There is no gradient:
pictures are not learned.

minigrad/data/augment.py does the same on the processor, picture by picture, in the threads of a Loader, and draws the
random numbers for both.  This op is for cards: pictures travel to them as they were decoded, as bytes.  That is a third
of the bytes of a training batch's views, and a thirtieth of those of ten views; and the processor is spared the
arithmetic.  All is float32, and each step is rounded, in this order: both give the same bits.

Source: Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import gpu
from ..base.arguments import number
from ..engine import Array, Function
from ..errors import ArgumentError, DTypeError, ShapeError
from ..gpu import THREADS
from ..gpu.sources import constants
from ..tensor import Tensor, apply, as_tensor, op
from ._checks import check_rank, check_tensors, integer

MOST = 2**31 - 1  # bytes of a picture, numbers of a view: the kernel counts them with an int


@op
def prepare(images: Tensor, windows: Any, size: int, mean: Any, colours: Any = None, scale: float = 1.0) -> Tensor:
    """Views of uint8 pictures (N, H, W, C) as float32 (N, C, size, size), or (N, V, C, size, size) of V views each.

    windows: integers (N, 3), or (N, V, 3): top, left, and 1 for a mirrored view, else 0.
    mean: the mean image, float32 (H, W, C), a Tensor on the device of the pictures, or an array.
    colours: what is added to the colours of each picture, (N, C); None: nothing.
    scale: multiplies in the end.  A Loader with pictures=True makes all of these: `F.prepare(images, *batch.views)`.

    DTypeError for pictures that are not uint8, a mean that is not float32, windows that are not integers; ShapeError
    where shapes do not fit; ArgumentError for a window that leaves its picture, the first one is named.

    Source: Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1.
    """
    check_tensors("prepare", images=images)
    check_rank("prepare", "images", images, 4, "(N, H, W, C)")
    if images.dtype != np.uint8:
        raise DTypeError(f"prepare: images must be uint8, they are {images.dtype}: give pictures as they were decoded")
    n, *picture = images.shape
    channels, size = picture[-1], integer("prepare", "size", size, 1)
    if not 1 <= channels <= 4:
        raise ShapeError(
            f"prepare: images must be (N, H, W, C), 1 to 4 channels last, they are {images.shape}: use .transpose"
        )
    if max(math.prod(picture), channels * size * size) > MOST:
        raise ShapeError(
            f"prepare: a picture and a view must have at most {MOST} numbers, they have {tuple(picture)} and "
            f"{(channels, size, size)}: take smaller ones"
        )
    average = as_tensor(mean, images.device).detach()
    if average.dtype != np.float32 or average.shape != tuple(picture):
        error = DTypeError if average.dtype != np.float32 else ShapeError
        raise error(
            f"prepare: mean must be the mean image, float32 {tuple(picture)} as the pictures are, it is "
            f"{average.dtype} {average.shape}: compute it from such pictures"
        )
    shift = np.zeros((n, channels), np.float32) if colours is None else _array("colours", colours, np.float32)
    if shift.shape != (n, channels):
        raise ShapeError(f"prepare: colours must be (N, C) = {(n, channels)}, they are {shift.shape}")
    views = Prepare(_checked(windows, size, n, *picture[:2]), size, shift, number("prepare", "scale", scale))
    return apply(views, images, average)


class Prepare(Function):
    def __init__(self, windows: np.ndarray, size: int, colour: np.ndarray, scale: float):
        self.windows, self.size, self.colour, self.scale = windows, size, colour, np.float32(scale)

    # ---- the textbook's face

    def forward(self, x: Array, mean: Array) -> Array:
        size, views = self.size, self.windows.shape[:-1]  # (N,), or (N, V)
        y = np.empty((*views, size, size, x.shape[-1]), np.float32)
        for nv in np.ndindex(views):
            n, (top, left, mirrored) = nv[0], self.windows[nv]
            window = slice(top, top + size), slice(left, left + size)
            view = (x[n][window] - mean[window] + self.colour[n]) * self.scale
            y[nv] = view[:, ::-1] if mirrored else view
        return np.moveaxis(y, -1, -3)

    # ---- on a card

    def forward_gpu(self, x: Array, mean: Array) -> Array:
        _, height, width, channels = x.shape
        views = self.windows.shape[:-1]
        y = self.device.empty((*views, channels, self.size, self.size), np.float32)
        arrays = [self.device.contiguous(x), self.device.contiguous(mean)]
        arrays += [self.device.upload(self.windows), self.device.upload(self.colour)]
        (warp,) = constants("prepare", "WARP")
        rows = math.prod(views) * self.size
        args = *arrays, y, rows, math.prod(views[1:]), height, width, self.size, self.scale
        self.device.launch("prepare", "prepare", gpu.blocks(rows * warp), THREADS, *args, CHANNELS=channels)
        return y


def _array(name: str, values: Any, dtype: Any = None) -> np.ndarray:
    """The values as an array of NumPy's, a copy."""
    try:
        return np.array(values, dtype)
    except ValueError:
        raise ShapeError(f"prepare: {name} must be an array, or lists of equal length, got {values!r:.100}") from None


def _checked(windows: Any, size: int, n: int, height: int, width: int) -> np.ndarray:
    """The windows as int32 (N, 3) or (N, V, 3); raises as prepare says."""
    found = _array("windows", windows)
    if found.ndim not in (2, 3) or found.shape[0] != n or found.shape[-1] != 3:
        raise ShapeError(
            f"prepare: windows must be (N, 3) or (N, V, 3): top, left, mirrored, for N = {n} pictures, they are "
            f"{found.shape}"
        )
    if found.dtype.kind not in "iu":
        raise DTypeError(f"prepare: windows must be integers, they are {found.dtype}: use .astype(int)")
    most = np.array([height - size, width - size, 1])
    wrong = ((found < 0) | (found > most)).any(-1)
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), wrong.shape)
        top, left, mirrored = found[at].tolist()
        raise ArgumentError(
            f"prepare: windows[{', '.join(map(str, at))}] = ({top}, {left}, {mirrored}) is not within (0, 0, 0) and "
            f"{(height - size, width - size, 1)}, top, left and mirrored of views of {size} x {size} in pictures of "
            f"{height} x {width}"
        )
    return found.astype(np.int32)
