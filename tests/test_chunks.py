"""in_chunks: the numbers of the whole batch, gradients to everything that is read, the same bits on every run."""

import threading
import time
import weakref

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, DTypeError, GraphError, ShapeError, Tensor, in_chunks, nn
from minigrad.engine import Function
from minigrad.processor.chunks import _bounds
from minigrad.tensor import apply


@pytest.fixture(autouse=True)
def _two_threads():
    minigrad.set_num_threads(2)
    yield
    minigrad.set_num_threads(None)


def small_net(dtype="float64"):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, dtype=dtype),
        nn.ReLU(),
        nn.LRN(alpha=0.1),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 6, 3, groups=2, dtype=dtype),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 5 * 5, 7, dtype=dtype),
    )


def images(n=13, dtype="float64", size=16):
    return Tensor(np.random.default_rng(1).standard_normal((n, 3, size, size)), dtype=dtype, requires_grad=True)


def results(net, x, function):
    """Output and all gradients of sum(function(x)^2 * fixed weights), with the same dropout every time."""
    minigrad.manual_seed(3)
    net.zero_grad()
    x.grad = None
    y = function(x)
    (y * y * np.arange(1, y.size + 1).reshape(y.shape).astype(y.dtype)).sum().backward()
    return [y.numpy().copy(), x.grad.numpy().copy(), *(p.grad.numpy().copy() for p in net.parameters())]


def close(a, b, tolerance):
    for u, v in zip(a, b):
        assert u.shape == v.shape and u.dtype == v.dtype
        assert np.abs(u - v).max(initial=0) <= tolerance * np.abs(v).max(initial=0)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 6, None])
def test_equal_to_the_whole_batch(dtype, tolerance, threads, size):
    net, x = small_net(dtype), images(dtype=dtype)
    whole = results(net, x, net)
    minigrad.set_num_threads(threads)
    close(results(net, x, lambda x: in_chunks(net, x, size=size)), whole, tolerance)


def test_dropout_gives_each_image_its_mask_whatever_the_chunks_and_threads():
    x = Tensor(np.ones((10, 3, 7, 5)))

    def two_dropouts(x):
        return F.dropout(x, 0.5) + F.dropout(x, 0.3) * 100

    outputs = []
    for threads, size in [(1, 100), (1, 3), (2, 1), (2, 4), (3, 5)]:
        minigrad.set_num_threads(threads)
        minigrad.manual_seed(0)
        y = in_chunks(two_dropouts, x, size=size).numpy()
        following = F.dropout(x, 0.5).numpy()  # the generator is where it would be without chunks
        outputs.append((y, following))
    for y, following in outputs[1:]:
        assert (y == outputs[0][0]).all() and (following == outputs[0][1]).all()
    assert len(np.unique(outputs[0][0].reshape(10, -1), axis=0)) == 10  # every image has a mask of its own


def test_dropout_of_images_taken_apart_into_rows():
    x = Tensor(np.ones((7, 6, 5)))

    def by_rows(x):
        return F.dropout(x.reshape(len(x) * 6, 5), 0.5).reshape(len(x), 6, 5)

    minigrad.manual_seed(0)
    whole = by_rows(x).numpy()
    minigrad.manual_seed(0)
    assert (in_chunks(by_rows, x, size=2).numpy() == whole).all()


class SleepyDouble(Function):
    """2x, after a time that differs from call to call."""

    def forward_cpu(self, x):
        time.sleep(np.random.default_rng().uniform(0, 0.004))
        return x * 2

    def backward_cpu(self, dy):
        time.sleep(np.random.default_rng().uniform(0, 0.004))
        return dy * 2


def test_same_bits_whatever_the_timing():
    net, x = small_net("float32"), images(dtype="float32")
    runs = [results(net, x, lambda x: in_chunks(lambda x: net(apply(SleepyDouble(), x)), x, size=1)) for _ in range(4)]
    for run in runs[1:]:
        assert all((a == b).all() for a, b in zip(run, runs[0]))


