"""Backward: order, accumulation, errors, and what stays in memory."""

import copy
import gc
import itertools
import pickle
import signal
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import (
    DeviceError,
    GraphError,
    ShapeError,
    Tensor,
    backward,
    device,
    engine,
    gradcheck,
    is_grad_enabled,
    nn,
    no_grad,
    set_num_threads,
)
from minigrad.backward import run_backward
from minigrad.cudasim import compiler
from minigrad.engine import Function, backward_in_ten_lines, next_order
from minigrad.processor import cpu, parallel
from minigrad.tensor import apply, wrap
from minigrad.tools import tracing


def normal(shape, seed=0, requires_grad=True):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad)


class Probe(Function):
    """The identity; calls `seen(dy)` on the way back."""

    def __init__(self, seen):
        self.seen = seen

    def forward_cpu(self, x):
        return x.copy()

    def backward_cpu(self, dy):
        return self.seen(dy)


class ProbeEverywhere(Probe):
    forward, backward = Probe.forward_cpu, Probe.backward_cpu


def probe(x, seen):
    return apply(Probe(seen), x)


# ---------------------------------------------------------------- order and accumulation


def test_a_chain_of_10000_ops():
    x = Tensor(1.0, True, dtype="float64")
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    y.backward()
    assert x.grad.item() == pytest.approx(1.0001**10_000, rel=1e-9)
    del y


def test_a_diamond_is_visited_once():
    calls = []
    x = Tensor(2.0, True)
    y = probe(x, lambda dy: (calls.append(dy.item()), dy)[1])
    z = y * y + y * 3  # four uses of y
    z.backward()
    assert calls == [7.0] and x.grad.item() == 7


def test_a_ladder_of_diamonds_takes_linear_time():
    calls = []
    x = y = Tensor(1.0, True, dtype="float64")
    for _ in range(60):  # 2**60 paths
        y = probe(y, lambda dy: (calls.append(1), dy)[1])
        y = (y + y) / 2
    y.backward()
    assert len(calls) == 60 and x.grad.item() == 1


def test_leaves_accumulate():
    x = Tensor([1.0, 2.0], True)
    (x * 3).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(x.grad.numpy(), [5, 7])
    x.grad = None
    x.backward(np.ones(2))  # a leaf is its own graph
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1])


def test_every_leaf_owns_its_gradient():
    x, y, z = (Tensor(np.ones((2, 3)), True) for _ in range(3))
    given = Tensor(np.ones((2, 3)))
    (x + y + z).backward(given)
    x.sum().backward()
    y.mean().backward()
    for t in (x, y, z):
        for other in (given, x.grad, y.grad, z.grad):
            assert t.grad is other or not np.shares_memory(t.grad.data, other.data)
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 2))
    np.testing.assert_allclose(y.grad.numpy(), np.full((2, 3), 1 + 1 / 6))
    np.testing.assert_array_equal(z.grad.numpy(), np.ones((2, 3)))


@pytest.mark.parametrize("reduce", [lambda x: x.sum(), lambda x: x.mean(), lambda x: x.max()])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)])
def test_a_gradient_can_be_added_to_twice(reduce, shape):
    if shape == (0, 2):
        reduce = lambda x: x.sum()  # noqa: E731
    x = Tensor(np.ones(shape), True)
    for _ in range(2):
        reduce(x).backward()
    assert x.grad.shape == shape and isinstance(x.grad.data, np.ndarray) and x.grad.data.flags.writeable
    if shape:
        assert not x.size or x.grad.numpy().sum() == pytest.approx(2 * (x.size if x.grad.numpy().min() == 2 else 1))


def test_a_sum_does_not_write_into_what_others_read():
    x, w = Tensor(np.ones(3), True), Tensor(np.ones(3), True)
    a, b = x * 1.0, w * 1.0
    older, newer = a * 3.0, a + b  # add hands the same array to a and b, and a adds to it
    (older + newer).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad.numpy(), [4, 4, 4])
    np.testing.assert_array_equal(w.grad.numpy(), [1, 1, 1])


