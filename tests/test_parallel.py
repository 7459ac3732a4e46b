"""Work on several devices at once, and the work of one op on several threads."""

import itertools
import os
import random
import threading
import time
import traceback
import weakref

import numpy as np
import pytest
import threadpoolctl

import minigrad
from minigrad import ArgumentError, DeviceError, Tensor, is_grad_enabled, no_grad, num_threads, on_devices
from minigrad.engine import Function
from minigrad.processor import blas, parallel
from minigrad.processor.parallel import inside_worker, split
from minigrad.tensor import apply

TWO = ["cpu:0", "cpu:1"]


class Meet(Function):
    """The identity; waits at a barrier on the way there, on the way back, or both."""

    def __init__(self, forward=None, backward=None, names=None):
        self.barriers, self.names = (forward, backward), names

    def forward_cpu(self, x):
        if self.barriers[0]:
            self.barriers[0].wait(timeout=20)
        return x.copy()

    def backward_cpu(self, dy):
        if self.barriers[1]:
            self.barriers[1].wait(timeout=20)
            self.names.append(threading.current_thread().name)
        return dy


class Nap(Function):
    """The identity, after a random time, or a given one on the way back."""

    def __init__(self, seconds=None):
        self.seconds = random.uniform(0, 0.002) if seconds is None else seconds

    def forward_cpu(self, x):
        time.sleep(random.uniform(0, 0.002))
        return x.copy()

    def backward_cpu(self, dy):
        time.sleep(self.seconds)
        return dy


class Call(Function):
    """The identity; calls `seen(dy)` on the way back."""

    def __init__(self, seen):
        self.seen = seen

    def forward_cpu(self, x):
        return x.copy()

    def backward_cpu(self, dy):
        self.seen(dy)
        return dy * 1


# ---------------------------------------------------------------- on_devices


def test_both_workers_run_at_the_same_time():
    barrier = threading.Barrier(2)

    def meet(x):
        barrier.wait(timeout=20)  # nobody passes before both are here
        return x * 2, threading.current_thread().name

    results = on_devices(TWO, meet, [1, 2])
    assert results == [(2, "minigrad cpu:0_0"), (4, "minigrad cpu:1_0")]


def test_results_keep_their_order():
    def late(i):
        time.sleep(0.02 * (3 - i))
        return i

    assert on_devices(["cpu:2", "cpu:0", "cpu:1"], late, range(3)) == [0, 1, 2]
    assert on_devices(["cpu:1", "cpu:0", "cpu:1"], late, range(3)) == [0, 1, 2]
    assert on_devices(TWO, lambda: 5) == [5, 5]
    assert on_devices(TWO, lambda a, b: a + b, [1, 2], [10, 20]) == [11, 22]


def test_one_device_is_done_here():
    here = threading.current_thread().name
    assert on_devices(["cpu:0"], lambda: (threading.current_thread().name, inside_worker())) == [(here, False)]
    assert on_devices(["cpu:1", "cpu:1"], lambda x: threading.current_thread().name, [1, 2]) == [here] * 2


def test_nested_calls_do_not_deadlock():
    def inner(x):
        assert inside_worker()
        return on_devices(TWO, lambda y: (y, threading.current_thread().name), [x, x + 1])

    (a, b), (c, d) = on_devices(TWO, inner, [0, 10])
    assert [a[0], b[0], c[0], d[0]] == [0, 1, 10, 11]
    assert a[1] == b[1] == "minigrad cpu:0_0" and c[1] == d[1] == "minigrad cpu:1_0"
    assert not inside_worker()


