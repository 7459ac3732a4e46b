"""Comparisons give bool tensors outside the graph."""

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import DeviceError, DTypeError, ShapeError, Tensor

RELATIONS = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
OPERATORS = {
    "equal": lambda a, b: a == b,
    "not_equal": lambda a, b: a != b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
}
A = np.array([[1.0, 2.0, np.nan], [-np.inf, 0.0, -0.0]])
B = np.array([1.0, 3.0, np.nan])


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float64"), ("float32", "float32")])
def test_values(relation, dtypes, device):
    a, b = (Tensor(v, device=device, dtype=t) for v, t in zip((A, B), dtypes))
    expected = getattr(np, relation)(A, B)
    for y in (getattr(F, relation)(a, b), OPERATORS[relation](a, b), OPERATORS[relation](a, B)):
        assert y.dtype == np.bool_ and str(y.device) == device
        np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(OPERATORS[relation](B, a).numpy(), getattr(np, relation)(B, A))


@pytest.mark.parametrize("relation", RELATIONS)
def test_numbers(relation):
    for values, number in [
        ([1, 2, 3], 2),
        ([1, 2, 3], 2.5),
        ([True, False], 1),
        ([0.5, 1.5], 1),
        ([0.1, 0.2], 0.1),
    ]:
        y, reflected = (
            OPERATORS[relation](Tensor(values), number),
            OPERATORS[relation](number, Tensor(values)),
        )
        assert y.numpy().tolist() == [bool(OPERATORS[relation](v, number)) for v in values]
        assert reflected.numpy().tolist() == [bool(OPERATORS[relation](number, v)) for v in values]


def test_numbers_that_the_type_cannot_hold():
    x = Tensor([1, 2], dtype="int8")
    assert (x < 300).numpy().all() and not (x == 300).numpy().any() and (x > -1000).numpy().all()


def test_the_result_is_not_in_the_graph(device):
    x = Tensor([1.0, 2.0], True, device)
    for relation in RELATIONS:
        y = getattr(F, relation)(x, 1.5)
        assert not y.requires_grad and y.is_leaf


def test_scalars_stay_0d():
    y = Tensor(2.0) > 1
    assert y.shape == () and y.dtype == np.bool_ and bool(y)


@pytest.mark.parametrize("other", [None, "text", object(), b"bytes"])
def test_equality_with_what_is_no_number(other):
    x = Tensor([1.0, 2.0])
    assert (x == other) is False and (x != other) is True
    assert (other == x) is False and (other != x) is True
    assert F.equal(x, other) is False and F.not_equal(x, other) is True


def test_refusals():
    x = Tensor([1.0, 2.0])
    with pytest.raises(DTypeError, match="less: operands must be tensors, arrays or numbers, got NoneType"):
        x < None  # noqa: B015
    with pytest.raises(DTypeError, match="greater: operands must be tensors"):
        x > "a"  # noqa: B015
    with pytest.raises(ShapeError, match=r"equal: shapes \(2,\) and \(3,\) do not broadcast"):
        x == Tensor([1.0, 2.0, 3.0])  # noqa: B015
    with pytest.raises(DTypeError, match="less: one of a, b must be a Tensor"):
        F.less(1, 2)
    with pytest.raises(DeviceError, match="less: inputs on cpu:0, cpu:1"):
        Tensor([1.0], device="cpu:0") < Tensor([1.0], device="cpu:1")  # noqa: B015


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 2**70, 10**400], ids=["2**64", "-2**63-1", "2**70", "10**400"])
@pytest.mark.parametrize("dtype", ["uint64", "int64", "uint8", "bool"])
def test_integers_beyond_64_bits(dtype, number, device):
    edges = [0, 1] if dtype == "bool" else [np.iinfo(dtype).min, 1, np.iinfo(dtype).max]
    x = Tensor(np.array(edges, dtype), device=device)
    for relation in OPERATORS.values():
        assert relation(x, number).numpy().tolist() == [relation(int(edge), number) for edge in edges]
