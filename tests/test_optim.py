"""Optimisers against PyTorch and written-out loops; blocks, threads, memory; state; schedules."""

import contextlib
import json
import math
import tracemalloc

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, CheckpointError, DeviceError, DTypeError, GraphError, ShapeError, Tensor
from minigrad.cudasim.settings import options as sim_options
from minigrad.nn import Linear
from minigrad.optim import (
    SGD,
    Adam,
    AdamW,
    ExponentialLR,
    MultiStepLR,
    OneCycleLR,
    ReduceOnPlateau,
    RMSprop,
    StepLR,
    Warmup,
    WarmupCosine,
    optimizer,
)
from minigrad.tensor import wrap

SHAPES = [(7, 5), (11,), (3, 2, 4, 4), ()]
KINDS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.02}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.7, "nesterov": True, "weight_decay": 0.02}),
    (RMSprop, {"lr": 0.05}),
    (RMSprop, {"lr": 0.05, "alpha": 0.7, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.8}),
    (Adam, {"lr": 0.05}),
    (Adam, {"lr": 0.05, "betas": (0.7, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.05, "betas": (0.7, 0.99), "weight_decay": 0.3}),
]
EVERY = pytest.mark.parametrize("kind, settings", [*KINDS, (SGD, dict(KINDS[2][1], update_rule="alexnet"))])


def parameters(device=None, shapes=SHAPES, dtype="float64", seed=0):
    random = np.random.default_rng(seed)
    return [Tensor(random.standard_normal(s).astype(dtype), requires_grad=True, device=device) for s in shapes]


def give_gradients(params, step):
    random = np.random.default_rng([1, step])
    for p in params:
        p.grad = Tensor(random.standard_normal(p.shape).astype(p.dtype), device=p.device)


def run(optimizer, params, steps, start=0):
    for step in range(start, start + steps):
        give_gradients(params, step)
        optimizer.step()
    return [p.numpy().copy() for p in params]


@pytest.mark.parametrize("kind, settings", KINDS)
def test_against_pytorch_with_a_change_of_rate(device, kind, settings):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    ours = parameters(device)
    theirs = [torch.from_numpy(p.numpy().copy()).requires_grad_() for p in ours]
    optimizer, oracle = kind(ours, **settings), getattr(torch.optim, kind.__name__)(theirs, **settings)
    for step in range(12):
        if step == 6:
            optimizer.param_groups[0]["lr"] = oracle.param_groups[0]["lr"] = 0.01
        give_gradients(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = torch.from_numpy(p.grad.numpy().copy())
        optimizer.step()
        oracle.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-11, atol=1e-12)


def test_the_alexnet_rule_against_a_written_out_loop(device):
    (p,) = parameters(device, [(4, 3)])
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.02, update_rule="alexnet")
    w, v = p.numpy().copy(), np.zeros((4, 3))
    for step in range(10):
        lr = 0.1 if step < 5 else 0.01
        optimizer.param_groups[0]["lr"] = lr
        give_gradients([p], step)
        optimizer.step()
        for i in np.ndindex(w.shape):
            v[i] = 0.9 * v[i] - 0.02 * lr * w[i] - lr * p.grad.numpy()[i]
            w[i] = w[i] + v[i]
        np.testing.assert_allclose(p.numpy(), w, rtol=1e-12, atol=1e-13)


@EVERY
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-5), ("float64", 1e-13)])
def test_every_device_does_as_the_processor(device, kind, settings, dtype, rtol):
    expected = run(kind(params := parameters("cpu:0", dtype=dtype), **settings), params, 5)
    for a, b in zip(run(kind(params := parameters(device, dtype=dtype), **settings), params, 5), expected):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 100)


