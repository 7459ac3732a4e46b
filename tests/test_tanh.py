"""tanh: what test_pointwise.py does not ask of every function."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-7), ("float64", 1e-15)])
def test_it_is_odd_and_follows_its_definition(dtype, tolerance, device):
    v = np.linspace(-4, 4, 33)
    y = F.tanh(Tensor(v, device=device, dtype=dtype)).numpy()
    np.testing.assert_allclose(y, (np.exp(v) - np.exp(-v)) / (np.exp(v) + np.exp(-v)), atol=tolerance)
    np.testing.assert_array_equal(y, -y[::-1])


def test_a_saturated_neuron_has_no_gradient(device):
    x = Tensor([-30.0, 0.0, 30.0], True, device)
    F.tanh(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 0])
