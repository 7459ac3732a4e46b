"""Matrix products on a graphics card: every kernel against NumPy, edges of tiles, strides, pieces of sums, cuBLAS."""

import os

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, gpu
from minigrad.cudasim import compiler, settings
from minigrad.ops import _gemm

TEST_DEVICE = os.environ.get("MINIGRAD_TEST_DEVICE", "cpu:0")
CARD = TEST_DEVICE if TEST_DEVICE.startswith("cud") else "cudasim:0"  # there is nothing here for the processor

pytestmark = pytest.mark.skipif(
    CARD.startswith("cudasim") and compiler.available() is not None, reason=str(compiler.available())
)


@pytest.fixture
def card():
    return minigrad.device(CARD)


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch):
    monkeypatch.setattr(_gemm, "_gemm", "minigrad")
    monkeypatch.setattr(_gemm, "_tf32", False)


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def as_it_is(card, values):
    return card.upload(values)


def transposed(card, values):
    return card.upload(np.ascontiguousarray(values.swapaxes(-1, -2))).swapaxes(-1, -2)


def amid_nans(card, values):
    """A view with gaps, in memory where all else is NaN: whatever reads beyond its edges shows."""
    *batch, m, n = values.shape
    around = np.full((*batch, m + 3, 2 * n + 5), np.nan, values.dtype)
    around[..., 1 : m + 1, 2 : 2 * n + 2 : 2] = values
    return card.upload(around)[..., 1 : m + 1, 2 : 2 * n + 2 : 2]


def backwards(card, values):
    return card.upload(np.ascontiguousarray(values[..., ::-1, ::-1]))[..., ::-1, ::-1]


