"""The ladders of kernels/ladder/: an op from its formula to what its kernel in kernels/ does, a file for every step.

    compute = LADDERS["gemm"].prepare("gemm_2_tiled", a=a, b=b)
    c = compute()                                                    # by kernels/ladder/gemm_2_tiled.cu

With the ladder's `top` in place of a step, or on the CPU, it is the op itself that computes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import functional as F
from ... import gpu
from ...device import Device
from ...errors import ArgumentError
from ...tensor import Tensor
from .bare import tensor_of
from .case import Case, Shape, Shapes, as_tf32, no_flops

Pair = tuple[int, int]
Compute = Callable[[], Tensor]  # computes the result; a gradient by the op itself only once: then its graph is freed

TILES = {  # numbers along each side of the tile that a block of SIDE x SIDE threads computes
    "gemm_2_tiled": 16,
    "gemm_3_register_blocked": 64,
    "gemm_4_tf32": 64,
    "conv2d_2_tiled": 16,
    "conv2d_3_register_blocked": 64,
    "conv2d_4_tf32": 64,
    "conv2d_backward_x_3_tiled": 16,
    "conv2d_backward_w_2_tiled": 16,
    "conv2d_backward_w_3_parts": 16,
}
SIDE = 16
ENOUGH_BLOCKS, LEAST_DEPTH = 256, 32  # conv2d_backward_w_3_parts: blocks that are wanted, least terms of a part
PIXELS, CHANNELS, ROWS, MOST_REACH = 32, 32, 8, 8  # of a block of lrn_2_shared and lrn_backward_3_shared


@dataclass(frozen=True)
class Ladder:
    """prepare(step, **inputs, **settings) gives what computes the result by a step, or by the op: step `top`.

    steps: files of kernels/ladder/.  top: the file of kernels/ that they lead to.
    small, real, settings, moves, flops: of the cases, see Case; moves names what is read and written, the result is y.
    """

    prepare: Callable[..., Compute]
    top: str
    steps: tuple[str, ...]
    small: Shapes
    real: Shapes
    settings: dict[str, Any]
    moves: str
    flops: Callable[[Shapes, Shape], int] = no_flops

    def case(self, step: str, more_name: str = "", **more_settings: Any) -> Case:
        settings = {**self.settings, **more_settings}

        def prepare(**inputs: Tensor) -> Compute:
            return self.prepare(step, **inputs, **settings)

        def function(**inputs: Tensor) -> Tensor:
            return prepare(**inputs)()

        more: dict[str, Any] = {"flops": self.flops, "tolerance": 3e-5, "prepare": prepare}
        if is_tf32(step):
            more |= {"dtypes": ("float32",), "matrix_units": True, "tolerance": 2e-4}  # as in tf32.py
        name, file = step.replace("_", " ") + more_name, f"ladder/{step}"
        return Case(name, (file,), function, self.small, self.real, self.moves, "", **more)


def entry_point(step: str) -> str:
    """The kernel that does the work of a step: its file's name without the number."""
    return re.sub(r"_\d_", "_", step)


def is_tf32(step: str) -> bool:
    """Whether a step rounds its factors to TF32, for the matrix units."""
    return step.endswith("_tf32")


def _factors(step: str, *factors: Tensor) -> Sequence[Tensor]:
    """The factors as a step multiplies them: the kernel rounds to TF32 itself, on the host it is done here."""
    if not is_tf32(step):
        return factors
    for factor in factors:
        if factor.dtype != np.float32:
            raise ArgumentError(f"{step}: the factors must be float32, got {factor.dtype}: take another step")
    return [Tensor(as_tf32(x.numpy()), device=x.device) if x.device.on_host else x for x in factors]


def _launch(device: Device, step: str, grid: Any, block: Any, *args: Any, kernel: str = "", **types: Any) -> None:
    device.launch(f"ladder/{step}", kernel or entry_point(step), grid, block, *args, **types)


def _blocks(step: str, rows: int, columns: int) -> tuple[Any, Any]:
    """Grid and block of a result of rows x columns: a thread for each number, or SIDE x SIDE of them for a tile."""
    if step not in TILES:
        return gpu.blocks(rows * columns), gpu.THREADS
    grid = gpu.blocks(columns, TILES[step]), gpu.blocks(rows, TILES[step])
    return grid, SIDE * SIDE if is_tf32(step) else (SIDE, SIDE)