def test_the_two_rules_agree_until_the_rate_changes():
    both = [parameters(seed=3) for _ in range(2)]
    optimizers = [SGD(p, 0.1, 0.9, 0.02, update_rule=r) for p, r in zip(both, ("pytorch", "alexnet"))]
    one, other = (run(o, p, 5) for o, p in zip(optimizers, both))
    for a, b in zip(one, other):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for o in optimizers:
        o.param_groups[0]["lr"] = 0.01
    one, other = (run(o, p, 1, start=5) for o, p in zip(optimizers, both))
    assert np.abs(one[0] - other[0]).max() > 0.01


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_block_and_thread_count(monkeypatch, device, kind, settings, dtype):
    shapes = [(37, 29), (1000,), ()]
    results = []
    for block, threads in [(1 << 20, 1), (64, 1), (100, 2), (7, 3)]:
        monkeypatch.setattr(optimizer, "TILE", block)
        monkeypatch.setattr(optimizer, "SPLIT", 50)
        minigrad.set_num_threads(threads, device)
        params = parameters(device, shapes, dtype)
        results.append(run(kind(params, **settings), params, 66))  # beyond a flush of tiny values
        assert all(p.dtype == dtype for p in params)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def in_fortran_order(x):
    return Tensor(np.array(x.numpy(), order="F"), device=x.device).data


@EVERY
def test_memory_orders_may_differ_between_weight_and_gradient(monkeypatch, device, kind, settings):
    monkeypatch.setattr(optimizer, "TILE", 16)
    params = parameters(device)
    expected = run(kind(params, **settings), params, 3)
    for turn_weight in (False, True):
        params = parameters(device)
        if turn_weight:
            for p in params:
                p.data = in_fortran_order(p)
        o = kind(params, **settings)
        for step in range(3):
            give_gradients(params, step)
            for p in params:
                p.grad.data = p.grad.data if turn_weight else in_fortran_order(p.grad)
            o.step()
        for p, e in zip(params, expected):
            np.testing.assert_array_equal(p.numpy(), e)


@EVERY
def test_memory_order_may_change_on_the_way(device, kind, settings):
    expected = run(kind(params := parameters(device), **settings), params, 4)
    params = parameters(device)
    o = kind(params, **settings)
    run(o, params, 2)
    for p in params:
        p.data = in_fortran_order(p)
    for a, b in zip(run(o, params, 2, start=2), expected):
        np.testing.assert_array_equal(a, b)


@EVERY
def test_a_weight_that_is_a_view_with_gaps_is_changed_in_place(device, kind, settings):
    expected = run(kind(params := parameters(device), **settings), params, 3)
    gapped = parameters(device)
    for p in gapped[:3]:
        p.data = Tensor(np.concatenate([p.numpy(), p.numpy()], axis=-1), device=device).data[..., : p.shape[-1]]
    for a, b in zip(run(kind(gapped, **settings), gapped, 3), expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.cpu_only("measures the host's memory, in which an emulated card keeps copies")
@EVERY
def test_no_temporary_of_full_size(device, kind, settings):
    minigrad.set_num_threads(2, device)
    params = parameters(device, [(1500, 2000)], "float32")  # 12 MB
    o = kind(params, **settings)
    give_gradients(params, 0)
    o.step()  # makes the state
    tracemalloc.start()
    try:
        o.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 4 * optimizer.TILE, f"{peak:,} bytes"


@EVERY
def test_in_place_and_counted(device, kind, settings):
    (p,) = params = parameters(device, [(3, 3)])
    o, array, version = kind(params, **settings), p.data, p.version.value
    y = (p * p).sum()
    run(o, params, 1)
    assert p.data is array and p.version.value == version + 1
    with pytest.raises(GraphError, match="modified in place 1 time"):
        y.backward()


@EVERY
def test_parameters_on_several_devices(device, kind, settings):
    expected = run(kind(params := parameters(device), **settings), params, 4)
    where = minigrad.device(device)
    other = f"{where.kind}:{int(where.index == 0)}"
    mixed = [Tensor(p.numpy(), True, (device, other)[i % 2]) for i, p in enumerate(parameters(device))]
    for a, b in zip(run(kind(mixed, **settings), mixed, 4), expected):
        np.testing.assert_array_equal(a, b)


def of_all_kinds(device):
    """More parameters than one launch takes, and some of another element type; the largest, of many blocks, is last."""
    shapes = [(5,), (), (40, 40), *[(k % 7 + 1, 3) for k in range(45)], (70, 70)]
    return [*parameters(device, shapes, "float32"), *parameters(device, SHAPES, "float64")]


@EVERY
def test_parameters_together_change_as_each_alone(device, kind, settings):
    """Two groups, and parameters whose gradient comes later: other rates, other numbers of updates, the same bits."""
    together, alone = of_all_kinds(device), of_all_kinds(device)
    rates = [0.1 if i % 8 else 0.03 for i in range(len(together))]
    settings = {name: value for name, value in settings.items() if name != "lr"}
    groups = [{"params": [p for p, lr in zip(together, rates) if lr == rate], "lr": rate} for rate in (0.1, 0.03)]
    one, many = kind(groups, lr=1.0, **settings), [kind([p], lr=rate, **settings) for p, rate in zip(alone, rates)]
    for step in range(3):
        for params in (together, alone):
            give_gradients(params, step)
            for p in params[::4] if step == 0 else ():
                p.grad = None
        for o in (one, *many):
            o.step()
    for i, (a, b) in enumerate(zip(together, alone)):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=f"parameter {i}, {a.dtype} {a.shape}")
        assert a.version.value == b.version.value > 1


