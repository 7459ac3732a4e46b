"""softmax and log_softmax: values against loops, PyTorch and onnxruntime; gradients; extreme logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import onnx_run
from reference import softmax_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, ShapeError, Tensor, gradcheck

BOTH = pytest.mark.parametrize("f", [F.softmax, F.log_softmax])


def tensor(shape, device, seed=0):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) * 3
    return Tensor(values, requires_grad=True, device=device)


def test_values_against_loops(device):
    x = tensor((5, 7), device)
    y = softmax_reference(x.numpy())
    np.testing.assert_allclose(F.softmax(x).numpy(), y, rtol=1e-12)
    np.testing.assert_allclose(F.log_softmax(x).numpy(), np.log(y), rtol=1e-12)
    np.testing.assert_allclose(F.softmax(x, axis=0).numpy(), softmax_reference(x.numpy().T).T, rtol=1e-12)


@BOTH
@pytest.mark.parametrize("shape, axis", [((5, 7), 1), ((7, 5), 0), ((3, 4, 2), 1), ((1, 1), 0)])
def test_every_device_of_the_processor_against_loops(f, shape, axis):
    """dx_j = sum over i of dy_i dy_i/dx_j, with dy_i/dx_j as the module's docstring has it, one row at a time."""
    for where in ("textbook:0", "cpu:0"):
        x = tensor(shape, where)
        y = f(x, axis)
        dy = np.random.default_rng(1).standard_normal(shape)
        y.backward(dy)
        lines, gradients = (np.moveaxis(a, axis, -1).reshape(-1, shape[axis]) for a in (x.numpy(), dy))
        p = softmax_reference(lines)
        dx = np.zeros(p.shape)
        for n, i, j in np.ndindex(*p.shape, shape[axis]):
            slope = (i == j) - p[n, j]
            dx[n, j] += gradients[n, i] * (slope * p[n, i] if f is F.softmax else slope)
        for ours, expected in ((y, p if f is F.softmax else np.log(p)), (x.grad, dx)):
            got = np.moveaxis(ours.numpy(), axis, -1).reshape(p.shape)
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@BOTH
@pytest.mark.parametrize(
    "shape, axis", [((3, 4), -1), ((3, 4), 0), ((5,), 0), ((2, 3, 4), 1), ((2, 1), 1), ((0, 3), 1)]
)
def test_gradients_of_every_element(device, f, shape, axis):
    x = tensor(shape, device)
    if x.size:
        assert gradcheck(lambda x: f(x, axis), [x])
    else:
        f(x, axis).backward(np.zeros(shape))
        assert x.grad.shape == shape


@BOTH
@pytest.mark.parametrize("shape, axis", [((129, 1000), 1), ((1000, 129), 0), ((3, 35, 301), 1), ((300, 10), 1)])
def test_gradients_at_the_size_of_the_last_layer(device, f, shape, axis):
    assert gradcheck(lambda x: f(x, axis), [tensor(shape, device)], direction=True)


@BOTH
@pytest.mark.parametrize("length", [31, 32, 33, 255, 257, 1025])
def test_long_axes(device, f, length):
    """Lengths around those of a warp and of a thread block; the maximum first, last, and between."""
    x = tensor((4, length), device)
    values = x.numpy().copy()
    values[0, 0] = values[1, -1] = values[2, length // 2] = 1000  # e^1000 would overflow
    s = values - values.max(axis=1, keepdims=True)
    expected = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
    expected = np.exp(expected) if f is F.softmax else expected
    for axis, turn in ((1, np.asarray), (0, np.transpose)):
        y = f(Tensor(turn(values).copy(), device=device), axis)
        np.testing.assert_allclose(turn(y.numpy()), expected, rtol=1e-12, atol=1e-14)


@BOTH
def test_gradients_that_arrive_transposed(device, f):
    assert gradcheck(lambda x: f(x, 1).T, [tensor((3, 5), device)])
    assert gradcheck(lambda x: f(x, 0).T, [tensor((3, 5), device)])


@BOTH
@pytest.mark.parametrize("axis", [0, 1])
def test_every_launch_geometry_gives_the_same(device, f, axis):
    """Fewer blocks than lines: each takes several."""
    where = minigrad.device(device)
    if where.on_host:
        pytest.skip("the processor runs no kernels")
    x = tensor((11, 70), device)
    y, dx = f(x, axis), where.empty(x.shape, x.dtype)
    dy = Tensor(np.random.default_rng(1).standard_normal(x.shape), device=device)
    y.backward(dy)
    again = where.empty(x.shape, x.dtype)
    for grid in (1, 3):
        sizes = (70, 11, 70) if axis == 0 else (11, 70, 1)  # lines, length, inner
        where.launch("softmax", f"{f.__name__}_forward", grid, 32, x.data, again, *sizes, REAL=x.dtype)
        where.launch("softmax", f"{f.__name__}_backward", grid, 32, dy.data, y.data, dx, *sizes, REAL=x.dtype)
        np.testing.assert_allclose(where.runtime.to_host(again), y.numpy(), rtol=1e-13)
        np.testing.assert_allclose(where.runtime.to_host(dx), x.grad.numpy(), rtol=1e-12, atol=1e-15)


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
    elements=st.floats(-10_000, 10_000, width=32) | st.floats(-3, 3, width=32) | st.just(-np.inf),
)


