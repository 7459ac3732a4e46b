"""What the kernels of this folder should leave."""
# ruff: noqa: N803 (the names are those of the kernels' parameters)

import numpy as np


def reduce_sum(**a):
    x = a["in"].astype(np.float64)
    x = np.pad(x, (0, -len(x) % 768)).reshape(-1, 3, 256)
    return x.sum((0, 2))


def exclusive_scan(g_idata, n):
    x = np.pad(g_idata, (0, -n % 128)).reshape(-1, 128)
    sums = np.cumsum(x, 1)
    return {"g_odata": (sums - x).reshape(-1)[:n], "block_sums": sums[:, -1]}


def kogge_stone(X):
    return np.concatenate([np.maximum.accumulate(X[:128]), np.maximum.accumulate(X[128:])])


def histogram(image, width, height):
    return np.bincount(image[:height, :width].reshape(-1) >> 2, minlength=64)


def transpose(idata):
    return idata.T


def stencil_2d(**a):
    x, coefficients = np.pad(a["in"], 2), [1, 2, -4, 8, 3]
    out = coefficients[2] * x[2:-2, 2:-2]
    for d in (-2, -1, 1, 2):
        out = out + coefficients[2 + d] * (x[2 + d : 32 + d, 2:-2] + x[2:-2, 2 + d : 32 + d])
    return out


def life(cells):
    count = sum(np.roll(cells, (y, x), (0, 1)).astype(int) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0))
    return (count == 3) | ((count == 2) & cells)


def bitonic_sort(d_Key, d_Val):
    order = np.argsort(d_Key.reshape(2, 256), 1, kind="stable") + [[0], [256]]
    return {"d_Key": d_Key[order].reshape(-1), "d_Val": d_Val[order].reshape(-1)}


def radix_pass(iter, **a):
    blocks = a["in"].reshape(2, 256)
    return np.stack([block[np.argsort(block >> iter & 1, kind="stable")] for block in blocks])


def merge_path(A, B):
    return np.sort(np.concatenate([A, B]))


def spmv_csr(row_ptr, col_idx, values, x):
    products = values.astype(np.float64) * x[col_idx]
    return [products[a:b].sum() for a, b in zip(row_ptr, row_ptr[1:])]


def bfs_step(level):
    level[3:13] = 1
    return {"level": level, "numCurrent": [10]}


def tiled_gemm(M, N):
    return {"P": M.astype(np.float64) @ N}


def double_buffered_gemm(a, b, c, alpha, beta):
    return {"a": a, "b": b, "c": alpha * (a.astype(np.float64) @ b) + beta * c}


def gemv(A, x):
    return (A.astype(np.float32) @ x.astype(np.float32)).astype(np.float16)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def layernorm(inp, weight, bias):
    mean, var = inp.mean(1, keepdims=True, dtype=np.float64), inp.var(1, keepdims=True, dtype=np.float64)
    rstd = 1 / np.sqrt(var + 1e-5)
    return {"out": (inp - mean) * rstd * weight + bias, "mean": mean, "rstd": rstd}


def attention(Q, K, V, scale):
    scores = np.where(np.tri(len(Q), dtype=bool), Q.astype(np.float64) @ K.T * scale, -np.inf)
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True) @ V


def convolution(N, width, height):
    x, filters = np.pad(N.astype(np.float64), ((0, 0), (1, 1), (1, 1))), [[1, 2, 3], [-4, 5, 6], [7, 8, -9]]
    return sum(filters[i][j] * x[:, i : i + height, j : j + width] for i in range(3) for j in range(3))


def max_pool(x):
    y, argmax = np.empty((5, 4), x.dtype), np.empty((5, 4), np.int32)
    for i in range(5):
        for j in range(4):
            window = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            r, c = np.unravel_index(window.argmax(), window.shape)
            y[i, j], argmax[i, j] = window.max(), (2 * i + r) * 8 + 2 * j + c
    return {"y": y, "argmax": argmax}


def compact(n, **a):
    x = a["in"][a["in"] > 0]
    return {"out": np.pad(x, (0, n - len(x))), "nres": [len(x)]}


def dot_product(a, b):
    return [(a * b).sum()]


def nbody(devX):
    x, mass = devX[:, :3].astype(np.float64), devX[:, 3].astype(np.float64)
    r = x[None] - x[:, None]
    s = mass / ((r**2).sum(2) + 0.01) ** 1.5
    return np.concatenate([(r * s[..., None]).sum(1), np.zeros((len(x), 1))], 1)


def last_block_sum(array):
    sums = np.pad(array.astype(np.float64), (0, 6)).reshape(4, 64).sum(1)
    return [sums.sum(), *sums[1:]]


def monte_carlo(samples):
    with np.errstate(over="ignore"):
        state = np.arange(128, dtype=np.uint32) * np.uint32(747796405) + np.uint32(2891336453)

        def draw():
            nonlocal state
            state = state * np.uint32(747796405) + np.uint32(2891336453)
            word = ((state >> ((state >> np.uint32(28)) + np.uint32(4))) ^ state) * np.uint32(277803737)
            return ((word >> np.uint32(22)) ^ word).astype(np.float32) * np.float32(2.3283064e-10)

        hits = 0
        for _ in range(samples):
            x, y = draw(), draw()
            hits += np.count_nonzero(x * x + y * y <= 1)
    return [hits]