def test_only_some_inputs_want_a_gradient():
    x, c = Tensor([1.0], True), Tensor([2.0])
    y = x * c
    assert y.node.needs == (True, False) and y.node.inputs == (x, None)
    y.sum().backward()
    assert c.grad is None and x.grad.item() == 2


def test_a_node_that_sends_nothing_back():
    x, y = Tensor([1.0], True), Tensor([1.0], True)
    (probe(x * 2, lambda dy: None) + y).sum().backward()
    assert x.grad is None and y.grad.item() == 1


def test_an_explicit_gradient():
    x = Tensor([1.0, 2.0], True)
    (x * 2).backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad.numpy(), [2, 20])
    exact = Tensor([1.0], True, dtype="float64")
    exact.backward([0.1])
    assert exact.grad.item() == 0.1
    with pytest.raises(
        ShapeError, match=r"backward: a tensor \(2,\) needs a gradient of that shape: make it one number, \.sum"
    ):
        (x * 2).backward()
    with pytest.raises(ShapeError, match=r"backward: the gradient must have shape \(2,\), it has \(3,\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(GraphError, match="backward: nothing here requires a gradient"):
        Tensor(1.0).backward()


# ---------------------------------------------------------------- used graphs


def test_the_second_backward_says_so_and_changes_nothing():
    x, w = Tensor([1.0, 2.0], True), Tensor([1.0, 1.0], True)
    hidden = x * 2
    loss = hidden.sum()
    loss.backward()
    before = x.grad.numpy().copy()
    with pytest.raises(GraphError, match="this graph was already used by an earlier backward and freed"):
        loss.backward()
    with pytest.raises(GraphError, match="already used"):
        (w * 5 + hidden).sum().backward()  # fresh above, spent below
    np.testing.assert_array_equal(x.grad.numpy(), before)
    assert w.grad is None


def test_a_spent_node_holds_nothing():
    x = normal((3, 4))
    y = (x * x).exp()
    node = y.node
    y.sum().backward()
    facts = {"device": x.device, "shape": (3, 4), "dtype": np.dtype("float64"), "order": node.order}
    assert vars(node) == {"freed": True, "inputs": (), **facts}


# ---------------------------------------------------------------- broken ops are named


@pytest.mark.parametrize(
    ("grad", "seen"),
    [
        (lambda dy: dy[0], r"\(3,\) float64"),
        (lambda dy: dy.astype("float32"), r"\(2, 3\) float32"),
        (lambda dy: dy.sum(), r"\(\) float64"),
        (lambda dy: dy[None], r"\(1, 2, 3\) float64"),
    ],
)
def test_a_gradient_of_the_wrong_shape_or_type(grad, seen):
    x = normal((2, 3))
    with pytest.raises(GraphError, match=rf"probe: backward returned a gradient {seen} on cpu for input 0, which is"):
        probe(x, grad).sum().backward()
    assert x.grad is None


def test_the_wrong_number_of_gradients():
    with pytest.raises(GraphError, match="probe: backward returned 2 gradients for 1 inputs"):
        probe(normal((2, 3)), lambda dy: (dy, dy)).sum().backward()


def test_an_op_without_a_backward():
    class Forward(Function, name="forward_only"):
        def forward_cpu(self, x):
            return x + 1

    with pytest.raises(GraphError, match="forward_only: has no gradient"):
        apply(Forward(), normal((2,))).sum().backward()


def test_an_error_in_the_middle_leaves_its_own_message():
    x, y = normal((2, 3)), normal((2, 3))

    def fail(dy):
        raise ZeroDivisionError("on purpose")

    loss = (probe(x * 2, fail) * y).sum()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        loss.backward()
    (x * 3).sum().backward()  # nothing is left locked
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 3))


class Softplus(Function):
    """y = log(1 + e^x): an op of a user's own has a forward and a backward, and nothing else."""

    def forward(self, x):
        self.x, self.y = x, np.logaddexp(x, x.dtype.type(0))
        return self.y

    def backward(self, dy):
        return dy * np.exp(self.x - self.y)


