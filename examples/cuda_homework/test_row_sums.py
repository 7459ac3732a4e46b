"""Grades row_sums.cu: in all thread orders, with and without checks, against NumPy."""

from pathlib import Path

import numpy as np
import pytest

from minigrad.cudasim import assert_kernel, empty

KERNEL = Path(__file__).parent / "row_sums.cu"


@pytest.mark.parametrize("rows, columns, threads", [(3, 100, 64), (2, 1000, 256), (1, 5, 32)])
def test_row_sums(rows, columns, threads):
    x = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    assert_kernel(KERNEL, "row_sums", rows, threads, x, empty(rows), columns, expect={"sums": x.sum(axis=1)})
