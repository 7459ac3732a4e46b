"""sigmoid: what test_pointwise.py does not ask of every function."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_symmetry(dtype, device):
    v = np.linspace(-30, 30, 61)
    y = F.sigmoid(Tensor(v, device=device, dtype=dtype)).numpy()
    np.testing.assert_allclose(y + y[::-1], np.ones(61), rtol=3e-7)
    assert np.all(np.diff(y[:45]) > 0) and y[30] == 0.5


def test_it_is_a_tanh_in_other_coordinates(device):
    x = Tensor(np.linspace(-8, 8, 33), device=device)
    np.testing.assert_allclose(F.sigmoid(x).numpy(), ((F.tanh(x / 2) + 1) / 2).numpy(), rtol=1e-12)
