"""conv2d on the CPU for few output channels: several outputs of a row at once.

LeNet's first layer has six kernels of 5 x 5 taps.  As a product of matrices (_conv2d_rows.py) that is 6 columns of sums
of 25, on which BLAS reaches a tenth of its speed.  Take q neighbouring outputs of a row as q * o channels of one: their
window is a little wider, and the kernel of the output number a of them is the old one, a * stride columns further right

    W[(a,o), u, v, c] = w[o, u, v - s*a, c]          0 where v - s*a is no column of w;       a = 0 .. q-1

so that a convolution with W, with a stride of q*s along the rows, gives the same y, in the same memory.  Its product
has q times as many columns, and many zeros, but q times fewer rows to copy.  dW is computed as any other, and dw is the
sum of its q parts.  Measured on LeNet's two layers, against whole windows: 0.61 to 0.97 of the time.

A zero times inf or NaN is NaN, and so a result that is not finite is computed again by rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..engine import Array
from . import _conv2d_rows as by_rows
from ._conv2d_rows import Sizes, finite

MOST_COLUMNS = 96  # channels of the product, q * o
MOST_ZEROS = 2.3  # by how much wider a window may get
LARGEST_WINDOW = 400  # numbers in a window; larger ones make products that are fast enough


@lru_cache(maxsize=256)
def outputs_at_once(o: int, sizes: Sizes) -> int:
    """q, which divides the outputs of a row; 1 where there is nothing to gain."""
    (kh, kw), s, width = sizes.kernel, sizes.s[1], sizes.outputs[1]
    if sizes.groups > 1 or sizes.d != (1, 1) or kh * kw * sizes.cg > LARGEST_WINDOW:
        return 1
    fit = [q for q in range(1, width + 1) if width % q == 0 and q * o <= MOST_COLUMNS]
    return max((q for q in fit if kw + s * (q - 1) <= MOST_ZEROS * kw), default=1)


def suits(images: int, w: Array, sizes: Sizes) -> bool:
    """Whether it is worth it; w as `kernel_matrices` makes it."""
    return outputs_at_once(w.shape[1], sizes) > 1


suits_gradient_of_x = suits


def forward(x: Array, w: Array, b: Array | None, y: Array, sizes: Sizes) -> None:
    """Fill y (N, OH, OW, 1, o) for x (N, H, W, C)."""
    q = outputs_at_once(w.shape[1], sizes)
    by_rows.forward(x, widened(w, q, sizes), None if b is None else np.tile(b, q), together(y, q), with_q(sizes, q))
    if not finite(y):
        by_rows.forward(x, w, b, y, sizes)


def gradient_of_x(dx: Array, dy: Array, w: Array, sizes: Sizes) -> None:
    """Fill dx (N, H, W, C) from dy (N, OH, OW, 1, o)."""
    q = outputs_at_once(w.shape[1], sizes)
    by_rows.gradient_of_x(dx, together(dy, q), widened(w, q, sizes), with_q(sizes, q))
    if not finite(dx):
        by_rows.gradient_of_x(dx, dy, w, sizes)


def gradient_of_w(x: Array, dy: Array, w: Array, sizes: Sizes) -> Array:
    """dw of these images, in the shape of w."""
    q, (_, o, _), (kh, kw), c, s = outputs_at_once(w.shape[1], sizes), w.shape, sizes.kernel, sizes.cg, sizes.s[1]
    wide = np.empty((1, q * o, kh * (kw + s * (q - 1)) * c), w.dtype)
    parts = by_rows.gradient_of_w(x, together(dy, q), wide, with_q(sizes, q)).reshape(q, o, kh, -1, c)
    dw = sum(parts[a, :, :, s * a : s * a + kw] for a in range(q)).reshape(w.shape)  # type: ignore[union-attr]
    return dw if finite(dw) else by_rows.gradient_of_w(x, dy, w, sizes)


def with_q(sizes: Sizes, q: int) -> Sizes:
    """The sizes of the convolution that has q outputs as channels of one."""
    (sh, sw), (kh, kw), (oh, ow) = sizes.s, sizes.kernel, sizes.outputs
    return sizes._replace(s=(sh, q * sw), kernel=(kh, kw + sw * (q - 1)), outputs=(oh, ow // q))


def together(y: Array, q: int) -> Array:
    """y (N, OH, OW, 1, o) as (N, OH, OW / q, 1, q * o), the same memory."""
    n, oh, ow, _, o = y.shape
    return y.reshape(n, oh, ow // q, 1, q * o)


def widened(w: Array, q: int, sizes: Sizes) -> Array:
    """W as a matrix, (1, q * o, numbers of a window)."""
    (_, o, _), (kh, kw), c, s = w.shape, sizes.kernel, sizes.cg, sizes.s[1]
    wide = np.zeros((q, o, kh, kw + s * (q - 1), c), w.dtype)
    for a in range(q):
        wide[a, :, :, s * a : s * a + kw] = w.reshape(o, kh, kw, c)
    return wide.reshape(1, q * o, -1)
