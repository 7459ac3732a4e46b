"""linear: values against loops and PyTorch, gradients by differences, threads, odd memory, refused input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import linear_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor, gradcheck, nn
from minigrad.ops import linear as room


def tensor(shape, device, dtype=np.float64, seed=0):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    return Tensor(values, requires_grad=True, device=device)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (7, 4, 9), (1, 17, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_against_loops(device, shape, bias):
    n, inputs, outputs = shape
    x, w = tensor((n, inputs), device), tensor((outputs, inputs), device)
    b = tensor((outputs,), device) if bias else None
    expected = linear_reference(x.numpy(), w.numpy(), b.numpy() if bias else None)
    np.testing.assert_allclose(F.linear(x, w, b).numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("leading", [(), (1,), (7,), (3, 5), (2, 0)])
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (9, 4), (33, 17)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_textbook_and_the_fast_face_against_loops(leading, inputs, outputs, bias):
    """dx = dy w is linear(dy, w^T), and dw = dy^T x is linear(dy^T, x^T): the same loops, other operands."""
    for where in ("textbook:0", "cpu:0"):
        leaves = [tensor(shape, where) for shape in ((*leading, inputs), (outputs, inputs), (outputs,))[: 2 + bias]]
        y = F.linear(*leaves)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(dy)
        x, w, *b = (leaf.numpy().reshape(-1, leaf.shape[-1]) for leaf in leaves)
        dy = dy.reshape(-1, outputs)
        expected = [linear_reference(dy, w.T), linear_reference(dy.T, x.T), [sum(col) for col in dy.T]]
        close = {"rtol": 1e-13, "atol": 1e-13}
        np.testing.assert_allclose(y.numpy().reshape(dy.shape), linear_reference(x, w, *(a[0] for a in b)), **close)
        for leaf, gradient in zip(leaves, expected):
            np.testing.assert_allclose(leaf.grad.numpy().reshape(np.shape(gradient)), gradient, **close)


def test_sizes_of_zero():
    """Nothing multiplied is 0, and nobody can tell how many rows of no features there are but from the shape."""
    for where in ("textbook:0", "cpu:0"):
        x, w, b = tensor((2, 3, 0), where), tensor((5, 0), where), tensor((5,), where)
        y = F.linear(x, w, b)
        y.backward(np.ones((2, 3, 5)))
        np.testing.assert_array_equal(y.numpy(), np.broadcast_to(b.numpy(), (2, 3, 5)))
        assert x.grad.shape == (2, 3, 0) and w.grad.shape == (5, 0) and b.grad.numpy().tolist() == [6] * 5


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 3, 4), (2, 0, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_every_element(device, shape, bias):
    inputs = [tensor(shape, device), tensor((5, 4), device)] + ([tensor((5,), device)] if bias else [])
    assert gradcheck(F.linear, inputs)


def test_gradients_at_the_size_of_a_real_layer(device):
    inputs = [tensor((65, 1025), device), tensor((257, 1025), device), tensor((257,), device)]
    assert gradcheck(F.linear, inputs, direction=True, rtol=1e-5)


def test_only_the_gradients_asked_for(device):
    x, w, b = tensor((3, 4), device), tensor((5, 4), device), tensor((5,), device)
    w.requires_grad_(False)
    F.linear(x, w, b).backward(np.ones((3, 5)))
    assert w.grad is None and x.grad.shape == (3, 4) and b.grad.shape == (5,)
    np.testing.assert_allclose(b.grad.numpy(), 3)


@pytest.mark.parametrize("wanted", [each for each in itertools.product([True, False], repeat=3) if any(each)])
def test_no_product_for_a_gradient_that_nobody_wants(device, wanted):
    if minigrad.device(device).kind == "textbook":
        pytest.skip("the textbook computes all")
    leaves = [Tensor(np.ones(shape), need, device) for shape, need in zip([(3, 4), (5, 4), (5,)], wanted)]
    y = F.linear(*leaves)
    grads = y.device.backward(y.node, Tensor(np.ones((3, 5)), device=device).data)
    assert tuple(grad is not None for grad in grads) == wanted


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "n, inputs, outputs",
    [
        (130, 301, 127),
        (33, 301, 517),
        (517, 301, 33),
        (1, 1200, 1100),
        (3, 1100, 67),
        (600, 70, 5),
        (1100, 65, 70),
    ],
)
def test_large_products_are_right_on_any_number_of_threads(device, threads, n, inputs, outputs):
    minigrad.set_num_threads(threads, device)
    x, w, b = (tensor(s, device) for s in ((n, inputs), (outputs, inputs), (outputs,)))
    dy = np.random.default_rng(1).standard_normal((n, outputs))
    y = F.linear(x, w, b)
    y.backward(dy)
    np.testing.assert_allclose(y.numpy(), x.numpy() @ w.numpy().T + b.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), dy @ w.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(w.grad.numpy(), dy.T @ x.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(b.grad.numpy(), dy.sum(0), rtol=1e-10, atol=1e-10)


@pytest.mark.cpu_only("pieces for threads")
def test_a_large_product_is_cut_along_the_longer_axis(monkeypatch, device):
    cuts = []
    monkeypatch.setattr(room, "split", lambda d, n, work, at_least: [cuts.append(n), work(0, n)])
    F.linear(tensor((8, 600), device), tensor((700, 600), device))
    F.linear(tensor((700, 600), device), tensor((8, 600), device))
    F.linear(tensor((7, 6), device), tensor((5, 6), device))
    assert cuts == [700, 700]


@given(
    st.integers(0, 5),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["float32", "float64"]),
    st.data(),
)
def test_any_memory_order_against_pytorch(n, inputs, outputs, dtype, data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")

    def strided(*shape):  # a view: transposed, with gaps, or backwards
        kind = data.draw(st.sampled_from(["plain", "transposed", "gaps", "backwards"]))
        values = np.random.default_rng(1).standard_normal(shape).astype(dtype)
        if kind == "transposed":
            return np.asfortranarray(values)
        if kind == "gaps":
            return np.repeat(np.repeat(values, 2, 0), 3, 1)[::2, ::3]
        return values[::-1, ::-1].copy()[::-1, ::-1] if kind == "backwards" else values

    arrays = strided(n, inputs), strided(outputs, inputs)
    x, w = (minigrad.tensor.wrap(a, minigrad.device("cpu:0")).requires_grad_() for a in arrays)
    y = F.linear(x, w)
    dy = strided(n, outputs)
    y.backward(dy)
    tx, tw = (torch.from_numpy(a.copy()).requires_grad_() for a in arrays)
    ty = torch.nn.functional.linear(tx, tw)
    ty.backward(torch.from_numpy(dy.copy()))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}
    for ours, theirs in ((y, ty.detach()), (x.grad, tx.grad), (w.grad, tw.grad)):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), **tolerance)


def test_nan_and_inf_as_numpy(device):
    x = Tensor([[np.nan, 1.0], [np.inf, 1.0]], device=device)
    with np.errstate(invalid="ignore"):
        y = F.linear(x, Tensor([[1.0, 1.0], [0.0, 1.0]], device=device)).numpy()
    np.testing.assert_array_equal(y, [[np.nan, np.nan], [np.inf, np.nan]])


def test_refused_input(device):
    x, w, b = (tensor(s, device) for s in ((3, 4), (5, 4), (5,)))
    with pytest.raises(ShapeError, match=r"linear: x \(3, 4\) has 4 features, weight \(5, 6\).*takes 6.*flatten"):
        F.linear(x, tensor((5, 6), device))
    with pytest.raises(ShapeError, match=r"bias must have shape \(5,\) for weight \(5, 4\), got \(4,\)"):
        F.linear(x, w, tensor((4,), device))
    with pytest.raises(ShapeError, match=r"weight must have 2 axes \(out, in\), it has 1"):
        F.linear(x, b)
    with pytest.raises(ShapeError, match="at least one axis"):
        F.linear(Tensor(1.0, device=device, dtype="float64"), w)
    with pytest.raises(DTypeError, match="linear: inputs must be all float32 or all float64.*weight float32"):
        F.linear(x, w.astype("float32"))
    with pytest.raises(DTypeError, match="linear: .*int64"):
        F.linear(Tensor(np.ones((3, 4), np.int64), device=device), w)
    with pytest.raises(DTypeError, match="linear: weight must be a Tensor, got ndarray"):
        F.linear(x, np.ones((5, 4)))
    with pytest.raises(DeviceError, match="linear: inputs on"):
        F.linear(x, tensor((5, 4), "cpu:1"))
    with pytest.raises(ArgumentError, match="Linear: out_features must be an integer >= 1, got 0"):
        nn.Linear(3, 0)


def test_x_with_gaps_and_many_axes(device):
    x, w, b = tensor((3, 70, 40), device), tensor((33, 20), device), tensor((33,), device)
    dy = np.random.default_rng(1).standard_normal((3, 2, 35, 33))
    rows = x.numpy()[:, :, ::2].reshape(3, 2, 35, 20)
    y = F.linear(x[:, :, ::2].reshape(3, 2, 35, 20), w, b)
    y.backward(dy)
    dx = np.zeros(x.shape)
    dx[:, :, ::2] = (dy @ w.numpy()).reshape(3, 70, 20)
    np.testing.assert_allclose(y.numpy(), rows @ w.numpy().T + b.numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(w.grad.numpy(), np.tensordot(dy, rows, ([0, 1, 2],) * 2), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(b.grad.numpy(), dy.sum((0, 1, 2)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 3, 70])
def test_results_are_row_major(device, rows):
    x, w, b = tensor((rows, 300), device), tensor((250, 300), device), tensor((250,), device)
    for y in (F.linear(x, w, b), F.linear(x, w)):
        y.backward(np.ones(y.shape))
        assert all(array.data.flags.c_contiguous for array in (y, x.grad, w.grad))


@pytest.mark.cpu_only("pieces for threads")
def test_a_second_thread_only_for_what_is_worth_it(monkeypatch, device):
    minigrad.set_num_threads(2, device)
    pieces, split = [], room.split
    monkeypatch.setattr(room, "split", lambda *args, **kwargs: [pieces.append(len(p := split(*args, **kwargs))), *p])
    for n, inputs, outputs in [(64, 400, 120), (1, 4000, 4000), (128, 50, 1000), (128, 50, 900)]:
        F.linear(tensor((n, inputs), device, np.float32), tensor((outputs, inputs), device, np.float32))
    assert pieces == [2, 1]  # the first two are not even offered


def test_the_gradient_of_the_bias_is_summed_in_pieces(device):
    """2^24 + 1 is 2^24 in float32: one addition after the other would lose all the ones."""
    for where in (device, "textbook:0"):
        x, w, b = (Tensor(np.ones(shape, np.float32), True, where) for shape in [(5000, 2), (3, 2), (3,)])
        dy = np.ones((5000, 3), np.float32)
        dy[0] = 2.0**24
        F.linear(x, w, b).backward(Tensor(dy, device=where))
        np.testing.assert_allclose(b.grad.numpy(), 2.0**24 + 4999, rtol=0, atol=160)
