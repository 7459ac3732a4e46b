"""allow_tf32: convolutions and products by matrix units, on the emulator, beside a model of exact rounding in NumPy.

The model rounds the factors to 10 bits of mantissa and multiplies them in float64, so nothing but the float32 sums of
the kernel differs from it.
"""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor
from minigrad.cudasim import compiler
from minigrad.cudasim.settings import ORDERS, options
from minigrad.gpu.cases.case import as_tf32
from minigrad.ops import _gemm, conv2d

pytestmark = [
    pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available())),
    pytest.mark.cpu_only("brings its devices along"),
]
CARD = "cudasim:0"
SUMMED = 2e-6  # what float32 sums may differ from float64's, times the largest


@pytest.fixture(autouse=True)
def allowed():
    minigrad.allow_tf32(True)
    yield
    minigrad.allow_tf32(False)


def randoms(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype("f") for shape in shapes]


def assert_is_rounded(result, model, exact):
    """Close to the model of rounded factors, and further than that from the exact product."""
    assert result.dtype == np.float32 and result.shape == model.shape
    largest = np.abs(model).max()
    assert np.abs(result - model).max() <= SUMMED * largest
    assert np.abs(result - exact).max() > 20 * SUMMED * largest


def convolved(device, x, w, b, dy, dtype=None, **settings):
    """y, dx, dw and db as NumPy arrays."""
    x, w, b = (Tensor(array, True, device, dtype) for array in (x, w, b))
    y = F.conv2d(x, w, b, **settings)
    y.backward(Tensor(dy, device=device, dtype=dtype))
    return y.numpy(), x.grad.numpy(), w.grad.numpy(), b.grad.numpy()


def model(x, w, b, dy, rounded=as_tf32, **settings):
    """The same in float64, each product of rounded factors."""
    y = convolved("cpu:0", rounded(x), rounded(w), b, dy, "float64", **settings)[0]
    _, dx, dw, _ = convolved("cpu:0", rounded(x), rounded(w), b, rounded(dy), "float64", **settings)
    return y, dx, dw, dy.astype("d").sum((0, 2, 3))