@EVERY
def test_weights_that_are_views_of_one_memory_change_one_after_the_other(device, kind, settings):
    """As on the processor, also where a view has gaps, and where a weight is the gradient of another."""

    def step(device):
        a, b = parameters(device, [(40, 8), (40, 8)])
        views = [a.detach(), a.detach()[1:], a.detach()[:, ::2], b]
        for view in views[:-1]:
            view.requires_grad = True
        params = [a, *views]
        give_gradients(params, 0)
        b.grad = a.detach()
        kind(params, **settings).step()
        return [p.numpy() for p in params]

    with sim_options(mode="check") if device.startswith("cudasim") else contextlib.nullcontext():
        found = step(device)
    for a, b in zip(found, step("textbook:0")):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@EVERY
def test_a_step_on_a_card_is_few_launches(device, kind, settings, monkeypatch):
    where, names = minigrad.device(device), []
    if where.on_host:
        pytest.skip("there is nothing to launch")
    params = parameters(device, [(7, 5), (11,), (3, 2, 4, 4), ()] * 8, "float32")
    o = kind(params, **settings)
    run(o, params, 1)
    give_gradients(params, 1)
    launch = where.runtime.launch
    monkeypatch.setattr(where.runtime, "launch", lambda f, *args: names.append(f.name) or launch(f, *args))
    o.step()
    assert len(names) == 1 and names[0].startswith(("sgd", "adam", "rmsprop"))


def test_devices_are_updated_by_their_own_workers(monkeypatch):
    import threading

    seen = {}
    monkeypatch.setattr(
        SGD,
        "_step_on",
        lambda self, device, todo: seen.update({device.name: threading.current_thread().name}),
    )
    params = parameters("cpu:0") + parameters("cpu:1")
    give_gradients(params, 0)
    SGD(params, 0.1).step()
    assert seen.keys() == {"cpu:0", "cpu:1"} and len(set(seen.values())) == 2


def test_groups_have_settings_of_their_own(device):
    weight, bias = parameters(device, [(3,), (2,)])
    o = SGD([{"params": [weight], "weight_decay": 0.5}, {"params": [bias], "lr": 0.2}], lr=0.1)
    w, b = weight.numpy().copy(), bias.numpy().copy()
    run(o, [weight, bias], 1)
    np.testing.assert_allclose(weight.numpy(), w - 0.1 * (weight.grad.numpy() + 0.5 * w), rtol=1e-12)
    np.testing.assert_allclose(bias.numpy(), b - 0.2 * bias.grad.numpy(), rtol=1e-12)


