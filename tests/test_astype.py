"""Conversion between element types."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import DTypeError, Tensor, gradcheck

TYPES = ["bool", "uint8", "int8", "int32", "int64", "float32", "float64"]


@pytest.mark.parametrize("a", TYPES)
@pytest.mark.parametrize("b", TYPES)
def test_values(a, b, device):
    x = Tensor(np.array([0, 1, 2, 100], a), device=device)
    y = x.astype(b)
    assert y.dtype == b and str(y.device) == device
    np.testing.assert_array_equal(y.numpy(), x.numpy().astype(b))
    assert (y is x) == (a == b)


def test_gradient_returns_in_the_type_of_x(device):
    x = Tensor([1.0, 2.0], True, device)
    y = x.astype("float64")
    y.backward(np.array([1 + 1e-12, 3.0]))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [1, 3])
    z = Tensor([1.0, 2.0], True, device, "float64")
    z.astype("float32").sum().backward()
    assert z.grad.dtype == np.float64


def test_gradcheck_through_types(device):
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)), True, device)
    assert gradcheck(lambda x: x.astype("float64") * 2, [x])


def test_no_gradient_through_integers(device):
    x = Tensor([1.5, 2.5], True, device)
    assert not x.astype("int64").requires_grad and x.astype("int64").is_leaf
    assert not x.astype("int64").astype("float32").requires_grad


@pytest.mark.cpu_only("on a card, what an op makes is C-contiguous")
def test_the_memory_order_is_kept(device):
    x = Tensor(np.ones((4, 6)), device=device)
    assert x.T.astype("float32").data.flags.f_contiguous


@pytest.mark.parametrize("dtype", ["float16", "complex64", object, "S3", "no such type", None, ">f4"])
def test_refused(dtype):
    with pytest.raises(DTypeError, match="astype: dtype must be float32, float64, an integer type or bool"):
        Tensor([1.0]).astype(dtype)
    with pytest.raises(DTypeError, match="astype: x must be a Tensor"):
        F.astype([1.0], "float32")
