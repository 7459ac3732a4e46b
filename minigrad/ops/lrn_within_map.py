"""Local response normalisation within a map: over neighbouring pixels of one channel.

    s[i,j] = k + alpha * sum of x[u,v]^2 over the n x n pixels around (i,j), clipped at the borders
    y = x * s^-beta

    dx = dy * s^-beta - 2 alpha beta x * (sum of dy * y / s over the same window)

The window sum is separable: sums down the rows, then their sums across the columns.  Backward keeps x
alone and computes s again.

Source: not in the paper.  The original AlexNet code has such a layer after the second LRN, and cuda-convnet's
18 % net for CIFAR-10 uses it in place of lrn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..kernel import constants, struct
from ..memory import empty
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank
from ._response import WindowSums, check_response, in_blocks, power, scale
from ._windows import channels_last, first

BLOCK = 1 << 16  # elements at a time, where an image has no more


class LRNWithinMap(Function, name="lrn_within_map"):
    def __init__(self, n: int, k: float, alpha: float, beta: float):
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward_cpu(self, x: Array) -> Array:
        self.x = x
        x = channels_last(x)
        y = empty(x.shape, x.dtype)

        def normalize(window: WindowSums, x: Array, y: Array) -> None:
            s, s_beta, buffer = window.spare
            scale(window, x, self.k, self.alpha, out=s)
            power(s, self.beta, out=s_beta, buffer=buffer)
            np.divide(x, s_beta, out=y)

        self.in_blocks(normalize, x, y)
        return first(y)

    def backward_cpu(self, dy: Array) -> Array:
        x, dy = channels_last(self.x), channels_last(dy)
        dx = empty(x.shape, x.dtype)

        def differentiate(window: WindowSums, x: Array, dy: Array, dx: Array) -> None:
            s, s_beta, total = window.spare
            scale(window, x, self.k, self.alpha, out=s)
            power(s, self.beta, out=s_beta, buffer=total)
            np.divide(dy, s_beta, out=dx)
            terms = np.multiply(dx, x, out=s_beta)  # dy * y
            terms /= s
            window(terms, out=total)
            total *= x.dtype.type(-2 * self.alpha * self.beta)
            total *= x
            dx += total

        self.in_blocks(differentiate, x, dy, dx)
        return first(dx)

    def in_blocks(self, work: Any, *images: Array) -> None:
        """work(window, *blocks) on one image (1, H, W * C) at a time, on several where they are small."""
        n, h, w, c = images[0].shape
        rows = [a.reshape(n, h, w * c) for a in images]
        top, left = (min(self.n // 2, max(0, size - 1)) for size in (h, w))  # further out there are no pixels
        in_blocks(self.device, BLOCK, (top, left), c, work, *rows)

    def forward_gpu(self, x: Array) -> Array:
        self.x = x = gpu.contiguous(self.device, x)
        y = gpu.empty_like(self.device, x)
        self.launch("lrn_within_map_forward", x, y, settings=(self.k, self.alpha, self.beta))
        return y

    def backward_gpu(self, dy: Array) -> Array:
        x, dy = self.x, gpu.contiguous(self.device, dy)
        s, dx = gpu.empty_like(self.device, x), gpu.empty_like(self.device, x)
        self.launch("lrn_within_map_scale", x, s, settings=(self.k, self.alpha))
        self.launch("lrn_within_map_backward", x, s, dy, dx, settings=(self.alpha, self.beta))
        return dx

    def launch(self, kernel: str, *images: Array, settings: tuple[float, ...]) -> None:
        """`kernel` with a block of threads for every tile of every map."""
        n, c, h, w = images[0].shape
        top, left = (min(self.n // 2, max(0, size - 1)) for size in (h, w))
        tile, rows = constants("lrn_within_map", "TILE", "ROWS")
        grid = n * c * gpu.blocks(h, tile) * gpu.blocks(w, tile)
        numbers = struct("lrn_within_map", "Maps", height=h, width=w, reach_down=top, reach_across=left), *settings
        gpu.launch(self.device, "lrn_within_map", kernel, grid, (tile, rows), *images, *numbers, REAL=images[0].dtype)


@op
def lrn_within_map(x: Tensor, n: int = 5, k: float = 1.0, alpha: float = 4e-5, beta: float = 0.75) -> Tensor:
    """x / (k + alpha * sum of x^2 over the n x n pixels around each pixel)^beta, every channel on its own.

    x: (N, C, H, W), float32 or float64; the result has the same shape and dtype.
    n: side of the square window, odd, the pixel itself in the middle; it is clipped at the borders.
    k > 0, alpha >= 0, beta: as in the formula.  alpha is *not* divided by n or n^2.

    The defaults are the original AlexNet code's: size 5, scale .001 divided by 25, pow .75.

    Settings of others:

        cuda-convnet rnorm: size, scale, pow    lrn_within_map(x, size, 1, scale / size**2, pow)
        Caffe, norm_region WITHIN_CHANNEL:
            local_size, alpha, beta             lrn_within_map(x, local_size, 1, alpha / local_size**2, beta)

    (Caffe's k has no effect there: it is always 1.)
    Raises ArgumentError for settings out of range, DTypeError for anything but floating point.
    """
    check_floating("lrn_within_map", x=x)
    check_rank("lrn_within_map", "x", x, 4, "(N, C, H, W)")
    return apply(LRNWithinMap(*check_response("lrn_within_map", n, k, alpha, beta)), x)