@pytest.mark.parametrize("where", ["cpu:0", "cpu:1", "textbook:0"])
def test_an_op_of_ones_own_is_forward_and_backward(where):
    x = Tensor([-2.0, 0.0, 3.0, 800.0], True, where)
    y = apply(Softplus(), x)
    y.backward([1.0, 1.0, 1.0, 2.0])
    np.testing.assert_allclose(y.numpy(), [np.log1p(np.exp(-2)), np.log(2), np.log1p(np.exp(3)), 800], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), [1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-3)), 2], rtol=1e-6)
    random = Tensor(np.random.default_rng(0).standard_normal((3, 4)), True, where)
    assert gradcheck(lambda x: apply(Softplus(), x), [random])


@pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
def test_an_op_of_ones_own_says_that_it_needs_kernels_for_a_card():
    x = Tensor([-2.0, 0.0, 3.0], True, "cudasim:0")
    with pytest.raises(DeviceError, match=r"softplus: has no face for cudasim:0: .*\.to\('cpu:0'\)"):
        apply(Softplus(), x)

    class OneWay(Softplus, name="one_way"):
        def forward_gpu(self, x):
            return x

    y = apply(OneWay(), x)
    with pytest.raises(GraphError, match="one_way: has no gradient on cudasim:0: .detach"):
        y.backward([1.0, 1.0, 1.0])
    moved = apply(Softplus(), x.to("cpu:0"))  # what the message says to do
    moved.backward([1.0, 1.0, 1.0])
    np.testing.assert_allclose(x.grad.numpy()[1], 0.5)


# ---------------------------------------------------------------- changes in place


def test_an_input_that_backward_needs():
    a, b = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0])
    y = a * b
    b += 1
    b *= 2
    with pytest.raises(GraphError, match=r"multiply: backward needs input 1 \(2,\), which was modified in place 2"):
        y.sum().backward()
    assert a.grad is None


def test_an_output_that_backward_needs():
    x = Tensor([1.0, 2.0], True)
    y = x.exp()
    loss = (y * 2).sum()
    with no_grad():
        y += 1
    with pytest.raises(GraphError, match=r"exp: backward needs its output \(2,\), which was modified in place 1"):
        loss.backward()


def test_a_view_counts_as_the_whole():
    x, w = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 3)), True)
    y = (w * x).sum()
    x[0].detach()[1] = 5.0
    with pytest.raises(GraphError, match="multiply: backward needs input 1"):
        y.backward()


def test_an_output_that_is_the_input_itself_shares_its_version():
    class Same(Function):
        def forward_cpu(self, x):
            return x

    x, w = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], True)
    y = apply(Same(), x)
    loss = (w * y).sum()
    x += 1
    with pytest.raises(GraphError, match="multiply: backward needs input 1"):
        loss.backward()


def test_a_number_counts_too():
    scale, w = Tensor(2.0), Tensor([1.0, 2.0], True)
    y = (w * scale).sum()
    scale *= 3
    with pytest.raises(GraphError, match=r"multiply: backward needs input 1 \(\)"):
        y.backward()


def test_changes_that_do_not_matter():
    a, b = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0])
    y = a + b  # needs neither
    b *= 2
    z = y * 3  # needs the 3
    with no_grad():
        y *= 0
    w = z.relu()
    with no_grad():
        z *= 0
    w.sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [3, 3])


def test_a_parameter_step_after_backward_is_fine_and_before_it_is_not():
    w, x = Tensor([1.0, 2.0], True), Tensor([1.0, 1.0], True)
    loss = (w * x).sum()
    loss.backward()
    with no_grad():
        w -= w.grad
    loss = (w * x).sum()
    with no_grad():
        w -= w.grad
    with pytest.raises(GraphError, match="multiply: backward needs input 0"):
        loss.backward()


# ---------------------------------------------------------------- no_grad


def test_no_grad_records_and_keeps_nothing():
    x = normal((100, 100))
    with no_grad():
        assert not is_grad_enabled()
        y = x.exp() * 2
        hidden = weakref.ref(x * 3)
        with no_grad():
            pass
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert y.is_leaf and not y.requires_grad and hidden() is None


