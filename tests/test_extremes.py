"""maximum, minimum, clip and abs: against NumPy, PyTorch and differences; ties, NaN, integers, ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor, gradcheck

PAIRS = pytest.mark.parametrize("f", [F.maximum, F.minimum])
SHAPES = [((3, 4), (3, 4)), ((4,), (3, 1)), ((), (2, 3)), ((2, 1, 3), (5, 1)), ((5, 70, 1), (70, 33))]
EVERYWHERE = ("textbook:0", "cpu:0")


def inputs(shapes, device):
    random = np.random.default_rng(0)
    return [Tensor(random.standard_normal(s), True, device) for s in shapes]


@PAIRS
@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients(f, shapes, device):
    for where in {*EVERYWHERE, device}:
        a, b = inputs(shapes, where)
        y = f(a, b)
        np.testing.assert_array_equal(y.numpy(), getattr(np, f.__name__)(a.numpy(), b.numpy()))
        assert gradcheck(f, [a, b], direction=y.size > 100)


@PAIRS
def test_ties_are_shared_and_nan_gets_all(f, device):
    values = [[0.0, 1.0, 2.0, np.nan, 1.0, np.inf], [-0.0, 1.0, 5.0, 1.0, np.nan, np.inf]]
    for where in {*EVERYWHERE, device}:
        a, b = (Tensor(v, True, where) for v in values)
        y = f(a, b)
        np.testing.assert_array_equal(y.numpy(), getattr(np, f.__name__)(*values))
        y.backward(np.array([4, 6, 8, 2, 2, np.inf], "f"))
        larger, smaller = ([2, 3, 0, 2, 2, np.inf], [2, 3, 8, 2, 2, np.inf])
        da, db = (larger, smaller) if f is F.maximum else (smaller, larger)
        np.testing.assert_array_equal(a.grad.numpy(), da)
        np.testing.assert_array_equal(b.grad.numpy(), db)


@PAIRS
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool", "float32"])
def test_element_types(f, dtype, device):
    a, b = (np.array(v).astype(dtype) for v in ([1, 0, 100, 1], [0, 0, 200, 1]))
    y = f(Tensor(a, device=device), Tensor(b, device=device))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), getattr(np, f.__name__)(a, b))


def test_numbers(device):
    x = Tensor([-1.0, 0.5, 2.0], True, device)
    y = F.maximum(x, 0)
    y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), [0, 0.5, 2])
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1])
    np.testing.assert_array_equal(F.minimum(1.0, x).numpy(), [-1, 0.5, 1])


@pytest.mark.parametrize("bounds", [(-0.5, 0.7), (None, 0.2), (0.1, None), (-np.inf, 0.2), (0, np.inf)])
def test_clip(bounds, device):
    for where in {*EVERYWHERE, device}:
        (x,) = inputs([(7, 33)], where)
        y = F.clip(x, *bounds)
        low, high = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
        np.testing.assert_array_equal(y.numpy(), np.clip(x.numpy(), low, high))
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), (x.numpy() >= low) & (x.numpy() <= high))
        assert gradcheck(lambda x: F.clip(x, *bounds), [x], direction=True)


def test_clip_at_its_ends(device):
    for where in {*EVERYWHERE, device}:
        x = Tensor([-1.0, 2.0, np.nan, -np.inf, np.inf, -1.001, 2.001], True, where)
        y = F.clip(x, -1, 2)
        np.testing.assert_array_equal(y.numpy(), np.array([-1, 2, np.nan, -1, 2, -1, 2], "f"))
        y.backward(np.array([1, 1, 1, np.inf, np.nan, 1, 1], "f"))
        np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_clip_of_integers(dtype, device):
    x = Tensor(np.array([0, 3, 100, 127], dtype), device=device)
    for low, high in ((2, 90), (-5, 1000), (2.0, None), (None, 50), (300, 400)):
        y = F.clip(x, low, high)
        assert y.dtype == dtype
        most = np.iinfo(dtype).max
        expected = [min(max(int(v), low or -9), high or 10**9, most) for v in x.numpy()]
        expected = [min(v, most) for v in expected]
        np.testing.assert_array_equal(y.numpy(), expected)


def test_abs(device):
    for where in {*EVERYWHERE, device}:
        x = Tensor([[-2.0, -0.0, 0.0], [3.0, np.nan, -np.inf]], True, where)
        y = abs(x)
        y.backward(np.full((2, 3), 7, "f"))
        np.testing.assert_array_equal(y.numpy(), [[2, 0, 0], [3, np.nan, np.inf]])
        assert not np.signbit(y.numpy()[0]).any()
        np.testing.assert_array_equal(x.grad.numpy(), [[-7, 0, 0], [7, np.nan, -7]])
        (x,) = inputs([(3, 50)], where)
        assert gradcheck(F.abs, [x], direction=True) and y.node.name == "abs"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool"])
def test_abs_of_integers(dtype, device):
    values = np.array([-3, 0, 5, 127, -128]).astype(dtype)
    y = F.abs(Tensor(values, device=device))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), np.abs(values))


@settings(max_examples=60)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4), data=st.data())
def test_against_pytorch(shapes, data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    elements = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, np.nan])
    values = [data.draw(hnp.arrays(np.float64, shape, elements=elements)) for shape in shapes.input_shapes]
    for name, of, settings_ in (
        ("maximum", 2, {}),
        ("minimum", 2, {}),
        ("clip", 1, {"min": -1, "max": 1}),
        ("abs", 1, {}),
    ):
        ours, theirs = (
            [Tensor(v, True) for v in values[:of]],
            [torch.tensor(v, requires_grad=True) for v in values[:of]],
        )
        y, ty = getattr(F, name)(*ours, **settings_), getattr(torch, name)(*theirs, **settings_)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(dy)
        ty.backward(torch.tensor(dy))
        np.testing.assert_array_equal(y.numpy(), ty.detach().numpy())
        for mine, other in zip(ours, theirs, strict=True):
            if name != "abs" or not np.isnan(mine.numpy()).any():  # PyTorch's sign of NaN is 0
                np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-12)


def test_any_memory_order(device):
    a, b = inputs([(4, 3), (4, 3)], device)
    for f in (F.maximum, F.minimum, lambda a, b: F.clip(a, -0.3, 0.3) + abs(b)):
        a.grad = b.grad = None
        y = f(a.T, b.T)
        np.testing.assert_array_equal(y.numpy(), f(a, b).numpy().T)
        assert gradcheck(lambda a, b, f=f: f(a.T, b.T), [a, b])


def test_refused_input(device):
    x = Tensor(np.zeros((2, 3)), device=device)
    with pytest.raises(ShapeError, match=r"maximum: shapes \(2, 3\) and \(2,\) do not broadcast"):
        F.maximum(x, Tensor(np.zeros(2), device=device))
    with pytest.raises(DTypeError, match="minimum: one of a, b must be a Tensor"):
        F.minimum(1.0, 2.0)
    with pytest.raises(DeviceError):
        F.maximum(x, x.to("cpu:1"))
    with pytest.raises(ArgumentError, match="clip: needs min, max or both"):
        F.clip(x)
    with pytest.raises(ArgumentError, match="clip: min must be at most max, got min=2, max=1: exchange them"):
        F.clip(x, 2, 1)
    with pytest.raises(ArgumentError, match="clip: max must be an integer for x of int64, got 1.5: convert x"):
        F.clip(x.astype("int64"), 0, 1.5)
    with pytest.raises(DTypeError, match="clip: is not defined for bool"):
        F.clip(x > 0, 0, 1)
    with pytest.raises(DTypeError, match="abs: x must be a Tensor, got float"):
        F.abs(1.0)