def test_gradients_reach_everything_that_the_function_reads():
    """A leaf, an earlier result of the same graph, a leaf used inside and outside, and one read in some chunks only."""
    rng = np.random.default_rng(0)
    a, b, c, d = (Tensor(rng.standard_normal(4), requires_grad=True, dtype="float64") for _ in range(4))
    x = Tensor(rng.standard_normal((6, 4)), requires_grad=True, dtype="float64")

    def loss(run):
        earlier = a * b

        def function(x):
            y = x * earlier + c
            return y * d if x.data[0, 0] > 0 else y

        return (run(function, x) * c + x).sum()

    def gradients(run):
        for t in (a, b, c, d, x):
            t.grad = None
        loss(run).backward()
        return [t.grad.numpy().copy() for t in (a, b, c, d, x)]

    whole = gradients(lambda f, x: F.concat([f(x[i : i + 1]) for i in range(6)], axis=0))
    close(gradients(lambda f, x: in_chunks(f, x, size=1)), whole, 1e-12)


def test_several_inputs_also_the_same_twice():
    rng = np.random.default_rng(0)
    x, y = (Tensor(rng.standard_normal((5, 3)), requires_grad=True, dtype="float64") for _ in range(2))
    in_chunks(lambda a, b, c: a * b * c, x, y, x, size=2).sum().backward()
    assert np.allclose(x.grad.numpy(), 2 * x.numpy() * y.numpy()) and np.allclose(y.grad.numpy(), x.numpy() ** 2)


def test_input_that_is_read_past_the_chunk_too():
    x = Tensor(np.arange(8.0).reshape(4, 2), requires_grad=True, dtype="float64")
    mean_of = in_chunks(lambda part: part * x.sum(), x, size=2)  # x is an input and a leaf besides
    mean_of.sum().backward()
    assert np.allclose(x.grad.numpy(), 2 * x.numpy().sum())


def test_gradcheck_through_chunks():
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((5, 2, 6, 6)), requires_grad=True, dtype="float64")
    w = Tensor(rng.standard_normal((3, 2, 3, 3)), requires_grad=True, dtype="float64")
    assert minigrad.gradcheck(lambda x, w: in_chunks(lambda x: F.lrn(F.conv2d(x, w), alpha=0.5), x, size=2), [x, w])


def test_function_that_returns_its_input_or_a_constant():
    x = Tensor(np.ones((4, 2)), requires_grad=True)
    in_chunks(lambda x: x, x, size=1).sum().backward()
    assert (x.grad.numpy() == 1).all()
    y = in_chunks(lambda x: Tensor(np.full((len(x), 3), 5.0)), x, size=1)
    assert not y.requires_grad and (y.numpy() == 5).all()


def test_rows_that_some_chunks_do_not_send_gradients_to_are_zero():
    x = Tensor(np.array([[1.0], [-1.0], [2.0], [-2.0]]), requires_grad=True)
    in_chunks(lambda x: x * 3 if x.data[0, 0] > 0 else Tensor(x.data * 3), x, size=1).sum().backward()
    assert x.grad.numpy().ravel().tolist() == [3, 0, 3, 0]


@pytest.mark.parametrize("chunk", range(4))
def test_leaf_that_one_chunk_alone_reads(chunk):
    """Whichever thread that chunk falls to."""
    x = Tensor(np.arange(4.0).reshape(4, 1), requires_grad=True)
    w = Tensor(np.full(1, 5.0, "f"), requires_grad=True)
    in_chunks(lambda x: x * w if x.data[0, 0] == chunk else x * 1, x, size=1).sum().backward()
    assert w.grad.item() == chunk


def test_node_has_edges_to_what_lies_outside_only():
    x = Tensor(np.ones((4, 1)), requires_grad=True)
    w = Tensor(np.ones(1), requires_grad=True)
    earlier = w * 2
    y = in_chunks(lambda x: x * earlier * w, x, size=1)
    assert set(map(id, y.node.inputs)) == {id(x), id(w), id(earlier.node)}


