"""minigrad.gpu: what launch refuses, layouts, moving elements, NumPy's indices and in-place operators on a card."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import minigrad
from minigrad import Tensor, gpu
from minigrad.cudasim.compiler import available
from minigrad.cudasim.settings import options
from minigrad.errors import KernelError
from minigrad.gpu import Card, Strided, layout_of
from minigrad.gpu.layout import SMALL, _layout, reciprocal, turn_of
from minigrad.gpu.sources import LAYOUT, constants, kernel_source, replace_source, struct
from minigrad.optim import SGD
from minigrad.tensor import wrap


@pytest.fixture
def card(device):
    """The device under test if it is a card, else an emulated one."""
    where = minigrad.device(device)
    if where.on_host:
        if available() is not None:
            pytest.skip(available())
        where = minigrad.device("cudasim:0")
    return where


def on(card, values, dtype=None):
    return Tensor(np.asarray(values, dtype), device=card).data


def values_of(card, array):
    return wrap(array, card).numpy()


def numbers(shape, dtype="float64", seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


# ---------------------------------------------------------------- launch


def fill(card, *args, grid=1, block=32, kernel="fill", **types):
    card.launch("copy", kernel, grid, block, *args, **(types or {"FROM": np.float32, "TO": np.float32}))


def test_launch_passes_what_the_kernel_takes(card):
    y, layout = on(card, np.zeros(40, np.float32)), layout_of((40,), ((1,),))
    fill(card, y, layout, 40, 2.5, grid=2)
    np.testing.assert_array_equal(values_of(card, y), np.full(40, 2.5))
    fill(card, y, layout, 40, 1, grid=(2, 1), block=(32, 1, 1))
    np.testing.assert_array_equal(values_of(card, y), np.ones(40))
    fill(card, y, layout, 40, 7, grid=0)  # nothing to do
    np.testing.assert_array_equal(values_of(card, y), np.ones(40))


def test_launch_refuses_arguments(card):
    y, layout = on(card, np.zeros((6, 4), np.float32)), layout_of((24,), ((1,),))
    good = [y, layout, 24, 1.0]
    here = f"launch of fill \\(copy.cu\\) on {card}: "
    for number, wrong, message in [
        (0, on(card, np.zeros(24)), "y must be float32, it is float64"),
        (0, y.transpose(1, 0), r"y must be C-contiguous: shape \(4, 6\)"),
        (0, np.zeros(24, np.float32), f"y must be an array on {card}, got ndarray"),
        (0, 1.0, f"y must be an array on {card}, got 1.0"),
        (1, 5, "layout must be one .*, got 5"),
        (1, np.zeros(2, LAYOUT), "layout must be one"),
        (1, np.zeros(1, np.int64), "layout must be one"),
        (2, 2**63, "n = 9223372036854775808 does not fit int64"),
        (2, -(2**63) - 1, "n = -9223372036854775809 does not fit int64"),
        (2, np.uint64(2**63), r"n = .*9223372036854775808.* does not fit int64"),
        (2, 1.5, "n = 1.5 does not fit int64"),
        (2, np.float32(2**63), "n = .* does not fit int64"),
        (2, np.nan, "n = nan does not fit int64"),
        (2, -np.inf, "n = -inf does not fit int64"),
        (2, "24", "n must be a number, got '24'"),
        (2, np.zeros(1, np.int64), r"n must be a number, got ndarray \(1,\)"),
        (3, None, "value must be a number, got None"),
    ]:
        args = [*good[:number], wrong, *good[number + 1 :]]
        with pytest.raises(KernelError, match=here + message):
            fill(card, *args)
    fill(card, Strided(y.transpose(1, 0)), *good[1:])
    with pytest.raises(KernelError, match=here + "3 arguments for 4 parameters: y, layout, n, value"):
        fill(card, *good[:3])
    other = minigrad.device(f"{card.kind}:{card.index + 1}")
    if card.kind == "cudasim":
        with pytest.raises(KernelError, match=f"y must be an array on {card}, got SimArray"):
            fill(card, on(other, np.zeros(24, np.float32)), *good[1:])


def test_launch_refuses_geometry_and_names(card):
    args = on(card, np.zeros(24, np.float32)), layout_of((24,), ((1,),)), 24, 1.0
    for grid, message in [
        (2**31, "exceeds"),
        ((1, 65536), "exceeds"),
        ((1, 1, 65536), "exceeds"),
        (-1, "grid must be an int or up to three ints >= 0, got -1"),
        (1.0, "grid must be"),
        ([1], r"grid and block must be ints or tuples of ints, got \[1\], "),
        ((1, 1, 1, 1), "grid must be"),
    ]:
        with pytest.raises(KernelError, match=message):
            fill(card, *args, grid=grid)
    for block in (0, 1025, (32, 33), (1, 1, 65)):
        with pytest.raises(KernelError, match="must have 1 to 1024 threads, at most 64 along z"):
            fill(card, *args, block=block)
    with pytest.raises(KernelError, match="there is no such entry point in kernels/copy.cu"):
        fill(card, *args, kernel="fil")
    with pytest.raises(minigrad.DeviceError, match="there is no nothing.cu"):
        card.launch("nothing", "fill", 1, 32)
    with pytest.raises(KernelError, match="kernels have no element type complex64"):
        fill(card, *args, FROM=np.complex64, TO=np.float32)


def plain_sgd(card, w, g, n, grid=1, kernel="sgd", **types):
    (many,) = constants("sgd", "MANY")
    ends = [2 * k + 2 for k in range(len(n))]
    rest = (many - len(n)) * [0]
    lengths = struct("sgd", "Lengths", n=[*n, *rest], end=[*ends, *rest])
    card.launch("sgd", kernel, grid, 32, w, g, lengths, 0.5, 0.0, REAL=np.float32)


def test_launch_takes_lists_of_arrays(card):
    w, g = ([on(card, np.full(n, value, np.float32)) for n in (200, 33, 1)] for value in (1, 4))
    plain_sgd(card, w, g, [200, 33, 1], grid=6)
    for array in w:
        np.testing.assert_array_equal(values_of(card, array), np.full(array.shape, -1))
    plain_sgd(card, w[1:], g[1:], [33, 0], grid=2)  # the first of two, and an array of which nothing is to be done
    assert [values_of(card, array)[0] for array in w] == [-1, -3, -1]


def test_launch_refuses_lists_with_a_wrong_array(card):
    w, g = ([on(card, np.zeros((6, 4), np.float32)) for _ in range(2)] for _ in range(2))
    (many,) = constants("sgd", "MANY")
    here = f"launch of sgd \\(sgd.cu\\) on {card}: "
    for weights, gradients, message in [
        (w[0], g, rf"w must be a list of 1 to {many} arrays, got \w+ \(6, 4\)"),
        ([], g, f"w must be a list of 1 to {many} arrays, got 0 of them"),
        (w, g * many, f"g must be a list of 1 to {many} arrays, got {2 * many} of them"),
        (w, 1, f"g must be a list of 1 to {many} arrays, got 1"),
        (w, [g[0], on(card, np.zeros(24))], r"g\[1\] must be float32, it is float64"),
        ([w[0], w[1].transpose(1, 0)], g, r"w\[1\] must be C-contiguous: shape \(4, 6\)"),
        (w, [np.zeros(24, np.float32), g[1]], rf"g\[0\] must be an array on {card}, got ndarray"),
    ]:
        with pytest.raises(KernelError, match=here + message):
            plain_sgd(card, weights, gradients, [24, 24], grid=4)


def test_what_a_kernel_does_beyond_one_array_of_a_list_is_reported(card):
    if card.kind != "cudasim":
        pytest.skip("the emulator's reports")
    with options(mode="check"):
        w, g = ([on(card, np.zeros(n, np.float32)) for n in (64, 40)] for _ in range(2))
        with pytest.raises(KernelError, match=r"update.cuh:\d+: OOB-GLOBAL: .*byte 160 of w\[1\] \(argument 0, float"):
            plain_sgd(card, w, g, [64, 41], grid=4)
        replace_source("sgd", kernel_source("sgd").replace("w.of[work.which]", "(REAL*)g.of[work.which]"))
        try:
            with pytest.raises(KernelError, match=r"WRITE-CONST: .*g\[0\] \(argument 1"):
                plain_sgd(card, w, g, [64, 40], grid=4)
        finally:
            replace_source("sgd", None)


# ---------------------------------------------------------------- layouts


def axes_of(layout):
    """Sizes, and the strides of three arrays, the outermost axis first, as NumPy has them."""
    n = int(layout["axes"][0])
    return layout["size"][0, :n][::-1].tolist(), layout["stride"][0, :3, :n][:, ::-1].tolist()


@pytest.mark.parametrize(
    ("shape", "strides", "sizes", "steps"),
    [
        ((2, 3, 4), ((12, 4, 1),), [24], [[1], [0], [0]]),
        ((2, 3, 4), ((12, 4, 1), (4, 0, 1)), [2, 3, 4], [[12, 4, 1], [4, 0, 1], [0, 0, 0]]),
        ((2, 3, 4), ((12, 4, 1), (0, 0, 1)), [6, 4], [[4, 1], [0, 1], [0, 0]]),
        ((2, 3, 4), ((12, 4, 1), (0, 0, 0), (12, 4, 1)), [24], [[1], [0], [1]]),
        ((2, 1, 4), ((4, 99, 1),), [8], [[1], [0], [0]]),
        ((3, 4), ((-4, -1),), [12], [[-1], [0], [0]]),
        ((3, 4), ((-4, 1),), [3, 4], [[-4, 1], [0, 0], [0, 0]]),
        ((), ((),), [1], [[0], [0], [0]]),
        ((1, 1), ((5, 5), (0, 0)), [1], [[0], [0], [0]]),
    ],
)
def test_a_layout_has_as_few_axes_as_can_be(shape, strides, sizes, steps):
    layout = layout_of(shape, strides)
    assert axes_of(layout) == (sizes, steps)
    assert not layout.flags.writeable  # it is kept for the next call


def test_more_axes_than_a_layout_has():
    apart = lambda n: tuple(3**k for k in range(n))  # noqa: E731
    assert layout_of((2,) * 6, (apart(6),)) is not None and layout_of((2,) * 7, (apart(7),)) is None


def test_arrays_of_many_axes_are_walked_over_in_several_launches(card, monkeypatch):
    launches = spy(monkeypatch)
    x = numbers((2, 3, 2, 2, 3, 2, 2, 3))
    turned = (7, 6, 5, 4, 3, 2, 1, 0)
    y = card.contiguous(on(card, x).transpose(turned))
    np.testing.assert_array_equal(values_of(card, y), x.transpose(turned))
    assert launches == ["copy_strided"] * 3 * 2
    z = card.arithmetic("add", on(card, x), y.transpose(turned), card.empty_like(y).transpose(turned))
    np.testing.assert_array_equal(values_of(card, z), x + x)
    row = numbers((3,), seed=1)
    z = card.arithmetic("add", on(card, row), on(card, x[0]).T, card.empty_like(y[..., 0]))
    np.testing.assert_array_equal(values_of(card, z), row + x[0].T)


@given(st.integers(2, SMALL), st.integers(0, SMALL - 1))
@settings(max_examples=300)
def test_a_product_and_a_shift_divide(n, i):
    magic, shift = reciprocal(n)
    assert magic < 2**32 and 0 <= shift < 31
    for number in (i, i // n * n, i // n * n - 1, SMALL - 1, (SMALL - 1) // n * n - 1, (SMALL - 1) // n * n):
        assert number < 0 or number * magic >> 32 + shift == number // n


@pytest.mark.parametrize(
    ("shape", "strides", "lanes"),
    [
        ((7,), ((1,), (1,)), 4),  # the last thread does the 3 that are left over
        ((7,), ((1,), (0,)), 4),
        ((7,), ((1,), (2,)), 1),
        ((7,), ((2,), (1,)), 1),
        ((7,), ((0,), (1,)), 1),
        ((7,), ((-1,), (1,)), 1),
        ((3, 8), ((8, 1), (0, 1)), 4),
        ((3, 8), ((8, 1), (1, 0)), 4),  # one number for a whole row, wherever it lies
        ((3, 8), ((8, 1), (9, 1)), 1),  # rows that begin in the middle of a pack
        ((3, 8), ((12, 1), (8, 1)), 4),
        ((3, 8), ((10, 1), (8, 1)), 1),
        ((3, 6), ((6, 1), (0, 1)), 1),  # rows that end in the middle of one
        ((3, 6), ((8, 1), (0, 1)), 1),
        ((3, 1, 8), ((8, 99, 1), (0, 99, 1)), 4),
        ((1,), ((1,), (1,)), 1),
    ],
)
def test_where_threads_take_packs(shape, strides, lanes):
    assert _layout(shape, strides, 4)["lanes"] == lanes
    assert layout_of(shape, strides)["lanes"] == 1


WALKED = [
    ((5, 48), (48,)),
    ((5, 48), (5, 1)),
    ((3, 4, 48), (4, 1)),
    ((3, 4, 48), (3, 1, 48)),
    ((48,), (5, 1)),
    ((5, 47), (47,)),
    ((1031,), ()),
    ((), (1031,)),
    ((1031,), (1031,)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", "int16"])
@pytest.mark.parametrize(("a", "b"), WALKED)
def test_walks_by_packs_do_what_numpy_does(card, a, b, dtype):
    """Rows, columns and numbers that repeat; what is left over; memory that begins in the middle of a pack."""
    a, b = numbers(a, dtype), numbers(b, dtype, 1)
    shape = np.broadcast_shapes(a.shape, b.shape)
    for cut in ((), (Ellipsis, slice(1, None))):  # all, and all but the first of each row
        x, y = (array[cut] if array.ndim and array.shape[-1] > 1 else array for array in (a, b))
        there = [on(card, array) for array in (a, b)]
        there = [array[cut] if array.ndim and array.shape[-1] > 1 else array for array in there]
        z = card.empty(np.broadcast_shapes(x.shape, y.shape), dtype)
        np.testing.assert_array_equal(values_of(card, card.arithmetic("multiply", *there, z)), x * y)
        less = minigrad.functional.less(wrap(there[0], card), wrap(there[1], card))
        np.testing.assert_array_equal(less.numpy(), x < y)
        wide = card.empty((*shape[:-1], 16 + z.shape[-1]), "float64")
        card.fill(wide, 3)
        card.assign(wide[..., 8:-8], there[0])
        copied = values_of(card, wide)
        np.testing.assert_array_equal(copied[..., 8:-8], np.broadcast_to(x, z.shape))
        assert (copied[..., :8] == 3).all() and (copied[..., -8:] == 3).all()


@pytest.mark.parametrize("which", range(3))
def test_no_pack_begins_in_the_middle_of_one(which):
    """Check mode reports accesses that are not at a multiple of their size: one array of three is such a one."""
    if available() is not None:
        pytest.skip(available())
    where = minigrad.device("cudasim:0")
    with options(mode="check"):
        arrays = [on(where, numbers((604,), "float32", seed)) for seed in range(3)]
        y, a, b = (array[1:598] if k == which else array[4:601] for k, array in enumerate(arrays))
        host = [values_of(where, array) for array in (a, b)]
        grid, n = gpu.pack_blocks(y), y.size
        where.launch("relu", "relu_backward", grid, 256, a, b, y, n, REAL=np.float32)
        np.testing.assert_array_equal(values_of(where, y), host[0] * (host[1] > 0))
        np.testing.assert_array_equal(values_of(where, where.arithmetic("add", a, b, y)), host[0] + host[1])
        np.testing.assert_array_equal(values_of(where, where.assign(y, a)), host[0])
        stream = 7, 0, 0, 0  # key, counter, skip, dropped
        where.launch("dropout", "dropout", 1, 256, b, y, n, *stream, 2.0, REAL=np.float32, BITS=1)
        np.testing.assert_array_equal(values_of(where, y), host[1] * 2)


def test_sums_and_maxima_of_a_block_leave_their_memory_free():
    """One after the other in the same shared memory: check mode reports it where a barrier is missing."""
    if available() is not None:
        pytest.skip(available())
    text = """extern "C" __global__ void one_after_the_other(REAL* y) {
        __shared__ REAL warps[WARP];
        REAL sum = block_sum(REAL(threadIdx.x), warps), most = block_max(REAL(threadIdx.x), warps);
        y[threadIdx.x] = block_sum(sum + most, warps);
    }"""
    where = minigrad.device("cudasim:0")
    replace_source("relu", text)
    try:
        with options(mode="check"):
            y = where.empty((96,), "float32")
            where.launch("relu", "one_after_the_other", 1, 96, y, REAL=np.float32)
            np.testing.assert_array_equal(values_of(where, y), 96 * (95 * 48 + 95))
    finally:
        replace_source("relu", None)


def test_divisions_of_64_bits_find_the_same_places(card):
    """Large tensors need them.  Here small ones are told to do them, too."""
    x = numbers((3, 5, 2, 7, 4), "float32").transpose(4, 1, 3, 0, 2)
    strides = tuple(tuple(stride // 4 for stride in array.strides) for array in (np.ascontiguousarray(x), x))
    there = on(card, np.ascontiguousarray(x.transpose(3, 1, 4, 2, 0)))
    for small in (1, 0):
        layout = layout_of(x.shape, strides).copy()
        assert layout["small"] == 1 and layout["axes"] == 5
        layout["small"] = small
        y, types = card.empty(x.shape, x.dtype), {"FROM": x.dtype, "TO": x.dtype}
        card.launch("copy", "copy_strided", 4, 256, y, there, layout, x.size, **types)
        np.testing.assert_array_equal(values_of(card, y), x)
    far = layout_of((2, 3), ((3, 1), (SMALL // 2, SMALL // 4)))
    assert far["small"] == 0 and layout_of((SMALL,), ((1,),))["small"] == 0
    assert layout_of((2, 3), ((3, 1), (SMALL // 2, 1)))["small"] == 1


# ---------------------------------------------------------------- moving elements


def spy(monkeypatch):
    """The names of the kernels that cards launch from now on."""
    names = []
    real = Card.launch
    monkeypatch.setattr(Card, "launch", lambda *args, **more: (names.append(args[2]), real(*args, **more))[1])
    return names


TYPES = ["bool", "int16", "float32", "float64"]


@st.composite
def views(draw, shape):
    """A function that makes a view of an array of more elements with that shape, the same for NumPy and for a card."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    stored = tuple(shape[axis] * abs(steps[axis]) for axis in order)
    back = tuple(np.argsort(order))

    def view(x):
        x = x.transpose(back) if shape else x
        return x[tuple(slice(None, None, step) for step in steps)]

    return stored, view


