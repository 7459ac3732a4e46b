"""Matrix product: vectors, matrices, broadcast batches, any strides."""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import DTypeError, ShapeError, Tensor, gradcheck

SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((1, 3, 4), (2, 4, 1)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((1, 1), (1, 1)),
    ((2, 2, 3, 4), (4, 5)),
]


def normal(shape, device, seed=0, dtype="float64"):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), True, device, dtype)


@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients(shapes, device):
    a, b = normal(shapes[0], device), normal(shapes[1], device, 1)
    y = F.matmul(a, b)
    expected = np.matmul(a.numpy(), b.numpy())
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-13, atol=1e-14)
    assert gradcheck(F.matmul, [a, b])
    assert gradcheck(lambda a: a @ b.detach(), [a])
    assert gradcheck(lambda b: a.detach() @ b, [b])


def test_against_sums_of_products(device):
    a, b = normal((3, 4), device), normal((4, 2), device, 1)
    for i in range(3):
        for j in range(2):
            total = sum(a.numpy()[i, k] * b.numpy()[k, j] for k in range(4))
            assert (a @ b).numpy()[i, j] == pytest.approx(total, rel=1e-13)


def loops(a, b):
    """y_ij = sum over k of a_ik b_kj, for all pairs of matrices: the rules of NumPy, one number at a time."""
    rows, columns = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (rows, columns))
    y = np.zeros((*batch, rows.shape[-2], columns.shape[-1]))
    for *n, i, j in np.ndindex(y.shape):
        y[(*n, i, j)] = sum(rows[(*n, i, k)] * columns[(*n, k, j)] for k in range(rows.shape[-1]))
    dropped = [axis for axis, x in ((-2, a), (-1, b)) if x.ndim == 1]
    return y.squeeze(tuple(dropped))


@pytest.mark.parametrize("shapes", SHAPES)
def test_the_textbook_and_the_fast_face_against_loops(shapes):
    """y is linear in a and in b: its gradients, times any da and db, are the changes of sum(y dy) along them."""
    grads = []
    for where in ("textbook:0", "cpu:0"):
        a, b = normal(shapes[0], where), normal(shapes[1], where, 1)
        y = F.matmul(a, b)
        dy, da, db = (np.random.default_rng(i).standard_normal(s) for i, s in enumerate((y.shape, *shapes), 2))
        y.backward(dy)
        np.testing.assert_allclose(y.numpy(), loops(a.numpy(), b.numpy()), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose((a.grad.numpy() * da).sum(), (loops(da, b.numpy()) * dy).sum(), rtol=1e-12)
        np.testing.assert_allclose((b.grad.numpy() * db).sum(), (loops(a.numpy(), db) * dy).sum(), rtol=1e-12)
        grads.append((a.grad.numpy(), b.grad.numpy()))
    for textbook, fast in zip(*grads):
        np.testing.assert_allclose(textbook, fast, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "shapes",
    [
        ((0, 4), (4, 5)), ((3, 0), (0, 5)), ((3, 4), (4, 0)), ((0, 3, 4), (4, 5)), ((2, 3, 0), (0, 5)),
        ((2, 3, 4), (4, 0)), ((2, 3, 0), (2, 0, 5)),
    ],
)  # fmt: skip
def test_empty(shapes, device):
    a, b = normal(shapes[0], device), normal(shapes[1], device)
    y = a @ b
    np.testing.assert_array_equal(y.numpy(), a.numpy() @ b.numpy())
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(a.grad.numpy(), np.ones(y.shape) @ b.numpy().swapaxes(-1, -2))
    np.testing.assert_array_equal(b.grad.numpy(), np.zeros(b.shape))


@pytest.mark.parametrize(
    "shapes",
    [
        ((129, 257), (257, 67)),
        ((5, 129, 33), (33, 67)),
        ((5, 129, 33), (5, 33, 67)),
        ((2, 1, 70, 33), (3, 33, 67)),
        ((3, 1100), (1100, 67)),
        ((67, 1100), (1100, 3)),
        ((1100,), (1100, 70)),
        ((70, 1100), (1100,)),
        ((1100,), (1100,)),
        ((300,), (3, 300, 70)),
    ],
)
def test_real_sizes_along_a_random_direction(shapes, device):
    a, b = normal(shapes[0], device), normal(shapes[1], device, 1)
    np.testing.assert_allclose((a @ b).numpy(), a.numpy() @ b.numpy(), rtol=1e-11, atol=1e-11)
    assert gradcheck(F.matmul, [a, b], direction=True)


def test_any_strides(device):
    a, b = normal((9, 8), device), normal((9, 8), device, 1)
    views = [lambda x: x.T, lambda x: x[::-1, :].T, lambda x: x[:, ::-1].T, lambda x: x[::2, ::2]]
    for first in views:
        for second in views:
            x, y = first(a), second(b).T
            k = min(x.shape[1], y.shape[0])
            f = lambda a, b, u=first, v=second, k=k: u(a)[:, :k] @ v(b).T[:k]  # noqa: E731
            np.testing.assert_allclose(
                f(a, b).numpy(), np.einsum("ik,kj", x.numpy()[:, :k], y.numpy()[:k]), rtol=1e-12, atol=1e-13
            )
            assert gradcheck(f, [a, b], direction=True)


def test_a_gradient_without_strides_of_its_own(device):
    a, b = normal((3, 4), device), normal((4, 5), device)
    (a @ b).sum().backward()  # sum sends one number, seen as a matrix
    np.testing.assert_allclose(a.grad.numpy(), np.ones((3, 5)) @ b.numpy().T, rtol=1e-13)
    np.testing.assert_allclose(b.grad.numpy(), a.numpy().T @ np.ones((3, 5)), rtol=1e-13)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("int64", "float32", "float32"),
        ("int32", "int64", "int64"),
        ("bool", "float32", "float32"),
    ],
)
def test_types(a, b, expected, device):
    x, w = Tensor(np.ones((2, 3), a), device=device), Tensor(np.ones((3, 2), b), device=device)
    x, w = (t.requires_grad_() if t.dtype.kind == "f" else t for t in (x, w))
    y = x @ w
    assert y.dtype == expected
    np.testing.assert_array_equal(y.numpy(), np.full((2, 2), 3))
    if y.requires_grad:
        y.sum().backward()
        assert all(t.grad is None or t.grad.dtype == t.dtype for t in (x, w))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint64"])
