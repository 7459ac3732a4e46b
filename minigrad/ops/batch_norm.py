"""Batch normalisation: each channel shifted and scaled to mean 0, variance 1, then by a weight and bias that learn.

    mean = sum(x) / m,   var = sum((x - mean)^2) / m        over the m numbers of a channel: all images, all pixels
    s = 1 / sqrt(var + eps)
    h = (x - mean) * s
    y = weight * h + bias

    dbias   = sum(dy)
    dweight = sum(dy * h)
    dx      = weight * s * (dy - dbias / m - h * dweight / m)

While training, mean and var are the batch's own; otherwise they are given (what was seen in training), are constants,
and dx = weight * s * dy.

The gradient.  Let g = weight * dy, the gradient of h.  x_i enters h_i itself, which gives s g_i.  It enters the mean:
every h_j falls by s / m, which gives -s sum(g) / m.  And it enters the variance, whose derivative by x_i is
2 (x_i - mean) / m, while that of h_j by var is -h_j s^2 / 2: together -s h_i sum(g h) / m.  (The mean inside the
variance adds nothing, since the x - mean sum to 0.)

While training, running statistics follow those of the batches, with the unbiased variance, as in PyTorch:

    running_mean <- (1 - momentum) running_mean + momentum mean
    running_var  <- (1 - momentum) running_var  + momentum var m / (m - 1)

The fast face and the card take mean and sum of squares of a tile while it is in the cache, and put those of all tiles
together (Chan, Golub, LeVeque 1979): with n numbers in a tile, the squares are sum(squares + n (tile's mean - mean)^2).

Source: Ioffe, Szegedy 2015 (arXiv 1502.03167), algorithms 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import gpu
from ..base.arguments import number
from ..base.grad_mode import no_grad
from ..base.interrupts import hold
from ..base.random import current_chunk
from ..engine import Array, Function
from ..errors import ArgumentError, DeviceError, GraphError, ShapeError
from ..gpu import THREADS
from ..gpu.sources import constants
from ..processor.memory import empty
from ..processor.parallel import split
from ..tensor import Tensor, apply, op, wrap
from ._checks import check_floating, flag
from ._reduction import added_up, summed, total

Arrays = tuple[Array, ...]


@op
def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """weight * (x - mean) / sqrt(var + eps) + bias, channel by channel.

    x: (N, C, ...), float32 or float64, such as rows (N, C) or images (N, C, H, W); the result has the same shape and
    dtype.  All others: (C,), of the same dtype and device.
    training: mean and var are those of this batch, and the running ones, where given, follow them in place; otherwise
    mean and var are running_mean and running_var, which must be given then.
    weight, bias: 1 and 0 where left out.  momentum: 0 to 1, how far the running statistics go towards the batch's.
    eps >= 0: added to the variance.

    GraphError while training inside a chunk of in_chunks, where a "batch" would be the chunk, and for running
    statistics that require a gradient.  ShapeError for fewer than two axes, statistics that are not (C,), and batches
    of one number per channel while training, whose variance is 0.  ArgumentError, DTypeError, DeviceError for settings
    and tensors that do not fit.

    Source: Ioffe, Szegedy 2015.
    """
    tensors = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    given: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    check_floating("batch_norm", x=x, **given)
    training, eps = flag("batch_norm", "training", training), number("batch_norm", "eps", eps, minimum=0)
    momentum = number("batch_norm", "momentum", momentum, minimum=0)
    if momentum > 1:
        raise ArgumentError(f"batch_norm: momentum must be at most 1, got {momentum}: it is a share of the batch's")
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x must have 2 axes or more, (N, C, ...), it has {x.ndim}: {x.shape}: reshape it")
    channels = x.shape[1]
    for name, tensor in given.items():
        if tensor.shape != (channels,):
            raise ShapeError(f"batch_norm: {name} must be {(channels,)}, a number per channel of x {x.shape}, it is "
                             f"{tensor.shape}: make the layer for {channels} channels")  # fmt: skip
        if tensor.device is not x.device:
            raise DeviceError(f"batch_norm: x on {x.device}, {name} on {tensor.device}: bring them to one with .to()")
        if name.startswith("running") and tensor.requires_grad:
            raise GraphError(f"batch_norm: {name} is not trained, but requires a gradient: .detach() it")
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("batch_norm: one of running_mean and running_var is None: give both, or neither")
    ones = wrap(x.device.ones((channels,), x.dtype), x.device)
    scale, shift = ones if weight is None else weight, ones * 0.0 if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm: without running_mean and running_var there is only training=True")
        return apply(BatchNorm(eps, training), x, scale, shift, running_mean, running_var)
    if current_chunk.get() is not None:
        raise GraphError(
            "batch_norm: in_chunks cuts the batch, and each chunk would be normalised by itself: call the module "
            "without in_chunks, or inside minigrad.whole_batches(); or .eval() it"
        )
    m = x.size // channels if channels else 0
    if m < 2:
        raise ShapeError(
            f"batch_norm: while training a channel must have two numbers or more, x {x.shape} has {m}: use a larger "
            "batch (drop_last in a Loader), or .eval() the layer"
        )
    function = BatchNorm(eps, training)
    y = apply(function, x, scale, shift)
    if running_mean is not None and running_var is not None:
        mean, var = (wrap(statistic, x.device) for statistic in (function.mean, function.var))
        with hold(finish=True), no_grad():  # both, or neither
            running_mean *= 1 - momentum
            running_mean += mean * momentum
            running_var *= 1 - momentum
            running_var += var * (momentum * m / (m - 1))
    return y


class BatchNorm(Function, name="batch_norm"):
    """Inputs x, weight, bias, and where it is not training the constants mean and var."""

    def __init__(self, eps: float, training: bool):
        self.eps, self.training = eps, training

    # ---- the textbook's face

    def forward(self, x: Array, weight: Array, bias: Array, *given: Array) -> Array:
        self.axes = (0, *range(2, x.ndim))
        self.m = x.size // len(weight) if len(weight) else 0
        if self.training:
            self.mean = total(x, self.axes) / x.dtype.type(self.m)
            self.var = total((x - _channels(self.mean, x)) ** 2, self.axes) / x.dtype.type(self.m)
        else:
            self.mean, self.var = given
        self.weight, self.s = weight, 1 / np.sqrt(self.var + x.dtype.type(self.eps))
        self.h = (x - _channels(self.mean, x)) * _channels(self.s, x)
        return _channels(weight, x) * self.h + _channels(bias, x)

    def backward(self, dy: Array) -> Any:
        dbias = total(dy, self.axes)
        dweight = total(dy * self.h, self.axes)
        scale = _channels(self.weight * self.s, dy)
        if self.training:
            m = dy.dtype.type(self.m)
            dx = scale * (dy - _channels(dbias / m, dy) - self.h * _channels(dweight / m, dy))
            return dx, dweight, dbias
        return scale * dy, dweight, dbias, None, None

    # ---- fast, on the CPU: tile by tile, channels last

    def forward_cpu(self, x: Array, weight: Array, bias: Array, *given: Array) -> Array:
        self.x, self.weight, rows = x, weight, _rows(x)
        y, channels = empty(rows.shape, x.dtype), len(weight)
        if self.training:
            self.mean, self.var = self.statistics(rows, channels)
        else:
            self.mean, self.var = given
        self.s = 1 / np.sqrt(self.var + x.dtype.type(self.eps))
        mean, scale, shift = (_repeated(v, rows) for v in (self.mean, self.s * weight, bias))

        def work(tile: slice) -> None:
            np.subtract(rows[tile], mean, out=y[tile])
            y[tile] *= scale
            y[tile] += shift

        self.in_tiles(rows, work)
        return _images(y, x)

    def backward_cpu(self, dy: Array) -> Any:
        x, dys, channels = _rows(self.x), _rows(dy), len(self.weight)
        dx, mean = empty(x.shape, x.dtype), _repeated(self.mean, x)
        h_of, dweight, dbias = _repeated(self.s, x), None, None
        if self.training or any(self.needs[1:]):

            def sums(tile: slice) -> Array:
                h = np.subtract(x[tile], mean, out=empty(x[tile].shape, x.dtype))
                h *= h_of
                h *= dys[tile]
                return np.stack([_by_channel(t, channels) for t in (h, dys[tile])])

            parts = np.stack(self.in_tiles(x, sums)) if len(x) else np.zeros((1, 2, channels), x.dtype)
            dweight, dbias = added_up(parts, (0,))
        scale = self.s * self.weight
        if not self.training:
            np.multiply(dys, _repeated(scale, x), out=dx)
            return _images(dx, dy), dweight, dbias, None, None
        m = x.dtype.type(x.size // channels)
        of_dy, of_x, rest = (_repeated(v, x) for v in (scale, scale * self.s * dweight / m, scale * dbias / m))

        def work(tile: slice) -> None:
            t = np.subtract(x[tile], mean, out=empty(x[tile].shape, x.dtype))
            t *= of_x
            t += rest
            np.multiply(dys[tile], of_dy, out=dx[tile])
            dx[tile] -= t

        self.in_tiles(x, work)
        return _images(dx, dy), dweight, dbias

    def statistics(self, rows: Array, channels: int) -> tuple[Array, Array]:
        """Mean and variance of every channel."""

        def of_tile(tile: slice) -> tuple[Array, Array, int]:
            x = rows[tile]
            n = x.size // channels
            mean = _by_channel(x, channels) / x.dtype.type(n)
            t = np.subtract(x, _repeated(mean, rows), out=empty(x.shape, x.dtype))
            t *= t
            return mean, _by_channel(t, channels), n

        means, squares, counts = (np.array(parts) for parts in zip(*self.in_tiles(rows, of_tile)))
        n, m = counts[:, None].astype(rows.dtype), rows.dtype.type(counts.sum())
        mean = added_up(means * n, (0,)) / m
        return mean, added_up(squares + n * (means - mean) ** 2, (0,)) / m

    def in_tiles(self, rows: Array, work: Callable[[slice], Any]) -> list[Any]:
        """work(tile) for tiles of the rows that fit the cache, on the threads of the device; the results in order."""
        size = max(1, TILE // max(1, math.prod(rows.shape[1:])))

        def piece(start: int, stop: int) -> list[Any]:
            return [work(slice(i, min(i + size, stop))) for i in range(start, stop, size)]

        return [result for results in split(self.device, len(rows), piece, at_least=size) for result in results]

    # ---- on a card

    def forward_gpu(self, x: Array, weight: Array, bias: Array, *given: Array) -> Array:
        device, like = self.device, x.dtype
        self.x, self.weight, bias = (device.contiguous(array) for array in (x, weight, bias))
        self.s = device.empty(weight.shape, like)
        if self.training:
            self.mean, self.var = device.empty(weight.shape, like), device.empty(weight.shape, like)
            sizes = _Sizes(x.shape)
            means, squares = device.empty(sizes.parts, like), device.empty(sizes.parts, like)
            sizes.launch(device, "batch_norm_pieces", self.x, means, squares)
            args = means, squares, self.mean, self.var, self.s, sizes.n, sizes.piece, sizes.pieces, self.eps
            device.launch("batch_norm", "batch_norm_statistics", sizes.channels, sizes.warp, *args, REAL=like)
        else:
            self.mean, self.var = (device.contiguous(array) for array in given)
            grid, into = gpu.pack_blocks(self.s), (self.s, len(weight), self.eps)
            device.launch("batch_norm", "batch_norm_inverse", grid, THREADS, self.var, *into, REAL=like)
        y = device.empty_like(self.x)
        self.walk("batch_norm_forward", y, (self.x,), (self.mean, self.s, self.weight, bias))
        return y

    def backward_gpu(self, dy: Array) -> Any:
        device, dy = self.device, self.device.contiguous(dy)
        dx, dweight, dbias = device.empty_like(dy), None, None
        if self.training or any(self.needs[1:]):
            sizes = _Sizes(dy.shape)
            dweight, dbias = device.zeros(sizes.parts, dy.dtype), device.zeros(sizes.parts, dy.dtype)
            sizes.launch(device, "batch_norm_backward_pieces", dy, self.x, self.mean, self.s, dweight, dbias)
            dweight, dbias = (summed(device, parts, (1,)) for parts in (dweight, dbias))
        if not self.training:
            self.walk("batch_norm_backward_given", dx, (dy,), (self.s, self.weight))
            return dx, dweight, dbias, None, None
        of_channels = self.mean, self.s, self.weight, dweight, dbias
        self.walk("batch_norm_backward", dx, (dy, self.x), of_channels, dy.size // len(self.weight))
        return dx, dweight, dbias

    def walk(self, kernel: str, y: Array, images: Arrays, of_channels: Arrays, *more: int) -> None:
        """A kernel that does each element by itself.  images: arrays that lie as y does; of_channels: (C,)."""
        n, channels = y.shape[:2]
        maps = (n, channels, math.prod(y.shape[2:]))
        one, *others = (array.reshape((channels, 1)) for array in of_channels)
        # All of a channel's numbers lie as the first of them; the others are told for the sake of packs alone.
        for walk in gpu.walks(maps, y.reshape(maps), one, beside=(*(x.reshape(maps) for x in images), *others)):
            args = y, *images, *of_channels, walk.layout, walk.n, *more
            self.device.launch("batch_norm", kernel, walk.blocks, THREADS, *args, REAL=y.dtype)


TILE = 3 << 14  # elements: what one line of a formula writes, the next finds in the L2 cache


def _channels(v: Array, x: Array) -> Array:
    """A number per channel, (C,), so that it meets the channels of x (N, C, ...)."""
    return v.reshape(-1, *(1,) * (x.ndim - 2))


def _rows(x: Array) -> Array:
    """x (N, C, ...) with its channels last, as a matrix: a row has the pixels along x's last axis, all their channels.

    Long rows, and so long loops in NumPy; a view where the memory is in that order already, else a copy.
    """
    x = np.moveaxis(x, 1, -1)
    if not x.flags.c_contiguous:
        x, old = empty(x.shape, x.dtype), x
        x[...] = old
    wide = 2 if x.ndim > 2 else 1
    return x.reshape(math.prod(x.shape[:-wide]), math.prod(x.shape[-wide:]))


def _images(rows: Array, like: Array) -> Array:
    """The way back from `_rows`, to the shape of another array."""
    return np.moveaxis(rows.reshape(like.shape[0], *like.shape[2:], like.shape[1]), -1, 1)


def _repeated(v: Array, rows: Array) -> Array:
    """A number per channel, (C,), for every pixel of a row."""
    return np.tile(v, rows.shape[1] // len(v)) if len(v) else v


def _by_channel(rows: Array, channels: int) -> Array:
    """The sum of the rows, and of the pixels in them: (C,)."""
    return added_up(added_up(rows, (0,)).reshape(-1, channels), (0,))


class _Sizes:
    """How batch_norm.cu cuts the numbers of each channel of x (N, C, ...) into pieces: see there."""

    def __init__(self, shape: tuple[int, ...]):
        self.warp, tall, per_thread = constants("batch_norm", "WARP", "TALL", "PER_THREAD")
        self.channels, self.inner = shape[1], math.prod(shape[2:])
        self.n = shape[0] * self.inner
        by_row = self.inner >= self.warp
        self.threads = self.warp * tall
        self.piece = per_thread * (self.threads if by_row else tall)
        self.pieces = max(1, gpu.blocks(self.n, self.piece))
        self.parts = self.channels, self.pieces
        self.grid = self.pieces * (self.channels if by_row else gpu.blocks(self.channels, self.warp))

    def launch(self, device: Any, kernel: str, *arrays: Array) -> None:
        args = self.channels, self.inner, self.n, self.piece, self.pieces
        grid = self.grid if self.n else 0
        device.launch("batch_norm", kernel, grid, self.threads, *arrays, *args, REAL=arrays[0].dtype)
