"""Local response normalisation: across channels (lrn), or within every map (lrn_within_map).

    s_i = k + alpha * sum of x_j^2 over the window of i
    y_i = x_i * s_i^-beta

    dx_i = dy_i * s_i^-beta - 2 alpha beta x_i * sum of (dy_j * y_j / s_j) over the window of i

The two ops differ in the window alone, which is clipped where the channels or the map end:

    lrn                channels i - n//2 .. i + n//2 of the same pixel (and of the same group)
    lrn_within_map     n x n pixels around i, of the same channel

The gradient.  x_i enters y_i itself, which gives dy_i * s_i^-beta.  And it enters every s_j whose window contains i:
the derivative of s_j by x_i is 2 alpha x_i, that of y_j = x_j * s_j^-beta by s_j is -beta y_j / s_j.  So dx_i has a sum
over all j whose windows contain i.  A window is the same on both sides of its middle: i is in the window of j exactly
when j is in the window of i.  The sum is over the window of i, as in forward.

Source: lrn: Krizhevsky, Sutskever, Hinton 2012, section 3.3.  lrn_within_map is not in the paper: the original AlexNet
code has such a layer after the second LRN, and cuda-convnet's 18 % net for CIFAR-10 uses it in place of lrn.

The fast face goes on in _lrn_fast.py: the same formula on tiles that fit the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import gpu
from ..base.arguments import number
from ..engine import Array, Function
from ..errors import ArgumentError, ShapeError
from ..gpu import THREADS, Shape
from ..gpu.sources import constants, remembered, struct
from ..processor.memory import empty
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank, integer
from ._lrn_fast import BLOCK, BandSums, ChannelSums, PixelSums, Work, differentiate, in_tiles, normalize
from ._windows import channels_last, nchw


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
    function = LRN(n, k, alpha, beta, groups)
    if x.shape[1] % function.groups:
        raise ShapeError(
            f"lrn: the channels must divide into {groups} groups, x has {x.shape[1]}: {x.shape}: use another number"
        )
    return apply(function, x)


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
    return apply(LRNWithinMap(n, k, alpha, beta), x)


class ResponseNorm(Function):
    """Everything that the two ops share: all but the window.  LRN and LRNWithinMap, below, add theirs."""

    def __init__(self, n: Any, k: Any, alpha: Any, beta: Any, groups: Any = 1):
        """ArgumentError for settings out of range."""
        name = self.name  # "lrn" or "lrn_within_map": Function gives it to the class
        self.n, self.groups = integer(name, "n", n, 1), integer(name, "groups", groups, 1)
        self.k, self.alpha, self.beta = number(name, "k", k), number(name, "alpha", alpha), number(name, "beta", beta)
        if self.n % 2 == 0:
            raise ArgumentError(f"{name}: n must be odd, got {self.n}: even windows have no middle, use {self.n + 1}")
        if self.k <= 0:
            raise ArgumentError(f"{name}: k must be > 0, got {self.k}: where all x are 0, s would be 0 and y undefined")
        if self.alpha < 0:
            raise ArgumentError(f"{name}: alpha must be >= 0, got {self.alpha}: s would turn negative for large x")

    # ---- the textbook's face

    def forward(self, x: Array) -> Array:
        self.x = x
        self.s = self.k + self.alpha * self.window_sum(x * x)
        return x * self.s**-self.beta

    def backward(self, dy: Array) -> Array:
        x, s = self.x, self.s
        y = x * s**-self.beta
        return dy * s**-self.beta - 2 * self.alpha * self.beta * x * self.window_sum(dy * y / s)

    def window_sum(self, t: Array) -> Array:
        """For every i the sum of t_j over the window of i; t and the sums are (N, C, H, W)."""
        raise NotImplementedError

    def sum_along(self, axis: int, t: Array) -> Array:
        """For every i the sum of t_(i - n//2) .. t_(i + n//2) along one axis, as far as there are such."""
        t = np.moveaxis(t, axis, 0)
        total = t.copy()
        for d in range(1, 1 + self.reach(len(t))):
            total[d:] += t[:-d]  # t_(i - d), where there is one
            total[:-d] += t[d:]  # t_(i + d)
        return np.moveaxis(total, 0, axis)

    def reach(self, size: int) -> int:
        return _reach(self.n, size)

    # ---- fast, on the CPU

    def forward_cpu(self, x: Array) -> Array:
        self.x = x  # s is computed again: that costs less than a second array of x's size going to memory and back
        x = channels_last(x)
        y = empty(x.shape, x.dtype)
        self.in_tiles(normalize, x, y)
        return nchw(y)

    def backward_cpu(self, dy: Array) -> Array:
        x, dy = channels_last(self.x), channels_last(dy)
        dx = empty(x.shape, x.dtype)
        self.in_tiles(differentiate, x, dy, dx)
        return nchw(dx)

    def in_tiles(self, work: Work, *images: Array) -> None:
        """`work` on tiles of images (N, H, W, C); no window reaches from one tile into another.

        Cutting and running them is the function in_tiles of _lrn_fast.py; the ops say here what their tiles are.
        """
        raise NotImplementedError

    # ---- on a card

    def forward_gpu(self, x: Array) -> Array:
        self.x = x = self.device.contiguous(x)
        self.plan = self.plan_of(x.shape, self.n, self.groups)
        y = self.device.empty_like(x)
        settings = self.k, self.alpha, self.beta
        if self.plan.wide:
            self.s = self.device.empty_like(x)
            self.launch("wide_forward", x, y, self.s, settings=settings)
        else:
            self.launch("forward", x, y, settings=settings)
        return y

    def backward_gpu(self, dy: Array) -> Array:
        dy = self.device.contiguous(dy)
        dx = self.device.empty_like(dy)
        if self.plan.wide:
            self.launch("wide_backward", self.x, self.s, dy, dx, settings=(self.alpha, self.beta))
        else:
            self.launch_backward(dy, dx)
        return dx

    def launch_backward(self, dy: Array, dx: Array) -> None:
        """Fill dx, where windows are not wide."""
        raise NotImplementedError

    @staticmethod
    def plan_of(x_shape: Shape, n: int, groups: int) -> Plan:
        raise NotImplementedError

    def launch(self, way: str, *images: Array, settings: tuple[float, ...]) -> None:
        """The kernel lrn_<way> or lrn_within_map_<way> on images (N, C, H, W)."""
        x, (maps, reach, wide, blocks, threads) = self.x, self.plan
        kernel, launch = f"{self.name}_{way}", self.device.launch
        if wide:
            grid = gpu.blocks(x.size)
            launch(self.name, kernel, grid, THREADS, *images, maps, reach, *settings, REAL=x.dtype)
        else:
            launch(self.name, kernel, blocks, threads, *images, maps, *settings, REAL=x.dtype, REACH=reach)


class Plan(NamedTuple):
    """What the kernels are told of images of one shape."""

    maps: np.ndarray  # a `struct Maps`
    reach: int
    wide: bool  # windows reach further than the fast kernels can: then one thread computes one number
    blocks: int  # where they are not wide
    threads: int | tuple[int, int]


def _reach(n: int, size: int) -> int:
    """How far a window goes to each side along an axis of so many elements: beyond them it has nothing to add."""
    return min(n // 2, max(0, size - 1))


class LRN(ResponseNorm):
    def window_sum(self, t: Array) -> Array:
        n, c, h, w = t.shape
        return self.sum_along(2, t.reshape(n, self.groups, c // self.groups, h, w)).reshape(t.shape)

    def in_tiles(self, work: Work, *images: Array) -> None:
        """Tiles are of pixels of a group, which need none of their neighbours."""
        n, h, w, c = images[0].shape
        channels = c // self.groups
        pixels = [a.reshape(n * h * w * self.groups, channels) for a in images]
        sums = BandSums if channels % BLOCK == 0 else ChannelSums
        in_tiles(self, work, sums, (self.reach(channels),), *pixels)

    def launch_backward(self, dy: Array, dx: Array) -> None:
        self.launch("backward", self.x, dy, dx, settings=(self.k, self.alpha, self.beta))

    @staticmethod
    @remembered
    def plan_of(x_shape: Shape, n: int, groups: int) -> Plan:
        images, c, h, w = x_shape
        channels, pixels = c // groups, images * h * w
        most_channels, threads, most_reach = constants("lrn", "CHANNELS", "PIXELS", "MOST_REACH")
        shares = gpu.blocks(channels, most_channels)  # blocks that share the channels of a group
        each = -(-channels // max(1, shares))  # of equally many in every block, or nearly so
        sizes = {"pixels": pixels, "area": h * w, "groups": groups, "channels": channels, "each": max(1, each)}
        reach, blocks = _reach(n, channels), gpu.blocks(pixels, threads) * groups * shares
        return Plan(struct("lrn", "Maps", **sizes), reach, reach > most_reach, blocks, threads)


class LRNWithinMap(ResponseNorm, name="lrn_within_map"):
    def window_sum(self, t: Array) -> Array:
        return self.sum_along(3, self.sum_along(2, t))

    def in_tiles(self, work: Work, *images: Array) -> None:
        """Tiles are of whole images: one, or several where they are small."""
        _, h, w, _ = images[0].shape
        in_tiles(self, work, PixelSums, (self.reach(h), self.reach(w)), *images)

    def launch_backward(self, dy: Array, dx: Array) -> None:
        s = self.device.empty_like(self.x)
        self.launch("scale", self.x, s, settings=(self.k, self.alpha))
        self.launch("backward", self.x, s, dy, dx, settings=(self.alpha, self.beta))

    @staticmethod
    @remembered
    def plan_of(x_shape: Shape, n: int, groups: int) -> Plan:
        images, c, h, w = x_shape
        tile, rows, most_reach = constants("lrn_within_map", "TILE", "ROWS", "MOST_REACH")
        maps = struct("lrn_within_map", "Maps", maps=images * c, height=h, width=w)
        reach = _reach(n, max(h, w))
        inner = max(1, tile - 2 * reach)
        blocks = images * c * gpu.blocks(h, inner) * gpu.blocks(w, inner)
        return Plan(maps, reach, reach > most_reach, blocks, (tile, rows))