@EVERY
def test_parameters_without_a_gradient_stay(device, kind, settings):
    params = parameters(device)
    before = params[1].numpy().copy()
    o = kind(params, **settings)
    give_gradients(params, 0)
    params[1].grad = None
    o.step()
    np.testing.assert_array_equal(params[1].numpy(), before)
    o.zero_grad()
    after = params[0].numpy().copy()
    o.step()
    assert all(p.grad is None for p in params)
    np.testing.assert_array_equal(params[0].numpy(), after)


@pytest.mark.parametrize(
    "kind, settings",
    [
        (SGD, {"lr": 0.1, "momentum": 0.9}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (RMSprop, {"alpha": 0.9, "momentum": 0.9}),
        (Adam, {"betas": (0.9, 0.95)}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_does_not_end_among_the_denormal_numbers(device, kind, settings, dtype):
    params = parameters(device, [(50,)], dtype)
    o = kind(params, **settings)
    run(o, params, 1)
    params[0].grad[...] = 0
    tiny = np.finfo(dtype).tiny
    small = o.state_dict()
    for array in small["arrays"].values():
        array *= 1e9 * tiny
    o.load_state_dict(small)
    assert all(wrap(array, params[0].device).numpy().all() for array in o._state[0].values())
    for _ in range(600):
        o.step()
        state = [wrap(array, params[0].device).numpy() for array in o._state[0].values()]
        for array in state:
            assert not ((array != 0) & (np.abs(array) < tiny)).any()
    assert not any(array.any() for array in state)


def test_minimises(device):
    target = np.arange(6.0)
    for o, p in ((kind([p], 0.1), p) for kind in (SGD, Adam) for p in parameters(device, [(6,)])):
        for _ in range(300):
            o.zero_grad()
            ((p - target) ** 2).sum().backward()
            o.step()
        np.testing.assert_allclose(p.numpy(), target, atol=1e-2)


def test_weights_that_do_not_begin_at_a_multiple_of_16_bytes(device):
    """Kernels take 16 bytes at a time where they may, and the rest one by one; the numbers are the same."""
    for dtype in ("float32", "float64"):
        for kind, settings in KINDS:
            results = []
            weight, gradient = np.random.default_rng(0).standard_normal((2, 1237)).astype(dtype)
            for skip in (0, 1, 4):
                longer = Tensor(np.concatenate([np.zeros(skip, dtype), weight]), device=device)
                p = longer[skip:].detach().requires_grad_()
                o = kind([p], **settings)
                for _ in range(3):
                    p.grad = Tensor(gradient, device=device)
                    o.step()
                results.append(p.numpy())
            np.testing.assert_array_equal(results[1], results[0])
            np.testing.assert_array_equal(results[2], results[0])


@EVERY
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_a_number_and_infinity_spread_no_further(device, kind, settings):
    values = np.ones(300)
    values[[7, 290]] = np.inf
    gradient = np.ones(300)
    gradient[[8, 291]] = np.nan
    p = Tensor(values, True, device)
    o = kind([p], **settings)
    p.grad = Tensor(gradient, device=device)
    o.step()
    after = p.numpy()
    assert np.isnan(after[[8, 291]]).all()
    assert np.isinf(after[[7, 290]]).all() or settings.get("weight_decay")  # inf * 0 is NaN
    rest = np.delete(after, [7, 8, 290, 291])
    assert np.isfinite(rest).all() and (rest == rest[0]).all() and rest[0] != 1


# ---------------------------------------------------------------- state


@EVERY
def test_resuming_continues_with_the_same_bits(tmp_path, kind, settings):
    params = parameters()
    o = kind(params, **settings)
    run(o, params, 3)
    o.param_groups[0]["lr"] = 0.03
    state, weights = o.state_dict(), [p.numpy().copy() for p in params]
    minigrad.checkpoint.save(tmp_path / "o.safetensors", state["arrays"], {"optimizer": state["settings"]})
    expected = run(o, params, 3, start=3)

    arrays, metadata = minigrad.checkpoint.load(tmp_path / "o.safetensors")
    resumed = [Tensor(w, requires_grad=True) for w in weights]
    again = kind(resumed, **settings)
    again.load_state_dict({"arrays": arrays, "settings": metadata["optimizer"]})
    for a, b in zip(run(again, resumed, 3, start=3), expected):
        np.testing.assert_array_equal(a, b)


def test_state_is_a_copy():
    params = parameters()
    o = SGD(params, 0.1, momentum=0.9)
    run(o, params, 1)
    state = o.state_dict()
    kept = state["arrays"]["velocity.0"].copy()
    run(o, params, 2, start=1)
    np.testing.assert_array_equal(state["arrays"]["velocity.0"], kept)
    assert state["settings"]["steps"] == [1] * len(SHAPES)


def test_state_that_does_not_fit_changes_nothing():
    params = parameters()
    o = SGD(params, 0.1, momentum=0.9)
    run(o, params, 2)
    before = o.state_dict()
    bad = {
        "arrays": {"velocity.0": np.zeros(3), "speed.1": np.zeros(11), "velocity.9": np.zeros(1)},
        "settings": {"groups": [{"lr": 5.0}], "steps": [7] * 4},
    }
    with pytest.raises(CheckpointError) as error:
        o.load_state_dict(bad)
    text = str(error.value)
    assert all(
        part in text for part in ("velocity.0: float64 (3,), its parameter has shape (7, 5)", "unexpected: speed.1")
    )
    assert "unexpected: velocity.9" in text and "group 0: settings ['lr']" in text
    after = o.state_dict()
    assert after["settings"] == before["settings"]
    for name, array in before["arrays"].items():
        np.testing.assert_array_equal(after["arrays"][name], array)
    with pytest.raises(CheckpointError, match="1 group.* with 4 parameters, this optimiser has 1 with 2"):
        SGD(params[:2], 0.1).load_state_dict(before)
    with pytest.raises(CheckpointError, match="expected what state_dict"):
        o.load_state_dict({"velocity.0": np.zeros(3)})


# ---------------------------------------------------------------- refused


def test_refused_parameters(device):
    a, b = parameters(device, [(2,), (3,)])
    with pytest.raises(ArgumentError, match="SGD: there are no parameters"):
        SGD([], 0.1)
    with pytest.raises(ArgumentError, match=r"SGD: parameters 0 and 2 \(2,\) are the same tensor"):
        SGD([a, b, a], 0.1)
    with pytest.raises(ArgumentError, match="are the same tensor"):
        SGD([{"params": [a]}, {"params": [a]}], 0.1)
    with pytest.raises(GraphError, match=r"Adam: parameter 1 \(3,\) is the result of an op"):
        Adam([a, b * 2])
    with pytest.raises(DTypeError, match="parameter 0 must be a floating-point Tensor, got a tensor of int64"):
        SGD([Tensor([1, 2])], 0.1)
    with pytest.raises(DTypeError, match="got ndarray"):
        SGD([np.zeros(3)], 0.1)
    with pytest.raises(ArgumentError, match="got one tensor: put it in a list"):
        SGD(a, 0.1)
    with pytest.raises(ArgumentError, match=r"unknown settings \['rate'\]; there are \['lr'"):
        SGD([{"params": [a], "rate": 1}], 0.1)
    with pytest.raises(ArgumentError, match="each group must be a dictionary with a list under 'params'"):
        SGD([{"params": a}], 0.1)
    net = Linear(2, 2)
    for wrong in (net, [net], [a, net], [{"params": net}], [{"params": [a]}, net]):
        with pytest.raises((ArgumentError, DTypeError), match=r"got Linear: give model\.parameters\(\)"):
            SGD(wrong, 0.1)
    o = SGD([a], 0.1)
    a.grad = Tensor(np.zeros(3))
    with pytest.raises(ShapeError, match=r"parameter 0 is float64 \(2,\) on .* its gradient float64 \(3,\)"):
        o.step()


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (SGD, {"lr": -1}, "SGD: lr must be a finite number >= 0, got -1"),
        (SGD, {"lr": math.nan}, "lr must be a finite number"),
        (SGD, {"lr": "0.1"}, "lr must be a finite number"),
        (SGD, {"lr": 0.1, "momentum": 1}, "momentum must be at least 0 and less than 1, got 1"),
        (SGD, {"lr": 0.1, "weight_decay": -1}, "weight_decay must be"),
        (SGD, {"lr": 0.1, "update_rule": "caffe"}, "update_rule must be 'pytorch' or 'alexnet', got 'caffe'"),
        (SGD, {"lr": 0.1, "nesterov": True}, "nesterov is for momentum above 0 and update_rule='pytorch', got 0.0"),
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "update_rule": "alexnet"}, "got 0.9 and 'alexnet'"),
        (SGD, {"lr": 0.1, "nesterov": 1}, "SGD: nesterov must be True or False, got 1"),
        (RMSprop, {"alpha": 1}, "RMSprop: alpha must be at least 0 and less than 1, got 1"),
        (RMSprop, {"momentum": -0.1}, "RMSprop: momentum must be at least 0"),
        (RMSprop, {"eps": 0}, "RMSprop: eps must be > 0"),
        (Adam, {"betas": (0.9, 1)}, "Adam: betas must be at least 0 and less than 1"),
        (Adam, {"betas": 0.9}, "betas must be two numbers, got 0.9"),
        (Adam, {"eps": 0}, "eps must be > 0"),
    ],
)
def test_refused_settings(kind, settings, message):
    with pytest.raises(ArgumentError, match=message):
        kind(parameters(), **settings)
    good = kind(parameters(), **({"lr": 0.1} if kind is SGD else {}))
    good.param_groups[0].update(settings)
    give_gradients(good.param_groups[0]["params"], 0)
    with pytest.raises(ArgumentError, match=message):
        good.step()


