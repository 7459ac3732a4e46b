"""Two-dimensional convolution (as in every deep learning library, a cross-correlation).

    y[n,o,i,j] = b[o] + sum over c,u,v of  w[o,c,u,v] * x[n, c, s*i + d*u - p, s*j + d*v - p]

with stride s, dilation d and padding p (x is 0 outside the image), o running over output channels and c over the
input channels of o's group.  Write dy for the derivative of the loss by y.  Every product w * x in that sum passes
dy[n,o,i,j] on to both its factors, times the other one; so a derivative collects all products that its factor is in
(h and l are the row and column of a pixel of x):

    db[o]       = sum over n,i,j of  dy[n,o,i,j]
    dw[o,c,u,v] = sum over n,i,j of  dy[n,o,i,j] * x[n, c, s*i + d*u - p, s*j + d*v - p]
    dx[n,c,h,l] = sum over o,u,v and those i,j with s*i + d*u - p = h, s*j + d*v - p = l of  w[o,c,u,v] * dy[n,o,i,j]

dx and dw are convolutions again.  Take s = 1 in the last line: then i = h + p - d*u, and with u counted from the other
end, u = kernel_h - 1 - u' (j and v likewise),

    dx[n,c,h,l] = sum over o,u',v' of  w[o, c, kernel_h-1-u', kernel_w-1-v'] * dy[n, o, h + d*u' - p', l + d*v' - p']

with p' = d*(kernel - 1) - p: the convolution of dy with the kernel turned by 180 degrees, where input and output
channels have changed places.  A larger stride becomes gaps: s - 1 zeros between the pixels of dy.  And dw is the
convolution of x with dy as its kernel, where stride and dilation have changed places, and images are what channels
were.  (tests/test_conv2d.py computes both in this way.)

The textbook's face below takes one tap (u,v) of the window at a time, for all outputs at once.  The fast one, by
products of matrices ("im2col"), is in _conv2d_fast.py.  The card's kernels, kernels/conv2d.cu, make the same products
but never store im2col's matrix: they look each element up in its image.  And they gather dx: each of its pixels looks
up the taps that have seen it, where the CPU's faces scatter, tap by tap.  How one comes to such a kernel:
kernels/ladder/conv2d_1_naive.cu, _2_tiled.cu, _3_register_blocked.cu, compared by
benchmarks/kernel_ladder.py (benchmarks/results/kernel_ladder.md).

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5; groups are the paper's "kernels that take input only from
those kernel maps which reside on the same GPU".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ShapeError
from ..gpu import THREADS, Shape
from ..gpu.sources import constants, remembered, struct
from ..tensor import Tensor, apply, op
from . import _conv2d_fast as fast
from ._checks import Padding, Pair, check_floating, check_rank, integer, padding_of, pair
from ._gemm import tf32_option
from ._reduction import summed
from ._tile_product import TILE_ROWS, cut
from ._windows import output_shape, padded, taps


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
    s, d = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    p = padding_of("conv2d", padding)
    groups = integer("conv2d", "groups", groups, 1)
    (_, c, h, l), (o, cg, kh, kw) = x.shape, weight.shape
    if cg * groups != c:
        raise ShapeError(
            f"conv2d: weight expects {cg * groups} input channels (groups={groups}), x has {c}: x {x.shape}, "
            f"weight {weight.shape}: a weight's second axis must be the channels of x / groups"
        )
    if o % groups or 0 in weight.shape:
        raise ShapeError(
            f"conv2d: weight must have kernels, in a multiple of groups={groups}, it has {o}: x {x.shape}, "
            f"weight {weight.shape}: use another number of output channels or groups"
        )
    if bias is not None and bias.shape != (o,):
        raise ShapeError(f"conv2d: bias must have shape ({o},), one number per output channel, it has {bias.shape}")
    outputs = output_shape("conv2d", x.shape, (kh, kw), s, p, d)
    # With a stride beyond the padded image there is one output, whatever the stride, and the dilation of a single tap
    # moves nothing.  So both may be huge; they are cut down, for kernels take 32-bit integers.
    s, d = (min(s[0], sum(p[0]) + h), min(s[1], sum(p[1]) + l)), (d[0] if kh > 1 else 1, d[1] if kw > 1 else 1)
    return apply(Conv2d(s, p, d, groups, outputs), *(t for t in (x, weight, bias) if t is not None))


class Conv2d(Function):
    def __init__(self, stride: Pair, padding: Padding, dilation: Pair, groups: int, outputs: Pair):
        self.s, self.p, self.d, self.groups, self.outputs = stride, padding, dilation, groups, outputs

    # ---- the textbook's face

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        y = np.zeros((len(x), len(w), *self.outputs), x.dtype)
        for o, u, v, seen in self.taps_of_groups(padded(x, self.p)):
            y[:, o] += np.einsum("oc,ncij->noij", w[o, :, u, v], seen, optimize=True)
        return y if b is None else y + b[:, None, None]

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        dx = self.gradient_of_x(dy) if self.needs[0] else None
        dw = self.gradient_of_w(dy) if self.needs[1] else None
        db = self.gradient_of_b(dy) if any(self.needs[2:]) else None
        return (dx, dw, db)[: len(self.needs)]

    def gradient_of_b(self, dy: Array) -> Array:
        return dy.sum(axis=(0, 2, 3), dtype=np.float64).astype(dy.dtype)  # a long sum of float32 would lose small terms

    def gradient_of_w(self, dy: Array) -> Array:
        dw = np.zeros_like(self.w)
        for o, u, v, seen in self.taps_of_groups(padded(self.x, self.p)):
            dw[o, :, u, v] = np.einsum("noij,ncij->oc", dy[:, o], seen, optimize=True)
        return dw

    def gradient_of_x(self, dy: Array) -> Array:
        dxp = np.zeros_like(padded(self.x, self.p))
        for o, u, v, seen in self.taps_of_groups(dxp):  # seen is a view of dxp: += adds to the pixels there
            seen += np.einsum("oc,noij->ncij", self.w[o, :, u, v], dy[:, o], optimize=True)
        (top, _), (left, _), (h, l) = *self.p, self.x.shape[2:]
        return dxp[:, :, top : top + h, left : left + l]

    def taps_of_groups(self, xp: Array) -> Iterator[tuple[slice, int, int, Array]]:
        """(o, u, v, seen): the output channels o of each group, and what tap (u,v) of their kernels sees of images xp.

        A group is a convolution of its own, of its own channels.
        """
        og, cg = len(self.w) // self.groups, self.w.shape[1]
        for g in range(self.groups):
            o, c = slice(g * og, (g + 1) * og), slice(g * cg, (g + 1) * cg)
            for u, v, seen in taps(xp[:, c], self.w.shape[2:], self.s, self.d, self.outputs):
                yield o, u, v, seen

    # ---- fast, on the CPU: _conv2d_fast.py

    def forward_cpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        self.sizes = fast.Sizes(self.s, self.p, self.d, self.groups, w.shape[2:], w.shape[1], self.outputs)
        return fast.forward(self.device, x, w, b, self.sizes)

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        return fast.backward(self.device, self.x, self.w, dy, self.needs, self.sizes)[: len(self.needs)]

    # ---- on a card

    def forward_gpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w = self.device.contiguous(x), self.device.contiguous(w)
        (o, cg, kh, kw), og = w.shape, len(w) // self.groups
        oh, ow = self.outputs
        y = self.device.empty((len(x), o, oh, ow), x.dtype)
        bias = w if b is None else self.device.contiguous(b)  # w where there is none: not read
        self.multiply("forward", y, og, len(x) * oh * ow, cg * kh * kw, x, w, bias, b is not None)
        return y

    def backward_gpu(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, dy = self.x, self.w, self.device.contiguous(dy)
        (n, _, h, l), (o, cg, kh, kw), (oh, ow) = x.shape, w.shape, dy.shape[2:]
        og, (sh, sw) = o // self.groups, self.s
        dx = dw = db = None
        if self.needs[0]:
            dx = self.device.empty_like(x)
            # Row h of dx takes tap u only where sh divides h + p - dh*u (conv2d.cu).  So rows whose h leaves the same
            # rest by sh take the same taps, and columns likewise: each of the sh*sw kinds of pixels, a "phase", is a
            # product of its own.  -(-a // b) is a / b rounded up; these are the sizes of the largest phase.
            columns = n * -(-h // sh) * -(-l // sw)
            taps_each = math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in zip((kh, kw), self.s, self.d))
            self.multiply("backward_x", dx, cg, columns, og * taps_each, dy, w, phases=sh * sw)
        if self.needs[1]:
            dw = self.device.empty_like(w)
            self.multiply("backward_w", dw, og, cg * kh * kw, n * oh * ow, dy, x)
        if any(self.needs[2:]):
            db = summed(self.device, dy, (0, 2, 3))
        return (dx, dw, db)[: len(self.needs)]

    def multiply(
        self, kernel: str, out: Array, rows: int, columns: int, depth: int, *factors: Any, phases: int = 1
    ) -> None:
        """Fill `out` with a product rows x depth x columns per group (and phase), by the kernel conv2d_<kernel>.

        factors: the kernel's other arguments.  phases: products per group, see backward_gpu.
        """
        sizes = _sizes(self.x.shape, self.w.shape, self.s, self.p, self.d, self.groups, self.outputs)
        size = out.dtype.itemsize
        tile, parts, part_depth = cut(rows, columns, depth, self.groups * phases, TILE_ROWS[size], size)
        tile_columns, threads = constants("conv2d", "TILE_COLUMNS", "THREADS")
        blocks = gpu.blocks(columns, tile_columns) * phases, gpu.blocks(rows, tile), self.groups * parts
        y = out if parts == 1 else self.device.empty((parts, *out.shape), out.dtype)
        args = *factors, y, sizes, part_depth
        types = {"REAL": out.dtype, "TILE_ROWS": tile, **tf32_option(self.device, out.dtype)}
        self.device.launch("conv2d", f"conv2d_{kernel}", blocks, threads, *args, **types)
        if parts > 1:
            args = (y, out, parts, out.size)
            self.device.launch("conv2d", "conv2d_add_parts", gpu.blocks(out.size), THREADS, *args, **types)

    def flops(self, x: Array, w: Array, b: Array | None = None) -> int:
        return 2 * len(x) * math.prod(self.outputs) * w.size


@remembered
def _sizes(
    x_shape: Shape, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int, outputs: Pair
) -> np.ndarray:
    """The kernels' `struct Convolution`."""
    (n, _, h, l), (o, cg, kh, kw), ((top, _), (left, _)) = x_shape, w_shape, padding
    (oh, ow), (sh, sw), (dh, dw) = outputs, stride, dilation
    channels = {"groups": groups, "cg": cg, "og": o // groups}
    maps = {"n": n, "height": h, "width": l, "oh": oh, "ow": ow, "top": top, "left": left}
    window = {"kh": kh, "kw": kw, "sh": sh, "sw": sw, "dh": dh, "dw": dw}
    return struct("conv2d", "Convolution", **channels, **maps, **window)
