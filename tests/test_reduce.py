"""sum, mean, max over axes."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, ShapeError, Tensor, gradcheck
from minigrad.tensor import wrap

REDUCTIONS = {"sum": (F.sum, np.sum), "mean": (F.mean, np.mean), "max": (F.max, np.max)}
every = pytest.mark.parametrize("name", REDUCTIONS)
AXES = [None, 0, 1, 2, -1, -3, (0, 1), (0, 2), (-1, 0), (2, 1, 0), ()]


def distinct(shape, device, dtype="float64"):
    """Shuffled values, far enough from each other that no step changes which is the largest."""
    size = int(np.prod(shape))
    values = np.random.default_rng(0).permutation(size).reshape(shape) / size * 2 - 0.9
    return Tensor(values, True, device, dtype)


@every
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_values_and_gradients(name, axis, keepdims, device):
    ours, numpys = REDUCTIONS[name]
    x = distinct((3, 4, 2), device)
    y = ours(x, axis, keepdims)
    expected = numpys(x.numpy(), axis=axis, keepdims=keepdims)
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)
    np.testing.assert_array_equal(getattr(x, name)(axis=axis, keepdims=keepdims).numpy(), y.numpy())
    assert gradcheck(lambda x: ours(x, axis, keepdims), [x])


@every
@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_element_by_element(name, axes, keepdims):
    """On textbook:0 and cpu:0 against a loop; 12 * 13 * 2 elements, more than are added in one go."""
    values = distinct((13, 12, 2), "cpu:0").numpy().transpose(1, 0, 2)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(values.shape))
    rows = {}  # the elements of x that go into each of y
    for i in np.ndindex(values.shape):
        rows.setdefault(tuple(0 if axis in axes else k for axis, k in enumerate(i)), []).append(i)
    y, dx, dy = np.zeros(shape), np.zeros(values.shape), np.random.default_rng(1).standard_normal(shape)
    for j, row in rows.items():
        winner = max(row, key=lambda i: values[i])
        y[j] = values[winner] if name == "max" else sum(values[i] for i in row) / (len(row) if name == "mean" else 1)
        for i in row:
            dx[i] = dy[j] * {"sum": 1, "mean": 1 / len(row), "max": i == winner}[name]
    for where in ("textbook:0", "cpu:0"):
        x = Tensor(values, True, where)
        ours = REDUCTIONS[name][0](x, axes, keepdims)
        assert str(ours.device) == where and ours.shape == (shape if keepdims else y.squeeze(axes).shape)
        np.testing.assert_allclose(ours.numpy(), y.reshape(ours.shape), rtol=1e-13, atol=1e-14)
        ours.backward(dy.reshape(ours.shape))
        np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-14)


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_sums_of_a_large_number_and_many_small_ones(name, axis):
    """float32: what is added to the large one by one would be lost.  The textbook's sum loses nothing."""
    values = np.ones((301, 302), np.float32)
    values[0, 0] = LARGE
    exact = getattr(np, name)(values.astype("float64"), axis=axis)
    for where, rtol in (("textbook:0", 6e-8), ("cpu:0", 1e-5)):
        y = REDUCTIONS[name][0](Tensor(values, device=where), axis)
        assert y.dtype == "float32"
        np.testing.assert_allclose(y.numpy(), exact, rtol=rtol)


@every
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_axes_that_stay_lie_in_any_order_in_memory(name, order, device):
    """The elements of a row are more than are added in one go."""
    values = distinct((2, 3, 4, 150), "cpu:0").numpy().transpose(*order, 3)  # Tensor keeps the order in memory
    for where in (device, "textbook:0"):
        y = REDUCTIONS[name][0](Tensor(values, device=where), 3)
        np.testing.assert_allclose(y.numpy(), REDUCTIONS[name][1](values, axis=3), rtol=1e-12, atol=1e-12)


@every
def test_0d(name, device):
    x = Tensor(3.0, True, device)
    y = REDUCTIONS[name][0](x)
    assert y.shape == () and y.item() == 3
    y.backward()
    assert x.grad.shape == () and x.grad.item() == 1


@every
def test_large_shapes_along_a_random_direction(name, device):
    x = distinct((16, 96, 27), device)
    for axis in (None, 0, (0, 2), -1):
        assert gradcheck(lambda x, axis=axis: REDUCTIONS[name][0](x, axis), [x], direction=True)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types_of_floats(name, dtype, device):
    x = distinct((3, 4), device, dtype)
    y = REDUCTIONS[name][0](x, 0)
    assert y.dtype == dtype
    y.sum().backward()
    assert x.grad.dtype == dtype


