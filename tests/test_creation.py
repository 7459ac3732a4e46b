"""zeros, ones, full, arange, rand, randn, and those like another tensor."""

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, DeviceError, DTypeError, Tensor


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_zeros_and_ones(name, device):
    make, expected = getattr(minigrad, name), getattr(np, name)
    for given in ((2, 3), ((2, 3),), ([2, 3],)):
        y = make(*given, device=device)
        assert y.dtype == np.float32 and str(y.device) == device and not y.requires_grad
        np.testing.assert_array_equal(y.numpy(), expected((2, 3)))
    assert make(4).shape == (4,) and make(()).shape == () and make().shape == () and make(0, 2).shape == (0, 2)
    assert make(2, dtype="int8").dtype == np.int8 and make(2, requires_grad=True).requires_grad


def test_full(device):
    for value, dtype in ((1.5, "float32"), (3, "int64"), (True, "bool")):
        y = minigrad.full((2, 3), value, device=device)
        assert y.dtype == dtype and str(y.device) == device
        np.testing.assert_array_equal(y.numpy(), np.full((2, 3), value))
    assert minigrad.full(3, 2, "float64").numpy().tolist() == [2, 2, 2]
    with pytest.raises(ArgumentError, match=r"full: fill_value must be one number, it has shape \(2,\)"):
        minigrad.full(3, [1, 2])
    with pytest.raises(ArgumentError, match="300 is out of range for uint8"):
        minigrad.full(3, 300, "uint8")


@pytest.mark.parametrize("given", [(5,), (2, 7), (2, 8, 3), (5, 0, -2), (0.5,), (0, 1, 0.25), (3, 3), (-4, 2.0)])
def test_arange(given, device):
    y, expected = minigrad.arange(*given, device=device), np.arange(*given)
    assert y.dtype == (np.float32 if expected.dtype.kind == "f" else np.int64)
    np.testing.assert_array_equal(y.numpy(), expected.astype(y.dtype))
    assert minigrad.arange(*given, dtype="float64", requires_grad=True).dtype == np.float64


def test_arange_refuses():
    for given, message in (((0, 5, 0), "step must not be 0"), ((np.nan,), "stop must be a finite number, got nan"),
                           ((0, "5"), "stop must be a finite number, got '5'"), ((0, np.inf), "got inf")):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"arange: .*{message}"):
            minigrad.arange(*given)


@pytest.mark.parametrize("name, mean, variance", [("randn", 0, 1), ("rand", 0.5, 1 / 12)])
def test_random_numbers(name, mean, variance, device):
    make = getattr(minigrad, name)
    minigrad.manual_seed(3)
    y = make(100, 100, device=device)
    assert y.dtype == np.float32 and str(y.device) == device
    assert y.numpy().mean() == pytest.approx(mean, abs=0.03) and y.numpy().var() == pytest.approx(variance, rel=0.05)
    more = make((100, 100), device=device).numpy()
    assert (more != y.numpy()).mean() > 0.99
    minigrad.manual_seed(3)
    np.testing.assert_array_equal(make((100, 100), device=device).numpy(), y.numpy())
    wide = make(50, dtype="float64", device=device).numpy()
    assert wide.dtype == np.float64 and (wide != wide.astype("f")).any()
    with pytest.raises(DTypeError, match=f"{name}: dtype must be float32 or float64, got int64"):
        make(3, dtype="int64")


def test_those_like_another(device):
    x = Tensor(np.ones((2, 3)), True, device)
    for name, more in (("zeros", ()), ("ones", ()), ("full", (7,)), ("randn", ()), ("rand", ())):
        y = getattr(minigrad, f"{name}_like")(x, *more)
        assert y.shape == (2, 3) and y.dtype == np.float64 and str(y.device) == device and not y.requires_grad
        y = getattr(minigrad, f"{name}_like")(x, *more, dtype="float32", device="cpu:1", requires_grad=True)
        assert y.dtype == np.float32 and str(y.device) == "cpu:1" and y.requires_grad
        with pytest.raises(DTypeError, match=f"{name}_like: x must be a Tensor, got ndarray"):
            getattr(minigrad, f"{name}_like")(x.numpy(), *more)
    np.testing.assert_array_equal(minigrad.full_like(x, 7).numpy(), np.full((2, 3), 7))


def test_refused_shapes_and_devices():
    for bad in ((-1,), (2.0,), ("3",), ((2, None),), (True,)):
        with pytest.raises(ArgumentError, match="zeros: shape must be an integer >= 0"):
            minigrad.zeros(*bad)
    with pytest.raises(DeviceError):
        minigrad.ones(2, device="tpu:0")
    with pytest.raises(DTypeError):
        minigrad.ones(2, dtype="float16")
    with pytest.raises(DTypeError, match="only floating-point tensors have gradients"):
        minigrad.zeros(2, dtype="int64", requires_grad=True)
