"""Two-dimensional convolution (as in every deep learning library, a cross-correlation).

    y[n,o,i,j] = b[o] + sum over c,u,v of  w[o,c,u,v] * x[n, c, s*i + d*u - p, s*j + d*v - p]

with stride s, dilation d and padding p (x is 0 outside the image), o running over output channels and c over the
input channels of o's group.  Each derivative reads the same sum along another of its variables:

    db[o]       = sum over n,i,j of  dy[n,o,i,j]
    dw[o,c,u,v] = sum over n,i,j of  dy[n,o,i,j] * x[n, c, s*i + d*u - p, s*j + d*v - p]
    dx[n,c,h,l] = sum over o,u,v and those i,j with s*i + d*u - p = h, s*j + d*v - p = l of  w[o,c,u,v] * dy[n,o,i,j]

As matrices: write the window of x that output pixel (i,j) sees as one row of `cols` (kernel_h * kernel_w * channels
numbers: "im2col"), and w as the matrix `w[o, (u,v,c)]`.  Then

    y = cols @ w.T + b        dw = dy.T @ cols        dcols = dy @ w,  each row added back to the window it came from

(dcols is made and added tap by tap: for one (u,v), its columns are dy @ w[:, (u,v)], and go to every s-th pixel.)
Only a few output rows are unrolled at a time, one image after the other, so that `cols` (which for a whole batch would
be 25 times the input of AlexNet's conv2) stays in the cache between the copy and the product.  Images go to the
device's threads in equal shares; each thread sums its own dw, and the sums are added in a fixed order.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5; groups are the paper's "kernels that take input only from
those kernel maps which reside on the same GPU".  im2col: Chellapilla, Puri, Simard 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..engine import Array, Function
from ..errors import ShapeError
from ..parallel import split
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_rank, integer, padding_of, pair
from ._windows import channels_last, first, last, output_shape, scratch

# Bytes of `cols` at a time.  It shares the second-level cache (1 to 2 MB a core) with w and y.  Measured on AlexNet's
# layers, one thread: a quarter of this costs 18 to 43 % more, half 4 to 7 %; twice saves 3 to 10 %, but with both
# columns at work nothing that stands out of the noise.
_TILE_BYTES = 1.3e6


class Conv2d(Function):
    def __init__(self, stride: Pair, padding: Padding, dilation: Pair, groups: int):
        self.s, self.p, self.d, self.groups = stride, padding, dilation, groups

    def forward_cpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        n, (o, _, *kernel) = len(x), w.shape
        oh, ow = output_shape("conv2d", x.shape, tuple(kernel), self.s, self.p, self.d)
        w = self.kernel_matrix(w)
        y = np.empty((n, oh * ow, o), x.dtype)

        def images(start: int, stop: int) -> None:
            for i in range(start, stop):
                for tile, g, out, cols in self.patches(self.padded(last(x)[i]), kernel, oh, ow):
                    np.matmul(cols, w[g].T, out=y[i, tile, out])
                if b is not None:
                    y[i] += b

        split(self.device, n, images)
        return first(y.reshape(n, oh, ow, o))

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        x, w = self.x, self.kernel_matrix(self.w)
        (n, c, h, l), (o, cg, *kernel), (oh, ow) = x.shape, self.w.shape, dy.shape[2:]
        (top, bottom), (left, right) = self.p
        dx = np.empty((n, h, l, c), x.dtype) if self.needs[0] else None

        def images(start: int, stop: int) -> tuple[Array, Array]:
            dw, db = np.zeros_like(w), np.zeros(o, w.dtype)
            part = scratch("conv dw", w.shape[1:], w.dtype)
            for i in range(start, stop):
                dyi = np.ascontiguousarray(last(dy)[i]).reshape(oh * ow, o)
                db += dyi.sum(0)
                if self.needs[1]:
                    for tile, g, out, cols in self.patches(self.padded(last(x)[i]), kernel, oh, ow):
                        dw[g] += np.matmul(dyi[tile, out].T, cols, out=part)
                if dx is not None:
                    dxi = scratch("conv dx", (top + h + bottom, left + l + right, c), x.dtype)
                    dxi[...] = 0
                    self.add_to_windows(dxi, dyi, w, kernel, oh, ow)
                    dx[i] = dxi[top : top + h, left : left + l]
            return dw, db

        sums = split(self.device, n, images)
        dw, db = sums[0]
        for more_dw, more_db in sums[1:]:
            dw += more_dw
            db += more_db
        grads = (None if dx is None else first(dx), first(dw.reshape(o, *kernel, cg)), db)
        return grads[: len(self.needs)]

    def kernel_matrix(self, w: Array) -> Array:
        """w as (groups, output channels of a group, kernel_h * kernel_w * channels); a view of channels-last memory."""
        return channels_last(w).reshape(self.groups, len(w) // self.groups, -1)

    def padded(self, x: Array) -> Array:
        """One image (H, W, C) with its zero border, contiguous: its own memory where there is nothing to add."""
        (top, bottom), (left, right) = self.p
        h, l, c = x.shape
        if top == bottom == left == right == 0:
            return np.ascontiguousarray(x)
        xp = scratch("conv pad", (top + h + bottom, left + l + right, c), x.dtype)
        xp[:top] = xp[top + h :] = 0
        xp[:, :left] = xp[:, left + l :] = 0
        xp[top : top + h, left : left + l] = x
        return xp

    def tiles(self, oh: int, ow: int, row: int, itemsize: int) -> Iterator[tuple[int, int]]:
        """(first output row, number of rows) of pieces whose `cols`, with rows of that length, fit the cache."""
        rows = max(1, int(_TILE_BYTES / (ow * row * itemsize)))
        return ((i, min(rows, oh - i)) for i in range(0, oh, rows))

    def patches(self, xp: Array, kernel: Any, oh: int, ow: int) -> Iterator[tuple[slice, int, slice, Array]]:
        """im2col of a padded image, piece by piece: (output pixels, group, its output channels, cols).

        cols[(i,j), (u,v,c)] = xp[s*i + d*u, s*j + d*v, c]: the strides of this five-dimensional view of xp say just
        that, and one copy makes it a matrix.
        """
        (kh, kw), (sh, sw), (dh, dw), groups = kernel, self.s, self.d, self.groups
        cg, og = xp.shape[2] // groups, self.w.shape[0] // groups
        row, col, channel = xp.strides
        strides = (sh * row, sw * col, dh * row, dw * col, channel)
        for i, rows in self.tiles(oh, ow, kh * kw * cg, xp.itemsize):
            for g in range(groups):
                cols = scratch("conv cols", (rows, ow, kh, kw, cg), xp.dtype)
                cols[...] = as_strided(xp[sh * i :, :, g * cg :], cols.shape, strides)
                pixels = slice(i * ow, (i + rows) * ow)
                yield pixels, g, slice(g * og, (g + 1) * og), cols.reshape(rows * ow, kh * kw * cg)

    def add_to_windows(self, dxp: Array, dy: Array, w: Array, kernel: Any, oh: int, ow: int) -> None:
        """The way back of `patches`, for one padded image: each tap's share of dy @ w, added to the pixels it read."""
        (kh, kw), (sh, sw), (dh, dw), groups = kernel, self.s, self.d, self.groups
        cg, og = dxp.shape[2] // groups, w.shape[1]
        taps = w.reshape(groups, og, kh, kw, cg)
        share = scratch("conv share", (oh, ow, cg), dxp.dtype)
        for g, u, v in np.ndindex(groups, kh, kw):
            np.matmul(dy[:, g * og : (g + 1) * og], taps[g, :, u, v], out=share.reshape(oh * ow, cg))
            rows = slice(dh * u, dh * u + sh * (oh - 1) + 1, sh)
            cols = slice(dw * v, dw * v + sw * (ow - 1) + 1, sw)
            dxp[rows, cols, g * cg : (g + 1) * cg] += share