def _gradient(y: Tensor, dy: Tensor, leaf: Tensor) -> Compute:
    """What computes the gradient of a leaf that y was made of, by the op's own backward."""

    def backward() -> Tensor:
        y.backward(dy)
        assert leaf.grad is not None
        return leaf.grad

    return backward


# ---------------------------------------------------------------- matrix products


def gemm(step: str, a: Tensor, b: Tensor) -> Compute:
    """c (M, N) = a (M, K) b (K, N)."""
    a, b = _factors(step, a, b)
    if a.device.on_host or step == "gemm":
        return lambda: F.matmul(a, b)
    (m, k), n = a.shape, b.shape[1]

    def compute() -> Tensor:
        c = a.device.empty((m, n), a.dtype)
        _launch(a.device, step, *_blocks(step, m, n), a.data, b.data, c, m, n, k, REAL=a.dtype)
        return tensor_of(a.device, c)

    return compute


# ---------------------------------------------------------------- convolution


def conv2d(step: str, x: Tensor, w: Tensor, stride: int, padding: int) -> Compute:
    """y (N, O, OH, OW) of x (N, C, H, W) and w (O, C, kh, kw); stride and padding are those of both axes."""
    x, w = _factors(step, x, w)
    if x.device.on_host or step == "conv2d":
        return lambda: F.conv2d(x, w, stride=stride, padding=padding)
    (n, c, height, width), (o, _, kh, kw) = x.shape, w.shape
    oh, ow = ((size + 2 * padding - taps) // stride + 1 for size, taps in ((height, kh), (width, kw)))

    def compute() -> Tensor:
        y = x.device.empty((n, o, oh, ow), x.dtype)
        sizes = n, c, height, width, o, oh, ow, kh, kw, stride, padding
        _launch(x.device, step, *_blocks(step, o, n * oh * ow), x.data, w.data, y, *sizes, REAL=x.dtype)
        return tensor_of(x.device, y)

    return compute


def conv2d_backward_x(step: str, dy: Tensor, w: Tensor, stride: int, padding: int, size: Pair | None = None) -> Compute:
    """dx (N, C, H, W) of dy (N, O, OH, OW) and w.  size: (H, W); None: the smallest that gives dy's."""
    (n, o, oh, ow), (_, c, kh, kw) = dy.shape, w.shape
    smallest = (oh - 1) * stride + kh - 2 * padding, (ow - 1) * stride + kw - 2 * padding
    shape = n, c, *(size or smallest)
    if dy.device.on_host or step == "conv2d":
        x = Tensor(np.zeros(shape, dy.dtype), True, dy.device)
        return _gradient(F.conv2d(x, w, stride=stride, padding=padding), dy, x)
    scatters = step == "conv2d_backward_x_1_scatter"
    blocks = _blocks(step, o, n * oh * ow) if scatters else _blocks(step, c, n * shape[2] * shape[3])

    def compute() -> Tensor:
        dx = (dy.device.zeros if scatters else dy.device.empty)(shape, dy.dtype)
        sizes = *shape, o, oh, ow, kh, kw, stride, padding
        _launch(dy.device, step, *blocks, dy.data, w.data, dx, *sizes, REAL=dy.dtype)
        return tensor_of(dy.device, dx)

    return compute


def conv2d_backward_w(step: str, dy: Tensor, x: Tensor, kernel: Pair, stride: int, padding: int) -> Compute:
    """dw (O, C, kh, kw) of dy (N, O, OH, OW) and x (N, C, H, W).  kernel: (kh, kw)."""
    (n, o, oh, ow), c, (kh, kw) = dy.shape, x.shape[1], kernel
    if x.device.on_host or step == "conv2d":
        w = Tensor(np.zeros((o, c, kh, kw), x.dtype), True, x.device)
        return _gradient(F.conv2d(x, w, stride=stride, padding=padding), dy, w)
    device = x.device
    types: dict[str, Any] = {"REAL": x.dtype}
    sizes = *x.shape, o, oh, ow, kh, kw, stride, padding
    grid, block = _blocks(step, o, c * kh * kw)

    def compute() -> Tensor:
        dw = device.empty((o, c, kh, kw), x.dtype)
        if step != "conv2d_backward_w_3_parts":
            _launch(device, step, grid, block, dy.data, x.data, dw, *sizes, **types)
            return tensor_of(device, dw)
        count, part_depth = _parts(math.prod(grid), n * oh * ow)
        parts = device.empty((count, *dw.shape), x.dtype)
        _launch(device, step, (*grid, count), block, dy.data, x.data, parts, *sizes, part_depth, **types)
        add = "conv2d_backward_w_add"
        _launch(device, step, gpu.blocks(dw.size), gpu.THREADS, parts, dw, count, dw.size, kernel=add, **types)
        return tensor_of(device, dw)

    return compute


def _parts(blocks: int, depth: int) -> Pair:
    """Into how many parts to cut sums of `depth` terms, and terms of a part: whole tiles, but for the last one's."""
    wanted = max(1, min(gpu.blocks(ENOUGH_BLOCKS, blocks), depth // LEAST_DEPTH))
    part_depth = gpu.blocks(gpu.blocks(depth, wanted), SIDE) * SIDE
    return gpu.blocks(depth, part_depth), part_depth


# ---------------------------------------------------------------- response normalisation


def lrn(step: str, x: Tensor, n: int, k: float, alpha: float, beta: float) -> Compute:
    """y of x (N, C, H, W); n, k, alpha, beta as in F.lrn."""
    if x.device.on_host or step == "lrn":
        return lambda: F.lrn(x, n, k, alpha, beta)
    grid, block, sizes = _of_maps(step, x, n)

    def compute() -> Tensor:
        y = x.device.empty_like(x.data)
        _launch(x.device, step, grid, block, x.data, y, *sizes, k, alpha, beta, REAL=x.dtype)
        return tensor_of(x.device, y)

    return compute


def lrn_backward(step: str, x: Tensor, dy: Tensor, n: int, k: float, alpha: float, beta: float) -> Compute:
    """dx of x and dy, both (N, C, H, W)."""
    if x.device.on_host or step == "lrn":
        leaf = Tensor(x, True)
        return _gradient(F.lrn(leaf, n, k, alpha, beta), dy, leaf)
    device = x.device
    types: dict[str, Any] = {"REAL": x.dtype}
    grid, block, sizes = _of_maps(step, x, n)

    def compute() -> Tensor:
        dx = device.empty_like(x.data)
        if step == "lrn_backward_2_scale_kept":
            s = device.empty_like(x.data)
            _launch(device, step, grid, block, x.data, s, *sizes, k, alpha, kernel="lrn_scale", **types)
            _launch(device, step, grid, block, x.data, s, dy.data, dx, *sizes, alpha, beta, **types)
        else:
            _launch(device, step, grid, block, x.data, dy.data, dx, *sizes, k, alpha, beta, **types)
        return tensor_of(device, dx)

    return compute


def _of_maps(step: str, x: Tensor, n: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Grid, block, and the sizes that all kernels of LRN take; ArgumentError for a window beyond a step's room."""
    images, channels, height, width = x.shape
    sizes = x.size, channels, height * width, n // 2
    if not step.endswith("_shared"):
        return gpu.blocks(x.size), gpu.THREADS, sizes
    if n // 2 > MOST_REACH:
        raise ArgumentError(f"{step}: n must be at most {2 * MOST_REACH + 1}, got {n}: take another step")
    grid = gpu.blocks(images * height * width, PIXELS), gpu.blocks(channels, CHANNELS)
    return grid, (PIXELS, ROWS), sizes


# ---------------------------------------------------------------- max-pooling


def max_pool2d_backward(step: str, x: Tensor, dy: Tensor, kernel: Pair, stride: int, padding: int) -> Compute:
    """dx of x (N, C, H, W) and dy (N, C, OH, OW); which taps won, kernels/max_pool2d.cu has noted before."""
    if x.device.on_host or step == "max_pool2d":
        leaf = Tensor(x, True)
        return _gradient(F.max_pool2d(leaf, kernel, stride, padding), dy, leaf)
    (n, c, *size), windows, (kh, kw) = x.shape, dy.shape[2:], kernel
    pooling: Any = F.max_pool2d(Tensor(x, True), kernel, stride, padding).node
    winner = pooling.winner
    types: dict[str, Any] = {"REAL": x.dtype, "TAP": winner.dtype}
    scatters = step == "max_pool2d_backward_1_scatter"

    def compute() -> Tensor:
        dx = (x.device.zeros if scatters else x.device.empty)(x.shape, x.dtype)
        blocks = gpu.blocks(dy.size if scatters else x.size), gpu.THREADS
        _launch(x.device, step, *blocks, dy.data, winner, dx, n * c, *size, *windows, kh, kw, stride, padding, **types)
        return tensor_of(x.device, dx)

    return compute


# ---------------------------------------------------------------- all of them


def _steps(name: str, *what: str) -> tuple[str, ...]:
    return tuple(f"{name}_{number}_{step}" for number, step in enumerate(what, 1))


_STRIDES = {"stride": 2, "padding": 1}
# Of the gradients' cases: as wide as this, windows end beyond the last pixel, and one more would begin before it.
_WIDE = (5, 5)
_RESPONSE = {"n": 5, "k": 2.0, "alpha": 0.1, "beta": 0.75}
_MAPS = (128, 96, 55, 55)

LADDERS = {
    "gemm": Ladder(
        gemm,
        "gemm",
        _steps("gemm", "naive", "tiled", "register_blocked", "tf32"),
        small={"a": (70, 69), "b": (69, 83)},
        real={"a": (4096, 4096), "b": (4096, 4096)},
        settings={},
        moves="a b y",
        flops=lambda inputs, c: 2 * math.prod(c) * inputs["a"][1],
    ),
    "conv2d": Ladder(
        conv2d,
        "conv2d",
        _steps("conv2d", "naive", "tiled", "register_blocked", "tf32"),
        small={"x": (3, 8, 9, 9), "w": (70, 8, 3, 3)},
        real={"x": (128, 96, 27, 27), "w": (256, 96, 5, 5)},
        settings=_STRIDES,
        moves="x w y",
        flops=lambda inputs, y: 2 * math.prod(y) * math.prod(inputs["w"][1:]),
    ),
    "conv2d_backward_x": Ladder(
        conv2d_backward_x,
        "conv2d",
        _steps("conv2d_backward_x", "scatter", "gather", "tiled"),
        small={"dy": (3, 19, 5, 5), "w": (19, 18, *_WIDE)},
        real={"dy": (128, 256, 14, 14), "w": (256, 96, *_WIDE)},
        settings=_STRIDES,
        moves="dy w y",
        flops=lambda inputs, dx: 2 * math.prod(inputs["dy"]) * math.prod(inputs["w"][1:]),
    ),
    "conv2d_backward_w": Ladder(
        conv2d_backward_w,
        "conv2d",
        _steps("conv2d_backward_w", "naive", "tiled", "parts"),
        small={"dy": (5, 19, 5, 4), "x": (5, 3, 11, 9)},
        real={"dy": (128, 256, 14, 14), "x": (128, 96, 29, 29)},
        settings={"kernel": _WIDE, **_STRIDES},
        moves="dy x y",
        flops=lambda inputs, dw: 2 * math.prod(inputs["dy"]) * math.prod(dw[1:]),
    ),
    "lrn": Ladder(
        lrn,
        "lrn",
        _steps("lrn", "naive", "shared"),
        small={"x": (2, 37, 5, 9)},
        real={"x": _MAPS},
        settings=_RESPONSE,
        moves="x y",
    ),
    "lrn_backward": Ladder(
        lrn_backward,
        "lrn",
        _steps("lrn_backward", "naive", "scale_kept", "shared"),
        small={"x": (2, 37, 5, 9), "dy": (2, 37, 5, 9)},
        real={"x": _MAPS, "dy": _MAPS},
        settings=_RESPONSE,
        moves="x dy y",
    ),
    "max_pool2d_backward": Ladder(
        max_pool2d_backward,
        "max_pool2d",
        _steps("max_pool2d_backward", "scatter", "gather"),
        small={"x": (2, 5, 24, 20), "dy": (2, 5, 12, 10)},
        real={"x": _MAPS, "dy": (128, 96, 28, 28)},
        settings={"kernel": (3, 3), **_STRIDES},
        moves="dy y",
    ),
}


CASES = [ladder.case(step) for ladder in LADDERS.values() for step in ladder.steps]
CASES += [  # whose shared memory has just room enough
    LADDERS[name].case(step, ", widest window", n=2 * MOST_REACH + 1)
    for name, step in (("lrn", "lrn_2_shared"), ("lrn_backward", "lrn_backward_3_shared"))
]
