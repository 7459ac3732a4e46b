"""where: values, gradients, broadcasting, what is not chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad.functional as F
from minigrad import DeviceError, DTypeError, ShapeError, Tensor, gradcheck

# Shapes of the condition, of a and of b.
SHAPES = [
    ((3, 4), (3, 4), (3, 4)),
    ((4,), (3, 4), (3, 1)),
    ((3, 1), (4,), ()),
    ((2, 1, 3), (1, 5, 1), (2, 1, 1)),
    ((), (2, 3), (2, 3)),
    ((5, 70, 1), (70, 33), (5, 1, 33)),
]


def inputs(shapes, device, dtype="float64"):
    random = np.random.default_rng(0)
    condition = Tensor(random.standard_normal(shapes[0]) > 0, device=device)
    return condition, *(Tensor(random.standard_normal(s), True, device, dtype) for s in shapes[1:])


@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients(shapes, device):
    """One element after the other: each y is a or b, and each dy goes where y came from."""
    for where in {"textbook:0", "cpu:0", device}:
        condition, a, b = inputs(shapes, where)
        y = F.where(condition, a, b)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(dy)
        chosen, wide_a, wide_b = np.broadcast_arrays(condition.numpy(), a.numpy(), b.numpy())
        da, db = np.zeros(a.shape), np.zeros(b.shape)
        of_a, of_b = (np.broadcast_to(np.arange(t.size).reshape(t.shape), y.shape) for t in (a, b))
        for at in np.ndindex(y.shape):
            assert y.numpy()[at] == (wide_a if chosen[at] else wide_b)[at]
            (da if chosen[at] else db).flat[(of_a if chosen[at] else of_b)[at]] += dy[at]
        np.testing.assert_allclose(a.grad.numpy(), da, atol=1e-12)
        np.testing.assert_allclose(b.grad.numpy(), db, atol=1e-12)


@pytest.mark.parametrize("shapes", SHAPES[:-1])
def test_gradients_of_every_element(shapes, device):
    condition, a, b = inputs(shapes, device)
    assert gradcheck(lambda a, b: F.where(condition, a, b), [a, b])


def test_what_is_not_chosen_has_no_say(device):
    condition = Tensor([True, False], device=device)
    a, b = Tensor([1.0, np.nan], True, device), Tensor([np.inf, 2.0], True, device)
    y = F.where(condition, a, b)
    y.backward(np.array([np.inf, np.nan], "f"))
    np.testing.assert_array_equal(y.numpy(), [1, 2])
    np.testing.assert_array_equal(a.grad.numpy(), [np.inf, 0])
    np.testing.assert_array_equal(b.grad.numpy(), [0, np.nan])


@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint8", "bool"])
def test_element_types(dtype, device):
    a, b = (np.array(v).astype(dtype) for v in ([1, 0, 3, 4], [5, 6, 0, 8]))
    chosen = np.array([True, False, False, True])
    y = F.where(Tensor(chosen, device=device), Tensor(a, device=device), Tensor(b, device=device))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.numpy(), np.where(chosen, a, b))


def test_numbers_and_lists(device):
    x = Tensor([[-1.0, 2.0], [3.0, -4.0]], True, device)
    y = F.where(x > 0, x, 0)
    np.testing.assert_array_equal(y.numpy(), [[0, 2], [3, 0]])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(F.where([True, False], 1.5, x.detach()).numpy(), [[1.5, 2], [1.5, -4]])
    y = F.where(x > 0, 1.0, -1.0)
    np.testing.assert_array_equal(y.numpy(), np.sign(x.numpy()))
    assert str(y.device) == device and y.dtype == np.float32 and not y.requires_grad


@settings(max_examples=40)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4), data=st.data())
def test_against_pytorch(shapes, data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    condition, a, b = inputs(shapes.input_shapes, "cpu:0")
    y = F.where(condition, a, b)
    theirs = [torch.tensor(t.numpy(), requires_grad=True) for t in (a, b)]
    ty = torch.where(torch.tensor(condition.numpy()), *theirs)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(dy)
    ty.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y.numpy(), ty.detach().numpy())
    for mine, other in zip((a, b), theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), atol=1e-12)


def test_any_memory_order(device):
    condition, a, b = inputs(((4, 3), (4, 3), (4, 3)), device)
    y = F.where(condition.T, a.T, b.T)
    np.testing.assert_array_equal(y.numpy(), F.where(condition, a, b).numpy().T)
    y.T.backward(np.ones((4, 3)))
    np.testing.assert_array_equal(a.grad.numpy(), condition.numpy())


def test_refused_input(device):
    x = Tensor(np.zeros((2, 3)), device=device)
    with pytest.raises(DTypeError, match="where: condition must be bool, it is float64: compare first"):
        F.where(x, x, x)
    with pytest.raises(ShapeError, match=r"where: shapes \(2,\) and \(2, 3\) do not broadcast"):
        F.where([True, False], x, x)
    with pytest.raises(ShapeError, match="where: shapes .* do not broadcast"):
        F.where(x > 0, x, Tensor(np.zeros(2), device=device))
    with pytest.raises(DeviceError):
        F.where(x > 0, x.to("cpu:1"), x.to("cpu:1"))
