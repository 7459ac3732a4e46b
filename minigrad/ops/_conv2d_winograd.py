"""conv2d on the CPU with fewer multiplications than its formula has, by Winograd's minimal filtering along the rows.

A row of a kernel has r taps g.  m neighbouring outputs of it see n = m + r - 1 pixels d of a row of the image:

    y[j] = sum over v of  g[v] d[j + v],        j = 0 .. m-1             m*r products

The same from n products, of sums of taps with sums of pixels, * taken number by number:

    y = A^T ((G g) * (B^T d))                   G: n x r, B^T: n x n, A^T: m x n

Where they come from.  Two polynomials with coefficients g and y have a product with n coefficients, which is known
from its values at n points: V^-1 ((V_r g) * (V_m y)), where row k of V has the powers 0 to n-1 of point p_k, and V_r
and V_m are V's first r and m columns ("infinity" is a point, too: its row picks the highest coefficient).  Multiply by
any numbers d: d.(V^-1 ((V_r g) * (V_m y))) = y.(V_m^T ((V_r g) * (V^-T d))).  The coefficients of d.(product) by y are
the sums above, so that A^T = V_m^T, G = V_r, B^T = V^-T.

In a convolution products are summed over channels c and rows u of the kernel.  A^T can wait until the sums are made:

    D[k,(h,t),c] = B^T d          for tile t of m outputs in row h: pixels h, m*t .. m*t + n-1 of channel c
    U[k,u,o,c]   = G w[o,c,u]     once for all images
    M[k,(i,t),o] = sum over u of  D[k] (from row i + u on) @ U[k,u].T            y[i, m*t..] = A^T M

n*kernel_h products for m outputs in place of m*r*kernel_h: for conv2, 5 x 5 taps, m = 4: 0.41 of them (and 27 outputs
are 6 tiles and 3/4), for conv3 to conv5, 3 x 3, m = 5: 0.54.  The way back is the same chain from its other end:

    dM = A dy,    dU[k,u] += dM[k].T @ D[k] (from row u on),    dw[o,c,u] = G^T dU

and dx, with stride 1, is a convolution of dy with the kernels turned round (see conv2d.py).

Exactness.  Sums of pixels lose what differences of large numbers lose, more with larger n and points far from 1.
Measured against float64 in relative L2, at AlexNet's shapes: y 6e-7 to 8e-7, dx 9e-7 to 1.2e-6, dw 6e-7 to 1.2e-6; by
rows 2e-7 to 4e-7 (tests/test_conv2d_ways.py).  float64 is never computed so.  Inf and NaN would spread to all outputs
of a tile: where the result is not finite, all is done again by rows.

Source: Winograd 1980 (Arithmetic Complexity of Computations); Lavin and Gray 2015 (in two directions, for
convolutions); Barabasz, Anderson, Soodhalter, Gregg 2018 (points and errors).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..engine import Array
from ..processor.blas import add_product
from ..processor.memory import empty
from . import _conv2d_rows as by_rows
from ._conv2d_rows import Sizes, Tile, bordered, finite, tiles_in

TILE_BYTES = 16e6  # of D and M at a time
LEAST_DEPTH = 90  # numbers in a row of D
LEAST_CHANNELS = 32
LEAST_PIXELS = 1000  # outputs of a channel, in all images together, that pay for U

# The finite points for each n.  0, 1, -1, 2, -2, ... make simpler matrices with errors up to twice as large; these
# were found by trying.
POINTS = {
    6: (0, 2 / 3, -2 / 3, 4 / 3, -4 / 3),
    7: (2 / 5, -2 / 5, 5 / 6, -5 / 6, 9 / 5, -9 / 5),
    8: (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
}


class Plan(NamedTuple):
    """How a row of outputs is cut into tiles, with the matrices for them."""

    m: int  # outputs of a tile; 0 where POINTS has none for such kernels
    n: int
    tiles: int  # of a row
    rows: int  # of the kernel taken at once, so that a row of D has LEAST_DEPTH numbers
    at: Array  # (m, n)
    g: Array  # (n, r)
    bt: Array  # (n, n)


@lru_cache(maxsize=256)
def plan_of(sizes: Sizes) -> Plan:
    """With m for the fewest products; where there are two, the smaller, which is more exact."""
    (kh, r), width = sizes.kernel, sizes.outputs[1]
    some = [n - r + 1 for n in POINTS if 2 < r < n]
    m = min(some, key=lambda m: (-(-width // m) * (m + r - 1), m), default=0)
    return Plan(m, m + r - 1, -(-width // max(m, 1)), min(kh, -(-LEAST_DEPTH // sizes.cg)), *matrices(m, r))


@lru_cache(maxsize=64)
def matrices(m: int, r: int) -> tuple[Array, Array, Array]:
    """A^T, G and B^T for m outputs and r taps, in float32.

    What belongs to a point may be multiplied by three numbers whose product is 1: so that all have about one size.
    """
    n = m + r - 1
    if n not in POINTS:
        return (np.zeros((0, 0)),) * 3
    v = np.zeros((n, n))
    v[:-1] = np.power.outer(np.array(POINTS[n], float), np.arange(n))
    v[-1, -1] = 1  # infinity picks the highest coefficient, here and in the next line
    a, g, bt = v[:, :m].copy(), v[:, :r].copy(), np.linalg.inv(v).T
    a[-1, -1] = g[-1, -1] = 1
    sizes = [np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (a, g, bt)]
    root = np.sqrt(np.prod(sizes, axis=0))
    a, g, bt = a / sizes[0] * root, g / sizes[1], bt / sizes[2] * root
    at, g, bt = (np.ascontiguousarray(matrix, dtype="f") for matrix in (a.T, g, bt))
    return at, g, bt


# ---------------------------------------------------------------- what _conv2d_fast.py asks for


def suits(images: int, w: Array, sizes: Sizes) -> bool:
    """Whether y and dw of so many images are computed in this way; w as `kernel_matrices` makes it."""
    return (
        w.dtype == np.float32
        and sizes.s == sizes.d == (1, 1)
        and saves(sizes)
        and min(sizes.cg, w.shape[1]) >= LEAST_CHANNELS
        and images * math.prod(sizes.outputs) >= LEAST_PIXELS
    )


def suits_gradient_of_x(images: int, w: Array, sizes: Sizes) -> bool:
    """Whether dx of so many images is computed in this way."""
    inside = all(a < k for k, around in zip(sizes.kernel, sizes.p) for a in around)
    width = sizes.outputs[1] + sizes.kernel[1] - 1 - sum(sizes.p[1])  # of x
    return inside and suits(images, w, sizes) and saves(sizes._replace(outputs=(sizes.outputs[0], width)))


def saves(sizes: Sizes) -> bool:
    """Whether there are fewer products: in rows of one or two outputs most of a tile would be for nothing."""
    plan = plan_of(sizes)
    return 0 < plan.m and plan.tiles * plan.n <= 0.8 * sizes.outputs[1] * sizes.kernel[1]


def forward(x: Array, w: Array, b: Array | None, y: Array, sizes: Sizes) -> None:
    """Fill y (N, OH, OW, groups, channels of a group) for x (N, H, W, C); w as `kernel_matrices` makes it."""
    (groups, o, _), (kh, kw), c, plan = w.shape, sizes.kernel, sizes.cg, plan_of(sizes)
    u = empty((groups, plan.n, o, kh, c), w.dtype)
    np.matmul(plan.g, w.reshape(groups, o, kh, kw, c), out=u.transpose(0, 2, 3, 1, 4))
    if not convolve(x, u.reshape(groups, plan.n, o, kh * c).swapaxes(2, 3), b, y, sizes):
        by_rows.forward(x, w, b, y, sizes)


def gradient_of_x(dx: Array, dy: Array, w: Array, sizes: Sizes) -> None:
    """Fill dx (N, H, W, C) from dy (N, OH, OW, groups, channels of a group): a convolution of dy."""
    (kh, kw), (n, h, l, _), (groups, o, _), c = sizes.kernel, dx.shape, w.shape, sizes.cg
    p = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(sizes.kernel, sizes.p))
    turned = Sizes((1, 1), p, (1, 1), groups, (kh, kw), o, (h, l))  # type: ignore[arg-type]
    plan = plan_of(turned)
    u, w5 = empty((groups, plan.n, kh, o, c), w.dtype), w.reshape(groups, o, kh, kw, c)
    np.matmul(np.ascontiguousarray(plan.g[:, ::-1]), w5[:, :, ::-1], out=u.transpose(0, 3, 2, 1, 4))
    u = u.reshape(groups, plan.n, kh * o, c)
    if not convolve(dy.reshape(*dy.shape[:3], -1), u, None, dx.reshape(n, h, l, groups, c), turned):
        by_rows.gradient_of_x(dx, dy, w, sizes)


def gradient_of_w(x: Array, dy: Array, w: Array, sizes: Sizes) -> Array:
    """dw of these images, in the shape of w."""
    (groups, o, _), (kh, _), c, plan = w.shape, sizes.kernel, sizes.cg, plan_of(sizes)
    du = empty((groups, plan.n, o, kh * c), w.dtype)
    du[...] = 0
    for tile, g, d, dm in transformed_images(x, o, sizes):
        from_outputs(dy[tile.a : tile.z, tile.i : tile.j, :, g], dm, plan)
        for k in range(plan.n):
            for seen, band in by_bands(d[k], tile, sizes):
                add_product(dm[k].T, seen, du[g, k, :, band])
    du = du.reshape(groups, plan.n, o, kh, c).transpose(0, 2, 3, 1, 4)
    dw = np.matmul(np.ascontiguousarray(plan.g.T), du).reshape(w.shape)
    return dw if finite(dw) else by_rows.gradient_of_w(x, dy, w, sizes)


# ---------------------------------------------------------------- the two halves of the chain


def convolve(x: Array, u: Array, b: Array | None, y: Array, sizes: Sizes) -> bool:
    """Fill y (N, OH, OW, groups, o) for x (N, H, W, C) and u (groups, n, kernel_h * c, o); whether M is finite."""
    plan = plan_of(sizes)
    for tile, g, d, m in transformed_images(x, y.shape[4], sizes):
        for k in range(plan.n):
            for seen, band in by_bands(d[k], tile, sizes):
                if band.start == 0:
                    np.matmul(seen, u[g, k, band], out=m[k])
                else:
                    add_product(seen, u[g, k, band], m[k])
            if not finite(m[k]):
                return False
        there = y[tile.a : tile.z, tile.i : tile.j, :, g]
        to_outputs(m, there, plan)
        if b is not None:
            there += b.reshape(sizes.groups, -1)[g]
    return True


def transformed_images(x: Array, o: int, sizes: Sizes) -> Iterator[tuple[Tile, int, Array, Array]]:
    """D of images x (N, H, W, C), tile by tile: (tile, group, D, M), M yet to be filled.

    D (n, rows of the tile and those below that its windows see, tiles of a row, images, c), with `plan.rows` rows of
    the images side by side.  Both are good until the next are asked for: all are written to the same memory.
    """
    (kh, kw), ((top, _), (left, _)), (oh, _), c, plan = sizes.kernel, sizes.p, sizes.outputs, sizes.cg, plan_of(sizes)
    n, t, depth = plan.n, plan.tiles, plan.rows * c
    more = (kh - 1) // plan.rows * plan.rows
    tiles = tiles_in(TILE_BYTES, len(x), oh, more, n * t * (depth + o) * x.itemsize)
    if not tiles:
        return
    most = (tiles[0].z - tiles[0].a) * (tiles[0].j - tiles[0].i + more) * t
    d_memory, m_memory = empty((n * most * depth,), x.dtype), empty((n * most * o,), x.dtype)
    by_group, right = x.reshape(*x.shape[:3], sizes.groups, c), t * plan.m + kw - 1 - left - x.shape[2]
    for g in range(sizes.groups):
        for tile in tiles:
            a, z, i, j = tile
            rows = j - i + more
            xp = bordered(by_group[a:z, :, :, g], i - top, i - top + rows + plan.rows - 1, left, right)
            image, row, pixel, number = xp.strides
            # A view of xp: windows[image, row, tile, k, c] is pixel k of what the tile sees of the row.
            shape = z - a, rows + plan.rows - 1, t, n, c
            windows = np.ndarray(shape, xp.dtype, xp, 0, (image, row, plan.m * pixel, pixel, number))
            d = d_memory[: n * rows * t * (z - a) * depth].reshape(n, rows, t, z - a, depth)
            for u in range(plan.rows):
                there = d[..., u * c : (u + 1) * c].transpose(1, 2, 3, 0, 4)
                np.matmul(plan.bt, windows[:, u : u + rows].transpose(1, 2, 0, 3, 4), out=there)
            yield tile, g, d, m_memory[: n * (j - i) * t * (z - a) * o].reshape(n, -1, o)


def by_bands(d: Array, tile: Tile, sizes: Sizes) -> Iterator[tuple[Array, slice]]:
    """What the tile's outputs see of D[k] with some rows of the kernel, and where these are among kernel_h * c."""
    kh, c, rows = sizes.kernel[0], sizes.cg, plan_of(sizes).rows
    step = d.shape[1] * d.shape[2]
    d = d.reshape(-1, d.shape[3])
    for u in range(0, kh, rows):
        end = min(u + rows, kh)
        yield d[u * step : (u + tile.j - tile.i) * step, : (end - u) * c], slice(u * c, end * c)