@given(st.data())
@settings(max_examples=80)
def test_assign_does_what_numpy_does(card, data):
    shapes = data.draw(mutually_broadcastable_shapes(num_shapes=1, base_shape=data.draw(array_shapes(max_dims=4))))
    shape = shapes.result_shape
    (stored_y, view_y), (stored_x, view_x) = data.draw(views(shape)), data.draw(views(shapes.input_shapes[0]))
    y, x = numbers(stored_y, data.draw(st.sampled_from(TYPES))), numbers(stored_x, data.draw(st.sampled_from(TYPES)), 1)
    there = on(card, y)
    card.assign(view_y(there), view_x(on(card, x)))
    view_y(y)[...] = view_x(x)
    np.testing.assert_array_equal(values_of(card, there), y)


@pytest.mark.parametrize(
    "types", [("float32", "float32"), ("float64", "float64"), ("uint8", "uint8"), ("bool", "int64")]
)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((70, 45), (1, 0)), ((3, 33, 2, 40), (0, 2, 3, 1)), ((3, 33, 2, 40), (3, 0, 2, 1)), ((16, 5, 16), (2, 1, 0))],
)
def test_turned_arrays_go_through_tiles(card, monkeypatch, shape, axes, types):
    launches = spy(monkeypatch)
    x = numbers(shape, types[0])
    y = card.converted(on(card, x).transpose(axes), types[1])
    np.testing.assert_array_equal(values_of(card, y), x.transpose(axes).astype(types[1]))
    assert launches == ["copy_turned"]