def test_channels_last_memory_stays_channels_last():
    net = nn.Conv2d(3, 8, 3)
    y = in_chunks(net, images(dtype="float32"), size=4)
    assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_chunks_run_at_the_same_time_on_the_threads_of_the_device():
    both = threading.Barrier(2, timeout=20)

    class Meet(Function):
        def forward_cpu(self, x):
            both.wait()
            return x + 0

        def backward_cpu(self, dy):
            both.wait()
            return dy

    x = Tensor(np.ones((4, 1)), requires_grad=True)
    in_chunks(lambda x: apply(Meet(), x), x, size=2).sum().backward()  # would time out one after the other
    assert (x.grad.numpy() == 1).all()


def test_inside_on_devices_and_inside_a_chunk():
    net, x = small_net(), images(8)
    whole = results(net, x, net)
    close(results(net, x, lambda x: in_chunks(lambda x: in_chunks(net, x, size=1), x, size=3)), whole, 1e-12)
    other = small_net()
    other.load_state_dict(net.state_dict())
    other.to("cpu:1")

    def columns(x):
        ys = minigrad.on_devices(
            ["cpu:0", "cpu:1"], lambda n, x: in_chunks(n, x, size=3), [net, other], [x, x.to("cpu:1")]
        )
        return ys[0] + ys[1].to("cpu:0")

    for layer in (net[5], other[5]):
        layer.p = 0.0
    doubled, single = results(net, x, columns), results(net, x, lambda x: net(x) * 2)
    assert np.allclose(doubled[0], single[0]) and np.allclose(doubled[1], single[1])
    assert np.allclose(doubled[2] + other[0].weight.grad.numpy(), single[2])


