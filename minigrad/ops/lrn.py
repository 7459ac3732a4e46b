"""Local response normalisation across channels.

    s_i = k + alpha * sum of x_j^2,  j = max(0, i - n//2) .. min(C - 1, i + n//2)
    y_i = x_i * s_i^-beta

    dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j) over the same window

(x_i is in the window of j exactly when x_j is in the window of i: the sum of the forward pass, once more.)
Backward keeps x alone and computes s again: that costs less than a second array of x's size going to memory and back.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Array, Function
from ..errors import ShapeError
from ..parallel import split
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank, integer
from ._response import check_response, inverse_power
from ._windows import channels_last, first, scratch

BLOCK = 1 << 15  # elements at a time: all temporaries of a block stay in the L2 cache


class LRN(Function):
    def __init__(self, n: int, k: float, alpha: float, beta: float, groups: int):
        self.n, self.k, self.alpha, self.beta, self.groups = n, k, alpha, beta, groups

    def forward_cpu(self, x: Array) -> Array:
        self.x = x
        x = channels_last(x)
        y = np.empty_like(x)

        def normalize(x: Array, y: Array) -> None:
            np.multiply(x, inverse_power(self.scale(x), self.beta), out=y)

        self.in_blocks(normalize, x, y)
        return first(y)

    def backward_cpu(self, dy: Array) -> Array:
        x, dy = channels_last(self.x), channels_last(dy)
        dx = np.empty_like(x)
        minus_2ab = x.dtype.type(-2 * self.alpha * self.beta)

        def differentiate(x: Array, dy: Array, dx: Array) -> None:
            s = self.scale(x)
            p = inverse_power(s, self.beta)
            np.divide(p, s, out=s)
            s *= dy
            np.multiply(self.window_sum(x, s), x, out=dx)  # sum of x_j * (dy_j * s_j^-beta / s_j)
            dx *= minus_2ab
            p *= dy
            dx += p

        self.in_blocks(differentiate, x, dy, dx)
        return first(dx)

    def in_blocks(self, work: Any, *images: Array) -> None:
        """work(*blocks) on blocks of pixels (P, groups, C / groups): a pixel needs none of its neighbours."""
        n, h, w, c = images[0].shape
        pixels = [a.reshape(n * h * w, self.groups, c // self.groups) for a in images]
        size = max(1, BLOCK // max(1, c))

        def piece(start: int, stop: int) -> None:
            for i in range(start, stop, size):
                work(*(a[i : min(i + size, stop)] for a in pixels))

        split(self.device, n * h * w, piece, at_least=size)

    def scale(self, x: Array) -> Array:
        """s = k + alpha * window sum of x^2, a fresh array."""
        s = self.window_sum(x, x) * x.dtype.type(self.alpha)
        s += x.dtype.type(self.k)
        return s

    def window_sum(self, a: Array, b: Array) -> Array:
        """The sum of a * b over the n channels around each channel; in a buffer that the next call reuses.

        The products of all pixels lie in one long row, with zeros between one group of channels and the next:

            0 0 | p p p p p | 0 0 | p p p p p | 0 0 ...         n = 5: gaps of n // 2 = 2 zeros

        so that n shifted slices of the row, added up, are all the window sums at once, in long runs.  (The
        product with a band matrix takes up to twice as long, and it would spread inf and NaN, since 0 * inf
        is NaN, to channels whose window does not contain them.)
        """
        pixels, groups, channels = a.shape
        gap = min(self.n // 2, max(0, channels - 1))  # further out there are no channels
        size = pixels * groups * (channels + gap)
        row = scratch("lrn products", (gap + size + gap,), a.dtype)
        table = row[gap : gap + size].reshape(pixels, groups, channels + gap)
        row[:gap] = row[gap + size :] = table[..., channels:] = 0
        np.multiply(a, b, out=table[..., :channels])
        total = scratch("lrn sums", (size,), a.dtype)
        total[...] = row[:size]
        for shift in range(1, 2 * gap + 1):
            total += row[shift : shift + size]
        return total.reshape(table.shape)[..., :channels]


@op
def lrn(x: Tensor, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, groups: int = 1) -> Tensor:
    """x / (k + alpha * sum of x^2 over n neighbouring channels)^beta, the paper's formula.

    x: (N, C, H, W), float32 or float64; the result has the same shape and dtype.
    n: how many channels the window spans, odd, the channel itself in the middle; clipped at both ends.
    k > 0, alpha >= 0, beta: as in the formula.  alpha is *not* divided by n.
    groups: the channels are normalised within each of this many equal groups.  A net of two columns on one
    device needs groups=2: in the paper no column sees the other's maps here.

    Settings of others, written as lrn(x, n, k, alpha, beta):

        the paper                                        lrn(x, 5, 2, 1e-4, 0.75), the defaults
        cuda-convnet (the original code):
            size, scale, pow, minDiv                     lrn(x, size, minDiv, scale / size, pow)
        Caffe: local_size, k, alpha, beta                lrn(x, local_size, k, alpha / local_size, beta)
        PyTorch: LocalResponseNorm(size, alpha, beta, k) lrn(x, size, k, alpha / size, beta)
        ONNX: size, bias, alpha, beta                    lrn(x, size, bias, alpha / size, beta)
        TensorFlow: depth_radius, bias, alpha, beta      lrn(x, 2 * depth_radius + 1, bias, alpha, beta)

    An even n is refused: PyTorch's window then has n//2 channels before the middle, ONNX's (n-1)//2.
    Raises ArgumentError for settings out of range, ShapeError where C is no multiple of groups, DTypeError
    for anything but floating point.
    Source: Krizhevsky et al. 2012, section 3.3.
    """
    check_floating("lrn", x=x)
    check_rank("lrn", "x", x, 4, "(N, C, H, W)")
    settings = check_response("lrn", n, k, alpha, beta)
    groups = integer("lrn", "groups", groups, 1)
    if x.shape[1] % groups:
        raise ShapeError(f"lrn: the channels must divide into {groups} groups, x has {x.shape[1]}: {x.shape}")
    return apply(LRN(*settings, groups), x)