def test_a_turned_part_of_an_array(card, monkeypatch):
    launches = spy(monkeypatch)
    x, y = numbers((50, 90)), numbers((80, 60), seed=1)
    there = on(card, y)
    card.assign(there[5:75, 3:43], on(card, x)[::-1, 7:77][:40].transpose(1, 0))
    y[5:75, 3:43] = x[::-1, 7:77][:40].T
    np.testing.assert_array_equal(values_of(card, there), y)
    assert launches == ["copy_turned"]


def test_turned_arrays_with_gaps(card, monkeypatch):
    launches = spy(monkeypatch)
    x, y = numbers((50, 40)), numbers((40, 100), seed=1)
    there = on(card, y)
    card.assign(there[:, ::2], on(card, x).T)
    y[:, ::2] = x.T
    np.testing.assert_array_equal(values_of(card, there), y)
    assert launches == ["copy_strided"]


def test_what_is_too_thin_for_tiles_is_copied_element_by_element(card, monkeypatch):
    launches = spy(monkeypatch)
    images = numbers((2, 9, 9, 3))
    np.testing.assert_array_equal(
        values_of(card, card.contiguous(on(card, images).transpose(0, 3, 1, 2))), images.transpose(0, 3, 1, 2)
    )
    assert launches == ["copy_strided"]
    thin = layout_of((40, 15), ((15, 1), (1, 40)))
    assert turn_of(thin) is None and turn_of(layout_of((40, 16), ((16, 1), (1, 40)))) is not None


