"""reshape, flatten, transpose, indexing."""

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, ShapeError, Tensor, gradcheck


def normal(shape, device, dtype="float64"):
    return Tensor(np.random.default_rng(0).standard_normal(shape), True, device, dtype)


# ---------------------------------------------------------------- reshape, flatten, transpose


@pytest.mark.parametrize("shape", [(24,), (4, 6), (-1,), (2, -1), (-1, 3, 1), (1, 2, 3, 4), [6, 4]])
def test_reshape(shape, device):
    x = normal((2, 3, 4), device)
    expected = x.numpy().reshape(shape)
    for y in (F.reshape(x, shape), F.reshape(x, *shape), x.reshape(shape), x.reshape(*shape)):
        np.testing.assert_array_equal(y.numpy(), expected)
    assert gradcheck(lambda x: x.reshape(shape), [x])
    assert gradcheck(lambda x: x.T.reshape(shape), [x])


def test_reshape_edges(device):
    assert normal((1,), device).reshape(()).shape == ()
    assert normal((), device).reshape(1, 1).shape == (1, 1)
    assert normal((0, 3), device).reshape(3, 0, 5).shape == (3, 0, 5)
    assert normal((0, 3), device).reshape(-1, 3).shape == (0, 3)
    assert gradcheck(lambda x: x.reshape(()), [normal((1, 1), device)])
    x = normal((2, 3), device)
    assert x.reshape(np.int64(3), 2).shape == (3, 2)


@pytest.mark.parametrize("shape", [(5,), (4, -1), (-1, -1), (7, 0), (-2, 3), (0, -1)])
def test_reshape_refused(shape, device):
    with pytest.raises((ShapeError, ArgumentError), match="reshape: "):
        normal((2, 3), device).reshape(shape)
    if shape == (5,):
        with pytest.raises(ShapeError, match=r"reshape: \(2, 3\) \(6 elements\) does not fit shape \(5,\)"):
            normal((2, 3), device).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "start", "expected"),
    [
        ((2, 3, 4), 0, (24,)),
        ((2, 3, 4), 1, (2, 12)),
        ((2, 3, 4), -1, (2, 3, 4)),
        ((2, 3, 4), -2, (2, 12)),
        ((), 0, (1,)),
        ((5,), 0, (5,)),
        ((0, 3, 4), 1, (0, 12)),
    ],
)
def test_flatten(shape, start, expected, device):
    x = normal(shape, device)
    y = F.flatten(x, start)
    assert y.shape == x.flatten(start).shape == expected
    np.testing.assert_array_equal(y.numpy().ravel(), x.numpy().ravel())
    if x.size:
        assert gradcheck(lambda x: x.flatten(start), [x])


@pytest.mark.parametrize("axes", [(), (0, 1, 2), (2, 0, 1), (1, 2, 0), (-1, 0, 1), (0, 2, 1)])
def test_transpose(axes, device):
    x = normal((2, 3, 4), device)
    expected = x.numpy().transpose(axes or None)
    for y in (F.transpose(x, *axes), x.transpose(*axes), x.transpose(axes or None)):
        np.testing.assert_array_equal(y.numpy(), expected)
    assert gradcheck(lambda x: x.transpose(*axes), [x])
    np.testing.assert_array_equal(x.T.numpy(), x.numpy().T)


def test_transpose_refused(device):
    x = normal((2, 3), device)
    for axes in [(0,), (0, 0), (0, 1, 1), (1, -1)]:
        with pytest.raises(ArgumentError, match="transpose: axes must name each of the 2 axes once"):
            x.transpose(axes)
    with pytest.raises(ShapeError, match="transpose: axis 2 is out of range"):
        x.transpose(0, 2)


