"""batch_norm: values and gradients against loops, PyTorch and onnxruntime; running statistics; large means; chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import onnx_run
from reference import batch_norm_gradients_reference, batch_norm_reference

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError, Tensor, gradcheck, nn

SHAPES = [(4, 3), (2, 1), (2, 3, 4), (3, 2, 2, 3), (1, 2, 3, 3), (2, 3, 1, 5), (2, 2, 1, 2, 3), (3, 2, 4, 8)]


def arrays(shape, dtype=np.float64, seed=0):
    """x, weight, bias, mean, var."""
    random = np.random.default_rng([seed, *shape])
    x, c = 2 * random.standard_normal(shape) + 3, shape[1]
    others = random.standard_normal(c), random.standard_normal(c), random.standard_normal(c), random.uniform(0.1, 2, c)
    return [a.astype(dtype) for a in (x, *others)]


def tensors(shape, device, dtype=np.float64):
    x, weight, bias, mean, var = arrays(shape, dtype)
    trained = [Tensor(a, True, device) for a in (x, weight, bias)]
    return (*trained, Tensor(mean, device=device), Tensor(var, device=device))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_against_loops(device, shape):
    for where in {"textbook:0", "cpu:0", device}:
        x, weight, bias, mean, var = tensors(shape, where)
        dy = np.random.default_rng(1).standard_normal(shape)
        y = F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)
        y.backward(dy)
        plain = x.numpy(), weight.numpy(), bias.numpy()
        np.testing.assert_allclose(y.numpy(), batch_norm_reference(*plain, 1e-3), rtol=1e-9, atol=1e-12)
        expected = batch_norm_gradients_reference(plain[0], dy, plain[1], 1e-3)
        for tensor, gradient in zip((x, weight, bias), expected, strict=True):
            np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-9, atol=1e-11)
        y = F.batch_norm(x, mean, var, weight, bias, eps=1e-3)
        expected = batch_norm_reference(*plain, 1e-3, mean.numpy(), var.numpy())
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_every_element(device, shape, training):
    x, weight, bias, mean, var = tensors(shape, device)
    running = (None, None) if training else (mean, var)
    assert gradcheck(lambda x, w, b: F.batch_norm(x, *running, w, b, training, eps=0.1), [x, weight, bias])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(128, 300), (16, 96, 27, 27), (31, 5, 8, 8), (65, 33, 2, 2)])
def test_gradients_at_the_size_of_layers(device, shape, training):
    """Several tiles and pieces, whole ones and cut ones."""
    x, weight, bias, mean, var = tensors(shape, device)
    running = (None, None) if training else (mean, var)
    inputs = [x, weight, bias]
    assert gradcheck(lambda x, w, b: F.batch_norm(x, *running, w, b, training), inputs, direction=True)


@settings(max_examples=60)
@given(data=st.data())
def test_against_pytorch(data):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4), "shape"))
    training, affine, tracked = (data.draw(st.booleans(), name) for name in ("training", "affine", "tracked"))
    tracked, dtype = tracked or not training, data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    if training and shape[0] * np.prod(shape[2:]) < 2:
        return
    momentum = data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]), "momentum")
    x, weight, bias, mean, var = arrays(shape, dtype)
    dy = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    results = []
    for make in (lambda a, grad: Tensor(a, grad), lambda a, grad: torch.tensor(a, requires_grad=grad)):
        of_x, w, b = make(x, True), make(weight, True), make(bias, True)
        running = [make(mean, False), make(var, False)] if tracked else [None, None]
        function = F.batch_norm if type(of_x) is Tensor else torch.nn.functional.batch_norm
        y = function(of_x, *running, *((w, b) if affine else (None, None)), training, momentum, 1e-3)
        y.backward(dy if type(of_x) is Tensor else torch.tensor(dy))
        results.append([y, of_x.grad, *running, *((w.grad, b.grad) if affine else ())])
    for ours, theirs in zip(*results, strict=True):
        if ours is not None:
            assert ours.dtype == dtype
            theirs = theirs.detach().numpy()
            rtol = 1e-4 if dtype == np.float32 else 1e-9
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=rtol * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4, 5)])
def test_against_onnxruntime(device, shape):
    x, weight, bias, mean, var = arrays(shape, np.float32)
    expected = onnx_run("BatchNormalization", x, weight, bias, mean, var, opset=15, epsilon=1e-3)
    ours = F.batch_norm(*(Tensor(a, device=device) for a in (x, mean, var, weight, bias)), eps=1e-3)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("shape", [(4096, 9), (32, 5, 33, 31), (700, 40, 2, 2)])
def test_a_mean_that_is_large_beside_the_deviation(device, shape):
    """The sum of squares less the square of the mean would lose all digits: 10,000^2 is 10^8, and float32 has seven."""
    x = (np.random.default_rng(0).standard_normal(shape) + 10_000).astype(np.float32)
    wide = x.astype(np.float64)
    axes = (0, *range(2, x.ndim))
    keep = {"axis": axes, "keepdims": True}
    expected = (wide - wide.mean(**keep)) / np.sqrt(wide.var(**keep) + 1e-5)
    for where in {"textbook:0", "cpu:0", device}:
        mean, var = Tensor(np.zeros(shape[1], "f"), device=where), Tensor(np.zeros(shape[1], "f"), device=where)
        y = F.batch_norm(Tensor(x, device=where), mean, var, training=True, momentum=1.0)
        np.testing.assert_allclose(y.numpy(), expected, atol=3e-3)  # the mean is rounded to 0.001
        np.testing.assert_allclose(mean.numpy(), wide.mean(axes), rtol=2e-7)
        np.testing.assert_allclose(var.numpy(), wide.var(axes, ddof=1), rtol=2e-4)


def test_a_channel_without_variance_becomes_the_bias(device):
    x = np.ones((4, 2, 3, 3), np.float32)
    x[:, 1] = np.random.default_rng(0).standard_normal((4, 3, 3))
    y = F.batch_norm(Tensor(x, device=device), None, None, None, Tensor([5.0, 0.0], device=device), training=True)
    np.testing.assert_array_equal(y.numpy()[:, 0], 5)
    assert abs(y.numpy()[:, 1].std() - 1) < 1e-3


def test_nan_stays_in_its_channel(device):
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    x[1, 2, 3] = np.nan
    y = F.batch_norm(Tensor(x, device=device), None, None, training=True).numpy()
    assert np.isnan(y[:, 2]).all() and np.isfinite(y[:, :2]).all()


def test_any_memory_order(device):
    x, weight, bias, mean, var = arrays((4, 5, 6, 7))
    dy = np.random.default_rng(1).standard_normal(x.shape)
    results = []
    for turn in (np.array, lambda a: np.asfortranarray(a), lambda a: np.array(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
                 lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):  # fmt: skip
        for training in (True, False):
            of_x = Tensor(turn(x), True, device)
            vectors = [Tensor(np.repeat(a, 2), device=device)[::2] for a in (mean, var, weight, bias)]
            y = F.batch_norm(of_x, *vectors, training)
            y.backward(Tensor(turn(dy), device=device))
            results.append((y.numpy(), of_x.grad.numpy()))
    for i, result in enumerate(results):
        for ours, first in zip(result, results[i % 2], strict=True):
            np.testing.assert_allclose(ours, first, rtol=1e-9, atol=1e-12)


@pytest.mark.cpu_only("threads")
def test_threads_change_no_more_than_the_last_bits():
    x, weight, bias, *_ = arrays((40, 24, 30, 30), np.float32)
    dy = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    found = []
    for threads in (1, 2, 3, 3):
        minigrad.set_num_threads(threads, "cpu:0")
        inputs = [Tensor(a, True, "cpu:0") for a in (x, weight, bias)]
        y = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
        y.backward(dy)
        found.append([y.numpy(), *(t.grad.numpy() for t in inputs)])
    for first, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5 * np.abs(first).max())
        np.testing.assert_array_equal(*others[1:])  # the same number of threads: the same bits


def test_only_the_gradients_that_are_wanted(device):
    arrays_ = arrays((4, 3, 2, 2))
    for training in (True, False):
        full = tensors((4, 3, 2, 2), device)
        F.batch_norm(full[0], *full[3:], *full[1:3], training).sum().backward()
        for wanted in range(3):
            some = [Tensor(a, i == wanted, device) for i, a in enumerate(arrays_)]
            F.batch_norm(some[0], *some[3:], *some[1:3], training).sum().backward()
            np.testing.assert_allclose(some[wanted].grad.numpy(), full[wanted].grad.numpy(), rtol=1e-12, atol=1e-13)
            assert [t.grad is None for t in some] == [i != wanted for i in range(5)]


def test_no_images(device):
    x = Tensor(np.zeros((0, 3, 4, 4), np.float32), True, device)
    _, weight, bias, mean, var = tensors((1, 3), device, np.float32)
    F.batch_norm(x, mean, var, weight, bias).backward(np.zeros(x.shape))
    assert x.grad.shape == x.shape and not weight.grad.numpy().any() and not bias.grad.numpy().any()


# ---------------------------------------------------------------- running statistics


def test_running_statistics_that_change_after_forward_are_noticed(device):
    x, weight, bias, mean, var = tensors((4, 3), device)
    y = F.batch_norm(x, mean, var, weight, bias)
    F.batch_norm(x.detach(), mean, var, training=True)
    with pytest.raises(GraphError, match="batch_norm: backward needs input 3 .*modified in place"):
        y.sum().backward()


def test_what_is_refused_leaves_the_statistics_alone(device):
    x, weight, _, mean, var = tensors((4, 3), device)
    before = mean.numpy().copy(), var.numpy().copy()
    for bad in (x[:1], x[:, :2], x[0]):
        with pytest.raises(ShapeError):
            F.batch_norm(bad, mean, var, weight, training=True)
    np.testing.assert_array_equal(before, (mean.numpy(), var.numpy()))


@pytest.mark.cpu_only("in_chunks is")
def test_chunks_are_no_batches():
    x, *_ = arrays((8, 3, 4, 4), np.float32)
    layer = nn.BatchNorm2d(3)
    with pytest.raises(GraphError, match="in_chunks cuts the batch, .*whole_batches"):
        minigrad.in_chunks(layer, Tensor(x, True), size=2)
    assert layer.num_batches_tracked.item() == 0 and not layer.running_mean.numpy().any()
    with minigrad.whole_batches():
        y = minigrad.in_chunks(layer, Tensor(x, True), size=2)
    np.testing.assert_array_equal(y.numpy(), nn.BatchNorm2d(3)(Tensor(x)).numpy())
    layer.eval()
    given = minigrad.in_chunks(layer, Tensor(x, True), size=2)
    np.testing.assert_allclose(given.numpy(), layer(Tensor(x)).numpy(), rtol=1e-6)


# ---------------------------------------------------------------- the layers


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    "kind, shape", [("BatchNorm2d", (4, 3, 5, 2)), ("BatchNorm1d", (6, 3)), ("BatchNorm1d", (6, 3, 4))]
)
def test_layers_train_as_pytorch_s(device, kind, shape, momentum):
    torch = pytest.importorskip("torch", reason="PyTorch is an oracle where installed")
    ours, theirs = getattr(nn, kind)(3, 1e-3, momentum, device=device), getattr(torch.nn, kind)(3, 1e-3, momentum)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for step in range(3):
        x, *_ = arrays(shape, np.float32, step)
        y, ty = ours(Tensor(x, device=device)), theirs(torch.tensor(x))
        (y * y * y).sum().backward()
        (ty * ty * ty).sum().backward()
        np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), rtol=1e-4, atol=1e-5)
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(parameter.grad.numpy(), other.grad.numpy(), rtol=1e-3, atol=1e-3)
    for name, array in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], array.numpy(), rtol=1e-5, atol=1e-6)
    ours.eval(), theirs.eval()
    y, ty = ours(Tensor(x, device=device)).numpy(), theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(y, ty, rtol=1e-4, atol=1e-5)
    assert ours.num_batches_tracked.item() == 3
    fresh = getattr(nn, kind)(3, device=device)
    fresh.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(fresh.running_var.numpy(), theirs.running_var.numpy())


def test_a_net_with_batch_norm_learns_and_is_saved_whole(device, tmp_path):
    random = np.random.default_rng(0)
    x, t = random.standard_normal((40, 2, 4, 4)).astype(np.float32), np.arange(40) % 2
    x[t == 1] *= 3  # the classes differ in their deviation
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8),
                        nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).to(device)  # fmt: skip
    optimizer = minigrad.optim.SGD(net.parameters(), 0.1, 0.9)
    losses = []
    for _ in range(30):
        net.zero_grad()
        loss = F.cross_entropy(net(Tensor(x, device=device)), t)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    minigrad.checkpoint.save(tmp_path / "net", net.state_dict())
    net.eval()
    y = net(Tensor(x, device=device)).numpy()
    again = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8),
                          nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).to(device).eval()  # fmt: skip
    again.load_state_dict(minigrad.checkpoint.load(tmp_path / "net")[0])
    np.testing.assert_array_equal(again(Tensor(x, device=device)).numpy(), y)
    assert (y.argmax(1) == t).mean() > 0.9


def test_layers_say_what_they_are_and_refuse_others(device):
    assert str(nn.BatchNorm2d(4)) == "BatchNorm2d(4)  8 parameters"
    assert str(nn.BatchNorm1d(4, momentum=None, affine=False)) == "BatchNorm1d(4, momentum=None, affine=False)"
    with pytest.raises(ShapeError, match=r"BatchNorm2d: x must be \(N, C, H, W\) with C = 4 channels, it is \(2, 4\)"):
        nn.BatchNorm2d(4, device=device)(Tensor(np.zeros((2, 4), "f"), device=device))
    with pytest.raises(ShapeError, match=r"BatchNorm1d: x must be \(N, C\) or \(N, C, L\) with C = 4 channels"):
        nn.BatchNorm1d(4, device=device)(Tensor(np.zeros((2, 5), "f"), device=device))
    untracked = nn.BatchNorm1d(3, track_running_stats=False, device=device).eval()
    assert list(untracked.buffers()) == []
    x = Tensor(arrays((5, 3), np.float32)[0], device=device)
    np.testing.assert_allclose(untracked(x).numpy().mean(0), 0, atol=1e-6)


def test_refused_input(device):
    x, weight, bias, mean, var = tensors((4, 3), device)
    with pytest.raises(ShapeError, match=r"batch_norm: x must have 2 axes or more, \(N, C, ...\), it has 1: \(4,\)"):
        F.batch_norm(x[:, 0], mean, var)
    with pytest.raises(ShapeError, match=r"batch_norm: weight must be \(3,\), a number per channel of x \(4, 3\)"):
        F.batch_norm(x, mean, var, weight[:2])
    with pytest.raises(ShapeError, match="two numbers or more, x .* has 1: use a larger batch"):
        F.batch_norm(x[:1], None, None, training=True)
    with pytest.raises(ArgumentError, match="one of running_mean and running_var is None: give both, or neither"):
        F.batch_norm(x, mean, None, training=True)
    with pytest.raises(ArgumentError, match="without running_mean and running_var there is only training=True"):
        F.batch_norm(x, None, None)
    with pytest.raises(GraphError, match="running_var is not trained, but requires a gradient: .detach"):
        F.batch_norm(x, mean, weight)
    with pytest.raises(DTypeError, match="all float32 or all float64, got x float64, running_mean int64"):
        F.batch_norm(x, mean.astype("int64"), var)
    with pytest.raises(DTypeError, match="batch_norm: x must be a Tensor, got list"):
        F.batch_norm([[1.0]], None, None)
    with pytest.raises(DeviceError, match=r"batch_norm: x on \w+:0, running_mean on cpu:1"):
        F.batch_norm(x, mean.to("cpu:1"), var, training=True)