CONVOLUTIONS = {  # x, w, settings; all with remainders along rows, columns and depth of whatever tile
    "plain": ((2, 5, 13, 11), (35, 5, 3, 3), {"padding": 1}),
    "stride, dilation": ((3, 4, 17, 19), (37, 4, 3, 2), {"stride": (2, 3), "dilation": (2, 1), "padding": (2, 1)}),
    "groups": ((2, 6, 12, 13), (70, 3, 5, 5), {"groups": 2, "padding": 2}),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_and_its_gradients(name):
    x_shape, w_shape, settings = CONVOLUTIONS[name]
    y_shape = F.conv2d(*(Tensor(np.zeros(shape, "f")) for shape in (x_shape, w_shape)), **settings).shape
    arrays = randoms(x_shape, w_shape, w_shape[:1], y_shape)
    results = convolved(CARD, *arrays, **settings)
    for result, rounded, exact in zip(results[:3], model(*arrays, **settings), model(*arrays, lambda x: x, **settings)):
        if name == "one pixel":
            np.testing.assert_allclose(result, rounded, rtol=1e-6)
        else:
            assert_is_rounded(result, rounded, exact)
    np.testing.assert_allclose(results[3], arrays[3].astype("d").sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", conv2d.TILE_ROWS[4])
def test_every_size_of_a_tile(rows, monkeypatch):
    """Rows beyond one tile, sums in one part and in three."""
    arrays = randoms((2, 5, 9, 10), (rows + 19, 5, 3, 3), (rows + 19,), (2, rows + 19, 9, 10))
    expected, exact = model(*arrays, padding=1), model(*arrays, lambda x: x, padding=1)
    for parts in (1, 3):
        monkeypatch.setattr(conv2d, "cut", lambda r, c, depth, *_, n=parts: (rows, n, -(-depth // (16 * n)) * 16))
        for result, rounded, true in zip(convolved(CARD, *arrays, padding=1)[:3], expected, exact):
            assert_is_rounded(result, rounded, true)


SHARED_OUT = (48, 128)  # rows of a tile that 8 warps share as 1 x 8, and as 2 x 4


@pytest.mark.parametrize("rows", SHARED_OUT)
def test_no_report_and_the_same_bits_in_every_order(rows, monkeypatch):
    monkeypatch.setattr(conv2d, "cut", lambda r, c, depth, *_: (rows, 1, depth))
    arrays = randoms((1, 3, 6, 7), (rows + 3, 3, 3, 3), (rows + 3,), (1, rows + 3, 6, 7))
    seen = set()
    for order in ORDERS:
        with options(mode="check", order=order):
            seen.add(b"".join(array.tobytes() for array in convolved(CARD, *arrays, padding=1)))
    assert len(seen) == 1


@pytest.mark.parametrize("rows", SHARED_OUT)
def test_factors_are_read_without_bank_conflicts(rows, monkeypatch):
    monkeypatch.setattr(conv2d, "cut", lambda r, c, depth, *_: (rows, 1, depth))
    with options(mode="check", counters=True):
        x, w = (Tensor(array, device=CARD) for array in randoms((1, 8, 12, 12), (rows, 8, 3, 3)))
        modules = [module for module in x.device.runtime.modules() if module.mode == "check"]
        for module in modules:
            module.counters().reset()
        F.conv2d(x, w)
        modules = [module for module in x.device.runtime.modules() if module.mode == "check"]
        read = [
            row
            for module in modules
            for row in module.counters().rows
            if row.file == "kernels/tile_product_tf32.cuh" and row.operation == "load"
        ]
    assert {row.size for row in read} == {4, 8}
    assert all(row.units == row.ideal for row in read), read


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("sizes", [(70, 45, 150), (33, 600, 40), (9, 17, 9)])
def test_a_matrix_product(sizes, turned):
    m, k, n = sizes
    a, b = randoms((2, m, k), (2, k, n))
    on_card = [Tensor(np.ascontiguousarray(array.swapaxes(1, 2)), device=CARD) for array in (a, b)]
    tensors = [
        on_card[i].transpose(0, 2, 1) if "ab"[i] in turned else Tensor(array, device=CARD)
        for i, array in enumerate((a, b))
    ]
    result = F.matmul(*tensors).numpy()
    assert_is_rounded(result, as_tf32(a).astype("d") @ as_tf32(b), a.astype("d") @ b)


def test_a_linear_layer_and_its_gradients():
    x, w, b, dy = randoms((35, 50), (41, 50), (41,), (35, 41))
    tensors = [Tensor(array, True, CARD) for array in (x, w, b)]
    y = F.linear(*tensors)
    y.backward(Tensor(dy, device=CARD))
    rx, rw, rdy = (as_tf32(array).astype("d") for array in (x, w, dy))
    x, w, dy = (array.astype("d") for array in (x, w, dy))
    assert_is_rounded(y.numpy(), rx @ rw.T + b, x @ w.T + b)
    assert_is_rounded(tensors[0].grad.numpy(), rdy @ rw, dy @ w)
    assert_is_rounded(tensors[1].grad.numpy(), rdy.T @ rx, dy.T @ x)
    np.testing.assert_allclose(tensors[2].grad.numpy(), dy.sum(0), rtol=1e-5, atol=1e-5)


def test_only_float32_is_rounded_and_only_where_it_is_allowed_and_there_are_units(monkeypatch):
    a, b = randoms((40, 30), (30, 50))

    def product(dtype):
        return F.matmul(*(Tensor(array, device=CARD, dtype=dtype) for array in (a, b))).numpy()

    exact = a.astype("d") @ b
    np.testing.assert_allclose(product("float64"), exact, rtol=1e-12, atol=1e-12)
    whole = [np.arange(1, 1 + 9 * 9, dtype="i").reshape(9, 9) * 8191] * 2
    np.testing.assert_array_equal(F.matmul(*(Tensor(x, device=CARD) for x in whole)).numpy(), whole[0] @ whole[1])
    assert np.abs(product("float32") - exact).max() > 1e-4
    device = minigrad.device(CARD)
    assert _gemm.tf32_option(device, np.dtype("f")) == {"TF32": 1} and device.has_matrix_units
    monkeypatch.setattr(type(device.runtime), "has_matrix_units", False)
    np.testing.assert_allclose(product("float32"), exact, atol=1e-5)
    monkeypatch.undo()
    minigrad.allow_tf32(False)
    np.testing.assert_allclose(product("float32"), exact, atol=1e-5)


def test_few_rows_stay_float32():
    """They wait for memory, and gain nothing by matrix units."""
    a, b = randoms((8, 300), (300, 50))
    np.testing.assert_allclose(
        F.matmul(Tensor(a, device=CARD), Tensor(b, device=CARD)).numpy(), a.astype("d") @ b, atol=2e-5
    )


def test_nan_and_infinity_come_through():
    x, w = randoms((1, 3, 6, 6), (5, 3, 3, 3))
    x[0, 1, 2, 3], x[0, 0, 5, 5], x[0, 2, 0, 0] = np.nan, np.inf, np.float32(3.4e38)
    result = F.conv2d(Tensor(x, device=CARD), Tensor(w, device=CARD), padding=1).numpy()
    with np.errstate(all="ignore"):
        expected = F.conv2d(Tensor(as_tf32(x)), Tensor(as_tf32(w)), padding=1).numpy()
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))