@BOTH
@settings(max_examples=60)
@given(x=arrays, data=st.data())
def test_against_pytorch(f, x, data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    ours, theirs = Tensor(x, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
    y, ty = f(ours, axis), getattr(torch, f.__name__)(theirs, axis)
    dy = np.random.default_rng(0).standard_normal(x.shape).astype(x.dtype)
    y.backward(dy)
    ty.backward(torch.from_numpy(dy))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if x.dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    assert y.dtype == ours.grad.dtype == x.dtype
    np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), **tolerance)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), **tolerance)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape, axis", [((6, 11), -1), ((2, 3, 4, 5), 1), ((7,), 0)])
def test_against_onnxruntime(device, name, shape, axis):
    x = (100 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    expected = onnx_run(name, x, axis=axis)
    ours = {"Softmax": F.softmax, "LogSoftmax": F.log_softmax}[name](Tensor(x, device=device), axis)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_logits_of_ten_thousand(device):
    x = Tensor([[10_000.0, 9_999.0, -10_000.0]], device=device)
    np.testing.assert_allclose(F.softmax(x).numpy(), [[1 / (1 + np.exp(-1)), 1 / (1 + np.e), 0]], rtol=1e-6)
    expected = np.array([0, -1, -20_000]) - np.log1p(np.exp(-1))
    np.testing.assert_allclose(F.log_softmax(x).numpy(), [expected], rtol=1e-6)


@BOTH
@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_rows_without_a_maximum_become_nan(device, f, row):
    y = f(Tensor([row, [0.0, 0.0]], device=device)).numpy()
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


@BOTH
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_in_nothing_out(device, f, shape):
    assert f(Tensor(np.zeros(shape), device=device)).shape == shape


@BOTH
def test_backwards_memory(device, f):
    x = np.random.default_rng(0).standard_normal((4, 6))
    expected = f(Tensor(x, device=device)).numpy()
    np.testing.assert_array_equal(
        f(Tensor(x[::-1, ::-1], device=device)).numpy(), f(Tensor(x[::-1, ::-1].copy())).numpy()
    )
    np.testing.assert_allclose(f(Tensor(np.asfortranarray(x), device=device)).numpy(), expected, rtol=1e-14)


@BOTH
def test_refused_input(device, f):
    name = f.__name__
    x = Tensor(np.zeros((2, 3)), device=device)
    with pytest.raises(ShapeError, match=f"{name}: axis 2 is out of range for a tensor with 2 axes"):
        f(x, 2)
    with pytest.raises(ArgumentError, match=f"{name}: axis must be an integer, got True"):
        f(x, True)
    with pytest.raises(DTypeError, match=f"{name}: expects floating-point input, got x int64"):
        f(Tensor(np.zeros((2, 3), np.int64), device=device))
    with pytest.raises(DTypeError, match=f"{name}: x must be a Tensor, got list"):
        f([1.0])


@pytest.mark.parametrize("axis", [0, 1])
def test_small_probabilities_are_not_lost_beside_a_large_one(axis, device):
    """1 + 2^-25 is 1 in float32: one addition after the other would lose all but the first."""
    logits = np.full((6000, 2), np.log(2.0**-25), np.float32)
    logits[0] = 0
    x = Tensor(logits if axis == 0 else logits.T.copy(), True, device)
    total = np.exp(logits[:, 0].astype("float64")).sum()
    first = (0, slice(None)) if axis == 0 else (slice(None), 0)
    np.testing.assert_allclose(1 - F.softmax(x, axis).numpy()[first], 1 - 1 / total, rtol=0.03)
    np.testing.assert_allclose(F.log_softmax(x, axis).numpy()[first], -np.log(total), rtol=0.03)
    # dx of the first: dy - e^y * sum(dy), sum(dy) being 5999 more than 2^24; and y * (dy - sum(dy * y)), both being 1.
    dy = np.ones((6000, 2), np.float32)
    for f in (F.log_softmax, F.softmax):
        dy[0] = 2.0**24 if f is F.log_softmax else 1
        expected = 2.0**24 * (1 - 1 / total) - 5999 / total if f is F.log_softmax else 0
        x.grad = None
        f(x, axis).backward(Tensor(dy if axis == 0 else dy.T.copy(), device=device))
        np.testing.assert_allclose(x.grad.numpy()[first], expected, rtol=0.05, atol=1e-5)
