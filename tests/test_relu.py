"""ReLU: what test_pointwise.py does not ask of every function."""

import numpy as np

import minigrad.functional as F
from minigrad import Tensor


def test_backward_keeps_y_and_not_x(device):
    x = Tensor([-1.0, 2.0], True, device)
    hidden = x * 1
    y = F.relu(hidden)
    assert [k for k, v in vars(y.node).items() if isinstance(v, np.ndarray)] == ["y"]
    assert y.node.y is y.data


def test_the_slope_at_zero_is_zero(device):
    x = Tensor([0.0, -0.0, 1e-30, -1e-30], True, device)
    F.relu(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 1, 0])
