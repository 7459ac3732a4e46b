"""ReLU: what test_pointwise.py does not ask of every function."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor


def test_backward_keeps_y_and_not_x(device):
    x = Tensor([-1.0, 2.0], True, device)
    hidden = x * 1
    y = F.relu(hidden)
    assert [k for k, v in vars(y.node).items() if isinstance(v, type(x.data))] == ["y"]
    assert y.node.y is y.data


def test_the_slope_at_zero_is_zero(device):
    x = Tensor([0.0, -0.0, 1e-30, -1e-30], True, device)
    F.relu(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 1, 0])


def test_nan_in_dy_stays_nan(device):
    """Also where x <= 0: what is wrong further up is not to be hidden."""
    for where in (device, "textbook:0"):
        x = Tensor(np.float32([-1, 0, 2, np.nan]), True, where)
        y = F.relu(x)
        y.backward(np.full(4, np.nan, np.float32))
        assert np.isnan(x.grad.numpy()).all() and np.isnan(y.numpy()).tolist() == [False, False, False, True]


@pytest.mark.cpu_only("on a card every result is C-contiguous")
def test_memory_order_is_kept(device):
    images = Tensor(np.random.default_rng(0).standard_normal((20, 31, 33, 7)).astype("float32"), device=device)
    x = images.transpose(0, 3, 1, 2)
    x.requires_grad_()
    y = F.relu(x)
    assert y.data.strides == x.data.strides
    dy = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
    dx = y.node.backward_cpu(dy)
    assert dx.strides == x.data.strides
    np.testing.assert_array_equal(y.numpy(), np.maximum(x.numpy(), 0))
    np.testing.assert_array_equal(dx, np.where(x.numpy() > 0, dy, 0))