def test_no_grad_as_a_decorator_and_through_errors():
    @no_grad()
    def fail(depth):
        assert not is_grad_enabled()
        if depth:
            return fail(depth - 1)
        raise ValueError("on purpose")

    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            fail(3)
        assert is_grad_enabled()


# ---------------------------------------------------------------- memory


def training_step(x, w, v):
    hidden = (x @ w).relu()
    y = F.concat([hidden, hidden.tanh()], 1) @ v
    loss = ((y - 1) ** 2).mean()
    loss.backward()
    with no_grad():
        for p in (w, v):
            p -= p.grad * 0.01
            p.grad = None
    return loss


def live(kinds=(Tensor, Function)):
    return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())


def test_a_training_step_leaves_nothing_without_the_garbage_collector():
    x, w, v = normal((64, 128), requires_grad=False), normal((128, 96), 1), normal((192, 8), 2)
    training_step(x, w, v)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        objects, (memory, _) = live(), tracemalloc.get_traced_memory()
        for _ in range(3):
            loss = training_step(x, w, v)
        del loss
        assert live() == objects
        left = tracemalloc.get_traced_memory()[0] - memory
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < 20_000, f"{left} bytes are left; one hidden activation is 49152"


def test_a_graph_that_is_never_used_frees_itself():
    gc.collect()
    gc.disable()
    try:
        objects = live()
        x = normal((3, 4))
        y = (x * x).exp() @ x.T
        del x, y
        assert live() == objects
    finally:
        gc.enable()


def test_intermediates_that_no_backward_needs_are_freed_during_forward():
    x = normal((1000, 125))  # 1 MB
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = x
        for _ in range(20):
            y = y + 1.0
        held = tracemalloc.get_traced_memory()[0] - before
        assert held < 1.1e6 + 1e5, f"{held} bytes for one tensor of a million"
        z = x
        for _ in range(5):
            z = z * x
        held = tracemalloc.get_traced_memory()[0] - before - held
        assert held > 4.9e6  # multiplication does need its factors
    finally:
        tracemalloc.stop()
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(x.shape))


def test_gradients_are_freed_as_soon_as_they_are_used():
    x = normal((1000, 125))  # 1 MB
    y = x
    for _ in range(30):
        y = y * 2.0
    loss = y.sum()
    del y
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        loss.backward()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 3.3e6, f"{peak} bytes: more than the gradients of two neighbours and a copy"


def test_saved_arrays_are_freed_on_the_way():
    alive = []
    x = normal((10, 10))
    first = (x * 1.0).exp()
    first_saved = weakref.ref(first.node.y)
    y = probe(first * 2.0, lambda dy: (alive.append((first_saved() is None, second_saved() is None)), dy)[1])
    second = y.exp()
    second_saved = weakref.ref(second.node.y)
    loss = second.sum()
    del first, y, second
    loss.backward()
    assert alive == [(False, True)] and first_saved() is None


def test_an_error_leaves_no_locked_state_and_no_gradient():
    x = normal((2, 2))
    for _ in range(2):
        with pytest.raises(GraphError):
            probe(x * 1.0, lambda dy: dy[0]).sum().backward()
    assert x.grad is None


# ---------------------------------------------------------------- bits


def test_the_same_program_gives_the_same_bits():
    def gradients():
        x = wrap(np.random.default_rng(0).standard_normal((50, 50)).astype("float32"), Tensor(0.0).device)
        x.requires_grad_()
        parts = [x * float(i) for i in range(1, 9)]
        sum(((p.tanh() @ p).mean() for p in parts), start=Tensor(0.0)).backward()
        return x.grad.numpy().copy()

    first = gradients()
    for _ in range(5):
        assert gradients().tobytes() == first.tobytes()


# ---------------------------------------------------------------- backward of a part of a graph


def delivered(root, gradient, since=None):
    got = []
    run_backward(root, gradient, lambda target, grad: got.append((target, grad)), since)
    return got


