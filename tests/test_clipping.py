"""Gradients shortened together: values against PyTorch and by hand, any memory order, and what cannot be shortened."""

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, NotFiniteError, Tensor, optim
from minigrad.optim.optimizer import TILE


def parameters(device, *shapes, dtype="float32", seed=0):
    random = np.random.default_rng(seed)
    found = []
    for shape in shapes:
        p = Tensor(np.zeros(shape), True, device, dtype=dtype)
        p.grad = Tensor(random.standard_normal(shape).astype(dtype), device=device)
        found.append(p)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [0.3, 1.7])
def test_values(device, dtype, share):
    ps = parameters(device, (3, 5), (TILE + 7,), (), (2, 3, 4, 5), dtype=dtype)
    ps.insert(2, Tensor(np.ones(3), True, device))  # without a gradient
    before = [p.grad.numpy().copy() for p in ps if p.grad is not None]
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in before))
    assert optim.clip_grad_norm_(iter(ps), share * norm) == pytest.approx(norm, rel=1e-12)
    after = [p.grad.numpy() for p in ps if p.grad is not None]
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for old, new in zip(before, after):
        assert new.dtype == dtype
        if share > 1:
            assert new.tobytes() == old.tobytes()
        else:
            np.testing.assert_allclose(new, old * share, rtol=tolerance)
    if share < 1:
        assert np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in after)) == pytest.approx(share * norm, rel=1e-6)


def test_as_pytorch_does(device):
    torch = pytest.importorskip("torch", reason="PyTorch: pip install torch")
    ps = parameters(device, (31, 17), (9,))
    theirs = [torch.zeros(p.shape, requires_grad=True) for p in ps]
    for p, t in zip(ps, theirs):
        t.grad = torch.tensor(p.grad.numpy().copy())
    assert optim.clip_grad_norm_(ps, 2.5) == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 2.5).item(), rel=1e-6)
    for p, t in zip(ps, theirs):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-5)


@pytest.mark.cpu_only("threads of the processor")
def test_any_memory_order_and_any_number_of_threads_give_the_same_sum(device):
    found, before = [], minigrad.num_threads(device)
    g = np.random.default_rng(1).standard_normal((700, 500)).astype("f")
    try:
        for threads in (1, 3):
            minigrad.set_num_threads(threads, device)
            p = Tensor(np.zeros_like(g), True, device)
            p.grad = Tensor(g, device=device)
            found.append(optim.clip_grad_norm_([p], 1e9))
    finally:
        minigrad.set_num_threads(before, device)
    assert found[0] == found[1]
    p.grad = Tensor(g.T.copy(), device=device).transpose(1, 0)
    assert optim.clip_grad_norm_([p], 1.0) == pytest.approx(found[0], rel=1e-12)
    np.testing.assert_allclose(p.grad.numpy(), g / found[0], rtol=1e-5)


def test_large_and_small_numbers(device):
    (p,) = parameters(device, (4,))
    p.grad = Tensor(np.full(4, 1e30, "f"), device=device)  # whose squares float32 cannot hold
    assert optim.clip_grad_norm_([p], 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-6)
    p.grad = Tensor(np.zeros(4, "f"), device=device)
    assert optim.clip_grad_norm_([p], 1.0) == 0 and not p.grad.numpy().any()
    assert optim.clip_grad_norm_([], 1.0) == 0


def test_what_cannot_be_shortened(device):
    ps = parameters(device, (3,), (4, 5))
    for bad in (np.nan, np.inf):
        values = np.ones((4, 5), "f")
        values[2, 3] = bad
        ps[1].grad = Tensor(values, device=device)
        before = [p.grad.numpy().tobytes() for p in ps]
        with pytest.raises(NotFiniteError, match=r"the gradient of parameter 1 \(4, 5\) holds nan or inf"):
            optim.clip_grad_norm_(ps, 1.0)
        assert [p.grad.numpy().tobytes() for p in ps] == before
    for wrong in (0, -1, np.nan, "1", None):
        with pytest.raises(ArgumentError, match="clip_grad_norm_: max_norm must be a finite number > 0"):
            optim.clip_grad_norm_(ps, wrong)
    with pytest.raises(ArgumentError, match="got one tensor: put it in a list"):
        optim.clip_grad_norm_(ps[0], 1.0)