TILES_AND_TYPES = [(dtype, n) for dtype in ("float32", "float64") for n in _gemm.TILES[np.dtype(dtype).itemsize]]
MEMORY = (as_it_is, transposed, amid_nans, backwards)
SHAPES = [  # M, K, N
    (64, 16, 64),
    (65, 17, 66),
    (130, 67, 75),
    (9, 3, 131),
    (131, 1, 9),
    (65, 31, 66),
    (3, 31, 37),
    (3, 1039, 300),
    (70, 1060, 67),  # in pieces, the last one shorter
    (1, 1, 1),
    (1, 70, 1),
    (3, 300, 37),
    (8, 257, 65),
    (37, 300, 3),
    (65, 257, 8),
    (2, 2000, 33),
    (33, 2000, 2),
    (1, 5000, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lies", MEMORY)
def test_every_shape_and_memory_order(card, shape, lies):
    m, k, n = shape
    a, b, bias = normal(m, k), normal(k, n, seed=1), normal(n, seed=2)
    for other in (as_it_is, transposed, lies):
        for x, y in ((lies(card, a), other(card, b)), (other(card, a), lies(card, b))):
            np.testing.assert_allclose(_gemm.product(card, x, y).get(), a @ b, rtol=1e-11, atol=1e-11)
    c = _gemm.product(card, lies(card, a), lies(card, b), card.upload(bias))
    assert c.flags.c_contiguous and c.dtype == np.float64
    np.testing.assert_allclose(c.get(), a @ b + bias, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype, tile", TILES_AND_TYPES)
@pytest.mark.parametrize("lies", MEMORY)
def test_every_height_of_a_tile(card, dtype, tile, lies, monkeypatch):
    """More than one tile and a remainder along m, n and k, in one part and in more."""
    m, k, n = tile + 3, 75, 131
    a, b, bias = normal(m, k, dtype=dtype), normal(k, n, seed=1, dtype=dtype), normal(n, seed=2, dtype=dtype)
    for part in (128, 48):
        monkeypatch.setattr(_gemm, "cut", lambda m, n, k, *_, part=part: (tile, -(-k // part), part))
        for x, y in ((lies(card, a), as_it_is(card, b)), (as_it_is(card, a), lies(card, b))):
            c = _gemm.product(card, x, y, card.upload(bias)).get()
            np.testing.assert_allclose(c, a.astype("d") @ b + bias, atol=1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_is_as_good_as_sums_of_that_length_can_be(card, shape):
    m, k, n = shape
    a, b, bias = normal(m, k, dtype="float32"), normal(k, n, seed=1, dtype="float32"), normal(n, dtype="float32")
    c = _gemm.product(card, as_it_is(card, a), transposed(card, b), card.upload(bias)).get()
    exact = a.astype(np.float64) @ b.astype(np.float64) + bias
    bound = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + np.abs(bias)
    assert np.all(np.abs(c - exact) <= 2 * np.sqrt(k + 1) * np.finfo(np.float32).eps * bound)


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 3), (2, 3)), ((2, 1), (1, 3)), ((3,), (2, 1)), ((), (2, 3)), ((2, 3), ()), ((5, 2, 1, 3), (2, 4, 1))],
)
@pytest.mark.parametrize("lies", [as_it_is, transposed])
@pytest.mark.parametrize("shape", [(67, 18, 70), (3, 18, 70), (70, 18, 3)])
def test_batches_broadcast(card, first, second, lies, shape):
    m, k, n = shape
    a, b, bias = normal(*first, m, k), normal(*second, k, n, seed=1), normal(n)
    c = _gemm.product(card, lies(card, a), lies(card, b), card.upload(bias))
    assert c.flags.c_contiguous
    np.testing.assert_allclose(c.get(), a @ b + bias, rtol=1e-11, atol=1e-11)


def test_batches_of_long_sums_are_cut_too(card):
    a, b = normal(3, 4, 1100), normal(3, 1100, 5, seed=1)
    np.testing.assert_allclose(
        _gemm.product(card, as_it_is(card, a), as_it_is(card, b)).get(), a @ b, rtol=1e-11, atol=1e-11
    )


def test_more_batch_axes_than_a_layout_has(card):
    order = (6, 3, 1, 5, 0, 4, 2, 7, 8)
    a = card.upload(normal(2, 3, 2, 3, 2, 3, 2, 2, 3)).transpose(*order)
    b = card.upload(normal(3, 2, seed=1))
    np.testing.assert_allclose(_gemm.product(card, a, b).get(), a.get() @ b.get(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(65, 33, 66), (2, 600, 33), (33, 1030, 2)])
def test_integers_wrap_around(card, dtype, shape):
    m, k, n = shape
    limits = np.iinfo(dtype)
    draw = np.random.default_rng(3).integers
    a, b = (draw(limits.min, limits.max, size, dtype, endpoint=True) for size in ((m, k), (k, n)))
    c = _gemm.product(card, as_it_is(card, a), transposed(card, b))
    assert c.dtype == dtype
    np.testing.assert_array_equal(c.get(), a @ b)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (30, 0, 40), (3, 4, 0), (0, 0, 0)])
def test_nothing_to_multiply(card, shape):
    m, k, n = shape
    a, b = card.upload(normal(m, k)), card.upload(normal(k, n))
    np.testing.assert_array_equal(_gemm.product(card, a, b).get(), np.zeros((m, n)))
    bias = normal(n)
    np.testing.assert_array_equal(_gemm.product(card, a, b, card.upload(bias)).get(), np.broadcast_to(bias, (m, n)))


@pytest.mark.parametrize("shape", [(66, 70, 65), (3, 70, 65), (65, 70, 3)])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_go_where_numpy_says(card, shape, special):
    m, k, n = shape
    a, b = normal(m, k), normal(k, n)
    a[m - 1, k - 1] = special
    b[k - 1, 0], b[0, n - 1] = 0, special
    with np.errstate(invalid="ignore"):
        expected = a @ b
    assert not np.isfinite(expected).all()
    for lies in (as_it_is, transposed):
        c = _gemm.product(card, lies(card, a), lies(card, b)).get()
        np.testing.assert_allclose(c, expected, rtol=1e-11, atol=1e-11)


def test_the_same_bits_every_time_and_in_every_order_of_threads(card):
    a, b = normal(70, 1100, dtype="float32"), normal(1100, 67, dtype="float32")
    few = normal(3, 1100, dtype="float32")
    x, y, rows = (card.upload(v) for v in (a, b, few))

    def results():
        products = [_gemm.product(card, *factors).get() for factors in ((x, y), (rows, y), (y.T, x.T), (y.T, rows.T))]
        return [*products, _gemm.column_sums(card, x).get()]

    first = results()
    for order in ("forward", "reversed", "random"):
        with settings.options(order=order):
            for one, other in zip(first, results()):
                np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- sums of columns


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (9, 33), (130, 65), (1100, 3), (3000, 70)], ids=str)
@pytest.mark.parametrize("lies", MEMORY)
def test_sums_of_columns(card, shape, lies):
    x = normal(*shape)
    y = _gemm.column_sums(card, lies(card, x))
    assert y.shape == shape[1:]
    np.testing.assert_allclose(y.get(), x.sum(0), rtol=1e-12, atol=1e-12)


