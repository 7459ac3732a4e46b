"""Conversion between element types."""

import math
from fractions import Fraction

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DTypeError, Tensor, gradcheck

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


# ---------------------------------------------------------------- what the new type has no number for

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
EVERY = ["bool", *INTEGERS, "float32", "float64"]


def edges(dtype):
    """Numbers of that type at the edges of all others, just inside and just beyond, as an array of 40 columns."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([[False, True]])
    limits = [limit for name in INTEGERS for limit in (np.iinfo(name).min, np.iinfo(name).max)]
    limits += [sign * 2**k for k in range(80) for sign in (1, -1)]
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        near = {n + step for n in limits for step in (-1, 0, 1)} | {2**24 + 1, 2**53 + 1, 2**62 + 2**38 + 1}
        values = np.array(sorted(n for n in near if low <= n <= high), dtype)
    else:
        info, largest = np.finfo(dtype), np.finfo(np.float32).max
        near = np.array([n + step for n in limits for step in (-1.5, -1, -0.5, 0, 0.5, 1)], dtype)
        over = [1e20, 1e38, 1e300, float(info.max), float(largest) * (1 + 2.0**-25), float(largest) * (1 + 2.0**-24)]
        special = [np.nan, np.inf, -0.0, float(info.tiny), *over]
        with np.errstate(over="ignore"):
            values = np.concatenate([near, np.array(special + [-n for n in special]).astype(dtype)])
        values = np.concatenate(
            [values, np.nextafter(near, dtype.type(np.inf)), np.nextafter(near, dtype.type(-np.inf))]
        )
    return np.resize(values, (-(-values.size // 40), 40))


def by_the_rule(value, dtype):
    """One number (of NumPy) in another type, by Python's integers and fractions of any size."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return value != 0
    finite = math.isfinite(value)
    if dtype.kind in "iu":
        bits = 8 * dtype.itemsize
        n = math.trunc(value.item()) % 2**bits if finite else 0
        return n - 2**bits if dtype.kind == "i" and n >= 2 ** (bits - 1) else n
    if not finite or value == 0:
        return float(value)
    exact = Fraction(value.item())
    bits = np.finfo(dtype).nmant + 1
    lowest = np.finfo(dtype).minexp - bits + 1
    step = Fraction(2) ** max(math.frexp(float(value))[1] - bits, lowest)
    rounded = round(exact / step) * step  # to even, as Python rounds fractions
    beyond = abs(rounded) > Fraction(float(np.finfo(dtype).max))
    return math.copysign(math.inf if beyond else rounded, value)


@pytest.mark.parametrize("a", EVERY)
@pytest.mark.parametrize("b", EVERY)
def test_every_edge_of_every_pair_of_types(a, b, device):
    values = edges(a)
    if values.dtype.kind == "f" and not minigrad.device(device).on_host:  # to cards, these are 0
        values[np.abs(values) < np.finfo(np.float32).tiny] = 0
    expected = np.array([by_the_rule(value, b) for value in values.ravel()], b).reshape(values.shape)
    x = Tensor(values, device=device)
    with np.errstate(invalid="ignore", over="ignore"):
        into, copied = Tensor(np.zeros_like(expected), device=device), Tensor(np.zeros_like(expected), device=device)
        into[::-1] = x[::-1]
        found = [x.astype(b), x.T.astype(b).T, into, copied.copy_(x)]
        found += [Tensor(x, dtype=b), Tensor(values, dtype=b, device=device), Tensor(np.asarray(x, b), device=device)]
    for y in found:
        assert y.dtype == b
        np.testing.assert_array_equal(y.numpy(), expected)
        if expected.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(y.numpy()), np.signbit(expected))
    for i in range(0, values.size, 97):  # no axes
        with np.errstate(invalid="ignore", over="ignore"):
            y = Tensor(values.ravel()[i], device=device).astype(b)
        np.testing.assert_array_equal(y.numpy(), expected.ravel()[i])


@pytest.mark.cpu_only("a card has no warnings")
def test_numpy_warns_of_nan_and_of_nothing_else(device):
    x = Tensor(np.array([1e20, -1.0, 1e300]), device=device)
    assert x.astype("uint8").numpy().tolist() == [0, 255, 0]
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        assert Tensor([1.5, np.nan], device=device).astype("int32").numpy().tolist() == [1, 0]


@pytest.mark.parametrize("value", [300, -1, 256.0, -1.5, 1e20, np.nan, np.inf, -np.inf, [1, 300], [[0.5], [np.nan]]])
def test_python_numbers_out_of_range_are_refused(value, device):
    with pytest.raises(ArgumentError, match=r"Tensor: .* is out of range for uint8"):
        Tensor(value, dtype="uint8", device=device)
    x = Tensor(np.ones((2, 2), np.uint8), device=device)
    with pytest.raises(ArgumentError, match=r"Tensor: .* is out of range for uint8"):
        x[...] = value
    np.testing.assert_array_equal(x.numpy(), 1)


def test_python_numbers_at_the_edges(device):
    assert Tensor([0, 255, 255.9, -0.5], dtype="uint8", device=device).numpy().tolist() == [0, 255, 255, 0]
    x = Tensor(np.zeros(2, np.int64), device=device)
    x[...] = [-(2**63), 2**63 - 1]
    assert x.numpy().tolist() == [-(2**63), 2**63 - 1]
    for value in (2.0**63, 2**63, -(2.0**63) * (1 + 2.0**-52)):
        with pytest.raises(ArgumentError, match="out of range for int64"):
            x[0] = value
    y = Tensor(np.zeros(2, np.float32), device=device)
    y[...] = 2**70
    assert y.numpy().tolist() == [2.0**70] * 2
    with pytest.raises(ArgumentError, match="add: 300 is out of range for uint8"):
        Tensor([1], dtype="uint8", device=device) + np.int64(300)
    for value in ("3", None, 1j, ["3"], [None]):
        with pytest.raises(DTypeError, match="Tensor: expected float32, float64, integers or bool"):
            y[...] = value
    assert y.numpy().tolist() == [2.0**70] * 2
