"""How the ops multiply matrices on a graphics card: with which kernel of kernels/gemm.cu, or with cuBLAS.

    c = a b (+ bias)          c_mn = sum_k a_mk b_kn (+ bias_n)

The kernels take matrices by their steps in memory: a transposed one needs no copy, and one that is repeated along the
batch has step 0 there.

- Both sides of c longer than ROWS: gemm_tiles.  Every element of a is read N / 128 times, of b M / 128 times where
  that fits (_tile_product.py).
- A short side (few images in a fully connected layer): a tile would be empty for the most part, and reading b is all
  that such a product costs.  gemm_skinny_k and gemm_skinny_n read it once, the first if b's elements are neighbours
  along k, the second if they are along n.  They make few rows; few columns are the rows of c^T = b^T a^T.
- A small c with a long sum over k has too few blocks to keep a card busy: the sum is cut into parts, each is the work
  of blocks of its own, and a second launch adds them.

All choices depend on sizes and steps alone, and so do the bits of the result.

Integers are summed modulo 2^32 or 2^64 and so wrap around as NumPy's do.  Those of 8 and 16 bits are multiplied as
int32, which gives the same bits in the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import gpu
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError
from ..gpu import Strided
from ..gpu.sources import constants, struct
from ._tile_product import cut

ENOUGH_BLOCKS = 256  # two for every multiprocessor of a large card
LEAST_PART = 512  # terms of a sum for which another part pays
TILES = {4: (128, 64, 32), 8: (64, 32)}  # TILE_ROWS: as in _tile_product.py, but a power of two, for a may lie along m

GEMMS = ("cublas", "minigrad")
_gemm = "cublas"
_tf32 = False


def set_gemm(name: str) -> None:
    """What multiplies matrices of floats on cuda:N: "cublas" (the default), or "minigrad", our own kernels.

    cuBLAS does single products, as in fully connected layers; batches of matrices and integers always go through our
    kernels, and so does everything on cudasim:N.  ArgumentError for other names.
    """
    global _gemm
    if name not in GEMMS:
        raise ArgumentError(f"set_gemm: name must be 'cublas' or 'minigrad', got {name!r}")
    _gemm = name


def gemm_in_use() -> str:
    """What set_gemm has chosen: "cublas" or "minigrad"."""
    return _gemm


def allow_tf32(allowed: bool) -> None:
    """Whether factors of float32 may be rounded to TF32, 10 bits of mantissa instead of 23; not unless this is called.

    Then cards with matrix units for it, those since sm_80, and cudasim:N use them: for convolutions and their
    gradients, linear and matmul, by cuBLAS as well as by our own kernels (but for those of at most 8 rows or columns,
    which wait for memory).  Sums stay float32.  Results are right to about three decimals:
    benchmarks/results/tf32_error.md.  ArgumentError unless a bool.
    """
    global _tf32
    if not isinstance(allowed, bool):
        raise ArgumentError(f"allow_tf32: allowed must be True or False, got {allowed!r}")
    _tf32 = allowed


def tf32_allowed() -> bool:
    """What allow_tf32 has said."""
    return _tf32


def tf32_option(device: Device, dtype: np.dtype[Any]) -> dict[str, int]:
    """The option TF32=1 for a kernel of tile_product.cuh, where it is to use matrix units; else none."""
    return {"TF32": 1} if _tf32 and dtype == np.float32 and device.has_matrix_units else {}


# ---------------------------------------------------------------- products


def product(device: Device, a: Array, b: Array, bias: Array | None = None) -> Array:
    """a b, plus `bias` in every row; a fresh C-contiguous array.

    a: (..., M, K), b: (..., K, N), of one element type, any strides; the axes before the last two broadcast.
    bias: (N,) or None.  Returns (..., M, N).
    """
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:  # one matrix with many rows instead of a batch
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return product(device, rows, b, bias).reshape(*a.shape[:-1], b.shape[-1])
    dtype = a.dtype
    if dtype.kind in "iu" and dtype.itemsize < 4:
        a, b = (device.converted(x, np.int32) for x in (a, b))
        return device.converted(product(device, a, b), dtype)
    (m, k), n = a.shape[-2:], b.shape[-1]
    single = a.ndim == b.ndim == 2
    shape = (m, n) if single else (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n)
    if 0 in shape:
        return device.empty(shape, dtype)
    if k == 0:  # sums of nothing
        c = device.zeros(shape, dtype)
        return c if bias is None else device.assign(c, bias)
    if single and device.kind == "cuda" and _gemm == "cublas" and dtype.kind == "f" and max(m, k, n) < 2**31:
        c = device.empty(shape, dtype)
        device.runtime.gemm(_regular(device, a), _regular(device, b), c, _tf32)  # type: ignore[union-attr]
        return c if bias is None else device.arithmetic("add", c, bias, c)
    bias = bias if bias is None else device.contiguous(bias)
    rows, tile_columns = constants("gemm", "ROWS", "TILE_COLUMNS")
    if min(m, n) > rows:
        tile, *parts = cut(m, n, k, math.prod(shape[:-2]), TILES[dtype.itemsize], dtype.itemsize)
        tiles = gpu.blocks(m, tile) * gpu.blocks(n, tile_columns)
        options = {"TILE_ROWS": tile, **tf32_option(device, dtype)}
        c = _launch(device, "gemm_tiles", tiles, a, b, bias, parts=parts, options=options)
    elif m <= rows:
        c = _few_rows(device, a, b, bias)
    else:
        c = _few_rows(device, b.swapaxes(-1, -2), a.swapaxes(-1, -2), bias, transposed=True)
    return c.reshape(shape)


def column_sums(device: Device, x: Array) -> Array:
    """The sums of the columns of x, (M, N), any strides; a fresh array (N,)."""
    (m, n), (x_m, x_n) = x.shape, _steps(x)
    if x.size == 0:
        return device.zeros((n,), x.dtype)
    warp, threads = constants("gemm", "WARP", "THREADS")
    blocks = gpu.blocks(n, warp)
    parts, part = _parts(blocks, m)
    y = device.empty((parts, n), x.dtype)
    device.launch("gemm", "column_sums", (blocks, parts), threads, y, Strided(x), m, n, x_m, x_n, part, T=x.dtype)
    return y.reshape(n) if parts == 1 else column_sums(device, y)


def _few_rows(device: Device, a: Array, b: Array, bias: Array | None, transposed: bool = False) -> Array:
    """The product where a has at most ROWS rows; as _launch."""
    n, (b_k, b_n) = b.shape[-1], _steps(b)
    rows, warp = constants("gemm", "ROWS", "WARP")
    if abs(b_k) <= abs(b_n) or n <= rows:
        return _launch(device, "gemm_skinny_k", gpu.blocks(n, rows), a, b, bias, transposed)
    return _launch(device, "gemm_skinny_n", gpu.blocks(n, warp), a, b, bias, transposed)


def _launch(
    device: Device,
    kernel: str,
    blocks: int,
    a: Array,
    b: Array,
    bias: Array | None,
    transposed: bool = False,
    parts: Sequence[int] = (),
    options: Mapping[str, int] = {},
) -> Array:
    """Run a kernel; the elements of c in row-major order, or, where it is c^T that is made, in column-major order.

    blocks: of one matrix of the batch.  parts: into how many sums are cut, and terms of each; else as `_parts` says.
    options: for the compiler.
    """
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    layout = _batch_layout(batch, a, b)
    if layout is None:  # more axes than a Layout has: in full copies they are all one
        a, b = (device.assign(device.empty((*batch, *x.shape[-2:]), x.dtype), x) for x in (a, b))
        layout = _batch_layout(batch, a, b)
    (m, k), n, batches = a.shape[-2:], b.shape[-1], math.prod(batch)
    count, part = parts or _parts(blocks * batches, k)
    c = device.empty((count, batches * m * n), a.dtype)
    along = "NO_BIAS" if bias is None else "BIAS_ALONG_M" if transposed else "BIAS_ALONG_N"
    arrays = c, Strided(a), Strided(b), Strided(a if bias is None else bias)  # a kernel wants some array there
    (c_m, c_n), (a_m, a_k), (b_k, b_n) = (1, m) if transposed else (n, 1), _steps(a), _steps(b)
    steps = {"c_m": c_m, "c_n": c_n, "a_m": a_m, "a_k": a_k, "b_k": b_k, "b_n": b_n}
    sizes = struct("gemm", "Product", M=m, N=n, K=k, part=part, batches=batches, **steps)
    grid, (bias_along, threads) = (blocks * batches, count), constants("gemm", along, "THREADS")
    device.launch("gemm", kernel, grid, threads, *arrays, bias_along, sizes, layout, T=c.dtype, **options)
    return c if count == 1 else column_sums(device, c)


def _batch_layout(batch: tuple[int, ...], a: Array, b: Array) -> np.ndarray | None:
    """How a and b are walked through along the axes before the last two; None: not with the axes of a Layout."""
    return gpu.layout_of(batch, tuple(gpu.strides_of(x, (*batch, *x.shape[-2:]))[:-2] for x in (a, b)))


def _parts(blocks: int, terms: int) -> tuple[int, int]:
    """Into how many parts a sum is cut, and how many of its terms are in each but the last."""
    parts = max(1, min(ENOUGH_BLOCKS // blocks, terms // LEAST_PART))
    part = gpu.blocks(terms, parts)
    return -(-terms // part), part


def _steps(x: Array) -> tuple[int, int]:
    """Strides of the last two axes, in elements."""
    return x.strides[-2] // x.itemsize, x.strides[-1] // x.itemsize


# ---------------------------------------------------------------- cuBLAS


def _regular(device: Device, x: Array) -> Array:
    """x, or a copy where it is neither a contiguous matrix nor the transpose of one."""
    return x if x.flags.c_contiguous or x.flags.f_contiguous else device.copied(x)