def test_types_of_integers(device):
    x = Tensor([[1, 2], [3, 5]], device=device, dtype="int32")
    assert F.sum(x).dtype == np.int64 and F.sum(x).item() == 11
    assert F.mean(x).dtype == np.float32 and F.mean(x).item() == 2.75
    assert F.max(x, 0).dtype == np.int32 and F.max(x, 0).numpy().tolist() == [3, 5]
    right = Tensor([1, 2, 3, 4], device=device) == Tensor([1, 2, 0, 4], device=device)
    assert F.sum(right).item() == 3 and F.mean(right).item() == 0.75 and F.max(right).item() is True


@every
def test_any_memory_order(name, device):
    x = distinct((5, 6, 3), device)
    for view in (lambda x: x.transpose(2, 0, 1), lambda x: x[::-1, ::2], lambda x: x[1::3, :, ::-1]):
        for axis in (None, 1, (0, 2)):
            y = REDUCTIONS[name][0](view(x), axis)
            np.testing.assert_allclose(y.numpy(), REDUCTIONS[name][1](view(x).numpy(), axis=axis), rtol=1e-14)
            direction = not x.device.on_host  # every element takes long on an emulated card
            assert gradcheck(lambda x, v=view, axis=axis: REDUCTIONS[name][0](v(x), axis), [x], direction=direction)


@every
@pytest.mark.parametrize("keepdims", [False, True])
def test_gradients_in_any_memory_order(name, keepdims, device):
    x = distinct((3, 4, 5), device)
    assert gradcheck(lambda x: REDUCTIONS[name][0](x, 1, keepdims).T, [x])


# ---------------------------------------------------------------- long rows, which are reduced in pieces


@every
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 2500), 1),  # neighbours in one row: pieces of 1024
        ((2500, 3), 1),  # many short rows
        ((9, 31), 1),
        ((9, 32), 1),
        ((9, 33), 1),
        ((700, 45), 0),  # neighbours in different rows: pieces of 256
        ((257, 32), 0),
        ((5, 7, 41, 9), (0, 2)),
        ((3, 40, 5, 40), (1, 3)),
        ((9, 3, 13, 13), (0, 2, 3)),  # the gradient of a convolution's bias: runs of 169, pieces of 1024
        ((70, 3, 5, 7), (0, 3)),  # runs shorter than a step of a warp
        ((300, 2, 3, 5), (0, 2)),  # and shorter than one of a block's threads along y
        ((3, 4, 5, 2, 40), (0, 2, 4)),  # more axes than a row may have: a copy is read
        ((11, 3, 1025), (0, 2)),  # runs that end where a piece begins, but for one element
        ((300_000,), None),  # pieces of pieces
        ((70_000, 2), 0),
        ((1, 70_000, 1), (0, 1)),
    ],
)
def test_long_and_short_rows(name, shape, axis, device):
    x = distinct(shape, device)
    y = REDUCTIONS[name][0](x, axis)
    np.testing.assert_allclose(y.numpy(), REDUCTIONS[name][1](x.numpy(), axis=axis), rtol=1e-13, atol=1e-12)
    assert gradcheck(lambda x: REDUCTIONS[name][0](x, axis), [x], direction=True)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_in_single_precision_are_as_good_as_numpys(name, turn, device):
    values = np.random.default_rng(0).uniform(0, 1, (2, 200_000)).astype("float32")
    x = Tensor(np.ascontiguousarray(values.T).T if turn else values, device=device)
    exact = getattr(values.astype("float64"), name)(axis=1)
    np.testing.assert_allclose(REDUCTIONS[name][0](x, 1).numpy(), exact, rtol=3e-7)


def test_more_ones_than_single_precision_counts_one_by_one(device):
    if not minigrad.device(device).on_host:
        pytest.skip("takes long on an emulated card")
    n = 2**24 + 1000
    x = Tensor(np.ones((n, 2), np.float32), device=device)
    np.testing.assert_array_equal(F.sum(x, 0).numpy(), n)
    np.testing.assert_array_equal(F.mean(x, 0).numpy(), 1)


LARGE = 2.0**24  # float32 has no number between this and LARGE + 2