def test_two_arrays_in_one_order_are_walked_over_as_one_axis(card):
    x = on(card, numbers((4, 5, 6))).transpose(2, 0, 1)
    ((layout, n, _),) = gpu.walks(x.shape, x, x)
    assert axes_of(layout) == ([120], [[1], [1], [0]]) and n == 120


def test_rows_that_end_in_the_middle_of_a_pack(card):
    y, x = on(card, numbers((5, 8), "float32")), numbers((6,), "float32", 1)
    expected = values_of(card, y).copy()
    expected[:, :6] = x
    card.assign(y[:, :6], on(card, x))
    np.testing.assert_array_equal(values_of(card, y), expected)


def test_fill_converts_as_numpy(card):
    for dtype, value in itertools.product(TYPES, (0, 1, 2.7, True, np.float32(3))):
        y = card.full((3, 5), value, dtype)
        np.testing.assert_array_equal(values_of(card, y), np.full((3, 5), value).astype(dtype))
    y = on(card, np.zeros((40, 9), np.float32))
    card.fill(y[3:, ::2], np.nan)
    expected = np.zeros((40, 9), np.float32)
    expected[3:, ::2] = np.nan
    np.testing.assert_array_equal(values_of(card, y), expected)
    assert card.zeros((0, 3), "float32").shape == (0, 3)


