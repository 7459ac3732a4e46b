"""What functional makes of several ops: against PyTorch and differences, exact at the edges, on every device."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, ShapeError, Tensor, gradcheck, nn


def torch_():
    return pytest.importorskip("torch", reason="PyTorch is an oracle where installed")


def tensor(shape, device, seed=0, dtype="float64"):
    return Tensor(3 * np.random.default_rng([seed, *shape]).standard_normal(shape), True, device, dtype)


def agree(ours, theirs, inputs, rtol=1e-10):
    """Values, and the gradients of all inputs: pairs of ours and PyTorch's."""
    torch = torch_()
    dy = np.random.default_rng(9).standard_normal(ours.shape)
    ours.backward(dy)
    theirs.backward(torch.tensor(dy, dtype=theirs.dtype))
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=rtol, atol=1e-12)
    for mine, other in inputs:
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=rtol, atol=1e-12)
        mine.grad = other.grad = None


def pairs(device, *shapes):
    torch, ours = torch_(), [tensor(shape, device, i) for i, shape in enumerate(shapes)]
    return [(x, torch.tensor(x.numpy(), requires_grad=True)) for x in ours]


# ---------------------------------------------------------------- activations


def test_activations_against_pytorch(device):
    f, ((x, tx),) = torch_().nn.functional, pairs(device, (4, 50))
    agree(F.leaky_relu(x), f.leaky_relu(tx), [(x, tx)])
    agree(F.leaky_relu(x, 0.3), f.leaky_relu(tx, 0.3), [(x, tx)])
    agree(F.softplus(x), f.softplus(tx, threshold=1e9), [(x, tx)])
    agree(F.softplus(x, 2.5), f.softplus(tx, 2.5, 1e9), [(x, tx)])
    agree(nn.LeakyReLU(0.2)(x), f.leaky_relu(tx, 0.2), [(x, tx)])
    agree(nn.Softplus(0.5)(x), f.softplus(tx, 0.5, 1e9), [(x, tx)])
    for op in (F.leaky_relu, F.softplus):
        assert gradcheck(op, [tensor((3, 5), device)])


def test_activations_at_the_edges(device):
    x = Tensor([0.0, -0.0, np.inf, -np.inf, np.nan], True, device)
    y = F.leaky_relu(x, 0.5)
    y.backward(np.ones(5))
    np.testing.assert_array_equal(y.numpy(), [0, 0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(x.grad.numpy(), [0.5, 0.5, 1, 0.5, 0.5])
    x = Tensor([0.0, 1e4, -1e4, -20.0, -60.0, 40.0], True, device)
    y = F.softplus(x)
    y.sum().backward()
    exact = np.logaddexp(0, x.numpy().astype("float64"))
    np.testing.assert_allclose(y.numpy(), exact, rtol=3e-7)  # relative: also 2e-9 and 9e-27
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.numpy() - exact), rtol=3e-6)


@settings(max_examples=100)
@given(x=st.floats(-80, 80, width=32))
def test_softplus_loses_no_digits(x):
    """In float32, at numbers of all sizes: against float64."""
    y = F.softplus(Tensor([x], device="cpu:0")).item()
    assert y == pytest.approx(np.logaddexp(0, np.float64(np.float32(x))), rel=4e-7)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_against_pytorch(reduction, device):
    torch = torch_()
    f, ((x, tx), (t, tt)) = torch.nn.functional, pairs(device, (4, 7), (4, 7))
    for ours, theirs in ((F.mse_loss, f.mse_loss), (F.l1_loss, f.l1_loss)):
        agree(ours(x, t, reduction), theirs(tx, tt, reduction=reduction), [(x, tx), (t, tt)])
    random = np.random.default_rng(0)
    target, weight, pos = random.uniform(0, 1, (4, 7)), random.uniform(0, 2, (4, 7)), random.uniform(0.5, 3, 7)
    bce, theirs = F.binary_cross_entropy_with_logits, f.binary_cross_entropy_with_logits
    agree(bce(x, target, None, reduction), theirs(tx, torch.tensor(target), reduction=reduction), [(x, tx)])
    agree(
        bce(x, Tensor(target, device=device), Tensor(weight, device=device), reduction, pos),
        theirs(tx, torch.tensor(target), torch.tensor(weight), reduction=reduction, pos_weight=torch.tensor(pos)),
        [(x, tx)],
    )


def test_gradients_of_losses(device):
    x, t = tensor((3, 4), device), np.random.default_rng(0).uniform(0, 1, (3, 4))
    assert gradcheck(lambda x: F.mse_loss(x, t), [x])
    assert gradcheck(lambda x: F.l1_loss(x, t, "sum"), [x])
    assert gradcheck(lambda x: F.binary_cross_entropy_with_logits(x, t, pos_weight=2.0), [x])


def test_binary_cross_entropy_is_finite_and_exact(device):
    logits = Tensor([1e4, -1e4, 1e4, -20.0, 20.0, 0.0], True, device)
    loss = F.binary_cross_entropy_with_logits(logits, [0, 1, 1, 0, 1, 1], reduction="none")
    tiny = np.log1p(np.exp(-20))
    np.testing.assert_allclose(loss.numpy(), [1e4, 1e4, 0, tiny, tiny, np.log(2)], rtol=3e-7)
    loss.sum().backward()
    p = 1 / (1 + np.exp(-np.clip(logits.numpy().astype("d"), -700, 700)))
    np.testing.assert_allclose(logits.grad.numpy(), p - np.array([0, 1, 1, 0, 1, 1]), rtol=1e-5, atol=1e-12)


