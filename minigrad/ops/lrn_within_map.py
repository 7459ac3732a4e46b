"""Local response normalisation within a map: over neighbouring pixels of one channel.

    s[i,j] = k + alpha * sum of x[u,v]^2 over the n x n pixels around (i,j), clipped at the borders y = x * s^-beta

    dx = dy * s^-beta - 2 alpha beta x * (sum of dy * y / s over the same window)

The window sum is separable: n shifted slices down the rows, then n across the columns.  Backward keeps x
alone and computes s again.

Source: not in the paper.  The original AlexNet code has such a layer after the second LRN, and cuda-convnet's
18 % net for CIFAR-10 uses it in place of lrn.
"""

from __future__ import annotations

import numpy as np

from ..engine import Array, Function
from ..parallel import split
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank
from ._response import check_response, inverse_power
from ._windows import channels_last, first, scratch


class LRNWithinMap(Function, name="lrn_within_map"):
    def __init__(self, n: int, k: float, alpha: float, beta: float):
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward_cpu(self, x: Array) -> Array:
        self.x = x
        x = channels_last(x)
        y = np.empty_like(x)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                np.multiply(x[i], inverse_power(self.scale(x[i]), self.beta), out=y[i])

        split(self.device, len(x), work)
        return first(y)

    def backward_cpu(self, dy: Array) -> Array:
        x, dy = channels_last(self.x), channels_last(dy)
        dx = np.empty_like(x)
        minus_2ab = x.dtype.type(-2 * self.alpha * self.beta)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                s = self.scale(x[i])
                p = inverse_power(s, self.beta)
                np.divide(p, s, out=s)
                s *= dy[i]
                np.multiply(self.window_sum(x[i], s), x[i], out=dx[i])  # sum of x * (dy * s^-beta / s)
                dx[i] *= minus_2ab
                p *= dy[i]
                dx[i] += p

        split(self.device, len(x), work)
        return first(dx)

    def scale(self, x: Array) -> Array:
        """s = k + alpha * window sum of x^2 for one image, a fresh array."""
        s = self.window_sum(x, x) * x.dtype.type(self.alpha)
        s += x.dtype.type(self.k)
        return s

    def window_sum(self, a: Array, b: Array) -> Array:
        """The sum of a * b over the n x n pixels around each pixel of one image (H, W, C).

        The result is a buffer that the next call reuses.  The products lie within a frame of zeros, which
        stand for the pixels outside of the image.
        """
        height, width, _ = a.shape
        top, left = (min(self.n // 2, max(0, size - 1)) for size in (height, width))  # further out: no pixels
        framed = scratch("lrn_within_map products", (height + 2 * top, width + 2 * left, a.shape[2]), a.dtype)
        framed[...] = 0
        np.multiply(a, b, out=framed[top : top + height, left : left + width])
        down = scratch("lrn_within_map rows", (height, *framed.shape[1:]), a.dtype)
        down[...] = framed[:height]
        for shift in range(1, 2 * top + 1):
            down += framed[shift : shift + height]
        total = scratch("lrn_within_map sums", a.shape, a.dtype)
        total[...] = down[:, :width]
        for shift in range(1, 2 * left + 1):
            total += down[:, shift : shift + width]
        return total


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