def test_every_device_of_the_processor_moves_elements():
    """Where each element goes, and its gradient comes back from; one that is picked twice gets both."""
    moves = [
        lambda x: F.reshape(x, 4, -1), lambda x: F.flatten(x, 1), lambda x: F.transpose(x, 2, 0, 1),
        lambda x: F.getitem(x, (slice(None, None, -1), 1)), lambda x: F.getitem(x, ([1, 0, 1], slice(1, 3))),
    ]  # fmt: skip
    for where in ("textbook:0", "cpu:0"):
        numbers = Tensor(np.arange(24.0).reshape(2, 3, 4), device=where)
        for move in moves:
            came_from = move(numbers).numpy().astype(int)  # every element of y holds the number of its own in x
            x = normal((2, 3, 4), where)
            y = move(x)
            dy = np.random.default_rng(1).standard_normal(y.shape)
            y.backward(dy)
            dx = np.zeros(24)
            for place in np.ndindex(y.shape):
                assert y.numpy()[place] == x.numpy().ravel()[came_from[place]]
                dx[came_from[place]] += dy[place]
            np.testing.assert_array_equal(x.grad.numpy().ravel(), dx)
        np.testing.assert_array_equal(F.transpose(numbers, 2, 0, 1).numpy()[3, 1, 2], numbers.numpy()[1, 2, 3])


def test_views_share_memory_and_version(device):
    x = Tensor(np.zeros((4, 6)), device=device)
    for y in (x.reshape(24), x.T, x[1:3], x.flatten(), x[None, ..., 0]):
        assert y.version is x.version
    for y in (x.T.reshape(24), x[[0, 1]], x[np.ones((4, 6), bool)]):
        assert y.version is not x.version


# ---------------------------------------------------------------- indexing

INDICES = [
    0,
    -1,
    slice(1, 3),
    slice(None, None, -1),
    slice(3, 0, -2),
    ...,
    None,
    (),
    (1, 2),
    (slice(None), 1),
    (..., 1),
    (None, ..., None),
    (0, None, slice(2), -1),
    (1, 2, 3),
    [0, 2, 0, 0],
    np.array([[0, 1], [-1, 0]]),
    ([0, 1, 0], [1, 2, 1]),
    (slice(None), [2, 2, 0]),
    ([0, 2], slice(1, 3), [1, 1]),
    (0, [1, 1], None),
    np.int64(2),
    slice(2, 2),
    [],
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing(index, device):
    x = normal((3, 4, 5), device)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[index])
    np.testing.assert_array_equal(F.getitem(x, index).numpy(), y.numpy())
    assert gradcheck(lambda x: x[index], [x])


def test_masks(device):
    x = normal((3, 4), device)
    for mask in (
        x.numpy() > 0,
        x > 0,
        np.array([True, False, True]),
        (slice(None), x.numpy()[0] > 0),
        x < -99,
    ):
        bare = mask.numpy() if isinstance(mask, Tensor) else mask
        np.testing.assert_array_equal(x[mask].numpy(), x.numpy()[bare])
        assert gradcheck(lambda x, mask=mask: x[mask], [x])
    mixed = ([True, False, True], [1, 1])
    np.testing.assert_array_equal(x[mixed].numpy(), x.numpy()[mixed])
    assert gradcheck(lambda x: x[mixed], [x])