@op
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of images with a bank of kernels (cross-correlation: kernels are not flipped).

    x: (N, C, H, W).  weight: (O, C / groups, kernel_h, kernel_w).  bias: (O,) or None.  All float32 or all float64.
    stride, dilation: int or (vertical, horizontal), in pixels.
    padding: rows and columns of zeros; int, (ph, pw), or ((top, bottom), (left, right)).
    groups: input and output channels are cut into that many groups, and output group g sees input group g only.
    Returns (N, O, OH, OW) with OH = floor((H + top + bottom - dilation*(kernel_h - 1) - 1) / stride) + 1; OW likewise.

    Raises ShapeError (rank, channels against groups, a kernel larger than the padded image), DTypeError,
    ArgumentError (stride 0 and the like), DeviceError.  Source: see the top of this file.
    """
    check_floating("conv2d", x=x, weight=weight, bias=bias)
    check_rank("conv2d", "x", x, 4, "(N, C, H, W)")
    check_rank("conv2d", "weight", weight, 4, "(O, C / groups, kernel_h, kernel_w)")
    groups = integer("conv2d", "groups", groups, 1)
    o, cg, kh, kw = weight.shape
    seen = f"x {x.shape}, weight {weight.shape}"
    if cg * groups != x.shape[1]:
        raise ShapeError(
            f"conv2d: weight expects {cg * groups} input channels (groups={groups}), x has {x.shape[1]}: {seen}"
        )
    if o % groups or not (o and cg and kh and kw):
        raise ShapeError(f"conv2d: weight must have kernels, in a multiple of groups={groups}, it has {o}: {seen}")
    if bias is not None and bias.shape != (o,):
        raise ShapeError(f"conv2d: bias must have shape ({o},), one number per output channel, it has {bias.shape}")
    settings = (
        pair("conv2d", "stride", stride, 1),
        padding_of("conv2d", padding),
        pair("conv2d", "dilation", dilation, 1),
    )
    output_shape("conv2d", x.shape, (kh, kw), *settings)  # refuses what does not fit, before anything is computed
    return apply(Conv2d(*settings, groups), *(t for t in (x, weight, bias) if t is not None))