def test_deliver_takes_the_gradients_of_the_leaves():
    x, w = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0], True)
    gradient = np.ones(2, "float32")
    y = x * w + w + x  # x is last read after w
    got = delivered(y.node, gradient)
    assert [target for target, _ in got] == [x, w]
    np.testing.assert_array_equal(got[0][1], [4, 5])
    np.testing.assert_array_equal(got[1][1], [2, 3])
    assert x.grad is None and w.grad is None and gradient.tolist() == [1, 1]
    for i, (_, grad) in enumerate(got):
        assert not np.shares_memory(grad, gradient) and not np.shares_memory(grad, got[1 - i][1])


def test_nodes_made_before_since_are_ends():
    x, w = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0], True)
    old, unread = x * 2, x * 5
    since = next_order()
    y = (old * w + old + w).sum()
    gradient = np.ones((), "float32")
    got = delivered(y.node, gradient, since)
    assert [target for target, _ in got] == [old.node, w]
    np.testing.assert_array_equal(got[0][1], [4, 5])
    np.testing.assert_array_equal(got[1][1], [3, 5])
    assert not old.node.freed and y.node.freed
    (old + unread).backward([1.0, 1.0])  # what came before is as it was
    np.testing.assert_array_equal(x.grad.numpy(), [7, 7])


def test_an_end_owns_its_gradient_too():
    x = Tensor(np.ones((2, 3)), True)
    old = x * 2
    since = next_order()
    gradient = np.ones((3, 2))
    ((end, grad),) = delivered(old.T.node, gradient, since)
    assert end is old.node and grad.shape == (2, 3) and not np.shares_memory(grad, gradient)
    gradient = np.ones((2, 3))
    ((end, grad),) = delivered(old.node, gradient, since)  # the root itself
    assert end is old.node and not np.shares_memory(grad, gradient)
    np.testing.assert_array_equal(grad, gradient)


def test_a_spent_end_is_refused():
    x = Tensor([1.0], True)
    old = x * 2
    since = next_order()
    y = old * 3
    old.sum().backward()
    with pytest.raises(GraphError, match="already used"):
        delivered(y.node, np.ones(1, "float32"), since)


def test_many_graphs_at_once_each_in_its_own_thread():
    w = normal((5, 5))
    old = w * 2.0
    since = next_order()
    gate, seen = threading.Barrier(4), []

    def run(i):
        gate.wait(timeout=20)
        for _ in range(25):
            x = Tensor(np.full((3, 5), i + 1.0), True)
            here = probe(x @ old + x @ w, lambda dy: (seen.append(threading.get_ident()), dy)[1])
            moved = here.to("cpu:1").tanh().to("cpu:0")  # two devices, and yet this thread alone
            got = delivered(moved.sum().node, np.ones(()), since)
            assert [target for target, _ in got] == [w, x, old.node]
        return threading.get_ident(), [grad.tobytes() for _, grad in got]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(4)))
    assert set(seen) == {thread for thread, _ in results} and len(set(seen)) == 4
    assert w.grad is None and not old.node.freed
    for i, (_, got) in enumerate(results):
        x = Tensor(np.full((3, 5), i + 1.0), True)
        alone = delivered((x @ old + x @ w).tanh().sum().node, np.ones(()), since)
        assert [grad.tobytes() for _, grad in alone] == got


# ---------------------------------------------------------------- sums


class Twice(Function):
    """x + y; returns one fresh array as the gradient of both."""

    def forward_cpu(self, x, y):
        return x + y

    def backward_cpu(self, dy):
        grad = dy * 1
        return grad, grad


def test_one_array_as_the_gradient_of_two_inputs():
    x, y = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0], True)
    apply(Twice(), x, y).backward([1.0, 1.0])
    assert not np.shares_memory(x.grad.data, y.grad.data)
    x.grad = y.grad = None
    older = x * 1.0
    (apply(Twice(), older * 10.0, x) + older).sum().backward()  # x's sum grows while others wait to read that array
    np.testing.assert_array_equal(x.grad.numpy(), [12, 12])


LARGE = (3, 1 << 18, 2)  # cut into pieces on two threads