def to_outputs(m: Array, y: Array, plan: Plan) -> None:
    """y = A^T M: y (images, rows, columns, o) of a tile."""
    for m_of_tiles, y_of_tiles in tile_by_tile(m, y, plan):
        np.matmul(plan.at[: y_of_tiles.shape[3]], m_of_tiles, out=y_of_tiles)


def from_outputs(dy: Array, dm: Array, plan: Plan) -> None:
    """dM = A dy: dy (images, rows, columns, o) of a tile."""
    a = np.ascontiguousarray(plan.at.T)
    for dm_of_tiles, dy_of_tiles in tile_by_tile(dm, dy, plan):
        np.matmul(a[:, : dy_of_tiles.shape[3]], dy_of_tiles, out=dm_of_tiles)


def tile_by_tile(m: Array, y: Array, plan: Plan) -> Iterator[tuple[Array, Array]]:
    """Views of M and y, (rows, tiles, images, n, o) and (rows, tiles, images, m, o): of whole tiles, then of the rest.

    Images are innermost, as in M, so that M is gone through from its beginning to its end.
    """
    images, rows, _, o = y.shape
    by_tiles = m.reshape(plan.n, rows, plan.tiles, images, o).transpose(1, 2, 3, 0, 4)
    for tiles, columns in whole_and_rest(y.shape[2], plan):
        count = tiles.stop - tiles.start
        yield by_tiles[:, tiles], y[:, :, columns].reshape(images, rows, count, -1, o).transpose(1, 2, 0, 3, 4)


def whole_and_rest(columns: int, plan: Plan) -> list[tuple[slice, slice]]:
    """The tiles of m outputs and their columns; and the last tile, where it has fewer."""
    whole, rest = divmod(columns, plan.m)
    found = [(slice(0, whole), slice(0, columns - rest))] if whole else []
    return [*found, (slice(whole, whole + 1), slice(columns - rest, columns))] if rest else found
