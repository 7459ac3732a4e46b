"""How cuBLAS is told of matrices: it counts columns first, and reads its factors 1 and 0 from the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import KernelError

Array = Any  # cupy.ndarray

_ONE_ZERO = [np.array([1, 0], dtype) for dtype in (np.float32, np.float64)]
FACTORS = {pair.dtype: (pair.ctypes.data, pair.ctypes.data + pair.itemsize) for pair in _ONE_ZERO}  # their addresses


def as_columns(what: Callable[[], str], matrix: Array, cublas: Any) -> tuple[int, int]:
    """How cuBLAS finds the transpose of a row-major matrix: as it lies, or transposed; and the leading dimension."""
    rows, columns = matrix.shape
    if matrix.flags.c_contiguous:
        return cublas.CUBLAS_OP_N, columns
    if matrix.flags.f_contiguous:
        return cublas.CUBLAS_OP_T, rows
    raise KernelError(f"{what()}: {matrix.shape} with strides {matrix.strides} is neither contiguous nor transposed so")