@pytest.fixture
def two_threads(monkeypatch):
    """Sums are cut in two; yields the sizes of the pieces."""
    sizes = []

    def split(where, n, work, at_least):
        return parallel_split(where, n, lambda i, j: (sizes.append(j - i), work(i, j)), at_least)

    parallel_split = parallel.split
    monkeypatch.setattr(cpu, "split", split)
    set_num_threads(2)
    yield sizes
    set_num_threads(None)


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_gradients_accumulate_in_place(two_threads, order):
    rng = np.random.default_rng(0)
    parts = [np.asarray(rng.standard_normal(LARGE, "float32"), order=order) for _ in range(3)]
    x = Tensor(parts[0], True)
    x.accumulate_grad(parts[0])
    assert x.grad.data is parts[0]
    expected = parts[0] + parts[1] + parts[2]
    tracemalloc.start()
    try:
        x.accumulate_grad(parts[1])
        x.accumulate_grad(parts[2])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert x.grad.data is parts[0] and x.grad.version.value == 2
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    assert peak < 1e6  # an array has 6.3e6
    assert sorted(two_threads) == ([1, 1, 2, 2] if order == "C" else [1, 1, 1, 1])  # along the outermost axis in memory


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_sums_keep_their_memory_order(two_threads, order):
    rng = np.random.default_rng(1)
    a, b = (np.asarray(rng.standard_normal(LARGE, "float32"), order=order) for _ in range(2))
    where = Tensor(0.0).device
    for first in (a, np.broadcast_to(np.float32(2), LARGE)):
        total = where.added(first, b)
        np.testing.assert_array_equal(total, first + b)
        assert total.strides == b.strides and total.flags.writeable
    assert where.added(np.ones(()), np.ones(())).shape == ()


def test_parts_of_a_large_gradient(two_threads):
    x = normal(LARGE, requires_grad=False).requires_grad_()
    y = x * 1.0
    (y * 2.0 + y * 3.0 + y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full(LARGE, 6))


def test_the_same_bits_on_two_devices_and_in_turn():
    def gradient():
        x = normal((40, 30))
        parts = [(x.to(f"cpu:{i % 2}") * (0.1 + i)).tanh().to("cpu:0") for i in range(7)]
        sum(((p @ p.T).mean() for p in parts), start=Tensor(0.0, dtype="float64")).backward()
        return x.grad.numpy().tobytes()

    both = gradient()
    with parallel.in_turn():
        assert gradient() == both


def test_a_saved_view_is_watched():
    class Tail(Function):
        def forward_cpu(self, x, w):
            self.tail = x[1:]
            return w * self.tail

        def backward_cpu(self, dy):
            return None, dy * self.tail

    x, w = Tensor([1.0, 2.0, 3.0]), Tensor([1.0, 1.0], True)
    loss = apply(Tail(), x, w).sum()
    x += 1
    with pytest.raises(GraphError, match=r"tail: backward needs input 0 \(3,\), which was modified in place 1 time"):
        loss.backward()


@pytest.mark.parametrize("touched", [False, True])
def test_what_changes_beside_a_saved_view_does_not_matter(touched):
    class Tail(Function):
        def forward_cpu(self, x, w):
            self.tail = x[2:]
            return w * 1

        def backward_cpu(self, dy):
            return None, dy * self.tail.sum()

    x, w = Tensor([1.0, 2.0, 3.0, 4.0]), Tensor([1.0], True)
    loss = apply(Tail(), x, w).sum()
    head, last = x[:2], x[3:]
    head += 1
    if touched:
        last += 1
        head += 1  # the last change is not the only one that counts
        with pytest.raises(GraphError, match="tail: backward needs input 0 .* modified in place 3"):
            loss.backward()
    else:
        loss.backward()
        assert w.grad.item() == 7


EMULATED = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
ON_ANY = pytest.mark.parametrize("where", ["cpu:0", "textbook:0", pytest.param("cudasim:0", marks=EMULATED)])


@ON_ANY
def test_changes_of_what_is_not_kept_and_earlier_ones_do_not_matter(where):
    x, y = Tensor([1.0, 2.0], True, where), Tensor([2.0, 3.0], True, where)
    with no_grad():
        y += 1
    loss = ((x + y) * y).sum()
    with no_grad():
        x *= 2  # a sum keeps nothing of it
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])
    np.testing.assert_array_equal(y.grad.numpy(), [1 + 3 + 3, 2 + 4 + 4])