def test_memory_orders(card):
    x = on(card, numbers((4, 5, 6))).transpose(2, 0, 1)
    assert gpu.memory_order(x) == (1, 2, 0)
    like = card.empty_in_order_of(x)
    assert like.shape == x.shape and like.strides == x.strides and like.dtype == x.dtype
    assert card.dense(x) is x and card.dense(x[2:3, :3]) is not x
    for view in (x[::2], x[:, 1:], x[:, :, ::-1]):
        made = card.dense(view)
        assert gpu.memory_order(made) == (1, 2, 0) and made.transpose(1, 2, 0).flags.c_contiguous
        np.testing.assert_array_equal(values_of(card, made), values_of(card, view))


def test_what_leaves_a_card_is_dense(card, monkeypatch):
    """Copies between devices are of one piece of memory: strides are the business of kernels."""
    moved = []
    for name in ("to_host", "copy_from"):
        real = getattr(type(card.runtime), name)
        monkeypatch.setattr(
            type(card.runtime), name, lambda self, *args, real=real: (moved.append(args[-1]), real(self, *args))[1]
        )
    x = Tensor(numbers((4, 5, 6)), device=card)
    for view in (x, x[::2], x[:, ::-1].transpose(2, 0, 1), x[0, 0, 0], x[1:1]):
        for other in ("cpu:1", f"{card.kind}:{card.index + 1}"):
            y = view.to(other)
            (sent,) = moved
            assert card.dense(sent) is sent
            np.testing.assert_array_equal(y.numpy(), view.numpy())
            moved.clear()


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "power"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_wrap_around_as_numpys(card, operation, dtype):
    ends = np.iinfo(dtype)
    a = np.array([ends.min, ends.max, ends.max // 2, 3, 5], dtype)[:, None]
    b = np.array([ends.max, 1, 2, 0, 31], dtype)
    y = card.arithmetic(operation, on(card, a), on(card, b), card.empty((5, 5), dtype))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(values_of(card, y), getattr(np, operation)(a, b))


# ---------------------------------------------------------------- NumPy's indices


INDICES = [
    2,
    (slice(None), -1),
    (..., slice(None, None, -2)),
    (None, 1),
    [4, 0, 4],
    [-1, 0, -5],
    ([0, 1], [2, 2]),
    ([0, 1], slice(1, 3), [2, 2]),
    (slice(None), [3, 0], ...),
    (..., [6, 0]),
    (None, [[1, 2], [3, 4]], 0),
    (2, [0, 1]),
    np.array([True, False, True, False, True]),
    (slice(None), np.arange(4) > 1),
    np.arange(140).reshape(5, 4, 7) % 3 == 0,
    (np.bool_(True), 1),
    (False, ...),
    np.zeros((0, 2), int),
    (np.array(1), [0, 1]),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_take_and_put_with_any_index(card, index):
    x = numbers((5, 4, 7))
    for turn in ((0, 1, 2), (2, 0, 1)):
        there = on(card, x.transpose(np.argsort(turn)).copy()).transpose(turn)
        np.testing.assert_array_equal(values_of(card, card.take(there, index)), x[index])
        expected = x.copy()
        new = numbers(x[index].shape, "float32", 1)
        for value in (new, on(card, new), 3, new.ravel()[:1] if new.size else 4):
            card.put(there, index, value)
            expected[index] = values_of(card, value) if card.owns(value) else value
            np.testing.assert_array_equal(values_of(card, there), expected)


def test_the_last_of_several_values_for_one_element_stays(card):
    x = on(card, np.zeros((4, 3)))
    card.put(x, [2, 0, 2, 2], np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(values_of(card, x), [[3, 4, 5], [0, 0, 0], [9, 10, 11], [0, 0, 0]])


def test_sums_of_rows_are_taken_in_order(card):
    rows = np.random.default_rng(0).integers(0, 40, 700)
    dy = numbers((700, 3), "float32") * 10 ** numbers((700, 1), "float32", 1)
    expected = np.zeros((50, 3), np.float32)
    np.add.at(expected, rows, dy)
    dx = card.sum_rows((50, 3), rows, (3,), on(card, dy))
    np.testing.assert_array_equal(values_of(card, dx), expected)


def test_put_converts_and_broadcasts_as_numpy(card):
    x = np.zeros((3, 4), np.int32)
    there = on(card, x)
    for index, value in [
        (..., [[1.9], [-2.9], [3.0]]),
        (1, np.ones((1, 1, 4), np.int64)),
        ((slice(None), 2), True),
        ([0, 0], [[5, 6, 7, 8]]),
    ]:
        card.put(there, index, value)
        x[index] = value
        np.testing.assert_array_equal(values_of(card, there), x)
    card.put(there, slice(None, None, -1), there)  # from itself
    np.testing.assert_array_equal(values_of(card, there), x[::-1])


def test_put_refuses_what_numpy_refuses(card):
    x = on(card, np.zeros((3, 4), np.uint8))
    for index, value, error in [
        (..., np.ones(3), ValueError),
        (0, np.ones((2, 4)), ValueError),
        ([0, 1], np.ones((3, 4)), ValueError),
        (0, 300, OverflowError),
        (5, 0, IndexError),
        ([0, 3], 0, IndexError),
        ("a", 0, IndexError),
        (np.ones(4, bool), 0, IndexError),
        ((0, 0, 0), 0, IndexError),
        (([0], [0], [0]), 0, IndexError),
    ]:
        with pytest.raises(error):
            np.zeros((3, 4), np.uint8)[index] = value
        with pytest.raises(error):
            card.put(x, index, value)
    assert not values_of(card, x).any()


# ---------------------------------------------------------------- in place


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64", "bool"])
def test_update_does_what_numpy_does(card, operation, dtype):
    ufunc = getattr(np, operation)
    for other in [
        2,
        -1,
        0.1,
        True,
        300,
        np.float32(0.1),
        np.float64(0.1),
        [1, 2, 3],
        [0.5, 0.25, 0.1],
        (1, 2, 3),
        np.array([[7], [8]], np.int8),
        np.array([1, 2, 3], np.int64),
        numbers((2, 3), "float32"),
        numbers((3,), "float64"),
        np.array(2.5),
        np.ones((1, 3), bool),
        np.ones((3, 2)),
        np.ones((2, 2, 3)),
    ]:
        x = numbers((2, 3), dtype)
        candidates = [other, on(card, other)] if isinstance(other, np.ndarray) else [other]
        for candidate in candidates:
            there = on(card, x)
            expected, error = x.copy(), None
            try:
                with np.errstate(all="ignore"):
                    ufunc(
                        expected,
                        np.asarray(other) if isinstance(other, (list, tuple)) else other,
                        expected,
                        casting="same_kind",
                    )
            except (TypeError, ValueError, OverflowError) as raised:
                error = raised
            if error is None:
                card.update(operation, there, candidate)
            else:
                with pytest.raises(type(error)):
                    card.update(operation, there, candidate)
                expected = x
            np.testing.assert_array_equal(values_of(card, there), expected, err_msg=repr(other))


def test_update_of_views_and_by_views_of_itself(card):
    x = numbers((40, 40))
    there = on(card, x)
    card.update("add", there, there.transpose(1, 0))
    np.testing.assert_array_equal(values_of(card, there), x + x.T)
    x = x + x.T
    card.update("multiply", there[::2, 5:], there[1, 5:])
    x[::2, 5:] *= x[1, 5:].copy()
    np.testing.assert_array_equal(values_of(card, there), x)
    card.update("subtract", there, there)
    assert not values_of(card, there).any()


def test_in_place_operators_of_tensors(card):
    x = Tensor(numbers((3, 4), "float32"), device=card)
    expected = x.numpy().copy()
    x += 1
    x *= Tensor(np.float32([1, 2, 3, 4]), device=card)
    x /= [3.0]
    x -= np.float32([[1], [2], [3]])
    expected = np.float32((np.float32(expected + 1) * np.float32([1, 2, 3, 4])) / np.array([3.0])) - np.float32(
        [[1], [2], [3]]
    )
    np.testing.assert_array_equal(x.numpy(), expected)
    x[1:, [0, 2]] = Tensor(np.float32([5, 6]), device=card)
    expected[1:, [0, 2]] = [5, 6]
    x[x > 5.5] = 0
    expected[expected > 5.5] = 0
    np.testing.assert_array_equal(x.numpy(), expected)


# ---------------------------------------------------------------- how memory is used


TRAFFIC = {
    "a copy": lambda x: x.device.converted(x.data, np.float64),
    "a turned copy": lambda x: x.device.contiguous(x.data.transpose(1, 0)),
    "a bias": lambda x: x + x[0],
    "sums along rows": lambda x: x.reshape(20, -1).sum(1),
    "sums along columns": lambda x: x.sum(0),
    "maxima along columns": lambda x: x.max(0),
    "rows by number": lambda x: x[np.arange(95, -1, -2)],
    "an update": lambda x: step(SGD([x.requires_grad_()], 0.1, momentum=0.9), x),
}


def step(optimizer, x):
    x.grad = x.detach()
    optimizer.step()


@pytest.mark.parametrize("name", TRAFFIC)
def test_whole_sectors_and_no_bank_conflicts(name):
    """As the emulator models them: a warp touches no more sectors of memory, or banks twice, than it must."""
    if available() is not None:
        pytest.skip(available())
    where = minigrad.device(f"cudasim:{20 + list(TRAFFIC).index(name)}")  # no other test's traffic
    x = Tensor(numbers((96, 320), "float32"), device=where)
    with options(mode="check", counters=True):
        TRAFFIC[name](x)
    rows = [row for module in where.runtime.modules() if module.mode == "check" for row in module.counters().rows]
    rows = [row for row in rows if row.requests > 50]  # without the last bits of a sum
    assert rows
    for row in rows:
        assert row.units <= 1.01 * row.ideal, row


# ---------------------------------------------------------------- beyond 2^31 elements


BEYOND = 2**31 + 1000


@pytest.fixture
def large():
    """uint8 arrays of more than 2^31 elements on the emulator, of which only the pages that are touched take memory."""
    if available() is not None:
        pytest.skip(available())
    where = minigrad.device("cudasim:0")
    with options(mode="fast", poison=False):
        try:
            yield where, lambda: where.empty((BEYOND,), np.uint8)
        except (OSError, MemoryError) as error:
            pytest.skip(f"no room for sparse arrays: {error}")


def last_blocks(per_block):
    blocks = gpu.blocks(BEYOND, per_block)
    return options(blocks=range(blocks - 2, blocks))


def test_elements_beyond_2_to_the_31(large):
    where, make = large
    x, y = make(), make()
    with last_blocks(256 * 16):
        where.fill(x, 7)
        where.assign(y, x)
        where.arithmetic("add", x, y, x)
    for array, value in ((x, 14), (y, 7)):
        tail = values_of(where, array[-200:])
        np.testing.assert_array_equal(tail, np.full(200, value, np.uint8))
        assert values_of(where, array[: BEYOND - 2**31]).sum() == 0  # where an index that wrapped around would have led
    np.testing.assert_array_equal(values_of(where, where.take(x, [BEYOND - 1, 5])), [14, 0])
    where.put(x, [BEYOND - 2], 99)
    assert values_of(where, x[-3:]).tolist() == [14, 99, 14]
    with last_blocks(256):  # y[1:] begins in the middle of a pack: element by element
        where.arithmetic("subtract", x[:-1], y[1:], y[1:])
    assert values_of(where, y[-3:]).tolist() == [7, 7, 92]
    with last_blocks(8 * 1024):  # a warp for 1024 elements
        from minigrad.ops._reduction import rows_of

        rows = rows_of(x, (0,))
        sums = where.empty(rows.pieces_shape, np.uint64)
        args = Strided(x), rows.kept, rows.reduced, rows.outputs, rows.n, rows.piece, 1
        rows.launch(where, "sum_rows", sums, *args, FROM=np.uint8, TO=np.uint64)
    last = values_of(where, x[(rows.pieces - 1) * rows.piece :])
    assert values_of(where, sums)[0, -1] == last.sum(dtype=np.uint64) > 99