# ---------------------------------------------------------------- schedules


def rates(schedule, steps):
    """The learning rates of the first group, before each step."""
    seen = []
    for _ in range(steps):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.step()
    return seen


def two_groups():
    a, b = parameters(shapes=[(1,), (1,)])
    return SGD([{"params": [a]}, {"params": [b], "lr": 2.0}], lr=1.0)


def test_step_lr_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle, expected = torch.optim.lr_scheduler.StepLR(theirs, 3, 0.5), []
    for _ in range(10):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        oracle.step()
    schedule = StepLR(two_groups(), 3, 0.5)
    assert rates(schedule, 10) == pytest.approx(expected, rel=1e-12)
    assert schedule.optimizer.param_groups[1]["lr"] == pytest.approx(2 * 0.5**3)


def test_milestones_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle, expected = torch.optim.lr_scheduler.MultiStepLR(theirs, [2, 3, 7], 0.1), []
    for _ in range(9):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        oracle.step()
    schedule = MultiStepLR(two_groups(), [2, 3, 7])
    assert rates(schedule, 9) == pytest.approx(expected, rel=1e-12)
    assert schedule.optimizer.param_groups[1]["lr"] == pytest.approx(2e-3)
    assert rates(MultiStepLR(two_groups(), []), 3) == [1, 1, 1]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("total, share", [(10, 0.3), (7, 0.5), (2, 0.3), (20, 0.05), (9, 0.99), (5, 0.0)])
