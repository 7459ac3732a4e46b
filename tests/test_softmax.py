"""softmax and log_softmax: values against loops, PyTorch and onnxruntime; gradients; extreme logits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import onnx_run
from reference import softmax_reference

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
def test_gradients_at_the_size_of_the_last_layer(device, f):
    assert gradcheck(f, [tensor((129, 1000), device)], direction=True)


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
