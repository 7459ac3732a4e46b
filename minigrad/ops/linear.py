"""Linear: the fully connected layer.

    y = x w^T + b                  y[i, o] = b[o] + sum over k of x[i, k] w[o, k]
    dx = dy w,   dw = dy^T x,   db = sum of dy over the rows

Each x[i, k] goes into y[i, o] for every o, times w[o, k]: so dx[i, k] is the sum over o of dy[i, o] w[o, k], a product
of matrices again.  Each w[o, k] meets x[i, k] in every row i, and b[o] is added in every row: their gradients are sums
over i.

w is (out, in), as PyTorch stores it.  BLAS reads a matrix along its rows or along its columns, so w^T is no copy.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5 (fc6, fc7, fc8).
"""

from __future__ import annotations

import math

import numpy as np

from ..device import Device
from ..engine import Array, Function
from ..errors import ShapeError
from ..processor.memory import empty
from ..processor.parallel import split
from ..tensor import Tensor, apply, op
from ._checks import check_floating, check_rank
from ._gemm import column_sums, product
from ._reduction import added_up


@op
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias.

    x: (N, in), or (..., in) with any number of axes before the last.  weight: (out, in).  bias: (out,) or None.
    Returns (N, out) or (..., out).  All float32 or all float64 (DTypeError); ShapeError where the sizes do not fit.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.5.
    """
    check_floating("linear", x=x, weight=weight, bias=bias)
    check_rank("linear", "weight", weight, 2, "(out, in)")
    if x.shape[-1:] != weight.shape[1:]:
        if x.ndim == 0:
            raise ShapeError(
                "linear: x must have at least one axis (..., in), it is 0-d: one row of one is x.reshape(1, 1)"
            )
        raise ShapeError(
            f"linear: x {x.shape} has {x.shape[-1]} features, weight {weight.shape} (out, in) takes "
            f"{weight.shape[1]}: images (N, C, H, W) need .flatten(1) first"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: bias must have shape {weight.shape[:1]} for weight {weight.shape}, got {bias.shape}")
    return apply(Linear(), x, weight) if bias is None else apply(Linear(), x, weight, bias)


class Linear(Function):
    # ---- the textbook's face

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        return x @ w.T if b is None else x @ w.T + b

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, dy = _rows(self.x), _rows(dy)
        dx = (dy @ self.w).reshape(self.x.shape)
        dw = dy.T @ x
        db = added_up(dy, (0,))
        return (dx, dw, db)[: len(self.needs)]  # without a bias there are two inputs

    # ---- fast, on the CPU: products cut for the threads of the device, and no gradient that nobody asked for

    def forward_cpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        wx = _product(self.device, w, _rows(x).T)  # (x w^T)^T: BLAS was measured faster on it, for few rows by far
        y = empty((wx.shape[1], wx.shape[0]), wx.dtype)
        if b is None:
            np.copyto(y, wx.T)
        else:
            np.add(wx.T, b, out=y)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], w.shape[0])

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        needs_x, needs_w, *needs_b = self.needs
        dy = _rows(dy)
        dx = _product(self.device, dy, self.w).reshape(self.x.shape) if needs_x else None
        dw = _product(self.device, dy.T, _rows(self.x)) if needs_w else None
        db = [added_up(dy, (0,)) if needed else None for needed in needs_b]
        return dx, dw, *db

    # ---- on a card: _gemm.py chooses among the kernels of kernels/gemm.cu, which read w in either direction

    def forward_gpu(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.x, self.w = x, w
        y = product(self.device, self._rows(x), w.T, b)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], w.shape[0])

    def backward_gpu(self, dy: Array) -> tuple[Array | None, ...]:
        needs_x, needs_w, *needs_b = self.needs
        dy = self._rows(dy)
        dx = product(self.device, dy, self.w).reshape(self.x.shape) if needs_x else None
        dw = product(self.device, dy.T, self._rows(self.x)) if needs_w else None
        db = [column_sums(self.device, dy) if needed else None for needed in needs_b]
        return dx, dw, *db

    def _rows(self, x: Array) -> Array:
        """As the function _rows, on a card; a copy where the memory of x does not allow a view."""
        return x if x.ndim == 2 else self.device.reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))

    def flops(self, x: Array, w: Array, b: Array | None = None) -> int:
        return 2 * x.size * len(w)


def _rows(x: Array) -> Array:
    """(..., F) as a matrix (rows, F); a view where the memory of x allows it."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


SMALL = 3 << 20  # multiply-adds below which a second thread costs more than it saves (measured)


def _product(device: Device, a: Array, b: Array) -> Array:
    """The matrix product a b, a fresh C-contiguous array; a large one on all threads of the device.

    It is cut along the longer axis of the result, one piece for each thread: no thread waits for a sum, and the bits
    depend on nothing but the shapes and the thread count.  Of w, up to 150 MB in AlexNet, each thread reads its half:
    with a small batch, reading w is what the time goes into.
    """
    a, b = _blas_ready(a), _blas_ready(b)
    (m, k), n = a.shape, b.shape[1]
    if m * n * k < SMALL or min(m, n) == 1:  # BLAS has its own threads for a vector, and they are awake sooner
        return np.matmul(a, b)
    y = empty((m, n), a.dtype)
    if n >= m:
        split(device, n, lambda i, j: np.matmul(a, b[:, i:j], out=y[:, i:j]), at_least=1 + SMALL // (m * k))
    else:
        split(device, m, lambda i, j: np.matmul(a[i:j], b, out=y[i:j]), at_least=1 + SMALL // (n * k))
    return y


def _blas_ready(a: Array) -> Array:
    """`a`, or a copy of it where BLAS could not read its memory (NumPy would fall back to a slow loop)."""
    return a if a.flags.c_contiguous or a.flags.f_contiguous else np.ascontiguousarray(a)