@given(data=st.data())
def test_a_large_number_does_not_swallow_the_others(data, device):
    """In any memory order: what is added to a large number one by one is lost, but for its own piece of the sum."""
    shape = data.draw(
        st.sampled_from([(3000, 2), (2, 3000), (700, 3, 5), (5, 700, 3), (9, 5, 7, 20), (6000,), (40, 1, 150)])
    )
    axes = data.draw(st.sets(st.sampled_from(range(len(shape))), min_size=1).map(sorted).map(tuple))
    order = data.draw(st.permutations(range(len(shape))))
    memory = np.ones([2 * shape[axis] for axis in order], np.float32)
    values = memory.transpose(np.argsort(order))
    steps = data.draw(st.tuples(*[st.sampled_from([1, 1, 2, -1])] * len(shape)))
    values = values[tuple(slice(None, None, 2) if k == 2 else slice(n) for k, n in zip(steps, shape))]
    values = values[tuple(slice(None, None, min(k, 1)) for k in steps)]
    first = tuple(data.draw(st.sampled_from([0, -1])) if axis in axes else slice(None) for axis in range(len(shape)))
    values[first] = LARGE
    outputs = [1 if axis in axes else n for axis, n in enumerate(shape)]
    scale = 2.0 ** (np.arange(np.prod(outputs)) % 31).reshape(outputs)  # so that no output is like its neighbours
    values *= scale.astype(np.float32)
    x = wrap(values, minigrad.device(device)) if minigrad.device(device).on_host else Tensor(values, device=device)
    n = int(np.prod([shape[axis] for axis in axes]))
    for keepdims in (True, False):
        y = F.sum(x, axes, keepdims)
        expected = scale if keepdims else scale.squeeze(axes)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y.numpy() / expected, LARGE + n - 1, rtol=0, atol=160)
    np.testing.assert_allclose(F.mean(x, axes).numpy() / expected, (LARGE + n - 1) / n, rtol=0, atol=160 / n)


def test_more_axes_than_a_kernel_takes(device):
    x = Tensor(np.random.default_rng(0).permutation(2**13).reshape((2,) * 13), True, device, "float64")
    axes = tuple(range(0, x.ndim, 2))
    for name, (ours, numpys) in REDUCTIONS.items():
        np.testing.assert_array_equal(ours(x, axes).numpy(), numpys(x.numpy(), axis=axes), err_msg=name)
    F.max(x, axes).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), x.numpy() == x.numpy().max(axis=axes, keepdims=True))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint32", "int64"])
def test_integers_in_any_order(dtype, device):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (40, 300)).astype(dtype)
    if dtype == "int8":
        values -= 50
    x = Tensor(values, device=device)
    for axis in (None, 0, 1):
        for name in ("sum", "max"):
            y, expected = REDUCTIONS[name][0](x, axis), REDUCTIONS[name][1](values, axis=axis)
            assert y.dtype == expected.dtype
            np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize("where", ["textbook:0", "cpu:0"])
def test_integers_are_summed_in_64_bits(where):
    """2^53 + 1 and 300 times 200: float64 has no such number, and uint8 no such sum."""
    large = F.sum(Tensor(np.int64([2**53, 1]), device=where))
    assert large.dtype == np.int64 and large.item() == 2**53 + 1
    small = F.sum(Tensor(np.full((300, 2), 200, np.uint8), device=where), 0)
    assert small.dtype == np.uint64 and small.numpy().tolist() == [60_000, 60_000]


# ---------------------------------------------------------------- maximum


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("special", [None, np.nan, np.inf, -np.inf])
def test_the_first_maximum_of_a_long_row(special, turn, device):
    values = np.random.default_rng(0).integers(0, 3, (5, 2600)).astype("float32")
    if special is not None:
        values[0, [2599, 1030, 1029, 700, 6, 5]] = special  # 6 and 5: lanes that meet late in a warp
        values[4, [13, 6]] = special  # threads of one column, the second element first
        values[1, 1] = values[2, 2599] = values[3, 0] = special
    x = Tensor(np.ascontiguousarray(values.T).T if turn else values, True, device)
    y = F.max(x, 1)
    np.testing.assert_array_equal(y.numpy(), values.max(axis=1))
    y.backward(np.arange(1, 6, dtype="float32"))
    expected = np.zeros((5, 2600))
    expected[np.arange(5), values.argmax(axis=1)] = np.arange(1, 6)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (None, [[0, 1, 0], [0, 0, 0]]),
        (0, [[1, 1, 1], [0, 0, 0]]),
        (1, [[0, 1, 0], [1, 0, 0]]),
        ((1, 0), [[0, 1, 0], [0, 0, 0]]),
    ],
)
def test_the_first_of_equal_maxima_takes_the_gradient(axis, expected, device):
    x = Tensor([[1.0, 3.0, 3.0], [3.0, 3.0, 3.0]], device=device)
    x = Tensor([[3.0, 5.0, 5.0], [3.0, 3.0, 3.0]], True, device) if axis == 1 else x.requires_grad_()
    if axis == 0:
        x = Tensor([[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]], True, device)
    F.max(x, axis).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_max_of_nan_is_nan_and_takes_the_gradient(device):
    x = Tensor([[1.0, np.nan, 7.0], [np.inf, 2.0, -np.inf]], True, device)
    y = F.max(x, 1)
    np.testing.assert_array_equal(y.numpy(), [np.nan, np.inf])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 1, 0], [1, 0, 0]])