def test_two_callers_do_not_lock_each_other_out(monkeypatch):
    """Devices of one graph wait for each other: those of two graphs must not wait crosswise."""

    def slowly(place, worker=parallel._worker):
        time.sleep(random.random() / 200)  # between handing work to the first device and to the second
        return worker(place)

    def train():
        for _ in range(20):
            x = Tensor([1.0, 2.0], requires_grad=True)
            (x.to("cpu:1") * 2.0).to("cpu:0").sum().backward()
            results.append(x.grad.numpy().tolist())

    monkeypatch.setattr(parallel, "_worker", slowly)
    results = []
    callers = [threading.Thread(target=train, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert not any(caller.is_alive() for caller in callers), "deadlock"
    assert results == [[2.0, 2.0]] * 60


def test_arguments():
    with pytest.raises(ArgumentError, match="on_devices: 2 devices but 3 arguments: give one per device"):
        on_devices(TWO, lambda x: x, [1, 2, 3])
    with pytest.raises(DeviceError, match="device: expected a name"):
        on_devices(["cpu:0", "tpu"], lambda: 1)


def test_errors_come_out_with_the_name_of_the_function_that_failed():
    def breaks_down(x):
        if x == 2:
            raise ValueError(f"no {x}")
        return x

    with pytest.raises(ValueError, match="no 2") as info:
        on_devices(TWO, breaks_down, [1, 2])
    assert "in breaks_down" in "".join(traceback.format_exception(info.type, info.value, info.tb))
    assert on_devices(TWO, breaks_down, [3, 4]) == [3, 4]  # the workers live on


def test_the_first_error_counts_and_everybody_has_finished():
    done = []

    def fail(x):
        time.sleep(0.03 * x)
        done.append(x)
        raise ValueError(x)

    with pytest.raises(ValueError, match="1"):
        on_devices(TWO, fail, [1, 2])
    assert sorted(done) == [1, 2]


@pytest.mark.parametrize("enabled", [True, False])
def test_no_grad_reaches_the_workers_and_stays_in_them(enabled):
    x = Tensor([1.0], True)

    def work():
        before = is_grad_enabled()
        with no_grad():
            return before, is_grad_enabled()

    if enabled:
        assert on_devices(TWO, work) == [(True, False)] * 2
    else:
        with no_grad():
            assert on_devices(TWO, work) == [(False, False)] * 2
            assert not on_devices(TWO, lambda: (x * 2).requires_grad)[1]
    assert is_grad_enabled()


def test_ops_on_workers_leave_one_graph():
    xs = [Tensor(np.full(3, i + 1.0), True, d) for i, d in enumerate(TWO)]
    a, b = on_devices(TWO, lambda x: (x * x).sum(), xs)
    (a + b.to("cpu:0")).backward()
    for i, x in enumerate(xs):
        np.testing.assert_array_equal(x.grad.numpy(), np.full(3, 2 * (i + 1.0)))


def test_creation_numbers_do_not_depend_on_who_is_faster():
    def orders(naps):
        start = (Tensor(1.0, True) * 1).node.order

        def work(place, nap):
            x = Tensor(1.0, True, place)
            found = []
            for _ in range(5):
                time.sleep(nap)
                x = x * 2.0
                found.append(x.node.order - start)
            return found

        found = on_devices(TWO, work, TWO, naps)
        return [*found, (Tensor(1.0, True) * 1).node.order - start]

    first = orders([0, 0.002])
    assert first == orders([0.002, 0]) and not set(first[0]) & set(first[1])
    assert first[2] > max(first[0] + first[1])


# ---------------------------------------------------------------- backward on two devices


def test_backward_runs_on_both_workers_at_the_same_time():
    barrier, names = threading.Barrier(2), []
    xs = [Tensor(np.ones(4), True, d) for d in TWO]
    a, b = (apply(Meet(backward=barrier, names=names), x) for x in xs)
    (a.sum() + b.sum().to("cpu:0")).backward()
    assert sorted(names) == ["minigrad cpu:0_0", "minigrad cpu:1_0"]
    for x in xs:
        np.testing.assert_array_equal(x.grad.numpy(), np.ones(4))


def test_backward_inside_a_worker_needs_no_other():
    def work(x):
        y = (x.to("cpu:0") * 2).to("cpu:1").sum()
        y.backward()
        return x.grad.numpy().tolist()

    xs = [Tensor([1.0, 2.0], True, d) for d in TWO]
    assert on_devices(TWO, work, xs) == [[2.0, 2.0]] * 2


class Explode(Function):
    def forward_cpu(self, x):
        return x.copy()

    def backward_cpu(self, dy):
        raise ZeroDivisionError("on purpose")


@pytest.mark.parametrize("place", TWO)
def test_an_error_in_backward_comes_out_and_stops_both_workers(place):
    xs = [Tensor(np.ones(4), True, d) for d in TWO]
    a, b = ((apply(Explode(), x) if d == place else x * 2).sum() for x, d in zip(xs, TWO))
    with pytest.raises(ZeroDivisionError, match="on purpose") as info:
        (a + b.to("cpu:0")).backward()
    assert "in backward_cpu" in "".join(traceback.format_exception(info.type, info.value, info.tb))
    test_ops_on_workers_leave_one_graph()


def test_an_error_wakes_the_worker_that_waits_for_its_gradient():
    def fail_late(dy):
        time.sleep(0.1)  # by now the worker of cpu:1 has gone to sleep: its gradient must come through here
        raise ZeroDivisionError("on purpose")

    x = Tensor(np.ones(4), True, "cpu:0")
    loss = apply(Call(fail_late), (x.to("cpu:1") * 2).to("cpu:0")).sum()
    errors = []

    def backward():
        try:
            loss.backward()
        except ZeroDivisionError as error:
            errors.append(error)

    caller = threading.Thread(target=backward, daemon=True)
    caller.start()
    caller.join(timeout=20)
    assert not caller.is_alive() and len(errors) == 1


def test_the_same_bits_whoever_is_faster():
    values = np.random.default_rng(0).standard_normal((2, 6, 6)).astype("float32")

    def gradients():
        a, b = (Tensor(v, True, d) for v, d in zip(values, TWO))

        def column(x):
            y = x
            for i in range(4):
                y = apply(Nap(), y) * 0.37 + x.tanh() * float(i)  # x is used many times: many parts to sum
            return y

        for _ in range(2):
            u, v = on_devices(TWO, column, [a, b])
            u, v = u + v.to("cpu:0") * 0.11, v - u.to("cpu:1") * 0.23
            u, v = on_devices(TWO, lambda t: apply(Nap(), t) @ t, [u, v])
        (u.mean() + v.mean().to("cpu:0")).backward()
        return a.grad.numpy().tobytes() + b.grad.numpy().tobytes()

    first = gradients()
    assert all(gradients() == first for _ in range(20))


def test_parts_are_summed_in_the_order_of_the_program_not_of_their_arrival():
    values = np.random.default_rng(0).standard_normal((3, 100)).astype("float32")

    def gradient(naps):
        x = Tensor(np.ones(100, "float32"), True, "cpu:0")
        loss = Tensor(0.0, device="cpu:0")
        for i, nap in enumerate(naps):
            there = apply(Nap(nap), x.to(f"cpu:{i + 1}"))
            loss = loss + (there * Tensor(values[i], device=there.device)).sum().to("cpu:0")
        loss.backward()
        return x.grad.numpy().copy()

    orders = [gradient(naps).tobytes() for naps in itertools.permutations([0, 0.01, 0.02])]
    assert len(set(orders)) == 1
    other_order = values[0] + (values[1] + values[2])
    assert other_order.tobytes() != ((values[0] + values[1]) + values[2]).tobytes()  # or this would show nothing


def test_a_waiting_worker_keeps_no_gradient_alive():
    seen, found = [], []

    def watch(dy):
        deadline = time.monotonic() + 60
        while not (seen and seen[0]() is None) and time.monotonic() < deadline:
            time.sleep(0.001)
        found.append(bool(seen) and seen[0]() is None)

    a, b = (Tensor(np.ones(1000), True, d) for d in TWO)
    here = apply(Call(lambda dy: seen.append(weakref.ref(dy))), a) * 2.0  # the last node of cpu:0
    there = apply(Call(watch), b)
    (here + there.to("cpu:0")).backward(np.ones(1000))
    assert found == [True]


# ---------------------------------------------------------------- split


@pytest.mark.parametrize(
    ("n", "threads", "at_least"), [(10, 3, 1), (2, 4, 1), (0, 3, 1), (10, 4, 4), (7, 7, 1), (1, 1, 1)]
)
def test_pieces(n, threads, at_least):
    minigrad.set_num_threads(threads, "cpu:0")
    pieces = split(minigrad.device("cpu:0"), n, lambda start, stop: (start, stop), at_least)
    assert len(pieces) == max(1, min(threads, n // at_least))
    assert [i for start, stop in pieces for i in range(start, stop)] == list(range(n))
    assert all(stop - start >= min(at_least, n) for start, stop in pieces)
    assert pieces == split(minigrad.device("cpu:0"), n, lambda start, stop: (start, stop), at_least)


def test_pieces_run_at_the_same_time():
    minigrad.set_num_threads(3, "cpu:0")
    barrier = threading.Barrier(3)
    split(minigrad.device("cpu:0"), 3, lambda start, stop: barrier.wait(timeout=20))


def test_pieces_of_two_devices_run_at_the_same_time():
    for d in TWO:
        minigrad.set_num_threads(2, d)
    barrier = threading.Barrier(4)
    on_devices(TWO, lambda d: split(minigrad.device(d), 2, lambda start, stop: barrier.wait(timeout=20)), TWO)


def test_a_piece_does_not_split_again():
    where = minigrad.device("cpu:0")
    minigrad.set_num_threads(100, where)  # more than the pool has threads

    def piece(start, stop):
        return num_threads(where), len(split(where, 100, lambda a, b: (a, b)))

    assert split(where, 100, piece) == [(1, 1)] * 100
    assert num_threads(where) == 100


def test_an_error_in_a_piece_comes_out_when_all_have_finished():
    minigrad.set_num_threads(3, "cpu:0")
    for wrong in range(3):
        done = []

        def piece(start, stop, wrong=wrong, done=done):
            if start == wrong:
                raise ValueError(f"piece {start}")
            time.sleep(0.02)
            done.append(start)

        with pytest.raises(ValueError, match=f"piece {wrong}"):
            split(minigrad.device("cpu:0"), 3, piece)
        assert len(done) == 2


def test_no_grad_reaches_the_pieces():
    minigrad.set_num_threads(2, "cpu:0")
    with no_grad():
        assert split(minigrad.device("cpu:0"), 2, lambda a, b: is_grad_enabled()) == [False, False]
    assert split(minigrad.device("cpu:0"), 2, lambda a, b: is_grad_enabled()) == [True, True]


# ---------------------------------------------------------------- who gets how many threads


def test_devices_at_work_share_the_cores(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 8)
    shares = lambda *names: on_devices(names, num_threads, names)  # noqa: E731
    assert num_threads("cpu:0") == 8 and num_threads("cpu:1") == 8
    assert shares("cpu:0", "cpu:1") == [4, 4]
    assert shares("cpu:0", "cpu:1", "cpu:2") == [2, 2, 2]
    assert shares("cpu:0", "cpu:0") == [8, 8]  # one device, in turn
    assert shares("cpu:0", "cuda:0") == [8, 8]  # the card computes, the processor is free
    assert shares(*[f"cpu:{i}" for i in range(9)]) == [1] * 9
    minigrad.set_num_threads(3, "cpu:1")
    assert shares("cpu:0", "cpu:1") == [4, 3] and num_threads("cpu:1") == 3
    minigrad.set_num_threads(None, "cpu:1")
    assert num_threads("cpu:1") == 8


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_refused_thread_counts(threads):
    with pytest.raises(ArgumentError, match="set_num_threads: threads must be an integer >= 1 or None, got"):
        minigrad.set_num_threads(threads)


def blas_threads():
    counts = {lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}
    return counts.pop() if len(counts) == 1 else counts


@pytest.fixture
def blas_with_two_threads():
    blas._libraries = None  # look again for BLAS libraries: other tests may have loaded one
    with threadpoolctl.threadpool_limits(2, "blas"):
        if blas_threads() != 2:
            pytest.skip("this BLAS has a fixed number of threads")
        yield


@pytest.mark.usefixtures("blas_with_two_threads")
def test_blas_is_held_to_one_thread_while_ours_are_at_work():
    minigrad.set_num_threads(2, "cpu:0")
    where = minigrad.device("cpu:0")
    assert on_devices(TWO, blas_threads) == [1, 1] and blas_threads() == 2
    assert split(where, 2, lambda a, b: blas_threads()) == [1, 1] and blas_threads() == 2
    nested = on_devices(TWO, lambda: (split(where, 2, lambda a, b: blas_threads()), blas_threads()))
    assert nested == [([1, 1], 1)] * 2 and blas_threads() == 2
    assert on_devices(["cpu:0"], blas_threads) == [2]


@pytest.mark.usefixtures("blas_with_two_threads")
def test_blas_gets_its_threads_back_after_an_error():
    with pytest.raises(ZeroDivisionError):
        on_devices(TWO, lambda: 1 / 0)
    assert blas_threads() == 2
    minigrad.set_num_threads(2, "cpu:0")
    with pytest.raises(ZeroDivisionError):
        split(minigrad.device("cpu:0"), 2, lambda a, b: 1 / 0)
    assert blas_threads() == 2


@pytest.mark.usefixtures("blas_with_two_threads")
def test_blas_gets_its_threads_back_from_whoever_leaves_last():
    """Two threads that hold BLAS, and leave crosswise; the one that came first lives on."""
    here, there, on = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with parallel.one_blas_thread():
            here.set()
            there.wait(20)
        seen.append(blas_threads())
        on.set()
        here.clear()
        there.wait(20)

    def second():
        here.wait(20)
        with parallel.one_blas_thread():
            there.set()
            on.wait(20)
            seen.append(blas_threads())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1] and blas_threads() == 2


@pytest.mark.usefixtures("blas_with_two_threads")
def test_blas_is_held_for_a_thread_of_the_users_own_too():
    """While another thread, this one, has set BLAS's number of threads itself."""
    seen = []
    thread = threading.Thread(
        target=lambda: seen.extend(split(minigrad.device("cpu:0"), 1, lambda i, j: blas_threads()))
    )
    thread.start()
    thread.join()
    assert seen == [1] and blas_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("blas_with_two_threads")
def test_a_child_forked_while_blas_is_held_gets_it_back():
    with parallel.one_blas_thread():
        child = os.fork()
        if child == 0:
            split(minigrad.device("cpu:0"), 1, lambda i, j: None)
            os._exit(0 if blas_threads() == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0 and blas_threads() == 2


def test_a_piece_and_a_device_know_that_others_are_at_work():
    minigrad.set_num_threads(2)
    assert split(minigrad.device("cpu:0"), 2, lambda i, j: parallel.beside_others()) == [True, True]
    assert on_devices(TWO, parallel.beside_others) == [True, True]
    assert split(minigrad.device("cpu:0"), 1, lambda i, j: parallel.beside_others()) == [False]
    assert not parallel.beside_others()


@pytest.mark.usefixtures("blas_with_two_threads")
def test_work_that_is_not_cut_has_one_blas_thread_too():
    """BLAS threads go on spinning after a product, and would be in the way of our own."""
    assert split(minigrad.device("cpu:0"), 5, lambda i, j: blas_threads(), at_least=5) == [1]
    assert blas_threads() == 2