def test_refused_losses(device):
    x = tensor((3, 4), device)
    for loss in (F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits):
        with pytest.raises(ShapeError, match=rf"{loss.__name__}: target must have the shape of the input, \(3, 4\)"):
            loss(x, np.zeros((3, 1)))  # which broadcasts, and would average 12 differences of the wrong numbers
        with pytest.raises(ArgumentError, match="reduction must be 'mean', 'sum' or 'none', got 'avg'"):
            loss(x, np.zeros((3, 4)), reduction="avg")
        with pytest.raises(DTypeError, match=f"{loss.__name__}: .* must be a Tensor|expects floating-point"):
            loss([1.0], [1.0])
        with pytest.raises(DeviceError, match=rf"{loss.__name__}: input on {device}, target on cpu:1"):
            loss(x, Tensor(np.zeros((3, 4)), device="cpu:1"))
    with pytest.raises(ArgumentError, match="target must be from 0 to 1, got 0 to 2: 1 for yes and 0 for no"):
        F.binary_cross_entropy_with_logits(x, np.full((3, 4), 2) * np.eye(3, 4))
    with pytest.raises(ArgumentError, match="target must be from 0 to 1, got nan"):
        F.binary_cross_entropy_with_logits(x, np.full((3, 4), np.nan))
    with pytest.raises(ShapeError, match=r"weights must broadcast to logits \(3, 4\), the loss is \(2, 3, 4\)"):
        F.binary_cross_entropy_with_logits(x, np.zeros((3, 4)), np.ones((2, 1, 1)))


# ---------------------------------------------------------------- statistics, shapes


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 1)])
@pytest.mark.parametrize("correction", [0, 1])
def test_var_and_std_against_pytorch(axis, correction, device):
    ((x, tx),) = pairs(device, (4, 3, 5))
    for name in ("var", "std"):
        for keepdims in (False, True):
            theirs = getattr(tx, name)(axis, correction=correction, keepdim=keepdims)
            agree(getattr(F, name)(x, axis, correction, keepdims), theirs, [(x, tx)])
    assert gradcheck(lambda x: F.std(x, axis, correction), [x], direction=True)


def test_var_of_large_numbers_and_of_too_few(device):
    x = Tensor(np.random.default_rng(0).standard_normal(1000) + 3000, device=device, dtype="float32")
    assert F.var(x).item() == pytest.approx(x.numpy().astype("d").var(ddof=1), rel=1e-4)
    with pytest.raises(ShapeError, match=r"var: 1 number\(s\) of x \(1, 3\) along axis 0 have no variance with correc"):
        F.var(x[:3].reshape(1, 3), 0)
    with pytest.raises(ShapeError):
        F.std(Tensor(np.zeros((0,), "f"), device=device), correction=0)
    assert F.var(x[:1], correction=0).item() == 0


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_stack(axis, device):
    torch, ours = torch_(), pairs(device, (3, 4), (3, 4), (3, 4))
    agree(F.stack([x for x, _ in ours], axis), torch.stack([t for _, t in ours], axis), ours)
    assert minigrad.stack is F.stack


def test_stack_of_numbers_and_refusals(device):
    numbers = [Tensor(float(i), True, device) for i in range(3)]
    y = F.stack(x for x in numbers)
    y.backward(np.array([1, 2, 3], "f"))
    assert y.numpy().tolist() == [0, 1, 2] and [x.grad.item() for x in numbers] == [1, 2, 3]
    with pytest.raises(ShapeError, match=r"stack: tensors must have one shape, got \(2,\), \(3,\): use concat"):
        F.stack([Tensor([1.0, 2.0], device=device), Tensor([1.0, 2.0, 3.0], device=device)])
    for bad in ([], [1.0], [np.zeros(2)]):
        with pytest.raises(ArgumentError, match="stack: expects a list of one Tensor or more"):
            F.stack(bad)
    with pytest.raises(ShapeError, match="axis 2 is out of range"):
        F.stack(numbers, 2)


@pytest.mark.parametrize("size", [1, (1, 1), 2, (3, 2), (4, 5), (7, 9), (6, 1)])
def test_adaptive_average_pooling_against_pytorch(size, device):
    ((x, tx),) = pairs(device, (2, 3, 6, 5))
    agree(F.adaptive_avg_pool2d(x, size), torch_().nn.functional.adaptive_avg_pool2d(tx, size), [(x, tx)])
    agree(nn.AdaptiveAvgPool2d(size)(x), torch_().nn.functional.adaptive_avg_pool2d(tx, size), [(x, tx)])


def test_adaptive_average_pooling_refuses(device):
    with pytest.raises(ShapeError, match=r"x must have 4 axes \(N, C, H, W\), it has 3"):
        F.adaptive_avg_pool2d(tensor((3, 4, 5), device), 1)
    with pytest.raises(ArgumentError, match="output_size"):
        nn.AdaptiveAvgPool2d(0)
    assert str(nn.AdaptiveAvgPool2d((6, 6))) == "AdaptiveAvgPool2d(output_size=(6, 6))"
