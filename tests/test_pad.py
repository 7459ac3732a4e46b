"""Padding with a constant."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, ShapeError, Tensor, gradcheck


def normal(shape, device, dtype="float64"):
    return Tensor(np.random.default_rng(0).standard_normal(shape), True, device, dtype)


@pytest.mark.parametrize(
    ("shape", "padding"),
    [
        ((3, 4), ((1, 2), (0, 3))),
        ((3, 4), ((0, 0), (0, 0))),
        ((5,), ((2, 0),)),
        ((), ()),
        ((2, 3, 4, 5), ((0, 0), (0, 0), (1, 2), (3, 0))),
        ((0, 2), ((1, 1), (0, 1))),
        ((3, 4), [[1, 0], [0, 1]]),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.5, -np.inf, np.nan, np.float32(2), 3])
def test_values_and_gradients(shape, padding, value, device):
    x = normal(shape, device)
    y = F.pad(x, padding, value)
    expected = np.pad(x.numpy(), padding, constant_values=value) if shape else x.numpy()
    np.testing.assert_array_equal(y.numpy(), expected)
    if x.size and np.isfinite(value):
        assert gradcheck(lambda x: F.pad(x, padding, value), [x])


def test_every_device_of_the_processor_pads():
    for where in ("textbook:0", "cpu:0"):
        x = normal((2, 3), where)
        y = F.pad(x, ((1, 0), (2, 1)), 7.0)
        dy = np.arange(18.0).reshape(3, 6)
        y.backward(dy)
        for i, j in np.ndindex(3, 6):
            inside = i >= 1 and 2 <= j < 5
            assert y.numpy()[i, j] == (x.numpy()[i - 1, j - 2] if inside else 7)
            assert not inside or x.grad.numpy()[i - 1, j - 2] == dy[i, j]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_types(dtype, device):
    x = Tensor(np.ones((2, 2), dtype), device=device)
    y = F.pad(x, ((1, 0), (0, 0)), 0)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), np.array([[0, 0], [1, 1], [1, 1]], dtype))


def test_float32_gradient(device):
    x = normal((2, 2), device, "float32")
    F.pad(x, ((1, 1), (1, 1)), 5.0).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), np.ones((2, 2)))


@pytest.mark.cpu_only("on a card, what an op makes is C-contiguous")
def test_memory_order_is_kept(device):
    x = Tensor(np.ones((2, 5, 6, 3)), device=device).transpose(0, 3, 1, 2)
    assert F.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2))).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_views_are_padded(device):
    assert gradcheck(lambda x: F.pad(x[::-1, ::2].T, ((1, 2), (3, 0))), [normal((4, 6), device)])


def test_large_shape_along_a_random_direction(device):
    x = normal((4, 48, 27, 27), device)
    assert gradcheck(lambda x: F.pad(x, ((0, 0), (0, 0), (2, 2), (1, 3))), [x], direction=True)


def test_refused():
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"pad: x \(2, 3\) has 2 axes, padding names 1"):
        F.pad(x, ((1, 1),))
    for wrong in (1, (1, 2), ((1, 2, 3), (1, 2)), "ab"):
        with pytest.raises(ArgumentError, match=r"pad: padding must be \(\(before, after\), ...\)"):
            F.pad(x, wrong)
    with pytest.raises(ArgumentError, match="pad: before must be an integer >= 0, got -1"):
        F.pad(x, ((-1, 0), (0, 0)))
    with pytest.raises(ArgumentError, match="pad: after must be an integer >= 0, got 1.0"):
        F.pad(x, ((0, 1.0), (0, 0)))
    with pytest.raises(ArgumentError, match="pad: value must be a number, got 'x'"):
        F.pad(x, ((0, 0), (0, 0)), "x")
    with pytest.raises(ArgumentError, match="pad: value must be an integer for a int64 tensor, .* got 0.5"):
        F.pad(Tensor([1]), ((0, 1),), 0.5)
    for dtype, value in [("int8", 128), ("uint8", -1), ("bool", 2), ("int64", 10**30), ("int32", np.nan)]:
        with pytest.raises(ArgumentError, match=f"pad: value must be an integer for a {dtype} tensor"):
            F.pad(Tensor([1], dtype=dtype), ((0, 1),), value)
    assert F.pad(Tensor([1], dtype="uint8"), ((0, 1),), 255).numpy().tolist() == [1, 255]
    with pytest.raises(DTypeError, match="pad: x must be a Tensor"):
        F.pad([1], ((0, 1),))
