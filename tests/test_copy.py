"""Copying between devices."""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import DeviceError, DTypeError, Tensor, gradcheck

OTHER = "cpu:3"


def neighbour(device):
    """Another device of the same kind: number 0 or 1, so that two are enough."""
    where = minigrad.device(device)
    return f"{where.kind}:{int(where.index == 0)}"


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4)])
def test_values(dtype, shape, device):
    x = Tensor(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), device=device)
    for other in (OTHER, neighbour(device)):
        y = x.to(other)
        assert str(y.device) == other and y.dtype == dtype and y.shape == shape
        np.testing.assert_array_equal(y.numpy(), x.numpy())
        back = y.to(device)
        assert str(back.device) == device
        np.testing.assert_array_equal(back.numpy(), x.numpy())


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
    for other in (OTHER, neighbour(device)):
        assert x.to(other).data.strides == x.data.strides
        assert x.to(other).to(device).data.strides == x.data.strides


def test_views_with_gaps(device):
    x = Tensor(np.random.default_rng(0).standard_normal((40, 50, 3)), True, device)
    for other in (OTHER, neighbour(device)):
        for view in (lambda x: x[::2, 5:], lambda x: x[::-1].transpose(1, 2, 0), lambda x: x[:, 3]):
            y = view(x).to(other)
            np.testing.assert_array_equal(y.numpy(), view(x).numpy())
            y.backward(Tensor(y.numpy(), device=other))
            expected = np.zeros(x.shape)
            view(expected)[...] = y.numpy()
            np.testing.assert_array_equal(x.grad.numpy(), expected)
            x.grad = None


def test_the_gradient_goes_home(device):
    for other in (OTHER, neighbour(device)):
        x = Tensor([1.0, 2.0], True, device)
        y = x.to(other) * 3
        z = (y.to(device) * x).to("cpu:4")
        assert [str(t.device) for t in (y, z)] == [other, "cpu:4"]
        z.sum().backward()
        assert str(x.grad.device) == device
        np.testing.assert_array_equal(x.grad.numpy(), 6 * x.numpy())


def test_gradients(device):
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)), True, device)
    assert gradcheck(lambda x: x.to(OTHER), [x])
    assert gradcheck(lambda x: x.to(neighbour(device)).T.to(OTHER), [x])
    assert gradcheck(lambda x: (x * x).to(OTHER).tanh().to(device) * x, [x])
    large = Tensor(np.random.default_rng(0).standard_normal((64, 96, 13)), True, device)
    assert gradcheck(lambda x: (x * x).to(OTHER).T, [large], direction=True)


def test_to_the_textbooks_device_and_back(device):
    values = np.random.default_rng(0).standard_normal((4, 5, 3)).astype("float32").transpose(2, 0, 1)
    x, w = Tensor(values, True, device), Tensor(values * 2, True, "textbook:0")
    here = x.to("textbook:0")
    back = (here * w).to(device)
    assert str(here.device) == "textbook:0" and str(back.device) == device and here.dtype == back.dtype == "float32"
    np.testing.assert_array_equal(back.numpy(), values * (values * 2))
    dy = np.random.default_rng(1).standard_normal(values.shape).astype("float32")
    back.backward(dy)
    np.testing.assert_array_equal(x.grad.numpy(), dy * (values * 2))
    np.testing.assert_array_equal(w.grad.numpy(), dy * values)
    assert str(x.grad.device) == device and str(w.grad.device) == "textbook:0"
    if device != "textbook:0":  # x.to(...) is x itself there
        x.detach()[...] = 7.0
        np.testing.assert_array_equal(here.numpy(), values)


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
