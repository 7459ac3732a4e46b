"""Ctrl-C, at any moment: nothing of a broken step is left, and the next one is right."""

import os
import signal
import sys
import threading
import time

import interrupt_storm
import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn, on_devices, optim
from minigrad.base import interrupts
from minigrad.base.interrupts import hold
from minigrad.cudasim import compiler, streams
from minigrad.engine import Function
from minigrad.processor import blas, memory, parallel
from minigrad.processor.memory import empty
from minigrad.tensor import apply

TWO = ["cpu:0", "cpu:1"]
needs_compiler = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def handled():
    """A handler for SIGTERM that notes its calls and raises nothing; the numbers of the signals that came."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------- hold


def test_what_a_handler_raises_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with hold() as held:
            interrupt()
            done.append(held.stopping)
            with hold() as inner:
                assert inner is held
                interrupt()  # once is enough
            done.append("the rest")
    assert done == [True, "the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and interrupts._current is None
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_an_error_of_the_block_gives_way_to_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as caught:
        with hold():
            interrupt()
            raise ZeroDivisionError
    assert caught.value.__suppress_context__


def test_handlers_that_raise_nothing_run_at_once_and_stop_nobody(handled):
    with hold() as held:
        signal.raise_signal(signal.SIGTERM)
        assert handled == [signal.SIGTERM] and not held.stopping
    assert on_devices(TWO, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)) == [None] * 2
    assert handled[0] == signal.SIGTERM and len(handled) in (2, 3)  # two at once may come as one


def test_a_handler_set_by_a_handler_stays():
    def ours(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with hold():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_is_to_be_told_is_told_but_not_where_the_block_is_to_be_finished():
    told, stopping = [], []
    for finish in (False, True):
        with pytest.raises(KeyboardInterrupt):
            with hold(finish) as held:
                held.stop_early(lambda: told.append("before"))
                interrupt()
                held.stop_early(lambda: told.append("after"))
                stopping.append(held.stopping)
    assert told == ["before", "after"] and stopping == [True, False]


def test_other_threads_have_nothing_to_hold():
    def work():
        with hold() as held:
            assert not held.stopping and held is not interrupts._current

    thread = threading.Thread(target=work)
    with hold():
        thread.start()
        thread.join()


def test_a_block_that_was_cut_off_lets_the_next_signal_through():
    """As where a handler raises while the handlers are being put back."""
    cut = hold()
    cut.__enter__()
    interrupts._current = None
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_signal_between_any_two_instructions_leaves_nothing_behind():
    """One that raises, at every instruction of hold() and of Hold, with another handler to be put back besides."""

    class Ended(BaseException):
        pass

    def end(number, frame):
        raise Ended

    def blocks():
        with hold(finish=True):
            with hold():
                pass

    def signal_at(place, number):
        """Runs blocks() with that signal before instruction `place`; whether there is such an instruction."""
        count = 0

        def step(frame, event, argument):
            nonlocal count
            frame.f_trace_opcodes = frame.f_code.co_filename == interrupts.__file__ or frame.f_code is blocks.__code__
            if event == "opcode":
                count += 1
                if count == place:
                    signal.raise_signal(number)
            return step

        sys.settrace(step)
        try:
            blocks()
        finally:
            sys.settrace(None)
        return count >= place

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for number, raised in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Ended)):
            place, more = 0, True
            while more:
                place += 1
                try:
                    more = signal_at(place, number)
                    assert not more, f"{number!r} at instruction {place} was lost"
                except raised:
                    pass
                assert interrupts._current is None, (number, place)
                assert {n: signal.getsignal(n) for n in handlers} == handlers, (number, place)
                assert hold().finish is False
            assert place > 200
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_workers_stop_before_their_next_op_also_where_no_op_needs_threads():
    """Small ops on the CPU never come to `split`, which looks, too."""
    given_up = time.monotonic() + 20

    def work(where):
        x = Tensor([1.0], device=where)
        if where == "cpu:0":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        while time.monotonic() < given_up:
            x = x * 1.0

    with pytest.raises(KeyboardInterrupt):
        on_devices(TWO, work, TWO)
    assert time.monotonic() < given_up


# ---------------------------------------------------------------- threads


def test_on_devices_waits_for_its_workers_and_tells_them_to_stop():
    steps, told = [], []

    def work(device):
        x = Tensor(np.ones((300, 300), np.float32), device=device)
        if device == "cpu:0":
            os.kill(os.getpid(), signal.SIGINT)
        for step in range(200):
            time.sleep(0.01)
            steps.append(step)
            x = x @ x
        steps.append("end")

    with pytest.raises(KeyboardInterrupt):
        on_devices(TWO, work, TWO, when_stopped=lambda: told.append("stop"))
    count = len(steps)
    time.sleep(0.05)
    assert len(steps) == count < 100 and "end" not in steps and told == ["stop"]
    assert on_devices(TWO, lambda: 7) == [7, 7]


def test_split_waits_for_all_pieces():
    minigrad.set_num_threads(2)
    out = np.zeros(2)

    def piece(i, j):
        if i == 0:
            interrupt()
        else:
            time.sleep(0.1)
        out[i] = 1

    with pytest.raises(KeyboardInterrupt):
        parallel.split(minigrad.device("cpu:0"), 2, piece)
    assert out.tolist() == [1, 1]


def test_no_worker_waits_for_one_that_was_never_started(monkeypatch):
    """The system has no thread left for the second device."""
    x = Tensor(np.ones(3), requires_grad=True)
    loss = (x * 2 + (x.to("cpu:1") * 3).to("cpu:0")).sum()
    real = parallel._worker

    def worker(where, number=0):
        if str(where) == "cpu:1":
            raise RuntimeError("can't start new thread")
        return real(where, number)

    monkeypatch.setattr(parallel, "_worker", worker)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        loss.backward()
    assert x.grad is None


# ---------------------------------------------------------------- all or nothing


class Broken(Function):
    """The identity; its backward does `action`."""

    action = staticmethod(lambda: None)

    def forward_cpu(self, x):
        return x.copy()

    def backward_cpu(self, dy):
        self.action()
        return dy


def broken(x, action):
    function = Broken()
    function.action = action
    return apply(function, x)


@pytest.mark.parametrize("devices", [["cpu:0"], TWO])
@pytest.mark.parametrize("action", [interrupt, lambda: 1 / 0])
def test_a_broken_backward_gives_no_gradient_to_anybody(devices, action):
    early, late = (Tensor(np.ones(4), requires_grad=True) for _ in range(2))
    late.grad = Tensor(np.full(4, 5.0))
    x = broken(early, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    if action is not interrupt:
        x = broken(early, action)
    for device in devices:
        x = x.to(device)
    loss = (x.to("cpu:0") + late * 2).sum()  # late has its gradient before x's op is reached
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        loss.backward()
    assert early.grad is None and late.grad.numpy().tolist() == [5, 5, 5, 5]
    (early * 3 + late * 2).sum().backward()
    assert early.grad.numpy().tolist() == [3] * 4 and late.grad.numpy().tolist() == [7] * 4


@pytest.mark.parametrize("devices", [["cpu:0"], TWO])
def test_a_backward_stops_early(devices):
    ran = []
    x = Tensor(np.ones(4), requires_grad=True)
    y = x.to(devices[-1]) * 2
    for _ in range(50):
        y = broken(y, lambda: (ran.append(1), time.sleep(0.01)))
    y = broken(y.to("cpu:0"), lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        y.sum().backward()
    assert len(ran) < 40 and x.grad is None


def test_blas_gets_its_threads_back_where_the_limit_is_being_set(monkeypatch):
    threads = [2]

    def set_threads(count):
        interrupt()
        threads[0] = count

    monkeypatch.setattr(blas, "_libraries", [(lambda: threads[0], set_threads)])
    for call in (lambda: on_devices(TWO, lambda: None), lambda: parallel.split(minigrad.device("cpu:0"), 1, max)):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert threads == [2] and blas._before is None


@pytest.mark.parametrize("devices", [["cpu:0"], TWO])
def test_an_optimizer_finishes_its_step(devices):
    weights = [Tensor(np.ones(5), requires_grad=True, device=device) for device in devices * 3]
    for w in weights:
        w.grad = Tensor(np.ones(5), device=w.device)

    class Interrupted(optim.SGD):
        def rule(self, group, step, w, g, t, state):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.005)
            super().rule(group, step, w, g, t, state)

    with pytest.raises(KeyboardInterrupt):
        Interrupted(weights, lr=0.5).step()
    assert all(w.numpy().tolist() == [0.5] * 5 for w in weights)


def test_memory_is_returned_without_a_line_of_python():
    """What is raised in a __del__ or in a callback is lost, so Ctrl-C must find none."""
    array = empty((1 << 20,), np.uint8)
    assert type(array.base) is memory.Loan
    called = []
    sys.setprofile(lambda frame, event, argument: called.append((event, frame.f_code.co_name)))
    del array
    sys.setprofile(None)
    assert [call for call in called if call[0] == "call"] == []


@needs_compiler
def test_emulated_memory_is_returned_without_a_line_of_python():
    x = Tensor(np.ones(1000), device="cudasim:0")
    y = x * 2
    called = []
    sys.setprofile(lambda frame, event, argument: called.append((event, frame.f_code.co_name)))
    del y, x
    sys.setprofile(None)
    assert [call for call in called if call[0] == "call"] == []


# ---------------------------------------------------------------- at random moments


def test_a_fault_would_be_seen():
    """The storm itself: a net whose backward leaves gradients behind does not pass."""

    class Leaky(nn.Conv2d):
        def forward(self, x):
            self.weight.grad = Tensor(np.ones(self.weight.shape, np.float32))
            return super().forward(x)

    weather = interrupt_storm.Storm(["cpu:0"], False, 64, 16)
    weather.net.first[0].__class__ = Leaky
    faults = {fault for _ in range(5) for fault in weather.trial(0.4, fresh=False)}
    assert "gradients" in faults and "next step" in faults


def test_a_storm_in_the_background():
    """A shell gives background jobs a SIGINT that is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupt_storm.storm("cpu, one device", 2, seed=1) == {}
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", [kind for kind in interrupt_storm.KINDS if kind.startswith("cpu")])
def test_interrupts_leave_nothing_behind(kind):
    assert interrupt_storm.storm(kind, 4, seed=1) == {}


@needs_compiler
@pytest.mark.parametrize("kind", [kind for kind in interrupt_storm.KINDS if kind.startswith("cudasim")])
def test_interrupts_leave_nothing_behind_on_emulated_cards(kind):
    assert interrupt_storm.storm(kind, 4, seed=1) == {}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kind", interrupt_storm.KINDS)
def test_two_thousand_interrupts(kind):
    assert interrupt_storm.storm(kind, 2000 // len(interrupt_storm.KINDS) + 1, seed=2) == {}


@needs_compiler
def test_a_copy_between_devices_that_is_interrupted_leaves_its_source_in_order(monkeypatch):
    """Ctrl-C when the copy has begun, and before the source's stream was told to wait for its end."""
    x = minigrad.Tensor(np.ones(5, "f"), device="cudasim:0")
    real = streams.Stream.touch

    def touch(stream, what, *args):
        real(stream, what, *args)
        if what.startswith("copy from"):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(streams.Stream, "touch", touch)
        with pytest.raises(KeyboardInterrupt):
            x.to("cudasim:1")
    del x  # a fault, if the copy may still read it
    for device in ("cudasim:0", "cudasim:1"):
        minigrad.Tensor(np.ones(3, "f"), device=device).numpy()