def test_sums_of_no_rows_and_no_columns(card):
    np.testing.assert_array_equal(_gemm.column_sums(card, card.upload(normal(0, 4))).get(), np.zeros(4))
    assert _gemm.column_sums(card, card.upload(normal(4, 0))).get().shape == (0,)


def test_a_nan_stays_in_its_column(card):
    x = normal(700, 40)
    x[650, 33] = np.nan
    y = _gemm.column_sums(card, card.upload(x)).get()
    assert np.flatnonzero(np.isnan(y)).tolist() == [33]


# ---------------------------------------------------------------- which kernel


@pytest.fixture
def launches(monkeypatch):
    """(kernel, grid) of every launch of gemm.cu, that of tiles with their rows; nothing is run."""
    seen = []

    def launch(device, file, kernel, grid, *args, **types):
        if file == "gemm":
            seen.append((" ".join(map(str, (kernel, *([types["TILE_ROWS"]] if "TILE_ROWS" in types else [])))), grid))

    monkeypatch.setattr(gpu.Card, "launch", launch)
    return seen


@pytest.mark.parametrize(
    ("shape", "orders", "expected"),
    [
        ((128, 9216, 4096), "nt", [("gemm_tiles 128", (32, 8)), ("column_sums", (16384, 1))]),  # y of fc6
        ((128, 4096, 9216), "nn", [("gemm_tiles 128", (72, 7)), ("column_sums", (36864, 1))]),  # its dx
        ((4096, 128, 9216), "tn", [("gemm_tiles 128", (2304, 1))]),  # its dw
        ((1, 9216, 4096), "nt", [("gemm_skinny_k", (512, 1))]),  # y of fc6, batch 1
        ((1, 4096, 9216), "nn", [("gemm_skinny_n", (288, 1))]),  # its dx
        ((4096, 1, 9216), "tn", [("gemm_tiles 128", (2304, 1))]),  # its dw
        ((4096, 9216, 1), "nn", [("gemm_skinny_k", (512, 1))]),  # a matrix and a vector: w x
        ((9216, 4096, 1), "tn", [("gemm_skinny_n", (288, 1))]),  # w^T dy
        ((8, 100, 9), "nn", [("gemm_skinny_n", (1, 1))]),
        ((9, 100, 9), "nn", [("gemm_tiles 32", (1, 1))]),
        ((8, 100, 8), "nn", [("gemm_skinny_k", (1, 1))]),  # 8 columns fill no warp
        ((1, 1000000, 1), "nn", [("gemm_skinny_k", (1, 256)), ("column_sums", (1, 1))]),
        ((70, 255, 70), "nn", [("gemm_tiles 32", (3, 1))]),
        ((70, 1023, 70), "nn", [("gemm_tiles 32", (3, 7)), ("column_sums", (154, 1))]),
        ((1000, 128, 4096), "nn", [("gemm_tiles 128", (256, 1))]),
    ],
    ids=str,
)
def test_the_choice_of_kernel(card, launches, shape, orders, expected):
    m, k, n = shape
    with settings.options(poison=False):
        a = card.empty((m, k), "float32") if orders[0] == "n" else card.empty((k, m), "float32").T
        b = card.empty((k, n), "float32") if orders[1] == "n" else card.empty((n, k), "float32").T
        assert _gemm.product(card, a, b).shape == (m, n)
    assert launches == expected