def test_no_grad_leaves_no_graph_and_keeps_nothing_alive():
    kept = []

    class Watched(Function):
        def forward_cpu(self, x):
            y = x * 2
            kept.append(weakref.ref(y))
            return y

    x, w = Tensor(np.ones((6, 2)), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    with minigrad.no_grad():
        y = in_chunks(lambda x: apply(Watched(), x) + w, x, size=2)
        assert not in_chunks(lambda x: x, x, size=2).requires_grad
    assert y.node is None and not y.requires_grad and len(kept) == 4
    assert all(array() is None for array in kept)


def test_graphs_are_freed_chunk_by_chunk_and_are_used_once():
    arrays = []

    class Keeps(Function):
        def forward_cpu(self, x):
            self.y = x * 2
            arrays.append(weakref.ref(self.y))
            return self.y

        def backward_cpu(self, dy):
            return dy * 2

    x = Tensor(np.ones((4, 2)), requires_grad=True)
    loss = in_chunks(lambda x: apply(Keeps(), x) * 3, x, size=1).sum()
    assert all(array() is not None for array in arrays)
    loss.backward()
    assert all(array() is None for array in arrays)
    with pytest.raises(GraphError, match="already used"):
        loss.backward()


@pytest.mark.parametrize("which", ["input", "leaf"])
def test_changes_between_forward_and_backward_are_noticed(which):
    x = Tensor(np.ones((4, 2)), requires_grad=True)
    w = Tensor(np.ones(2), requires_grad=True)
    loss = in_chunks(lambda x: x * w, x, size=2).sum()
    with minigrad.no_grad():
        if which == "input":
            x += 1
        else:
            w += 1
    with pytest.raises(GraphError, match="modified in place"):
        loss.backward()


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_an_error_in_one_chunk_is_raised_as_it_is(way):
    class Fails(Function):
        def forward_cpu(self, x):
            if way == "forward" and x[0, 0] == 3:
                raise FloatingPointError("chunk 3")
            return x * 2

        def backward_cpu(self, dy):
            if dy[0, 0] == 3:
                raise FloatingPointError("chunk 3")
            return dy * 2

    x = Tensor(np.arange(4.0).reshape(4, 1), requires_grad=True)
    with pytest.raises(FloatingPointError, match="chunk 3"):
        (in_chunks(lambda x: apply(Fails(), x), x, size=1) * np.arange(4.0, dtype="f").reshape(4, 1)).sum().backward()
    in_chunks(lambda x: x * 2, x, size=1).sum().backward()  # and the next one works


@pytest.mark.parametrize(
    "n, size, threads, expected",
    [
        (8, 4, 2, [4, 4]),
        (9, 4, 2, [2, 2, 2, 3]),
        (10, 4, 1, [3, 3, 4]),
        (3, 1, 2, [1, 1, 1]),
        (5, 100, 2, [2, 3]),
        (1, 1, 2, [1]),
        (0, 1, 2, []),
    ],
)
def test_chunks_are_nearly_equal_and_as_many_for_each_thread(n, size, threads, expected):
    bounds = _bounds(n, size, threads)
    assert [j - i for i, j in bounds] == expected
    assert [i for i, _ in bounds] == [sum(expected[:k]) for k in range(len(expected))]


def test_default_size_goes_by_bytes():
    sizes = []

    def note(x):
        sizes.append(len(x))
        return x * 1

    in_chunks(note, Tensor(np.zeros((32, 3, 224, 224), "f")))
    assert sizes == [8, 8, 8, 8]
    sizes.clear()
    in_chunks(note, Tensor(np.zeros((400, 1, 28, 28), "f")))  # 1.25 MB: half for each thread
    assert sizes == [200, 200]
    sizes.clear()
    in_chunks(note, Tensor(np.zeros((64, 1, 28, 28), "f")))  # 0.2 MB: not worth a thread
    assert sizes == [64]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images_or_none(n):
    net, x = small_net(), images(n)
    close(results(net, x, lambda x: in_chunks(net, x)), results(net, x, net), 1e-12)


def test_whole_batches_turns_chunks_off():
    sizes = []

    def note(x):
        sizes.append(len(x))
        return x * 1

    with minigrad.whole_batches():
        in_chunks(note, images(6), size=2)
    assert sizes == [6]


def test_standardize_outputs_sees_whole_batches():
    class Chunked(nn.Module):
        def __init__(self):
            self.net = small_net()

        def forward(self, x):
            return in_chunks(self.net, x, size=2)

    a = Chunked()
    b = small_net()
    b.load_state_dict(a.net.state_dict())
    x = images(10)
    nn.standardize_outputs(a, x)
    nn.standardize_outputs(b, x)
    close([p.numpy() for p in a.parameters()], [p.numpy() for p in b.parameters()], 1e-12)


def test_refused():
    x = images(4)
    with pytest.raises(ArgumentError, match=r"size must be an integer >= 1, got 0"):
        in_chunks(lambda x: x, x, size=0)
    with pytest.raises(ArgumentError, match="size must be an integer >= 1, got True"):
        in_chunks(lambda x: x, x, size=True)
    with pytest.raises(ArgumentError, match="at least one tensor"):
        in_chunks(lambda: x)
    with pytest.raises(DTypeError, match="must be Tensors, got ndarray"):
        in_chunks(lambda x: x, np.ones(4))
    with pytest.raises(ShapeError, match=r"equally many images along axis 0, got \(4, 3, 16, 16\), \(3, 1\)"):
        in_chunks(lambda x, y: x, x, Tensor(np.ones((3, 1))))
    with pytest.raises(ShapeError, match="equally many images"):
        in_chunks(lambda x: x, Tensor(1.0))
    with pytest.raises(DeviceError, match="inputs on cpu:0 and cpu:1"):
        in_chunks(lambda x, y: x, x, Tensor(np.ones((4, 1)), device="cpu:1"))
    with pytest.raises(DTypeError, match="must return one Tensor, got tuple"):
        in_chunks(lambda x: (x, x), x, size=2)
    with pytest.raises(ShapeError, match=r"one row per image, 2, it returned \(3, 16, 16\)"):
        in_chunks(lambda x: x[0], x, size=2)
    with pytest.raises(ShapeError, match="one row per image, 2, it returned"):
        in_chunks(lambda x: x.sum(), x, size=2)
    with pytest.raises(DeviceError, match="must stay on cpu:0, it returned a tensor on cpu:1"):
        in_chunks(lambda x: x.to("cpu:1"), x, size=2)
    minigrad.set_num_threads(1)
    with pytest.raises(ShapeError, match="rows of one shape and dtype"):
        in_chunks(lambda x: x.flatten(1)[:, : len(x)], images(7), size=3)  # chunks of 2, 2 and 3 images
