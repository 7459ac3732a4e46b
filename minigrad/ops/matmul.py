"""Matrix product.

    Y = A B        y_ij = sum_k a_ik b_kj
    dA = dY B^T    dB = A^T dY

a_ik goes into y_ij for every j, times b_kj: so da_ik = sum_j dy_ij b_kj, and db_kj = sum_i a_ik dy_ij likewise.

With more than two axes, the last two are matrices and the others a batch that broadcasts, as in NumPy; a batch axis
along which an operand was repeated is summed in its gradient.  A vector on the left counts as one row, on the right as
one column, and that axis is dropped from the result.

Source: Krizhevsky's layers all end in this product; NumPy, `matmul`, for the rules on axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine import Array, Function
from ..errors import DTypeError, ShapeError
from ..tensor import Tensor, TensorLike, apply, op
from ._gemm import product
from ._mixing import check_broadcast, constant, mixed_dtype, unbroadcast, unbroadcast_gpu


@op
def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """The matrix product a @ b, with NumPy's rules for vectors and batches.

    a: (..., M, K) or (K,); b: (..., K, N) or (K,).  Returns (..., M, N), without M or N where that operand
    is a vector.  Element types mix as in arithmetic.  ShapeError where the K differ or the batch axes do not
    broadcast; DTypeError for booleans.
    """
    if not isinstance(b, Tensor):
        if not isinstance(a, Tensor):
            raise DTypeError(
                f"matmul: one of a, b must be a Tensor, got {a!r:.40}, {b!r:.40}: wrap it in minigrad.Tensor"
            )
        b = constant("matmul", b, a)
    a = a if isinstance(a, Tensor) else constant("matmul", a, b)
    if not a.ndim or not b.ndim:
        raise ShapeError(f"matmul: operands need at least one axis, got {a.shape}, {b.shape}: scale with *")
    k = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != k:
        raise ShapeError(
            f"matmul: {a.shape} @ {b.shape}: a has {a.shape[-1]} columns, b has {k} rows: transpose or reshape one"
        )
    check_broadcast("matmul", a.shape[:-2], b.shape[:-2])
    if a.dtype != b.dtype:
        dtype = mixed_dtype(a.dtype, b.dtype)
        a, b = a.astype(dtype), b.astype(dtype)
    if a.dtype.kind == "b":
        raise DTypeError("matmul: is not defined for bool: convert with .astype first")
    return apply(MatMul(), a, b)


class MatMul(Function):
    # ---- the textbook's face

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return np.matmul(a, b)

    def backward(self, dy: Array) -> Any:
        a, b = _rows(self.a), _columns(self.b)
        dy = _matrices(dy, self.a.shape, self.b.shape)
        da = unbroadcast(np.matmul(dy, b.swapaxes(-1, -2)), a.shape)
        db = unbroadcast(np.matmul(a.swapaxes(-1, -2), dy), b.shape)
        return da.reshape(self.a.shape), db.reshape(self.b.shape)

    # ---- fast, on the CPU: operands as BLAS reads them, and no gradient that nobody asked for

    def forward_cpu(self, a: Array, b: Array) -> Array:
        self.a, self.b = a if self.needs[1] else None, b if self.needs[0] else None
        self.shapes = a.shape, b.shape
        return np.matmul(_for_blas(a), _for_blas(b))

    def backward_cpu(self, dy: Array) -> Any:
        a_shape, b_shape = self.shapes
        dy = _for_blas(_matrices(dy, a_shape, b_shape))
        da = db = None
        if self.needs[0]:
            b, rows = _columns(self.b), (1, *a_shape) if len(a_shape) == 1 else a_shape
            da = unbroadcast(np.matmul(dy, _for_blas(b.swapaxes(-1, -2))), rows).reshape(a_shape)
        if self.needs[1]:
            a, columns = _rows(self.a), (*b_shape, 1) if len(b_shape) == 1 else b_shape
            if len(columns) == 2 and a.ndim > 2:  # one long product instead of a batch of them and their sum
                a, dy = (x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) for x in (a, dy))
            db = unbroadcast(np.matmul(_for_blas(a.swapaxes(-1, -2)), dy), columns).reshape(b_shape)
        return da, db

    # ---- on a card: _gemm.py chooses among the kernels of kernels/gemm.cu

    def forward_gpu(self, a: Array, b: Array) -> Array:
        self.a, self.b = a if self.needs[1] else None, b if self.needs[0] else None
        self.shapes = a.shape, b.shape
        y = product(self.device, _rows(a), _columns(b))
        y = y[..., 0] if b.ndim == 1 else y
        return y if a.ndim > 1 else y[..., 0, :] if b.ndim > 1 else y[..., 0]

    def backward_gpu(self, dy: Array) -> Any:
        a_shape, b_shape = self.shapes
        dy = _matrices(dy, a_shape, b_shape)
        da = db = None
        if self.needs[0]:
            b, rows = _columns(self.b), (1, *a_shape) if len(a_shape) == 1 else a_shape
            da = product(self.device, dy, b.swapaxes(-1, -2))
            da = unbroadcast_gpu(self.device, da, rows).reshape(a_shape)
        if self.needs[1]:
            a, columns = _rows(self.a), (*b_shape, 1) if len(b_shape) == 1 else b_shape
            if len(columns) == 2 and a.ndim > 2:  # one long product, as above
                a, dy = (self.device.reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1])) for x in (a, dy))
            db = product(self.device, a.swapaxes(-1, -2), dy)
            db = unbroadcast_gpu(self.device, db, columns).reshape(b_shape)
        return da, db

    def flops(self, a: Array, b: Array) -> int:
        rows, columns = (a.shape[-2] if a.ndim > 1 else 1), (b.shape[-1] if b.ndim > 1 else 1)
        batch = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
        return 2 * batch * rows * a.shape[-1] * columns


def _for_blas(x: Array) -> Array:
    """x, copied where its matrices are neither row- nor column-major: older NumPy skips BLAS for them."""
    if x.ndim < 2 or x.dtype.kind != "f":
        return x
    steps = x.strides[-2:]
    regular = min(steps) > 0 and x.itemsize in steps
    return x if regular else np.ascontiguousarray(x)


def _rows(a: Array) -> Array:
    """a; a vector as the matrix of one row that it is on the left."""
    return a[None] if a.ndim == 1 else a


def _columns(b: Array) -> Array:
    """b; a vector as the matrix of one column that it is on the right."""
    return b[:, None] if b.ndim == 1 else b


def _matrices(dy: Array, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> Array:
    """dy with the axes that were dropped from the result where a was a vector, one row, or b was, one column."""
    if len(b_shape) == 1:
        dy = dy[..., None]
    return dy[..., None, :] if len(a_shape) == 1 else dy
