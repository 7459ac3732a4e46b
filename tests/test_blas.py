"""blas.add_product, out += a @ b, by BLAS itself and by NumPy."""

import numpy as np
import pytest

from minigrad.processor import blas

M, K, N = 7, 5, 9


def matrix(shape, layout, dtype):
    """A matrix of random numbers that lies in memory in this way."""
    rows, columns = shape
    values = np.random.default_rng(rows).standard_normal(shape).astype(dtype)
    whole = {
        "rows": lambda: np.empty(shape, dtype),
        "columns": lambda: np.empty(shape[::-1], dtype).T,
        "part of rows": lambda: np.empty((rows, columns + 3), dtype)[:, 2 : 2 + columns],
        "part of columns": lambda: np.empty((columns, rows + 3), dtype)[:, 2 : 2 + rows].T,
        "a row each": lambda: np.empty((rows, 4, columns), dtype)[:, 1],
        "every second number": lambda: np.empty((rows, 2 * columns), dtype)[:, ::2],
        "backwards": lambda: np.empty(shape, dtype)[::-1, ::-1],
        "not aligned": lambda: np.empty(rows * columns * values.itemsize + 1, np.uint8)[1:].view(dtype).reshape(shape),
    }[layout]()
    whole[...] = values
    return whole


LAYOUTS = ["rows", "columns", "part of rows", "part of columns", "a row each", "every second number", "backwards",
           "not aligned"]  # fmt: skip


@pytest.mark.parametrize("found", [True, False], ids=["BLAS", "no BLAS"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layouts", [(a, b, out) for a in LAYOUTS for b in LAYOUTS[:4] for out in LAYOUTS])
def test_matrices_of_any_layout(layouts, dtype, found, monkeypatch):
    if not found:
        monkeypatch.setitem(blas._products, np.dtype(dtype).char, None)
    a, b, out = (matrix(shape, layout, dtype) for shape, layout in zip(((M, K), (K, N), (M, N)), layouts))
    exact = out.astype(float) + a.astype(float) @ b.astype(float)
    beside = [whole.base.copy() if whole.base is not None else whole.copy() for whole in (a, b)]
    blas.add_product(a, b, out)
    np.testing.assert_allclose(out, exact, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-6)
    for whole, before in zip((a, b), beside):
        np.testing.assert_array_equal(whole.base if whole.base is not None else whole, before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_overlap_or_begin_at_odd_places(dtype):
    """BLAS takes neither windows of a signal, whose rows overlap, nor rows that are no whole numbers apart."""
    size = np.dtype(dtype).itemsize
    signal = np.random.default_rng(0).standard_normal(M + K).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(signal, K)[:M]
    records = np.zeros(M, [("numbers", dtype, (K,)), ("half", "u1", (size // 2,))])
    records["numbers"] = windows
    b = matrix((K, N), "rows", dtype)
    for a in (windows, records["numbers"]):
        for left, right, shape in ((a, b, (M, N)), (b.T, a.T, (N, M))):
            out = np.zeros(shape, dtype)
            blas.add_product(left, right, out)
            np.testing.assert_allclose(out, np.ascontiguousarray(left) @ np.ascontiguousarray(right), rtol=1e-5)


@pytest.mark.parametrize("m, k, n", [(1, 5, 9), (7, 1, 9), (7, 5, 1), (1, 1, 1), (0, 5, 9), (7, 0, 9), (7, 5, 0)])
def test_rows_columns_and_sums_of_one_and_of_none(m, k, n):
    """NumPy says anything about steps along an axis of one."""
    a, b = np.ones((m, 3, k), "f")[:, 1], np.ones((k, 4, n), "f")[:, 2]
    for left, right in ((a, b), (np.asfortranarray(a), np.asfortranarray(b))):
        out = np.ones((m, 3, n), "f")
        blas.add_product(left, right, out[:, 1])
        assert (out[:, 1] == 1 + k).all() and (out[:, ::2] == 1).all()


def test_it_is_blas_that_is_asked():
    """With the BLAS that NumPy's packages contain, the function is found; and it is asked, not np.matmul."""
    if "openblas" not in str(np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]):
        pytest.skip("this NumPy has another BLAS")
    blas.add_product(*(np.ones((2, 2), "f") for _ in range(3)))
    function = blas._products["f"]
    assert function is not None and "cblas_sgemm" in function.__name__
    nan = np.full((2, 2), np.nan, "f")
    out = np.zeros((2, 2), "f")
    blas.add_product(nan, np.zeros((2, 2), "f"), out)
    assert np.isnan(out).all()