def test_integers_wrap_around(dtype, device):
    limits, draw = np.iinfo(dtype), np.random.default_rng(0).integers
    a, b = (draw(limits.min, limits.max, shape, dtype, endpoint=True) for shape in ((9, 70), (70, 11)))
    y = Tensor(a, device=device) @ Tensor(b, device=device)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), a @ b)


def test_arrays_on_either_side(device):
    x = normal((2, 2), device)
    m = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose((m @ x).numpy(), m @ x.numpy())
    np.testing.assert_allclose((x @ m).numpy(), x.numpy() @ m)


def test_inf_and_nan_are_numpys(device):
    with np.errstate(all="ignore"):
        y = Tensor([[np.inf, 1.0]], device=device) @ Tensor([[1.0, 0.0], [np.nan, 2.0]], device=device)
    assert np.isnan(y.numpy()).tolist() == [[True, True]]


def test_refused():
    x = Tensor(np.ones((3, 4)))
    with pytest.raises(ShapeError, match=r"matmul: \(3, 4\) @ \(3, 4\): a has 4 columns, b has 3 rows"):
        x @ x
    with pytest.raises(ShapeError, match="matmul: operands need at least one axis"):
        x @ 2.0
    with pytest.raises(ShapeError, match=r"matmul: shapes \(2,\) and \(3,\) do not broadcast"):
        Tensor(np.ones((2, 3, 4))) @ Tensor(np.ones((3, 4, 5)))
    with pytest.raises(DTypeError, match="matmul: is not defined for bool"):
        Tensor(np.ones((2, 2), bool)) @ Tensor(np.ones((2, 2), bool))
    with pytest.raises(DTypeError, match="matmul: one of a, b must be a Tensor"):
        F.matmul(np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_no_product_for_a_gradient_that_nobody_wants(device, wanted):
    if minigrad.device(device).kind == "textbook":
        pytest.skip("the textbook keeps and computes all")
    y = F.matmul(*(Tensor(np.ones(shape), need, device) for shape, need in zip([(3, 4), (4, 5)], wanted)))
    assert (y.node.b is not None, y.node.a is not None) == wanted  # a gradient needs the other factor
    grads = y.device.backward(y.node, Tensor(np.ones((3, 5)), device=device).data)
    assert tuple(grad is not None for grad in grads) == wanted


def test_gradients_of_a_repeated_matrix_are_summed_in_pieces(device):
    """2^24 + 1 is 2^24 in float32: one addition after the other would lose all the ones."""
    for where in (device, "textbook:0"):
        a, b = (Tensor(np.ones(shape, np.float32), True, where) for shape in [(1, 2, 2), (5000, 2, 1)])
        dy = np.ones((5000, 2, 1), np.float32)
        dy[0] = 2.0**24
        F.matmul(a, b).backward(Tensor(dy, device=where))
        np.testing.assert_allclose(a.grad.numpy(), 2.0**24 + 4999, rtol=0, atol=160)