@ON_ANY
def test_what_changes_is_compared_with_what_is_kept(where):
    def products():
        x, c = Tensor([1.0, 2.0], True, where), Tensor([3.0, 4.0], device=where)
        return x, c, (x * c).sum()  # keeps c alone: only x wants a gradient

    x, c, loss = products()
    with no_grad():
        x *= 2
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])
    x, c, loss = products()
    head = c[:1]
    head += 1
    with pytest.raises(GraphError, match="multiply: backward needs input 1 .* modified in place 1"):
        loss.backward()


@ON_ANY
def test_the_old_memory_of_a_parameter_that_has_moved_is_still_watched(where):
    layer = nn.Linear(2, 1, device=where)
    loss, old = layer(Tensor([[1.0, 2.0]], True, where)).sum(), layer.weight.detach()
    layer.to("float64")
    with no_grad():
        old += 1
    with pytest.raises(GraphError, match=r"linear: backward needs input 1 \(1, 2\), which was modified in place 1"):
        loss.backward()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_a_copy_of_a_graph_notices_changes_before_and_after(copied):
    def graph():
        x = normal((2,))
        return x, (x * x).sum()

    x, loss = copied(graph())
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())
    before, after = graph(), copied(graph())
    with no_grad():
        before[0].copy_(Tensor([5.0, 6.0]))
        after[0].copy_(Tensor([5.0, 6.0]))
    for _, loss in copied(before), after:
        with pytest.raises(GraphError, match=r"multiply: backward needs input 0 \(2,\), which was modified in place 1"):
            loss.backward()


def test_views_are_recognized():
    a = np.zeros((4, 6))
    shares = device("cpu:0").shares
    for b in (a, a[1:], a.T, a.reshape(-1), a[:, ::2]):
        assert shares(a, b) and shares(b, a)
    assert shares(a[:2], a[1:]) and not shares(a[:2], a[2:])
    assert not shares(a, a.copy()) and not shares(a, np.zeros((4, 6))[1:])


# ---------------------------------------------------------------- creation numbers, profiler


def test_no_creation_number_comes_twice():
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: [next_order() for _ in range(2000)], range(8)))
    assert len(set(sum(drawn, []))) == 16000
    assert all(mine == sorted(mine) for mine in drawn)


def test_what_uses_an_output_is_newer_whatever_thread_made_it():
    """Numbers of other threads may be ahead; a node run before what used its output would miss its gradient."""
    x = Tensor([1.0, 2.0], True)
    ahead = copy_context().run(lambda: (engine._clock.set(itertools.count(next_order() + 1000)), x * 2)[1])
    y = ahead * 3 + x * 5
    assert y.node.order > ahead.node.order
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [11, 11])


def test_a_recorder_runs_every_op(monkeypatch):
    class Recorder:
        calls = []

        def forward(self, function, *arrays):
            self.calls.append((function.name, function.flops(*arrays)))
            return function.device.forward(function, *arrays)

        def backward(self, node, dy):
            self.calls.append((node.name, dy.shape))
            return node.device.backward(node, dy)

    monkeypatch.setattr(tracing, "recorder", Recorder())
    x = Tensor([1.0, 2.0], True)
    y = (x * 2).sum()
    y.backward()
    forward, backward = Recorder.calls[:2], Recorder.calls[2:]
    assert [name for name, _ in forward] == ["multiply", "sum"] and backward == [("sum", ()), ("multiply", (2,))]
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])
    assert Function().flops(np.ones(3)) == 0


# ---------------------------------------------------------------- ten lines


