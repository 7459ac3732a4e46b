"""Initial weights: their distributions, in place, independent of the memory order, refused input."""

import math

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, DTypeError, GraphError, ShapeError, Tensor, init

RANDOM = [init.normal_, init.uniform_, init.he_normal_]


def blank(shape, device="cpu:0", dtype="float32", order="C"):
    return Tensor(np.zeros(shape, dtype, order=order), device=device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distributions(device, dtype):
    shape = (200, 50, 5, 5)
    values = {f.__name__: f(blank(shape, device, dtype)).numpy() for f in RANDOM}
    values["shifted"] = init.normal_(blank(shape, device, dtype), mean=3.0, std=0.5).numpy()
    for name, mean, sd in [
        ("normal_", 0, 0.01),
        ("shifted", 3, 0.5),
        ("uniform_", 0.5, 1 / math.sqrt(12)),
        ("he_normal_", 0, math.sqrt(2 / (50 * 5 * 5))),
    ]:
        v = values[name]
        assert v.dtype == dtype
        assert v.mean() == pytest.approx(mean, abs=5 * sd / math.sqrt(v.size)), name
        assert v.std() == pytest.approx(sd, rel=0.01), name
    assert values["uniform_"].min() >= 0 and values["uniform_"].max() < 1
    low = init.uniform_(blank((1000,), device, dtype), -3, -2).numpy()
    assert -3 <= low.min() < low.max() <= -2


def test_he_of_a_linear_weight(device):
    assert init.he_normal_(blank((1000, 50), device)).numpy().std() == pytest.approx(0.2, rel=0.02)


def test_he_keeps_the_size_of_activations_through_relus(device):
    x = Tensor(np.random.default_rng(0).standard_normal((100, 500)).astype("float32"), device=device)
    for _ in range(5):
        x = minigrad.functional.relu(minigrad.functional.linear(x, init.he_normal_(blank((500, 500), device))))
    assert (x.numpy() ** 2).mean() == pytest.approx(1, abs=0.4)


def test_constants(device):
    assert (init.constant_(blank((3, 4), device), 2.5).numpy() == 2.5).all()
    assert not init.zeros_(init.constant_(blank((3, 4), device), 1)).numpy().any()


@pytest.mark.parametrize("f", [*RANDOM, init.zeros_, lambda t: init.constant_(t, 3)])
def test_in_place_counted_and_returned(device, f):
    tensor = Tensor(np.ones((4, 5), np.float32), requires_grad=True, device=device)
    y, array, version = (tensor * tensor).sum(), tensor.data, tensor.version.value
    assert f(tensor) is tensor and tensor.data is array and tensor.version.value == version + 1
    assert tensor.is_leaf and tensor.requires_grad
    with pytest.raises(GraphError, match="modified in place"):
        y.backward()


@pytest.mark.parametrize("f", RANDOM)
def test_seeds_devices_and_memory_orders(f):
    def values(device="cpu:0", order="C"):
        minigrad.manual_seed(5)
        return f(blank((6, 7), device, order=order)).numpy()

    np.testing.assert_array_equal(values(), values())
    np.testing.assert_array_equal(values(), values(order="F"))
    assert (values() != values("cpu:1")).any()


def test_refused_input(device):
    with pytest.raises(ShapeError, match=r"he_normal_: tensor must be a weight \(out, in\) or .*, got \(3,\)"):
        init.he_normal_(blank((3,), device))
    with pytest.raises(ArgumentError, match="normal_: std must be a finite number >= 0, got -1"):
        init.normal_(blank((3,), device), std=-1)
    with pytest.raises(ArgumentError, match="normal_: mean must be a finite number, got nan"):
        init.normal_(blank((3,), device), mean=math.nan)
    with pytest.raises(ArgumentError, match="uniform_: high must be >= low, got low 1, high 0"):
        init.uniform_(blank((3,), device), 1, 0)
    with pytest.raises(DTypeError, match="zeros_: tensor must be a floating-point Tensor, got a tensor of int64"):
        init.zeros_(Tensor([1], device=device))
    with pytest.raises(DTypeError, match="constant_: .* got ndarray"):
        init.constant_(np.zeros(3), 1)
