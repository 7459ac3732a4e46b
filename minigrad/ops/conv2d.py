"""Two-dimensional convolution (as in every deep learning library, a cross-correlation).

    y[n,o,i,j] = b[o] + sum over c,u,v of  w[o,c,u,v] * x[n, c, s*i + d*u - p, s*j + d*v - p]

with stride s, dilation d and padding p (x is 0 outside the image), o running over output channels and c over the
input channels of o's group.  Each derivative reads the same sum along another of its variables:

    db[o]       = sum over n,i,j of  dy[n,o,i,j]
    dw[o,c,u,v] = sum over n,i,j of  dy[n,o,i,j] * x[n, c, s*i + d*u - p, s*j + d*v - p]
    dx[n,c,h,l] = sum over o,u,v and those i,j with s*i + d*u - p = h, s*j + d*v - p = l of  w[o,c,u,v] * dy[n,o,i,j]

As matrices: write the window of x that output pixel (n,i,j) sees as one row of `cols` (kernel_h * kernel_w * channels
numbers: "im2col"), and w as the matrix `w[o, (u,v,c)]`.  Then

    y = cols @ w.T + b        dw = dy.T @ cols        dcols = dy @ w,  each row added back to the window it came from

and nearly all the time is spent in these products.  Three rules keep the rest small:

Tiles.  `cols` of a batch would be 25 times the input of AlexNet's conv2, so a tile of it is made at a time, small
enough to stay in the cache: some rows of one image, or, where images are small, several images.

Groups.  A group is a convolution of its own.  Its channels of the tile's images, copied with their zero border, have
the window rows in one piece each (kernel_w * channels numbers), and are copied to `cols` by whole window rows.

Taps.  dcols is made and added one (u,v) at a time: its columns are dy @ w[:, (u,v)], and a whole image of them goes
to every s-th pixel of the bordered image, in one addition.

Threads share the images of a batch.  Each sums its own dw, and the sums are added in a fixed order.

On a graphics card (kernels/conv2d.cu) tiles are so small that no `cols` is ever stored, and dx is gathered: each of its
pixels looks up the taps that reached it.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5; groups are the paper's "kernels that take input only from
those kernel maps which reside on the same GPU".  im2col: Chellapilla, Puri, Simard 2006.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from .. import gpu
from ..engine import Array, Function
from ..errors import ShapeError
from ..gpu import THREADS
from ..kernel import constants, struct
from ..memory import empty
from ..parallel import add_into, split
from ..tensor import Tensor, apply, op
from ._checks import Padding, Pair, check_floating, check_rank, integer, padding_of, pair
from ._reduction import added_up, summed
from ._windows import channels_last, first, last, output_shape, small_buffers

# Bytes of `cols` at a time.  BLAS packs what it reads into the second-level cache by itself, so a tile need only stay
# in the third; larger tiles feed BLAS larger matrices, and there are fewer parts of dw to add.  Measured on AlexNet's
# layers: a third of this, which cuts conv3's images of 13x13 in two, is slower, and twice this gains nothing more.
_TILE_BYTES = 3.2e6
_MAP_BYTES = 2e6  # of one group's dx and one tap's share of it at a time; measured: half of this is slower at 13x13
_LEAST_WORK = 20_000_000  # multiplications worth waking a thread: fewer were measured slower on two than on one

# On a card: where there are fewer tiles than would keep one busy, say two for each of 80 multiprocessors, their sums
# are cut into parts.  No card is asked, so that the same bits come out on all.
_ENOUGH_BLOCKS = 160
_LEAST_DEPTH = 128  # of a part: enough for its writing and adding to be little work beside it


class Conv2d(Function):
    def __init__(self, stride: Pair, padding: Padding, dilation: Pair, groups: int):
        self.s, self.p, self.d, self.groups = stride, padding, dilation, groups

    def forward_cpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        n, o = len(x), len(w)
        oh, ow = output_shape("conv2d", x.shape, w.shape[2:], self.s, self.p, self.d)
        w = self.kernel_matrix(w)
        y = empty((n * oh * ow, o), x.dtype)

        def images(start: int, stop: int) -> None:
            yi = y[start * oh * ow : stop * oh * ow]
            for pixels, g, out, cols in self.patches(last(x)[start:stop], oh, ow):
                np.matmul(cols, w[g].T, out=yi[pixels, out])
                if b is not None:
                    _add_to_rows(yi[pixels, out], b[out], ow)

        self.share_out(n, images, oh * ow * w.size)
        return first(y.reshape(n, oh, ow, o))

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        x, w = self.x, self.kernel_matrix(self.w)
        (n, c, h, l), (o, cg, *kernel), (oh, ow) = x.shape, self.w.shape, dy.shape[2:]
        dx = empty((n, h, l, c), x.dtype) if self.needs[0] else None

        def images(start: int, stop: int) -> tuple[Array | None, Array | None]:
            dyi = channels_last(dy[start:stop]).reshape(-1, o)
            dw = db = None
            if self.needs[1]:
                dw = empty(w.shape, w.dtype)
                dw[...] = 0
                part = empty(w.shape[1:], w.dtype)
                for pixels, g, out, cols in self.patches(last(x)[start:stop], oh, ow):
                    dw[g] += self.weight_product(dyi[pixels, out], cols, part)
            if any(self.needs[2:]):
                db = added_up(dyi, (0,))
            if dx is not None:
                self.add_to_windows(dx[start:stop], dyi, w, oh, ow)
            return dw, db

        sums = self.share_out(n, images, oh * ow * w.size)
        dw, db = sums[0]
        for parts in sums[1:]:
            for total, part in zip(sums[0], parts):
                if total is not None:
                    add_into(self.device, total, part)
        dx = None if dx is None else first(dx)
        dw = None if dw is None else first(dw.reshape(o, *kernel, cg))
        return (dx, dw, db)[: len(self.needs)]

    def weight_product(self, dy: Array, cols: Array, part: Array) -> Array:
        """dy.T @ cols.  By np.dot: np.matmul keeps Python's lock while it makes a small matrix of long sums."""
        if cols.flags.c_contiguous:
            return np.dot(dy.T, cols, out=part)
        return np.dot(cols.T, dy).T  # faster here: both are read along their rows

    def kernel_matrix(self, w: Array) -> Array:
        """w as (groups, output channels of a group, kernel_h * kernel_w * channels); a view of channels-last memory."""
        return channels_last(w).reshape(self.groups, len(w) // self.groups, -1)

    def share_out(self, n: int, images: Callable[[int, int], Any], work: int) -> list[Any]:
        """images(start, stop) for n images, each of so many multiplications, on the threads of the device.

        A single image is not cut: BLAS has threads of its own for its products, and they are awake sooner than ours.
        """
        return [images(0, n)] if n == 1 else split(self.device, n, images, at_least=1 + _LEAST_WORK // max(1, work))

    def patches(self, x: Array, oh: int, ow: int) -> Iterator[tuple[slice, int, slice, Array]]:
        """im2col of images x (N, H, W, C), tile by tile: (output pixels, group, its output channels, cols).

        cols is good until the next is asked for.
        """
        o, cg, kh, kw = self.w.shape
        og, k = o // self.groups, kh * kw * cg
        if oh * ow * k * x.itemsize <= _TILE_BYTES:  # several whole images at a time, or else some rows of one
            parts = [(a, a + images, 0, oh) for a, images in self.tiles(len(x), oh * ow, k, x.itemsize)]
        else:
            rows = list(self.tiles(oh, ow, k, x.itemsize))
            parts = [(a, a + 1, i, i + more) for a in range(len(x)) for i, more in rows]
        most = max(((z - a) * (j - i) for a, z, i, j in parts), default=0) * ow * k
        room = empty((max(most, int(_TILE_BYTES) // x.itemsize),), x.dtype)  # one size: the last layer's is still warm
        for g in range(self.groups):
            for a, z, i, j in parts:
                pixels = slice((a * oh + i) * ow, ((z - 1) * oh + j) * ow)
                cols = self.unrolled(self.padded(x[a:z, :, :, g * cg : (g + 1) * cg], i, j), j - i, ow, room)
                yield pixels, g, slice(g * og, (g + 1) * og), cols

    def tiles(self, count: int, pixels: int, row: int, itemsize: int) -> Iterator[tuple[int, int]]:
        """`count` rows or images, of that many pixels each, in equal pieces (or one more than others): (first, number).

        As few as can be, so that the `cols` of a piece, with rows of length `row`, fit the cache.
        """
        fit = max(1, int(_TILE_BYTES / (pixels * row * itemsize)))
        pieces = max(1, -(-count // fit))
        bounds = [-(-count * i // pieces) for i in range(pieces + 1)]
        return ((a, b - a) for a, b in zip(bounds, bounds[1:]))

    def padded(self, x: Array, i: int, j: int) -> Array:
        """What output rows i to j see of images x (N, H, W, C): a contiguous band of rows with its zero border.

        A view of x where there is nothing to add, which may go on below the band.
        """
        (top, _), (left, right) = self.p
        (n, h, l, c), kh = x.shape, self.w.shape[2]
        begin = self.s[0] * i - top
        end = self.s[0] * (j - 1) + self.d[0] * (kh - 1) + 1 - top
        if begin >= 0 and end <= h and left == right == 0 and x.flags.c_contiguous:
            return x[:, begin:]
        x = x[:, max(begin, 0) : max(end, 0)]
        xp = empty((n, end - begin, left + l + right, c), x.dtype)
        above = max(-begin, 0)
        below = above + x.shape[1]
        xp[:, :above] = xp[:, below:] = xp[:, :, :left] = xp[:, :, left + l :] = 0
        xp[:, above:below, left : left + l] = x
        return xp

    def unrolled(self, xp: Array, rows: int, ow: int, room: Array) -> Array:
        """cols[(n,i,j), (u,v,c)] = xp[n, s*i + d*u, s*j + d*v, c], in the memory of `room` unless xp's own will do."""
        (n, _, _, c), (kh, kw) = xp.shape, self.w.shape[2:]
        (sh, sw), (dh, dw) = self.s, self.d
        image, row, col, channel = xp.strides
        k, pixels = kh * kw * c, n * rows * ow
        if kh == kw == sh == sw == 1:
            return xp[:, :rows].reshape(pixels, k)
        cols = room[: pixels * k]
        if sw == 1 and kw * c < ow:  # few channels: for one (u,v,c) at a time, whole rows of x lie side by side
            item, items = (np.dtype((np.void, ow * xp.itemsize)), 1) if c == 1 else (xp.dtype, ow)
            strides = (dh * row, dw * col, channel, image, sh * row, sw * col)
            seen = np.ndarray((kh, kw, c, n, rows, items), item, xp, 0, strides)
            cols.view(item).reshape(seen.shape)[...] = seen
            return cols.reshape(k, pixels).T
        # What lies side by side in a window is one item: NumPy copies item by item.
        taps, run = (1, kw * c) if dw == 1 else (kw, c)
        item = np.dtype((np.void, run * xp.itemsize))
        windows = np.ndarray((n, rows, ow, kh, taps), item, xp, 0, (image, sh * row, sw * col, dh * row, dw * col))
        cols.view(item).reshape(windows.shape)[...] = windows
        return cols.reshape(pixels, k)

    @small_buffers()
    def add_to_windows(self, dx: Array, dy: Array, w: Array, oh: int, ow: int) -> None:
        """The way back of `patches`: into dx (N, H, W, C), the sum of what dy @ w sends to each pixel.

        Each tap's share is added to the pixels that the tap read, in an image with a border, which is then cut off.
        """
        (top, bottom), (left, right) = self.p
        (sh, sw), (dh, dw) = self.s, self.d
        (n, h, l, _), (_, cg, kh, kw), og = dx.shape, self.w.shape, w.shape[1]
        taps = w.reshape(self.groups, og, kh, kw, cg)
        height, width = top + h + bottom, left + l + right
        m = max(1, int(_MAP_BYTES / ((height * width + oh * ow) * cg * dx.itemsize)))  # images at a time
        for a in range(0, n, m):
            images = dx[a : a + m]
            dxp = empty((len(images), height, width, cg), dx.dtype)
            share = empty((len(images), oh, ow, cg), dx.dtype)
            for g in range(self.groups):
                dyg = dy[a * oh * ow : (a + m) * oh * ow, g * og : (g + 1) * og]
                dxp[...] = 0
                for u, v in product(range(kh), range(kw)):
                    np.matmul(dyg, taps[g, :, u, v], out=share.reshape(-1, cg))
                    rows = slice(dh * u, dh * u + sh * (oh - 1) + 1, sh)
                    cols = slice(dw * v, dw * v + sw * (ow - 1) + 1, sw)
                    dxp[:, rows, cols] += share
                images[..., g * cg : (g + 1) * cg] = dxp[:, top : top + h, left : left + l]

    def forward_gpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w = gpu.contiguous(self.device, x), gpu.contiguous(self.device, w)
        (o, cg, kh, kw), og = w.shape, len(w) // self.groups
        oh, ow = output_shape("conv2d", x.shape, (kh, kw), self.s, self.p, self.d)
        y = gpu.empty(self.device, (len(x), o, oh, ow), x.dtype)
        bias = w if b is None else gpu.contiguous(self.device, b)  # w where there is none: not read
        self.multiply("forward", y, og, len(x) * oh * ow, cg * kh * kw, x, w, bias, b is not None, shape=(oh, ow))
        return y

    def backward_gpu(self, dy: Array) -> tuple[Array | None, ...]:
        x, w, dy = self.x, self.w, gpu.contiguous(self.device, dy)
        (n, _, h, l), (o, cg, kh, kw), (oh, ow) = x.shape, w.shape, dy.shape[2:]
        og, (sh, sw) = o // self.groups, self.s
        dx = dw = db = None
        if self.needs[0]:
            dx = gpu.empty_like(self.device, x)
            # Every sh-th row and sw-th column of dx is a product of its own: the same taps reach all its pixels.
            columns = n * -(-h // sh) * -(-l // sw)
            taps = math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in zip((kh, kw), self.s, self.d))
            self.multiply("backward_x", dx, cg, columns, og * taps, dy, w, shape=(oh, ow), phases=sh * sw)
        if self.needs[1]:
            dw = gpu.empty_like(self.device, w)
            self.multiply("backward_w", dw, og, cg * kh * kw, n * oh * ow, dy, x, shape=(oh, ow))
        if any(self.needs[2:]):
            db = summed(self.device, dy, (0, 2, 3))
        return (dx, dw, db)[: len(self.needs)]

    def multiply(
        self, kernel: str, out: Array, rows: int, columns: int, depth: int, *factors: Any, shape: Pair, phases: int = 1
    ) -> None:
        """Fill `out` with a product rows x depth x columns per group (and phase), by kernel conv2d_<kernel>_<tile>.

        factors: the kernel's other arguments.  shape: (oh, ow).
        """
        (n, _, h, l), (o, cg, kh, kw), ((top, _), (left, _)) = self.x.shape, self.w.shape, self.p
        (oh, ow), (sh, sw), (dh, dw) = shape, self.s, self.d
        channels = {"groups": self.groups, "cg": cg, "og": o // self.groups}
        maps = {"n": n, "height": h, "width": l, "oh": oh, "ow": ow, "top": top, "left": left}
        taps = {"kh": kh, "kw": kw, "sh": sh, "sw": sw, "dh": dh, "dw": dw}
        sizes = struct("conv2d", "Convolution", **channels, **maps, **taps)
        tile = 32 if rows <= 32 else 64
        columns_each, threads = constants("conv2d", "COLUMNS", "THREADS")
        grid = gpu.blocks(columns, columns_each) * phases, gpu.blocks(rows, tile)
        parts, part_depth = _parts_of(grid[0] * grid[1] * self.groups, depth)
        y = out if parts == 1 else gpu.empty(self.device, (parts, *out.shape), out.dtype)
        args = (*factors, y, sizes, part_depth)
        blocks, types = (*grid, self.groups * parts), {"REAL": out.dtype}
        gpu.launch(self.device, "conv2d", f"conv2d_{kernel}_{tile}", blocks, threads, *args, **types)
        if parts > 1:
            args = (y, out, parts, out.size)
            gpu.launch(self.device, "conv2d", "conv2d_add_parts", gpu.blocks(out.size), THREADS, *args, **types)

    def flops(self, x: Array, w: Array, b: Array | None = None) -> int:
        oh, ow = output_shape("conv2d", x.shape, w.shape[2:], self.s, self.p, self.d)
        return 2 * len(x) * oh * ow * w.size


def _parts_of(blocks: int, depth: int) -> Pair:
    """Into how many parts to cut sums of `depth` terms, where `blocks` tiles are to be summed, and terms of a part."""
    wanted = max(1, min(gpu.blocks(_ENOUGH_BLOCKS, max(1, blocks)), depth // _LEAST_DEPTH))
    part = -(-depth // wanted)
    (depth_bytes,) = constants("conv2d", "DEPTH_BYTES")
    part += -part % (depth_bytes // 4)  # whole tiles, but for the last part; those of float64 are half as deep
    return max(1, -(-depth // max(1, part))), part


def _add_to_rows(y: Array, b: Array, ow: int) -> None:
    """y (P, channels) += b: with rows of ow pixels as one, where y has them in one piece, NumPy's loops are longer."""
    if y.flags.c_contiguous:
        y, b = y.reshape(-1, ow * len(b)), np.tile(b, ow)
    y += b


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
    (sh, sw), (dh, dw) = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    (top, bottom), (left, right) = pads = padding_of("conv2d", padding)
    # Refuses what does not fit, before anything is computed.
    output_shape("conv2d", x.shape, (kh, kw), (sh, sw), pads, (dh, dw))
    # A stride larger than the image, or the dilation of a single tap, may be any number: it gets one that kernels take.
    strides = min(sh, top + x.shape[2] + bottom), min(sw, left + x.shape[3] + right)
    dilations = dh if kh > 1 else 1, dw if kw > 1 else 1
    return apply(Conv2d(strides, pads, dilations, groups), *(t for t in (x, weight, bias) if t is not None))