class Mix(Function):
    """y = 2 a + b a: a node of two inputs, for graphs of any form."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return 2 * a + b * a

    def backward(self, dy):
        return dy * (2 + self.b), dy * self.a


def random_graph(seed, device):
    """Some leaves, and a loss that depends on them by way of a random graph: diamonds, chains, leaves used often."""
    rng = np.random.default_rng(seed)
    leaves = [Tensor(rng.standard_normal(3), bool(rng.integers(4)), device, "float64") for _ in range(4)]
    leaves[0].requires_grad_()
    made = list(leaves)
    for _ in range(12):
        a, b = rng.integers(len(made), size=2)
        made.append(apply(Mix(), made[a], made[b]) * 0.5)
    return leaves, apply(Mix(), made[-1], leaves[0])


@pytest.mark.parametrize("seed", range(8))
def test_ten_lines_give_what_walk_gives(seed):
    leaves, loss = random_graph(seed, "cpu:0")
    others, same = random_graph(seed, "cpu:0")
    gradients = backward_in_ten_lines(same.node, np.ones(3))
    loss.backward(np.ones(3))
    for leaf, other in zip(leaves, others):
        assert (leaf.grad is None) == (other not in gradients)
        if leaf.grad is not None:
            np.testing.assert_allclose(gradients[other], leaf.grad.numpy(), rtol=1e-12)
    assert same.node.freed


def test_textbook_runs_the_ten_lines_and_refuses_what_the_others_refuse(monkeypatch):
    seen = []
    real = backward.backward_in_ten_lines
    monkeypatch.setattr(backward, "backward_in_ten_lines", lambda *args: seen.append(args) or real(*args))
    x = Tensor([1.0, 2.0], True, "textbook:0")
    y = apply(Mix(), x, x)
    y.backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [4, 6])
    assert len(seen) == 1 and not np.shares_memory(x.grad.data, seen[0][1])
    with pytest.raises(GraphError, match="already used by an earlier backward"):
        y.backward([1.0, 1.0])
    y = apply(Mix(), x, x)
    with no_grad():
        x += 1
    with pytest.raises(GraphError, match="mix: backward needs input 0"):
        y.backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [4, 6])


@pytest.mark.parametrize("where", ["cpu:0", "textbook:0"])
def test_a_gradient_that_nobody_asked_for_is_dropped(where):
    """Backward of Mix, as some textbook faces, returns the gradients of constants, too."""
    x, constant = Tensor([1.0, 2.0], True, where), Tensor([3.0, 4.0], False, where)
    (apply(Mix(), x, constant) + apply(Mix(), x, constant)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10, 12])
    assert constant.grad is None
    F.linear(Tensor([[1.0, 2.0]], device=where), w := Tensor([[1.0, 1.0]], True, where)).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [[1, 2]])


@pytest.mark.parametrize("where", ["cpu:0", "textbook:0"])
def test_a_graph_that_is_spent_in_part_is_refused(where):
    x, ran = Tensor([1.0, 2.0], True, where), []
    middle = x * 2
    other = apply(ProbeEverywhere(lambda dy: ran.append(1) or dy), middle)
    middle.sum().backward()
    with pytest.raises(GraphError, match="already used by an earlier backward"):
        other.sum().backward()
    assert where == "textbook:0" or not ran  # whose ten lines find out on the way
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_ctrl_c_while_leaves_get_their_gradients_waits_for_the_last(monkeypatch):
    real = Tensor.accumulate_grad

    def interrupted(leaf, grad):
        signal.raise_signal(signal.SIGINT)
        real(leaf, grad)

    monkeypatch.setattr(Tensor, "accumulate_grad", interrupted)
    x, w = Tensor([1.0, 2.0], True, "cpu:0"), Tensor([3.0, 4.0], True, "cpu:0")
    with pytest.raises(KeyboardInterrupt):
        (x * w).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])
    np.testing.assert_array_equal(w.grad.numpy(), [1, 2])


def test_a_leaf_is_delivered_once_and_complete_on_one_device_and_on_two():
    for devices in (("cpu:0",), ("cpu:0", "cpu:1")):
        w = normal((4, 4))
        halves = [w.to(name).tanh() * (i + 2.0) for i, name in enumerate(devices)]
        loss = halves[0].sum()
        for half in halves[1:]:
            loss = loss + half.to("cpu:0").sum()
        got = delivered(loss.node, np.ones(()))
        assert [leaf for leaf, _ in got] == [w] and w.grad is None
        expected = (1 - np.tanh(w.numpy()) ** 2) * sum(i + 2.0 for i in range(len(devices)))
        np.testing.assert_allclose(got[0][1], expected, rtol=1e-12)