def test_one_cycle_against_pytorch(strategy, total, share):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    zeros = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    theirs = torch.optim.SGD([{"params": [z]} for z in zeros], lr=1.0)
    settings = {"pct_start": share, "anneal_strategy": strategy, "div_factor": 10.0, "final_div_factor": 50.0}
    if share * total == 1:  # PyTorch divides by 0
        settings["pct_start"] = share = share * 1.000001
    oracle = torch.optim.lr_scheduler.OneCycleLR(theirs, [0.5, 2.0], total, cycle_momentum=False, **settings)
    schedule, expected, seen = OneCycleLR(two_groups(), [0.5, 2.0], total, **settings), [], []
    for step in range(total):
        expected.append([group["lr"] for group in theirs.param_groups])
        seen.append([group["lr"] for group in schedule.optimizer.param_groups])
        theirs.step()
        schedule.step()
        if step < total - 1:
            oracle.step()
    np.testing.assert_allclose(seen, expected, rtol=1e-9)
    assert rates(schedule, 3) == pytest.approx([0.5 / 10 / 50] * 3)
    assert rates(OneCycleLR(two_groups(), 3.0, 10, 0.1), 2)[0] == 3.0  # the first step is the summit


def test_exponential_against_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle, expected = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9), []
    for _ in range(9):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        oracle.step()
    assert rates(ExponentialLR(two_groups(), 0.9), 9) == pytest.approx(expected, rel=1e-12)