def test_a_batch_times_one_matrix_is_one_product(card, launches):
    a, b = card.empty((5, 7, 20), "float32"), card.empty((20, 30), "float32")
    assert _gemm.product(card, a, b).shape == (5, 7, 30)
    assert launches == [("gemm_tiles 32", (2, 1))]


@pytest.mark.parametrize("blocks", [1, 2, 3, 100, 255, 256, 257, 10**6])
@pytest.mark.parametrize("terms", [1, 15, 511, 512, 1023, 1024, 1025, 5000, 2**31 + 5, 2**40])
def test_parts_cover_the_sum(blocks, terms):
    parts, part = _gemm._parts(blocks, terms)
    assert (parts - 1) * part < terms <= parts * part
    assert parts == 1 or (parts * blocks <= _gemm.ENOUGH_BLOCKS and part >= _gemm.LEAST_PART)


# ---------------------------------------------------------------- memory traffic


def traffic(work):
    """What the emulator counted in gemm.cu and what it includes while work(card) ran on cudasim:0, line by line."""
    card = minigrad.device("cudasim:0")
    with settings.options(mode="check", counters=True):
        for module in card.runtime.modules():
            if module.mode == "check":
                module.counters().reset()
        work(card)
        counted = [m.counters().rows for m in card.runtime.modules() if m.mode == "check"]
    files = "gemm.cu", "tile_product.cuh", "instructions.cuh"
    return [row for rows in counted for row in rows if row.file.endswith(files)]


@pytest.mark.parametrize("dtype, tile", TILES_AND_TYPES)
@pytest.mark.parametrize("first", [as_it_is, transposed])
@pytest.mark.parametrize("second", [as_it_is, transposed])
def test_tiles_move_whole_sectors_without_bank_conflicts(dtype, tile, first, second, monkeypatch):
    monkeypatch.setattr(_gemm, "cut", lambda m, n, k, *_: (tile, 1, k))
    a, b = normal(128, 32, dtype=dtype), normal(32, 64, dtype=dtype)
    rows = traffic(lambda card: _gemm.product(card, first(card, a), second(card, b)))
    kinds = {(row.memory, row.operation) for row in rows}
    assert kinds == {("global", "load"), ("global", "store"), ("shared", "load"), ("shared", "store")}
    assert [row for row in rows if row.units != row.ideal] == []
    loads = [row.accesses for row in rows if (row.memory, row.operation) == ("global", "load")]
    assert (
        sum(loads) == a.size + 128 // tile * b.size
    )  # a once for every 128 columns of c, b once for every tile's rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("second", [as_it_is, transposed])
