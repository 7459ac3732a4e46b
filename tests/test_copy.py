"""Copying between devices."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import DeviceError, DTypeError, Tensor, gradcheck

OTHER = "cpu:3"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4)])
def test_values(dtype, shape, device):
    x = Tensor(np.ones(shape, dtype), device=device)
    y = x.to(OTHER)
    assert str(y.device) == OTHER and y.dtype == dtype and y.shape == shape
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    assert str(y.to(device).device) == device


def test_the_same_device_costs_nothing(device):
    x = Tensor([1.0], True, device)
    assert x.to(device) is x and F.copy(x, x.device) is x


def test_the_copy_has_its_own_memory(device):
    x = Tensor([1.0, 2.0], device=device)
    y = x.to(OTHER)
    x[...] = 7.0
    np.testing.assert_array_equal(y.numpy(), [1, 2])
    assert y.version is not x.version


def test_memory_order_is_kept(device):
    x = Tensor(np.ones((2, 5, 6, 3)), device=device).transpose(0, 3, 1, 2)
    assert x.to(OTHER).data.strides == x.data.strides


def test_the_gradient_goes_home(device):
    x = Tensor([1.0, 2.0], True, device)
    y = x.to(OTHER) * 3
    z = (y.to(device) * x).to("cpu:4")
    assert [str(t.device) for t in (y, z)] == [OTHER, "cpu:4"]
    z.sum().backward()
    assert str(x.grad.device) == device
    np.testing.assert_array_equal(x.grad.numpy(), 6 * x.numpy())


def test_gradients(device):
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)), True, device)
    assert gradcheck(lambda x: x.to(OTHER), [x])
    assert gradcheck(lambda x: (x * x).to(OTHER).tanh().to(device) * x, [x])
    large = Tensor(np.random.default_rng(0).standard_normal((64, 96, 13)), True, device)
    assert gradcheck(lambda x: (x * x).to(OTHER).T, [large], direction=True)


def test_a_copied_leaf_keeps_a_gradient_of_its_own(device):
    x = Tensor([1.0, 2.0], True, device)
    y = x.to(OTHER)
    dy = Tensor([1.0, 1.0], device=OTHER)
    y.backward(dy)
    dy[...] = 5.0
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])


def test_refused(device):
    x = Tensor([1.0], device=device)
    with pytest.raises(DeviceError, match="device: expected a name such as 'cpu:0' or 'cuda:1', got 'gpu'"):
        x.to("gpu")
    with pytest.raises(DeviceError, match="add: inputs on .*: bring them to one device with .to()"):
        x + x.to(OTHER)
    with pytest.raises(DTypeError, match="copy: x must be a Tensor"):
        F.copy([1.0], device)