def test_warm_up_ends_at_the_full_rate_and_lets_go():
    schedule = Warmup(two_groups(), 4)
    assert rates(schedule, 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    schedule.optimizer.param_groups[0]["lr"] = 0.3
    assert rates(schedule, 2) == [0.3, 0.3]
    assert schedule.optimizer.param_groups[1]["lr"] == 2
    assert rates(Warmup(two_groups(), 0), 2) == [1, 1]


def test_warm_up_and_cosine():
    seen = rates(WarmupCosine(two_groups(), warmup=2, total=10, final=0.1), 14)
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    assert seen == pytest.approx([0.5, 1.0, *cosine, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_plateau_against_pytorch(patience):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=patience, threshold=0.0, eps=0.0)
    schedule = ReduceOnPlateau(two_groups(), patience=patience)
    for measure in [5, 4, 4, 4, 4, 3, 3.5, 3.2, 3.1, 2, 2.5, 2, 2, 2, 1]:
        oracle.step(measure)
        schedule.step(measure)
        assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        assert schedule.optimizer.param_groups[1]["lr"] == pytest.approx(2 * theirs.param_groups[0]["lr"])


@pytest.mark.parametrize("measure", [np.nan, np.inf, -np.inf])
def test_plateau_refuses_what_is_no_measure(measure):
    schedule = ReduceOnPlateau(two_groups(), patience=0)
    schedule.step(1.0)
    with pytest.raises(ArgumentError, match=f"ReduceOnPlateau: the measure must be a finite number, got {measure}"):
        schedule.step(measure)
    assert (schedule.best, schedule.bad_epochs, schedule.reductions) == (1.0, 0, 0), "as if it had not been called"


def test_plateau_threshold_and_floor():
    schedule = ReduceOnPlateau(two_groups(), factor=0.1, patience=0, threshold=0.5, min_lr=0.05)
    assert [schedule.step(m) for m in (3.0, 2.8, 2.4, 2.0, 2.0)] == [False, True, False, True, True]
    assert schedule.optimizer.param_groups[0]["lr"] == 0.05 and schedule.reductions == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 3),
        lambda o: MultiStepLR(o, [3, 6]),
        lambda o: Warmup(o, 5),
        lambda o: ExponentialLR(o, 0.8),
        lambda o: OneCycleLR(o, [0.3, 0.1], 8),
        lambda o: WarmupCosine(o, 2, 9),
        lambda o: ReduceOnPlateau(o, patience=1),
    ],
)
def test_schedules_resume(make):
    measures = [3, 3, 2, 2, 2, 2, 1, 1, 1, 1]

    def go_on(schedule, start, stop):
        seen = []
        for measure in measures[start:stop]:
            schedule.step(measure) if isinstance(schedule, ReduceOnPlateau) else schedule.step()
            seen.append([group["lr"] for group in schedule.optimizer.param_groups])
        return seen

    expected = go_on(make(two_groups()), 0, 10)
    first = make(two_groups())
    go_on(first, 0, 4)
    state = json.loads(json.dumps([first.state_dict(), first.optimizer.state_dict()["settings"]]))
    second = make(two_groups())
    second.load_state_dict(state[0])
    second.optimizer.load_state_dict({"arrays": {}, "settings": state[1]})
    assert go_on(second, 4, 10) == expected[4:]
    json.dumps(make(two_groups()).state_dict(), allow_nan=False)
    with pytest.raises(CheckpointError, match="the state has"):
        second.load_state_dict({"epoch": 1})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda o: StepLR(o, 0), "StepLR: step_size must be an integer >= 1, got 0"),
        (lambda o: StepLR(o, 1, -1), "gamma must be a finite number > 0, got -1"),
        (lambda o: MultiStepLR(o, [3, 3]), "MultiStepLR: milestones must rise, got .3, 3.$"),
        (lambda o: MultiStepLR(o, [0]), "MultiStepLR: milestones must be an integer >= 1, got 0"),
        (lambda o: MultiStepLR(o, [1], 0), "gamma must be a finite number > 0, got 0"),
        (lambda o: ExponentialLR(o, 0), "ExponentialLR: gamma must be a finite number > 0, got 0"),
        (lambda o: OneCycleLR(o, 0.1, 1), "OneCycleLR: total_steps must be an integer >= 2, got 1"),
        (lambda o: OneCycleLR(o, 0, 10), "OneCycleLR: max_lr must be a finite number > 0, got 0"),
        (lambda o: OneCycleLR(o, [0.1], 10), "max_lr must be one number, or 2: one a group; got 1"),
        (lambda o: OneCycleLR(o, 0.1, 10, 1.0), "pct_start must be less than 1, got 1.0"),
        (
            lambda o: OneCycleLR(o, 0.1, 10, anneal_strategy="exp"),
            "anneal_strategy must be 'cos' or 'linear', got 'exp'",
        ),
        (lambda o: OneCycleLR(o, 0.1, 10, div_factor=0), "div_factor must be a finite number > 0"),
        (lambda o: Warmup(o, -1), "warmup must be an integer >= 0"),
        (lambda o: WarmupCosine(o, 5, 5), "total must be an integer >= 6, got 5"),
        (lambda o: WarmupCosine(o, 1, 5, 2.0), "final must be a fraction between 0 and 1"),
        (lambda o: ReduceOnPlateau(o, factor=1.0), "factor must be less than 1, got 1.0"),
        (lambda o: ReduceOnPlateau(o, patience=1.5), "patience must be an integer >= 0, got 1.5"),
        (lambda o: ReduceOnPlateau(o, min_lr=-1), "min_lr must be a finite number >= 0"),
    ],
)
def test_refused_schedules(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(two_groups())


def test_a_rule_without_a_gpu_face_says_so_on_a_card(device):
    class Halving(optimizer.Optimizer):
        def kept(self, group):
            return {}

        def rule(self, group, step, w, g, t, state):
            w /= 2

    x = Tensor([2.0, 4.0], True, device)
    x.sum().backward()
    halving = Halving([x], lr=0.1)
    if minigrad.device(device).on_host:
        halving.step()
        np.testing.assert_array_equal(x.numpy(), [1, 2])
    else:
        with pytest.raises(DeviceError, match=f"Halving: has no rule_gpu, for {device}: define it"):
            halving.step()