def test_few_rows_read_each_weight_once(dtype, second):
    a, b = normal(3, 512, dtype=dtype), normal(512, 64, dtype=dtype)
    rows = traffic(lambda card: _gemm.product(card, as_it_is(card, a), second(card, b)))
    loads = [row for row in rows if row.operation == "load"]
    assert [row for row in rows if row.units != row.ideal and (row.memory, row.operation) != ("global", "store")] == []
    assert b.size in [row.accesses for row in loads if row.memory == "global"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_columns_read_whole_sectors(dtype):
    x = normal(70, 64, dtype=dtype)
    rows = traffic(lambda card: _gemm.column_sums(card, as_it_is(card, x)))
    assert [row for row in rows if row.units != row.ideal] == []
    assert x.size in [row.accesses for row in rows if (row.memory, row.operation) == ("global", "load")]


# ---------------------------------------------------------------- large tensors


@pytest.mark.parametrize("rows", [2, 9])
def test_steps_beyond_32_bits(card, rows):
    """Rows that lie more than 2^31 elements from the first: an int would wrap around."""
    step = 2**31 // (rows - 1) + 3
    a, b, dy = normal(rows, 5, dtype="float32"), normal(5, 40, dtype="float32"), normal(33, rows, dtype="float32")
    with settings.options(poison=False):  # pages that nobody touches take no memory
        try:
            memory = card.empty((rows, step), "float32")
        except (MemoryError, OSError, minigrad.DeviceError) as error:
            pytest.skip(f"no room for the addresses: {error}")
        x = memory[:, step - 5 :]
        card.assign(x, card.upload(a))
        products = [
            (_gemm.product(card, x, card.upload(b)), a @ b),
            (_gemm.product(card, card.upload(b.T), x.T), b.T @ a.T),
            (_gemm.product(card, card.upload(dy), x), dy @ a),
            (_gemm.product(card, card.upload(dy[:3]), x), dy[:3] @ a),
            (_gemm.product(card, x[:, None], card.upload(b)[None]), a[:, None] @ b),
            (_gemm.column_sums(card, x), a.sum(0)),
        ]
    for ours, expected in products:
        np.testing.assert_allclose(ours.get(), expected, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- settings, cuBLAS


class CublasStandIn:
    """gemm of the CUDA runtime, by way of our kernels; notes what it was given."""

    def __init__(self, card):
        self.card, self.calls = card, []

    def __call__(self, a, b, out, tf32):
        assert all(x.flags.c_contiguous or x.flags.f_contiguous for x in (a, b)) and out.flags.c_contiguous
        self.calls.append((a.shape, b.shape, tf32))
        self.card.assign(out, self.card.upload(a.get() @ b.get()))


@pytest.fixture
def cublas(monkeypatch):
    """cudasim:0 as if it were a real card with cuBLAS."""
    card = minigrad.device("cudasim:0")
    stand_in = CublasStandIn(card)
    monkeypatch.setattr(card, "kind", "cuda")
    monkeypatch.setattr(card.runtime, "gemm", stand_in, raising=False)
    minigrad.set_gemm("cublas")
    return stand_in


@pytest.mark.parametrize("lies", MEMORY)
def test_cublas_where_it_is_chosen(cublas, lies):
    a, b, bias = normal(70, 33), normal(33, 5), normal(5)
    arrays = lies(cublas.card, a), lies(cublas.card, b), cublas.card.upload(bias)
    np.testing.assert_allclose(_gemm.product(cublas.card, *arrays).get(), a @ b + bias, rtol=1e-12)
    assert cublas.calls == [((70, 33), (33, 5), False)]
    minigrad.allow_tf32(True)
    _gemm.product(cublas.card, *arrays[:2])
    assert minigrad.tf32_allowed() and cublas.calls[1:] == [((70, 33), (33, 5), True)]
    minigrad.set_gemm("minigrad")
    np.testing.assert_allclose(_gemm.product(cublas.card, *arrays).get(), a @ b + bias, rtol=1e-12)
    assert minigrad.gemm_in_use() == "minigrad" and len(cublas.calls) == 2


def test_what_cublas_does_not_do(cublas):
    batch = cublas.card.upload(normal(2, 3, 4))
    integers = cublas.card.upload(np.ones((3, 3), np.int32))
    empty = cublas.card.upload(np.ones((3, 0)))
    _gemm.product(cublas.card, batch, batch.swapaxes(-1, -2))
    _gemm.product(cublas.card, integers, integers)
    _gemm.product(cublas.card, empty, empty.T)
    assert cublas.calls == []
    _gemm.product(cublas.card, batch, cublas.card.upload(normal(4, 5)))  # one product: b is a single matrix
    assert cublas.calls == [((6, 4), (4, 5), False)]


def test_an_emulated_card_never_asks_for_cublas():
    card = minigrad.device("cudasim:0")
    minigrad.set_gemm("cublas")
    x = normal(9, 9)
    np.testing.assert_allclose(_gemm.product(card, *[card.upload(x)] * 2).get(), x @ x, rtol=1e-12, atol=1e-12)


def test_settings_are_checked():
    assert minigrad.tf32_allowed() is False
    for wrong in ("cuBLAS", "", None, 1):
        with pytest.raises(ArgumentError, match="set_gemm: name must be 'cublas' or 'minigrad', got"):
            minigrad.set_gemm(wrong)
    for wrong in (1, None, "yes"):
        with pytest.raises(ArgumentError, match="allow_tf32: allowed must be True or False, got"):
            minigrad.allow_tf32(wrong)
    assert minigrad.gemm_in_use() == "minigrad" and minigrad.tf32_allowed() is False