@given(st.data())
def test_max_gradient_sums_to_dy_even_with_ties(data):
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    axis = data.draw(st.sets(st.integers(0, 2), min_size=1))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape)
    x = Tensor(values.astype("float64"), True)
    y = F.max(x, tuple(axis))
    r = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(r)
    np.testing.assert_allclose(x.grad.numpy().sum(axis=tuple(axis)), r)
    took = x.grad.numpy() != 0
    largest = np.broadcast_to(values.max(axis=tuple(axis), keepdims=True), shape)
    np.testing.assert_array_equal(values[took], largest[took])


# ---------------------------------------------------------------- nothing to reduce


def test_empty(device):
    x = Tensor(np.zeros((0, 3)), True, device)
    assert F.sum(x).item() == 0 and F.sum(x, 0).numpy().tolist() == [0, 0, 0]
    assert F.max(x, 1).shape == (0,) and F.sum(x, 1).shape == (0,)
    for axis in (None, 0, (0, 1)):
        with pytest.raises(ShapeError, match=r"max: of no elements is undefined: x \(0, 3\)"):
            F.max(x, axis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = F.mean(x)
    assert np.isnan(y.item())
    y.backward()
    assert x.grad.shape == (0, 3)
    F.max(x, 1).backward(np.zeros(0))


@every
def test_refused(name):
    f, x = REDUCTIONS[name][0], Tensor(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=f"{name}: axis 2 is out of range for a tensor with 2 axes"):
        f(x, 2)
    with pytest.raises(ArgumentError, match=rf"{name}: the same axis twice in \(0, -2\)"):
        f(x, (0, -2))
    with pytest.raises(ArgumentError, match=f"{name}: axis must be an integer, got 1.5"):
        f(x, 1.5)
    with pytest.raises(ArgumentError, match=f"{name}: axis must be an integer, got True"):
        f(x, True)
    with pytest.raises(DTypeError, match=f"{name}: x must be a Tensor, got list"):
        f([1, 2])


# ---------------------------------------------------------------- argmax, argmin


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int64", "uint64", "bool"])
def test_the_place_of_the_first_extreme(name, dtype, device):
    random = np.random.default_rng(0)
    for shape, axes in (((4, 5, 6), (None, 0, 1, -1)), ((3, 2000), (None, 1)), ((2000, 3), (0,)), ((1,), (0, None))):
        x = random.integers(-3, 4, shape).astype(dtype)  # many ties
        if dtype == "int8":
            x.flat[0], x.flat[-1] = -128, 127  # -(-128) would be -128
        for where in {"textbook:0", "cpu:0", device}:
            for axis in axes:
                for keepdims in (False, True):
                    y = getattr(F, name)(Tensor(x, device=where), axis, keepdims)
                    expected = getattr(np, name)(x, axis, keepdims=keepdims)
                    assert y.dtype == np.int64 and y.shape == np.shape(expected) and not y.requires_grad
                    np.testing.assert_array_equal(y.numpy(), expected)


def test_places_of_nan_and_in_any_memory_order(device):
    x = np.array([[1, np.nan, np.nan], [3, 5, -np.inf]], "f")
    for name in ("argmax", "argmin"):
        for axis in (None, 0, 1):
            expected = getattr(np, name)(x, axis)
            np.testing.assert_array_equal(getattr(F, name)(Tensor(x, device=device), axis).numpy(), expected)
            turned = Tensor(np.asfortranarray(x), True, device)
            np.testing.assert_array_equal(getattr(turned, name)(axis).numpy(), expected)
            transposed = Tensor(np.array(x.T), device=device).T
            np.testing.assert_array_equal(getattr(transposed, name)(axis).numpy(), expected)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_places_refused(name, device):
    x = Tensor(np.zeros((2, 0), "f"), device=device)
    with pytest.raises(ShapeError, match=rf"{name}: of no elements is undefined: x \(2, 0\), axis 1"):
        getattr(F, name)(x, -1)
    with pytest.raises(ArgumentError, match=rf"{name}: axis must be an integer"):
        getattr(F, name)(x, (0, 1))
