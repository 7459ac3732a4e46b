"""cross_entropy: values against loops and PyTorch, gradients, extreme logits, labels good and bad."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cross_entropy_reference, softmax_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError, Tensor, gradcheck, nn

REDUCTIONS = ["mean", "sum", "none"]


def logits(n, c, device, scale=3.0):
    values = np.random.default_rng([n, c]).standard_normal((n, c)) * scale
    return Tensor(values, requires_grad=True, device=device)


def labels(n, c):
    return np.random.default_rng(n).integers(0, c, n)


def test_values_against_loops(device):
    x, t = logits(7, 5, device), labels(7, 5)
    expected = cross_entropy_reference(x.numpy(), t)
    np.testing.assert_allclose(F.cross_entropy(x, t, "none").numpy(), expected, rtol=1e-12)
    assert F.cross_entropy(x, t).item() == pytest.approx(expected.mean(), rel=1e-12)
    assert F.cross_entropy(x, t, "sum").item() == pytest.approx(expected.sum(), rel=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n, c", [(1, 1), (7, 5), (33, 130)])
def test_every_device_of_the_processor_against_loops(reduction, n, c):
    for where in ("textbook:0", "cpu:0"):
        x, t = logits(n, c, where), labels(n, c)
        loss = F.cross_entropy(x, t, reduction)
        dy = np.random.default_rng(1).standard_normal(loss.shape)
        first = loss.node.backward(dy)  # leaves what forward kept as it was
        loss.backward(dy)
        np.testing.assert_array_equal(x.grad.numpy(), first)
        rows = cross_entropy_reference(x.numpy(), t)
        expected = {"none": rows, "sum": sum(rows), "mean": sum(rows) / n}[reduction]
        np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12, atol=1e-15)
        p, dx = softmax_reference(x.numpy()), np.zeros((n, c))
        for i, j in np.ndindex(n, c):
            share = dy[i] if reduction == "none" else dy / n if reduction == "mean" else dy
            dx[i, j] = share * (p[i, j] - (j == t[i]))
        np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n, c", [(1, 1), (1, 4), (5, 3)])
def test_gradients_of_every_element(device, reduction, n, c):
    assert gradcheck(lambda x: F.cross_entropy(x, labels(n, c), reduction), [logits(n, c, device)])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_at_the_size_of_the_last_layer(device, reduction):
    t = labels(129, 1000)
    assert gradcheck(lambda x: F.cross_entropy(x, t, reduction), [logits(129, 1000, device)], direction=True)


@settings(max_examples=60)
@given(
    n=st.integers(1, 6),
    c=st.integers(1, 7),
    scale=st.sampled_from([1.0, 30.0, 10_000.0]),
    dtype=st.sampled_from(["float32", "float64"]),
    reduction=st.sampled_from(REDUCTIONS),
    seed=st.integers(0, 1000),
)
def test_against_pytorch(n, c, scale, dtype, reduction, seed):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    random = np.random.default_rng(seed)
    values, t = (random.standard_normal((n, c)) * scale).astype(dtype), random.integers(0, c, n)
    x, tx = Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    y, ty = (
        F.cross_entropy(x, t, reduction),
        torch.nn.functional.cross_entropy(tx, torch.from_numpy(t), reduction=reduction),
    )
    dy = random.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    ty.backward(torch.from_numpy(np.asarray(dy, dtype)))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-10}
    assert y.dtype == x.grad.dtype == dtype
    np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), **tolerance)
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), **tolerance)


def test_logits_of_ten_thousand(device):
    x = Tensor([[10_000.0, 0.0], [0.0, 10_000.0]], requires_grad=True, device=device)
    loss = F.cross_entropy(x, [1, 1], "none")
    np.testing.assert_array_equal(loss.numpy(), [10_000, 0])
    loss.backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [[1, -1], [0, 0]])


def test_an_impossible_true_class_costs_infinity(device):
    x = Tensor([[-np.inf, 0.0], [0.0, -np.inf]], requires_grad=True, device=device)
    loss = F.cross_entropy(x, [0, 0], "none")
    np.testing.assert_array_equal(loss.numpy(), [np.inf, 0])
    loss.backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [[-1, 1], [0, 0]])


@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_rows_without_a_maximum_become_nan(device, row):
    loss = F.cross_entropy(Tensor([row, [0.0, 0.0]], device=device), [0, 0], "none").numpy()
    assert np.isnan(loss[0]) and loss[1] == pytest.approx(np.log(2))


def test_gradients_hold_no_denormal_numbers(device):
    x = Tensor(np.array([[0, -80, -95, -100]], np.float32), requires_grad=True, device=device)
    F.cross_entropy(x, [0]).backward()
    sizes = np.abs(x.grad.numpy())
    assert ((sizes == 0) | (sizes >= np.finfo(np.float32).tiny)).all() and sizes[0, 1] > 0


def test_no_denormal_numbers_in_double_precision_either(device):
    x = Tensor([[0, -700, -709, -720, -745]], requires_grad=True, device=device, dtype="float64")
    F.cross_entropy(x, [0]).backward()
    sizes = np.abs(x.grad.numpy())[0]
    assert sizes[1] > 0 and sizes[3] == sizes[4] == 0


@pytest.mark.parametrize("n, c", [(3, 31), (4, 257), (5, 1025), (257, 3), (1030, 2)])
def test_sizes_around_those_of_warps_and_blocks(device, n, c):
    values, t = logits(n, c, device).numpy().copy(), labels(n, c)
    values[0, 0] = values[1, -1] = values[2, c // 2] = 1000  # e^1000 would overflow
    s = values - values.max(axis=1, keepdims=True)
    total = np.exp(s).sum(axis=1)
    expected = np.log(total) - s[np.arange(n), t]
    x = Tensor(values, True, device)
    loss = F.cross_entropy(x, t, "none")
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(F.cross_entropy(x, t).item(), expected.mean(), rtol=1e-13)
    dy = np.random.default_rng(0).standard_normal(n)
    loss.backward(dy)
    dx = dy[:, None] * (np.exp(s) / total[:, None] - np.eye(c)[t])
    np.testing.assert_allclose(x.grad.numpy(), dx, rtol=1e-12, atol=1e-14)


def test_the_mean_of_many_rows_keeps_its_digits_and_is_repeatable(device):
    x, t = Tensor(logits(1500, 2, device), dtype="float32"), labels(1500, 2)
    mean = F.cross_entropy(x, t).item()
    assert mean == pytest.approx(cross_entropy_reference(x.numpy().astype("float64"), t).mean(), rel=1e-6)
    assert {F.cross_entropy(x, t).item() for _ in range(3)} == {mean}


def test_logits_in_any_memory_order(device):
    x, t = logits(7, 5, device), labels(7, 5)
    turned = Tensor(x.numpy().T.copy(), True, device)
    losses = F.cross_entropy(x, t, "none"), F.cross_entropy(turned.T, t, "none")
    np.testing.assert_array_equal(*(loss.numpy() for loss in losses))
    for loss in losses:
        loss.backward(np.arange(7.0))
    np.testing.assert_array_equal(x.grad.numpy(), turned.grad.numpy().T)


def test_fewer_blocks_than_rows(device):
    where = minigrad.device(device)
    if where.on_host:
        pytest.skip("the processor runs no kernels")
    x = logits(7, 40, device)
    t = Tensor(labels(7, 40), device=device)
    expected = F.cross_entropy(x, t, "none")
    expected.backward(np.ones(7))
    p, dx, loss = (where.empty(shape, x.dtype) for shape in (x.shape, x.shape, (7,)))
    dy = where.full((7,), 1, x.dtype)
    for grid, block in ((1, 32), (3, 64)):
        args = x.data, t.data, p, loss, 7, 40
        where.launch("cross_entropy", "cross_entropy_forward", grid, block, *args, REAL=x.dtype)
        args = dy, p, t.data, dx, 7, 40, 1, 1, np.finfo(x.dtype).tiny
        where.launch("cross_entropy", "cross_entropy_backward", grid, block, *args, REAL=x.dtype)
        np.testing.assert_allclose(where.runtime.to_host(loss), expected.numpy(), rtol=1e-13)
        np.testing.assert_allclose(where.runtime.to_host(dx), x.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_empty_batch(device):
    x = Tensor(np.zeros((0, 3)), requires_grad=True, device=device)
    assert np.isnan(F.cross_entropy(x, []).item())
    assert F.cross_entropy(x, [], "sum").item() == 0 and F.cross_entropy(x, [], "none").shape == (0,)
    F.cross_entropy(x, np.zeros(0, int)).backward()
    assert x.grad.shape == (0, 3)
    assert F.cross_entropy(Tensor(np.zeros((0, 0)), device=device), [], "none").shape == (0,)
    with pytest.raises(ArgumentError, match=r"target\[0\] = 0, but logits \(2, 0\) have the classes 0..-1"):
        F.cross_entropy(Tensor(np.zeros((2, 0)), device=device), [0, 0])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_labels_of_any_integer_type_and_container(device, dtype):
    x, t = logits(4, 3, device), np.array([2, 0, 1, 2], dtype)
    expected = F.cross_entropy(x, [2, 0, 1, 2]).item()
    assert F.cross_entropy(x, t).item() == F.cross_entropy(x, Tensor(t, device=device)).item() == expected


def test_labels_changed_after_the_call_do_not_matter(device):
    x, t = logits(4, 3, device), np.array([2, 0, 1, 2])
    F.cross_entropy(x, t).backward()
    expected, x.grad = x.grad.numpy().copy(), None
    loss = F.cross_entropy(x, t)
    t[:] = 0
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize(
    "target, error, message",
    [
        (
            [0, 3, -1, 2],
            ArgumentError,
            r"target\[1\] = 3, but logits \(4, 3\) have the classes 0\.\.2 \(2 label",
        ),
        ([0, 1, -1, 2], ArgumentError, r"target\[2\] = -1, but logits"),
        ([0, 1, 1.5, 2], DTypeError, r"target must be integers, is float64: target\[2\] = 1.5"),
        ([0.0, 1.0, 1.0, 2.0], DTypeError, r"is float64: target\[0\] = 0.0"),
        ([True, False, True, False], DTypeError, r"is bool: target\[0\] = True"),
        (["a", "b", "c", "d"], DTypeError, r"target\[0\] = a"),
        ([None] * 4, DTypeError, r"is object: target\[0\] = None"),
        ([0, 1], ShapeError, r"target must have shape \(4,\) for logits \(4, 3\), it has \(2,\)"),
        ([[0, 1, 0]] * 4, ShapeError, r"it has \(4, 3\): one class number per row"),
        ([[0], [1, 2], [0], [0]], ShapeError, "ragged"),
    ],
)
def test_refused_labels(device, target, error, message):
    with pytest.raises(error, match="cross_entropy: .*" + message):
        F.cross_entropy(logits(4, 3, device), target)


def test_labels_next_to_the_range(device):
    for label, dtype in ((3, "int64"), (3, "uint8"), (-1, "int8"), (2**40, "int64"), (2**64 - 1, "uint64")):
        target = np.array([0, 1, 2, 0], dtype)
        target[3] = label
        with pytest.raises(ArgumentError, match=rf"target\[3\] = {label}, but logits .* \(1 label"):
            F.cross_entropy(logits(4, 3, device), target)


def test_refused_input(device):
    x = logits(4, 3, device)
    with pytest.raises(ArgumentError, match="reduction must be 'mean', 'sum' or 'none', got 'max'"):
        F.cross_entropy(x, [0] * 4, "max")
    with pytest.raises(ShapeError, match=r"cross_entropy: logits must have 2 axes \(N, C\), it has 1"):
        F.cross_entropy(Tensor([1.0], device=device), [0])
    with pytest.raises(DTypeError, match="cross_entropy: expects floating-point input, got logits int64"):
        F.cross_entropy(Tensor([[1]], device=device), [0])
    with pytest.raises(DeviceError, match="cross_entropy: logits on .*, target on cpu:1"):
        F.cross_entropy(x, Tensor([0] * 4, device="cpu:1"))


def test_small_probabilities_are_not_lost_beside_a_large_one(device):
    """1 + 2^-25 is 1 in float32: one addition after the other would lose all but the first."""
    logits = np.full((6000, 2), np.log(2.0**-25), np.float32)
    logits[0] = 0
    loss = F.cross_entropy(Tensor(logits, device=device).T, [0, 0])
    np.testing.assert_allclose(loss.item(), np.log(np.exp(logits[:, 0].astype("float64")).sum()), rtol=0.03)


# ---------------------------------------------------------------- class weights, rows left out, label smoothing


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 2, -100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_settings_against_pytorch(device, reduction, weighted, ignored, smoothing):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((9, 5)) * 3, random.uniform(0, 2, 5) if weighted else None
    t = random.integers(0, 5, 9)
    if ignored is not None:
        t[[1, 4]] = ignored
    ours, theirs = Tensor(x, True, device), torch.tensor(x, requires_grad=True)
    loss = F.cross_entropy(ours, t, reduction, weight, ignored, smoothing)
    more = {} if ignored is None else {"ignore_index": ignored}
    of_weight = None if weight is None else torch.tensor(weight)
    expected = torch.nn.functional.cross_entropy(
        theirs, torch.tensor(t), of_weight, reduction=reduction, label_smoothing=smoothing, **more
    )
    dy = random.standard_normal(loss.shape)
    loss.backward(dy)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(loss.numpy(), expected.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-9, atol=1e-12)
    again = nn.CrossEntropyLoss(reduction, weight, ignored, smoothing)(ours, Tensor(t, device=device))
    np.testing.assert_array_equal(again.numpy(), loss.numpy())


def test_gradients_with_settings(device):
    x = Tensor(np.random.default_rng(0).standard_normal((4, 3)), True, device)
    assert gradcheck(lambda x: F.cross_entropy(x, [0, -1, 2, 1], "mean", [0.5, 1, 2], -1, 0.2), [x])


def test_settings_that_say_nothing_change_nothing(device):
    x = Tensor(np.random.default_rng(0).standard_normal((4, 3)), True, device)
    plain = F.cross_entropy(x, [0, 1, 2, 1]).item()
    for settings_ in ({"weight": [2, 2, 2]}, {"ignore_index": -100}, {"label_smoothing": 0}):
        assert F.cross_entropy(x, [0, 1, 2, 1], **settings_).item() == pytest.approx(plain, rel=1e-12)


def test_impossible_classes_and_rows_that_are_left_out(device):
    x = Tensor([[0.0, -np.inf, 1.0], [1.0, 2.0, 3.0]], True, device)
    loss = F.cross_entropy(x, [0, -100], ignore_index=-100)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1 + np.e), rel=1e-6)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(x.grad.numpy(), [[p - 1, 0, 1 - p], [0, 0, 0]], rtol=1e-5, atol=1e-7)
    assert np.isnan(F.cross_entropy(x, [7, 7], ignore_index=7).item())  # the mean of nothing
    assert F.cross_entropy(x, [7, 7], "sum", ignore_index=7).item() == 0
    assert F.cross_entropy(x[:0], [], "sum", label_smoothing=0.1).item() == 0


def test_refused_settings(device):
    x = Tensor(np.zeros((2, 3)), device=device)
    for error, message, settings_ in [
        (ShapeError, r"weight must have shape \(3,\), a number per class, it has \(2,\)", {"weight": [1.0, 2.0]}),
        (ArgumentError, "weight must be finite numbers >= 0, got", {"weight": [1.0, -1.0, 2.0]}),
        (ArgumentError, "weight must be finite numbers >= 0, got", {"weight": [1.0, np.nan, 2.0]}),
        (ArgumentError, "ignore_index must be an integer, got 1.5", {"ignore_index": 1.5}),
        (ArgumentError, "label_smoothing must be at most 1, got 1.1", {"label_smoothing": 1.1}),
        (ArgumentError, "label_smoothing must be a finite number >= 0, got -0.1", {"label_smoothing": -0.1}),
        (GraphError, "weight is a constant, but requires a gradient", {"weight": Tensor([1.0, 1, 1], True, device)}),
    ]:
        with pytest.raises(error, match=f"cross_entropy: {message}"):
            F.cross_entropy(x, [0, 1], **settings_)
    for bad in ([0, 3], [0, -1]):
        with pytest.raises(ArgumentError, match=rf"cross_entropy: target\[1\] = {bad[1]}, but logits"):
            F.cross_entropy(x, bad, ignore_index=-100)
    with pytest.raises(ArgumentError, match="label_smoothing"):
        nn.CrossEntropyLoss(label_smoothing=2)
    assert str(nn.CrossEntropyLoss(weight=[1, 2.5], ignore_index=-100)) == (
        "CrossEntropyLoss(reduction='mean', weight=[1.0, 2.5], ignore_index=-100)"
    )
