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

The transposed convolution, conv_transpose2d, is dx with another name: what was dy is its input, and each pixel of it
adds a kernel's worth to its output.  So its own gradients are the first and the third of these formulas, and it has no
code of its own but for its bias.

The textbook's face below takes one tap (u,v) of the window at a time, for all outputs at once.  The fast one,
_conv2d_fast.py, makes products of matrices, which hold what rows of windows see (_conv2d_rows.py), and for many
channels fewer multiplications than the formulas have (_conv2d_winograd.py).  The card's kernels, kernels/conv2d.cu,
make products of whole windows ("im2col") but never store their matrix: they look each element up in its image.  And
they gather dx: each of its pixels looks up the taps that have seen it, where the CPU's faces scatter, tap by tap.  How
one comes to such a kernel: kernels/ladder/conv2d_1_naive.cu, _2_tiled.cu, _3_register_blocked.cu, compared by
benchmarks/kernel_ladder.py (benchmarks/results/kernel_ladder.md).

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5; groups are the paper's "kernels that take input only from
those kernel maps which reside on the same GPU".  Zeiler, Krishnan, Taylor, Fergus 2010 for conv_transpose2d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ArgumentError, ShapeError
from ..gpu import THREADS, Shape
from ..gpu.sources import constants, remembered, struct
from ..tensor import Tensor, apply, op
from . import _conv2d_fast as fast
from ._checks import Padding, Pair, check_floating, check_rank, integer, padding_of, pair
from ._gemm import tf32_option
from ._reduction import added_up, summed
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


@op
def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Padding = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
) -> Tensor:
    """The gradient of conv2d for its images, as an op: conv_transpose2d(dy, weight, ...) is conv2d's dx.

    x: (N, C, H, W).  weight: (C, O / groups, kernel_h, kernel_w), that of the conv2d from O to C channels.  bias: (O,)
    or None.  All float32 or all float64.
    stride, padding, dilation, groups: of that conv2d.  So a stride of 2 makes images twice as large, and padding cuts
    rows and columns off.
    output_padding: an int or (vertical, horizontal), rows below and columns to the right that no window of the conv2d
    had seen: less than stride or dilation.
    Returns (N, O, OH, OW), OH = (H - 1) * stride + dilation*(kernel_h - 1) + 1 - top - bottom + output_padding.

    Raises ShapeError (rank, channels against groups, a padding that leaves nothing), DTypeError, ArgumentError,
    DeviceError.  Source: Zeiler et al. 2010 ("deconvolution").
    """
    name = "conv_transpose2d"
    check_floating(name, x=x, weight=weight, bias=bias)
    check_rank(name, "x", x, 4, "(N, C, H, W)")
    check_rank(name, "weight", weight, 4, "(C, O / groups, kernel_h, kernel_w)")
    s, d = pair(name, "stride", stride, 1), pair(name, "dilation", dilation, 1)
    p, more = padding_of(name, padding), pair(name, "output_padding", output_padding, 0)
    groups = integer(name, "groups", groups, 1)
    (n, c, *sizes), (channels, og, *kernel) = x.shape, weight.shape
    if channels != c or c % groups or 0 in weight.shape or 0 in sizes:
        raise ShapeError(
            f"{name}: weight must have a kernel for each channel of x, in a multiple of groups={groups}, and x pixels: "
            f"x {x.shape}, weight {weight.shape}: a weight's first axis must be the channels of x"
        )
    if bias is not None and bias.shape != (og * groups,):
        raise ShapeError(
            f"{name}: bias must have shape ({og * groups},), a number per output channel, it has {bias.shape}"
        )
    if any(extra >= max(step, gap) for extra, step, gap in zip(more, s, d)):
        raise ArgumentError(f"{name}: output_padding must be less than stride {s} or dilation {d}, got {more}")
    out = [(size - 1) * step + gap * (k - 1) + 1 - sum(cut_off) + extra
           for size, step, gap, k, cut_off, extra in zip(sizes, s, d, kernel, p, more)]  # fmt: skip
    if min(out) < 1:
        raise ShapeError(f"{name}: padding {p} leaves {out[0]}x{out[1]} pixels: x {x.shape}, kernel {kernel}: use less")
    # Of a single row no stride is seen, nor a dilation of a single tap: see conv2d.
    s = (s[0] if sizes[0] > 1 else 1, s[1] if sizes[1] > 1 else 1)
    d = (d[0] if kernel[0] > 1 else 1, d[1] if kernel[1] > 1 else 1)
    conv = Conv2d(s, p, d, groups, (sizes[0], sizes[1]))
    conv.x_shape = (n, og * groups, *out)
    return apply(ConvTranspose2d(conv), *(t for t in (x, weight, bias) if t is not None))