def test_repeated_elements_sum_their_gradients(device):
    x = normal((3,), device)
    x[[0, 2, 0, 0]].backward(np.array([1.0, 2.0, 3.0, 5.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [9, 0, 2])


def test_tensors_as_indices(device):
    x, i = normal((5, 4), device), Tensor([3, 0, 3], device=device)
    np.testing.assert_array_equal(x[i].numpy(), x.numpy()[[3, 0, 3]])
    np.testing.assert_array_equal(x[i, 1:].numpy(), x.numpy()[[3, 0, 3], 1:])
    np.testing.assert_array_equal(x[Tensor(2, device=device)].numpy(), x.numpy()[2])
    assert gradcheck(lambda x: x[i], [x])


def test_repeated_elements_are_summed_in_order(device):
    x = Tensor(np.zeros((3, 5), "float32"), True, device)
    rows = np.random.default_rng(0).integers(0, 3, 200)
    dy = (np.random.default_rng(1).standard_normal((200, 5)) * 10.0 ** (np.arange(200)[:, None] % 9)).astype("float32")
    x[rows].backward(dy)
    expected = np.zeros((3, 5), "float32")
    np.add.at(expected, rows, dy)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


class Holder:
    """Not an array, but NumPy asks it for one."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, dtype=None, copy=None):
        return self.values


# All that NumPy takes for an array of integers: each of these makes one of a list.
DRESSES = {
    "list": list,
    "tuple": tuple,
    "int64": np.array,
    "int8": lambda rows: np.array(rows, np.int8),
    "uint8": lambda rows: np.array(rows, np.int64).astype(np.uint8) if min(rows, default=0) >= 0 else np.array(rows),
    "strided": lambda rows: np.repeat(np.array(rows, np.int64), 2)[::2],
    "__array__": lambda rows: Holder(np.array(rows, np.int64)),
    "buffer": lambda rows: array.array("q", rows),
    "memoryview": lambda rows: memoryview(np.array(rows, np.int64)),
    "tensor": lambda rows: Tensor(np.array(rows, np.int32), device="cpu:0"),
    "list of tensors": lambda rows: [Tensor(row, device="cpu:0") for row in rows],
    "list of scalars": lambda rows: [np.int16(row) for row in rows],
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
@pytest.mark.parametrize("wrap", [lambda i: (i, slice(None)), lambda i: (..., i), lambda i: (i, 1), lambda i: (i, i)])
def test_repeated_elements_sum_their_gradients_however_they_are_named(dress, wrap, device):
    x, rows = normal((3, 4), device), [0, 0, 1, -2, 0]
    plain = wrap(np.array(rows))
    y = x[wrap(dress(rows))]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[plain])
    dy = np.random.default_rng(1).integers(1, 9, y.shape).astype("float64")
    y.backward(dy)
    expected = np.zeros((3, 4))
    np.add.at(expected, plain, dy)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@given(data=st.data())
def test_any_index_at_all(data, device):
    """Values, gradients and assignment as NumPy has them, for parts of all kinds next to each other."""
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, max_side=5))
    picks = data.draw(st.sampled_from([(), (1,), (3,), (2, 3), (2, 1)]))
    given_parts, plain = [], []
    for n in shape[: data.draw(st.integers(1, len(shape)))]:
        kind = data.draw(st.sampled_from(["int", "slice", "none", "array", "array", "mask", "mask of one"]))
        if kind == "none":
            part = None
        elif kind == "slice":
            part = slice(*data.draw(st.tuples(*[st.integers(-n, n)] * 2)), data.draw(st.sampled_from([None, 2, -1])))
        elif kind == "int" or (kind == "array" and not picks):
            part = data.draw(st.integers(-n, n - 1))
        elif kind == "array":
            part = np.array(data.draw(st.lists(st.integers(-n, n - 1), min_size=6, max_size=6)))
            part = part[: int(np.prod(picks))].reshape(picks)
        elif kind == "mask":
            part = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        else:
            part = data.draw(st.booleans())
        plain.append(part)
        dressed = part
        if isinstance(part, np.ndarray):
            dress = st.sampled_from([lambda p: p, lambda p: p.tolist(), Tensor, Holder, lambda p: memoryview(p)])
            dressed = data.draw(dress)(part)
        elif type(part) is int:
            dressed = data.draw(st.sampled_from([int, np.int8, np.array, Tensor]))(part)
        given_parts.append(dressed)
    index, plain = tuple(given_parts), tuple(plain)
    x = normal(shape, device)
    try:
        expected = x.numpy()[plain]
    except IndexError:
        for face in (lambda: x[index], lambda: x.detach().__setitem__(index, 0)):
            with pytest.raises(IndexError):
                face()
        return
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), expected)
    dy = np.random.default_rng(1).integers(1, 9, y.shape).astype("float64")
    y.backward(dy)
    dx = np.zeros(shape)
    np.add.at(dx, plain, dy)
    np.testing.assert_array_equal(x.grad.numpy(), dx)
    z, changed = x.detach(), x.numpy().copy()
    z[index] = dy
    changed[plain] = dy
    np.testing.assert_array_equal(z.numpy(), changed)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint64"])
def test_small_integers_reach_far_rows(dtype, device):
    x = normal((300, 2), device)
    rows = np.array([5, 100, 5], dtype)
    y = x[rows]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[rows])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy()[[5, 100, 6]], [[2, 2], [1, 1], [0, 0]])
    z = x.detach()
    z[rows] = 7.0
    np.testing.assert_array_equal(z.numpy()[[5, 100]], 7)


def test_slices_with_tensors_for_bounds(device):
    x, i, j = normal((5,), device), Tensor(1, device=device), Tensor(3, device=device)
    y = x[i:j]
    i += 1
    j += 1
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1, 0, 0])


def test_0d_tensors_index_as_0d_arrays(device):
    x = normal((3, 4), device)
    for value in (True, False):
        mask = Tensor(value, device=device)
        np.testing.assert_array_equal(x[mask].numpy(), x.numpy()[np.array(value)])
    with pytest.raises(IndexError, match=r"getitem: only integers.*got float32 \(\) \(x \(3, 4\)\)"):
        x[Tensor(1.7, device=device)]


def test_an_index_changed_after_forward_does_not_matter(device):
    x, i, t, h, m = (
        normal((5,), device), np.array([1, 3]), Tensor([1, 3], device=device), Holder([1, 3]), np.arange(5) % 2 == 1,
    )  # fmt: skip
    y = x[i] + x[i,] + x[t] + x[h] + x[m] + x[memoryview(i)]
    i[:], h.values[:], m[:] = 0, 0, False
    t[...] = 0
    y.backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [0, 6, 0, 6, 0])


@given(data=st.data())
def test_any_basic_index(data, device):
    shape = data.draw(array_shapes(max_dims=4, max_side=4))
    index = data.draw(basic_indices(shape, allow_newaxis=True))
    x = normal(shape, device)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[index])
    y.backward(np.ones(y.shape))
    expected = np.zeros(shape)
    expected[index] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_large_shape_along_a_random_direction(device):
    x = normal((32, 48, 27), device)
    rows = np.random.default_rng(0).integers(0, 32, 500)
    np.testing.assert_array_equal(x[rows].numpy(), x.numpy()[rows])
    assert gradcheck(lambda x: x[rows], [x], direction=True)
    spots = rows[:300], slice(5, 40), rows[200:] % 27
    np.testing.assert_array_equal(x[spots].numpy(), x.numpy()[spots])
    assert gradcheck(lambda x: x[spots], [x], direction=True)
    assert gradcheck(lambda x: x.T[x.numpy().T > 0.5], [x], direction=True)
    assert gradcheck(lambda x: x[::-2, 3:].transpose(2, 0, 1).reshape(27, -1), [x], direction=True)


def test_types_are_kept(device):
    x = normal((3, 4), device, "float32")
    (x[[0, 0]].reshape(-1).sum() + x.T[1].sum() + x.flatten()[3]).backward()
    assert x.grad.dtype == np.float32
    assert Tensor([1, 2], device=device)[0].dtype == np.int64 and (x > 0)[0].dtype == np.bool_


def test_indexing_refused(device):
    x = normal((3, 4), device)
    with pytest.raises(IndexError, match=r"getitem: index 3 is out of bounds.*\(x \(3, 4\)\)"):
        x[3]
    with pytest.raises(IndexError, match="getitem: too many indices"):
        x[0, 0, 0]
    with pytest.raises(IndexError, match="getitem: .*only integers"):
        x["a"]
    with pytest.raises(IndexError, match="getitem: boolean index did not match"):
        x[np.ones(4, bool)]
    with pytest.raises(DTypeError, match="index: the bounds of a slice must be integers or None, got slice"):
        x[1.5:]
    for index in (np.array([2**64 - 1], np.uint64), np.uint64(2**63), 2**70, -4, [3], np.zeros(0), [[0], [1, 2]], 1.0):
        with pytest.raises(IndexError, match="getitem: "):
            x[index]
        with pytest.raises(IndexError):
            x.detach()[index] = 0
    with pytest.raises(DTypeError, match="getitem: x must be a Tensor"):
        F.getitem([1, 2], 0)