class Conv2d(Function):
    x_shape: Shape

    def __init__(self, stride: Pair, padding: Padding, dilation: Pair, groups: int, outputs: Pair):
        self.s, self.p, self.d, self.groups, self.outputs = stride, padding, dilation, groups, outputs

    # ---- the textbook's face

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w, self.x_shape = x, w, x.shape
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
        dxp = padded(np.zeros(self.x_shape, dy.dtype), self.p)
        for o, u, v, seen in self.taps_of_groups(dxp):  # seen is a view of dxp: += adds to the pixels there
            seen += np.einsum("oc,noij->ncij", self.w[o, :, u, v], dy[:, o], optimize=True)
        (top, _), (left, _), (h, l) = *self.p, self.x_shape[2:]
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
        return fast.forward(self.device, x, w, b, self.sizes(w))

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        return fast.backward(self.device, self.x, self.w, dy, self.needs, self.sizes(self.w))[: len(self.needs)]

    def sizes(self, w: Array) -> fast.Sizes:
        return fast.Sizes(self.s, self.p, self.d, self.groups, w.shape[2:], w.shape[1], self.outputs)

    # ---- on a card

    def forward_gpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w = self.device.contiguous(x), self.device.contiguous(w)
        self.x_shape = x.shape
        (o, cg, kh, kw), og = w.shape, len(w) // self.groups
        oh, ow = self.outputs
        y = self.device.empty((len(x), o, oh, ow), x.dtype)
        bias = w if b is None else self.device.contiguous(b)  # w where there is none: not read
        self.multiply("forward", y, og, len(x) * oh * ow, cg * kh * kw, x, w, bias, b is not None)
        return y

    def backward_gpu(self, dy: Array) -> tuple[Array | None, ...]:
        dy = self.device.contiguous(dy)
        dx = self.gradient_of_x_gpu(dy) if self.needs[0] else None
        dw = self.gradient_of_w_gpu(dy) if self.needs[1] else None
        db = summed(self.device, dy, (0, 2, 3)) if any(self.needs[2:]) else None
        return (dx, dw, db)[: len(self.needs)]

    def gradient_of_x_gpu(self, dy: Array) -> Array:
        (n, _, h, l), (o, cg, kh, kw), (sh, sw) = self.x_shape, self.w.shape, self.s
        dx = self.device.empty(self.x_shape, dy.dtype)
        # Row h of dx takes tap u only where sh divides h + p - dh*u (conv2d.cu).  So rows whose h leaves the same rest
        # by sh take the same taps, and columns likewise: each of the sh*sw kinds of pixels, a "phase", is a product of
        # its own.  -(-a // b) is a / b rounded up; these are the sizes of the largest phase.
        columns = n * -(-h // sh) * -(-l // sw)
        taps_each = math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in zip((kh, kw), self.s, self.d))
        depth = o // self.groups * taps_each
        self.multiply("backward_x", dx, cg, columns, depth, dy, self.w, phases=sh * sw)
        return dx

    def gradient_of_w_gpu(self, dy: Array) -> Array:
        (n, o, oh, ow), dw = dy.shape, self.device.empty_like(self.w)
        self.multiply("backward_w", dw, o // self.groups, math.prod(dw.shape[1:]), n * oh * ow, dy, self.x)
        return dw

    def multiply(
        self, kernel: str, out: Array, rows: int, columns: int, depth: int, *factors: Any, phases: int = 1
    ) -> None:
        """Fill `out` with a product rows x depth x columns per group (and phase), by the kernel conv2d_<kernel>.

        factors: the kernel's other arguments.  phases: products per group, see backward_gpu.
        """
        sizes = _sizes(self.x_shape, self.w.shape, self.s, self.p, self.d, self.groups, self.outputs)
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


class ConvTranspose2d(Function, name="conv_transpose2d"):
    """Forward is the way back of `conv`, which would make this op's x of its y; and backward its way forward."""

    def __init__(self, conv: Conv2d):
        self.conv = conv

    # ---- the textbook's face

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w, self.conv.w = x, w, w
        y = self.conv.gradient_of_x(x)
        return y if b is None else y + b[:, None, None]

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        dx = self.conv.forward(dy, self.w)
        dw = self.conv.gradient_of_w(self.x) if self.needs[1] else None
        db = self.conv.gradient_of_b(dy) if any(self.needs[2:]) else None
        return (dx, dw, db)[: len(self.needs)]

    # ---- fast, on the CPU: _conv2d_fast.py

    def forward_cpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        nowhere = np.broadcast_to(np.zeros((), x.dtype), self.conv.x_shape)  # images of which the shape alone is asked
        y, *_ = fast.backward(self.device, nowhere, w, x, (True, False), self.conv.sizes(w))
        if b is not None:
            y += b[:, None, None]
        return y

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        sizes, dw, db = self.conv.sizes(self.w), None, None
        dx = fast.forward(self.device, dy, self.w, None, sizes) if self.needs[0] else None
        if self.needs[1]:
            _, dw, _ = fast.backward(self.device, dy, self.w, self.x, (False, True), sizes)
        if any(self.needs[2:]):
            db = added_up(dy, (0, 2, 3))
        return (dx, dw, db)[: len(self.needs)]

    # ---- on a card

    def forward_gpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = self.device.contiguous(x), self.device.contiguous(w)
        self.conv.device, self.conv.w = self.device, self.w
        y = self.conv.gradient_of_x_gpu(self.x)
        return y if b is None else self.device.arithmetic("add", y, self.device.contiguous(b).reshape((-1, 1, 1)), y)

    def backward_gpu(self, dy: Array) -> tuple[Array | None, ...]:
        dx = self.conv.forward_gpu(dy, self.w)
        dw = self.conv.gradient_of_w_gpu(self.x) if self.needs[1] else None
        db = summed(self.device, dy, (0, 2, 3)) if any(self.needs[2:]) else None
        return (dx, dw, db)[: len(self.needs)]

    def flops(self, x: Array, w: Array, b: Array | None = None) -> int:
        return 2 * len(x) * math.prod(x.shape[2:]) * w.size


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
