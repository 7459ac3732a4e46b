"""The CuPy runtime against a stand-in for CuPy (fake_cupy.py), and the stand-in's signatures against CuPy's.

No card has run any of this: what is shown is that the calls fit each other, and CuPy's parameters.
"""

import argparse
import ctypes
import gc
import inspect
import re
import sys
import threading
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor
from minigrad.cudasim.compiler import available
from minigrad.engine import Function
from minigrad.errors import DeviceError, KernelError, OutOfMemoryError
from minigrad.gpu import Strided, cuda_runtime
from minigrad.gpu.cuda import cards
from minigrad.optim import SGD, Adam
from minigrad.tensor import apply

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from command_line import device_list  # noqa: E402

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("its devices are its own"),
]


ONE_CARD = {"cards": 1, "devices": "0,0"}  # MINIGRAD_CUDA=0,0: cuda:0 and cuda:1 are both on it


@pytest.fixture
def machine():
    with fake_cupy.installed() as machine:
        yield machine


@pytest.fixture
def one_card():
    with fake_cupy.installed(**ONE_CARD) as machine:
        yield machine


def runtimes():
    return minigrad.device("cuda:0").runtime, minigrad.device("cuda:1").runtime


LAYOUTS = {
    "rows": lambda a: a,
    "columns": lambda a: a.T,
    "channels last": lambda a: a.reshape(2, 3, 4, 5).transpose(0, 3, 1, 2),
    "a number": lambda a: a[0, 0].reshape(()),
    "nothing": lambda a: a[:, :0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "uint8"])
def test_arrays_come_back_as_they_went(machine, layout, dtype):
    values = LAYOUTS[layout](np.arange(120).reshape(10, 12).astype(dtype))
    runtime, _ = runtimes()
    x = runtime.from_host(values)
    assert x.dtype == values.dtype and x.strides == values.strides or values.size == 0
    back = runtime.to_host(x)
    np.testing.assert_array_equal(back, values)
    assert back.dtype == values.dtype and back.flags.c_contiguous == values.flags.c_contiguous


def test_views_with_gaps_go_to_the_host_too(machine):
    values = np.arange(60, dtype="f").reshape(3, 4, 5)
    runtime, other = runtimes()
    x = runtime.from_host(values)
    np.testing.assert_array_equal(runtime.to_host(x[:, ::2, 1:4]), values[:, ::2, 1:4])
    np.testing.assert_array_equal(other.to_host(other.copy_from(runtime, x[1:, 1])), values[1:, 1])
    np.testing.assert_array_equal(runtime.to_host(runtime.from_host(values[::-1, ::2])), values[::-1, ::2])


def test_memory_order_is_kept_where_there_are_no_gaps(machine, monkeypatch):
    monkeypatch.delattr(sys.modules["cupy"], "ascontiguousarray")  # nothing needs a copy
    values = np.arange(60, dtype="f").reshape(3, 4, 5)
    runtime, other = runtimes()
    assert runtime.from_host(values[:, ::-1].T).strides == (4, 20, 80)  # backwards, but rows are rows
    one = runtime.from_host(values)[::2][:1].swapaxes(0, 1)  # an axis of length 1 has any stride
    np.testing.assert_array_equal(runtime.to_host(one), values[:1].swapaxes(0, 1))
    np.testing.assert_array_equal(other.to_host(other.copy_from(runtime, one)), values[:1].swapaxes(0, 1))


def test_what_was_copied_to_a_card_may_change_at_once(machine):
    values = np.ones(1000, "f")
    runtime, _ = runtimes()
    x = runtime.from_host(values)
    values[:] = 7
    assert runtime.to_host(x).max() == 1


def loss_and_gradients(device, second=None):
    """A small net, part of it on a second device."""
    rng = np.random.default_rng(0)

    def tensor(*shape, on=device):
        return Tensor(rng.standard_normal(shape), True, on)

    x, w1, b1 = tensor(3, 3, 13, 11), tensor(8, 3, 3, 3), tensor(8)
    w2, b2 = tensor(5, 8 * 6 * 5, on=second or device), tensor(5, on=second or device)
    h = F.max_pool2d(F.lrn(F.relu(F.conv2d(x, w1, b1, padding=1))), 3, 2)
    h = F.linear(h.to(second or device).flatten(1), w2, b2)
    loss = F.cross_entropy(h, [0, 4, 2])
    loss.backward()
    return [loss.numpy(), *(t.grad.numpy() for t in (x, w1, b1, w2, b2))]


@pytest.mark.parametrize(
    "machine, second, copies",
    [
        ({}, None, set()),
        ({"peers": True}, "cuda:1", {"peer"}),
        ({"peers": False}, "cuda:1", set()),
        (ONE_CARD, "cuda:1", {"on card"}),
    ],
    ids=["one", "two that reach each other", "two", "one card twice"],
)
def test_a_net_on_one_device_and_on_two(machine, second, copies):
    with fake_cupy.installed(**machine) as machine:
        ours = loss_and_gradients("cuda:0", second)
        assert {call[0] for call in machine.calls} & {"peer", "on card"} == copies
    for a, b in zip(ours, loss_and_gradients("cpu:0"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("peers", [True, False])
def test_copies_between_cards(peers):
    values = np.arange(24, dtype="f").reshape(2, 3, 4).transpose(2, 0, 1)
    with fake_cupy.installed(peers=peers) as machine:
        zero, one = runtimes()
        x = zero.from_host(values)
        machine.calls.clear()
        y = one.copy_from(zero, x)
        copies = list(machine.calls)
        assert y.strides == x.strides and one.owns(y) and not one.owns(x) and not zero.owns(y)
        del x  # its memory may be handed out again, once the copy has read it
        again = zero.from_host(np.zeros_like(values))
        np.testing.assert_array_equal(one.to_host(y), values)
        np.testing.assert_array_equal(zero.to_host(zero.copy_from(one, y)), values)
        np.testing.assert_array_equal(zero.to_host(zero.copy_from(zero, again)), 0 * values)
        del y, again
    assert copies == ([("peer", 0, 1, 96)] if peers else [("to host", 0, 96), ("to card", 1, 96)])
    assert machine.enabled == ({(0, 1), (1, 0)} if peers else set())


def test_peer_access_may_be_on_already(machine):
    machine.enabled |= {(0, 1), (1, 0)}
    zero, one = runtimes()
    assert one.to_host(one.copy_from(zero, zero.from_host(np.ones(3)))).sum() == 3


@pytest.mark.parametrize("forgotten", [1, 2])
@pytest.mark.parametrize("machine", [{"peers": True}, {"peers": False}, ONE_CARD], ids=str)
def test_the_stand_in_notices_a_forgotten_event(monkeypatch, machine, forgotten):
    if machine.get("peers") is False and forgotten == 2:
        pytest.skip("by way of the host only one device waits for the other")
    waits = []
    real = fake_cupy.Stream.wait_event

    def forgetful(self, event):
        waits.append(event)
        if len(waits) != forgotten:
            real(self, event)

    monkeypatch.setattr(fake_cupy.Stream, "wait_event", forgetful)
    with pytest.raises(KernelError, match="STREAM-ORDER"), fake_cupy.installed(**machine):
        zero, one = runtimes()
        x = zero.from_host(np.ones(5))
        one.copy_from(zero, x)
        del x
        zero.synchronize()


def test_the_stand_in_notices_pinned_memory_that_goes_too_early(monkeypatch):
    with pytest.raises(KernelError, match="pinned host memory was freed"):
        with fake_cupy.installed():
            runtime, _ = runtimes()
            runtime._in_flight = type("Sieve", (list,), {"append": lambda *_: None})()
            monkeypatch.setattr(fake_cupy.Event, "done", property(lambda self: True))  # so says a hasty card
            x = runtime.from_host(np.ones(5))
            runtime.from_host(np.ones(6))
            del x


def test_pinned_memory_is_given_back(machine):
    runtime, _ = runtimes()
    for _ in range(5):
        runtime.from_host(np.ones(10))
        runtime.synchronize()
    assert len(runtime._in_flight) == 1


def test_a_home_that_cupy_cannot_write_to(monkeypatch):
    with fake_cupy.installed():
        x = Tensor(np.ones(3, "f"), True, "cuda:0")

        def refused(*_, **__):
            raise PermissionError(13, "Permission denied", "/.cupy")

        monkeypatch.setattr(sys.modules["cupy"], "RawModule", refused)  # CuPy 13 makes its folder when it compiles
        with pytest.raises(DeviceError, match="kernel relu.* on cuda:0: .*/.cupy.*: set CUPY_CACHE_DIR to a folder"):
            F.relu(x)


def test_out_of_memory_names_op_and_sizes():
    with fake_cupy.installed(memory=1 << 20):
        x = Tensor(np.ones((100, 1000), "f"), True, "cuda:0")
        y = F.relu(x)
        with pytest.raises(OutOfMemoryError) as caught:
            F.relu(y)
        message = str(caught.value)
        del caught  # its traceback holds the arrays of the call
        for part in (
            "relu (inputs (100, 1000))",
            "cuda:0",
            "0.4 MB wanted for (100, 1000) float32",
            "0.8 MB in use",
            "MB free",
        ):
            assert part in message, f"{part!r} is not in {message!r}"
        del y  # there is room again
        assert F.relu(x).numpy().sum() == 1e5
        del x


def test_a_kernel_that_does_not_compile(machine):
    runtime, _ = runtimes()
    source = '#line 1 "kernels/wrong.cu"\nextern "C" __global__ void wrong(float* y) {\n    y[0] = nonsense;\n}\n'
    with pytest.raises(
        KernelError, match=r"kernel wrong.*on cuda:0: does not compile:(.|\n)*kernels/wrong.cu.2.*nonsense"
    ):
        runtime.function(source, ("-DREAL=float",), "wrong")


def test_a_module_is_compiled_once_for_each_card(machine):
    for device in ("cuda:0", "cuda:0", "cuda:1"):
        for dtype in ("f", "d"):
            F.relu(Tensor(np.ones(3, dtype), device=device))
    assert len([1 for code, _ in machine.modules if "relu_forward" in code]) == 4
    assert machine.modules[0][1] == ("--std=c++17", "-DREAL=float")


def test_too_much_dynamic_shared_memory(machine):
    runtime, _ = runtimes()
    function = runtime.function('extern "C" __global__ void nothing(int n) {}', (), "nothing")
    runtime.launch(function, [], (1, 1, 1), (1, 1, 1), [np.int32(1)], 48 * 1024)
    with pytest.raises(
        KernelError, match="launch of nothing on cuda:0: 49153 bytes of dynamic shared memory, at most 49152"
    ):
        runtime.launch(function, [], (1, 1, 1), (1, 1, 1), [np.int32(1)], 48 * 1024 + 1)


def test_optimisers_on_cards(machine):
    """Lists of arrays go to a kernel as a table of addresses; a gradient that lies in another order, as a copy."""
    rng = np.random.default_rng(0)
    start, grads = ([rng.standard_normal(s) for s in ((7, 5), (3, 2, 4, 4), (300,), (2,))] for _ in range(2))
    for kind in (lambda p: SGD(p, 0.1), lambda p: SGD(p, 0.1, 0.9, 0.1), lambda p: Adam(p, 0.1)):
        results = []
        for devices in (("cuda:0", "cuda:1"), ("cpu:0", "cpu:0")):
            params = [Tensor(x, True, devices[i % 2]) for i, x in enumerate(start)]
            for p, g in zip(params, grads):
                p.grad = Tensor(g.T if g.ndim == 4 else g, device=p.device)
                p.grad = p.grad.transpose() if g.ndim == 4 else p.grad
            optimizer = kind(params)
            optimizer.step()
            optimizer.step()
            results.append([p.numpy() for p in params])
        for a, b in zip(*results):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_an_op_enters_its_card_once(machine, monkeypatch):
    entered, real = [], fake_cupy.Device.__enter__
    monkeypatch.setattr(fake_cupy.Device, "__enter__", lambda self: entered.append(self.id) or real(self))
    x = Tensor(np.ones((4, 3), "f"), True, "cuda:1")
    y = F.softmax(x)
    entered.clear()
    y = F.softmax(x)
    assert entered == [1]
    entered.clear()
    y.node.device.backward(y.node, y.data)
    assert entered == [1]
    entered.clear()
    with x.device.runtime._here("a program's own work"):
        F.softmax(x)
    assert entered == [1]


def test_a_step_waits_for_nothing(machine, monkeypatch):
    """Neither forward nor backward nor the optimiser; only who asks for a number does, once."""
    waits = []
    for owner in (fake_cupy.Stream, fake_cupy.Event):
        real = owner.synchronize
        monkeypatch.setattr(owner, "synchronize", lambda self, real=real: waits.append(self) or real(self))
    x = Tensor(np.ones((4, 3, 6, 6), "f"), device="cuda:0")
    w, v, b = (Tensor(np.full(shape, 0.1, "f"), True, "cuda:0") for shape in ((2, 3, 3, 3), (5, 32), (5,)))
    optimizer = SGD([w, v, b], 0.1, 0.9)
    for _ in range(2):
        optimizer.zero_grad()
        hidden = F.dropout(F.relu(F.conv2d(x, w)).flatten(1))
        loss = F.cross_entropy(F.linear(hidden, v, b), [0, 4, 2, 1])
        loss.backward()
        optimizer.step()
    assert not waits
    loss.item()
    assert len(waits) == 1


def test_another_card_or_stream_may_be_current(machine):
    """As a program leaves it that uses CuPy by itself; and as it was is it afterwards."""
    x = Tensor(np.arange(6.0), True, "cuda:0")
    expected = F.relu(x).numpy()
    cuda = sys.modules["cupy"].cuda
    with cuda.Device(1):
        np.testing.assert_array_equal(F.relu(x).numpy(), expected)
        with cuda.Stream(non_blocking=True) as another:
            np.testing.assert_array_equal(F.relu(x).numpy(), expected)
            assert (fake_cupy._card(), fake_cupy._stream()) == (1, another)
    with cuda.Device(0), cuda.Stream(non_blocking=True), cuda.Device(1):
        np.testing.assert_array_equal(F.relu(x).numpy(), expected)
    with cuda.Device(0), x.device.runtime.stream, cuda.Device(1):
        np.testing.assert_array_equal(F.relu(x).numpy(), expected)


def test_a_stream_that_cannot_be_entered_leaves_no_card_behind(machine, monkeypatch):
    x = Tensor([1.0], device="cuda:1")

    def failing(self):
        raise fake_cupy.CUDARuntimeError(999)

    monkeypatch.setattr(fake_cupy.Stream, "__enter__", failing)
    with pytest.raises(KernelError, match="making it the current card on cuda:1"):
        F.relu(x)
    assert fake_cupy._card() == 0


def test_what_an_op_raises_comes_through_as_it_is(machine):
    class Wrong(Function):
        def forward_gpu(self, x):
            raise ValueError("a mistake of its author's")

    with pytest.raises(ValueError, match="of its author's"):
        apply(Wrong(), Tensor([1.0], device="cuda:0"))


def work_on_cards():
    """Every kind of call: a list of what was reached."""
    runtime, other = runtimes()
    x = runtime.from_host(np.ones((2, 2), "f"))
    runtime.launch(runtime.function('extern "C" __global__ void nothing(int n) {}', (), "nothing"), [], (1, 1, 1),
                   (1, 1, 1), [np.int32(1)], 0)  # fmt: skip
    runtime.gemm(x, x, runtime.empty((2, 2), np.dtype("f")), False)
    other.copy_from(runtime, x)
    runtime.to_host(x[:, ::2])
    runtime.timed(lambda: None)
    runtime.synchronize()


PLACES = [
    *("Stream", "ndarray", "alloc_pinned_memory", "memcpy_async", "memcpy_peer_async", "device_can_access_peer"),
    *("RawModule", "RawModule.get_function", "RawKernel.__call__", "create", "sgemm", "set_math_mode"),
    *("Stream.record", "Stream.wait_event", "Stream.synchronize", "Event.synchronize", "ascontiguousarray"),
    *("device_enable_peer_access", "get_elapsed_time", "get_current_stream", "Device.__enter__"),
]
ERRORS = {
    "library": (ImportError('Failure finding "libcublasLt.so.13"'), DeviceError, r"pip install 'minigrad\[cuda12\]'"),
    "headers": (RuntimeError("Failed to find CUDA headers"), DeviceError, r"pip install 'minigrad\[cuda12\]'.*headers"),
    "file": (OSError("libnvrtc.so.12"), DeviceError, r"brings cuBLAS, NVRTC and the headers"),
    "nvrtc": (fake_cupy.NVRTCError(7), KernelError, r"NVRTC: .*NVRTC 12.9.*pip install 'minigrad\[cuda12\]'"),
    "cublas": (fake_cupy.CUBLASError(13), KernelError, r"cuBLAS: .*set_gemm\('minigrad'\)"),
    "cublas memory": (fake_cupy.CUBLASError(3), OutOfMemoryError, "out of memory.*use a smaller batch"),
    "memory": (fake_cupy.OutOfMemoryError(1, 2), OutOfMemoryError, "out of memory.*use a smaller batch"),
    "old driver": (fake_cupy.CUDARuntimeError(35), DeviceError, r"driver allows CUDA 13.0.*minigrad\[cuda12\]"),
    "new image": (fake_cupy.CUDADriverError(200), DeviceError, "pip uninstall nvidia-cuda-nvrtc"),
    "invalid value": (fake_cupy.CUDARuntimeError(1), KernelError, "at some later call: run the same on cudasim:0"),
    "illegal": (fake_cupy.CUDARuntimeError(700), KernelError, "this process cannot use the card any more: run"),
    "argument": (TypeError("an integer is required"), KernelError, "TypeError: an integer is required"),
    "overflow": (OverflowError("too large"), KernelError, "OverflowError: too large"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_error_of_cupys_comes_through(machine, monkeypatch, place):
    work_on_cards()
    owner, name = (
        (fake_cupy, place) if "." not in place else (getattr(fake_cupy, place.split(".")[0]), place.split(".")[1])
    )
    surface = {id(value): path for path, value in fake_cupy.SURFACE.items()}
    for error, ours, words in ERRORS.values():
        for device in ("cuda:0", "cuda:1"):
            minigrad.device(device)._runtime = None
        machine.enabled.clear()

        def failing(*args, error=error, **kwargs):
            raise error

        with monkeypatch.context() as patch:
            path = surface.get(id(getattr(owner, name)))
            if path is None:
                patch.setattr(owner, name, failing)
            else:  # what `import cupy` gave
                module = sys.modules["cupy"]
                for part in path.split(".")[:-1]:
                    module = getattr(module, part)
                if name != "ndarray":  # which owns() asks for, as a class
                    patch.setattr(module, path.rsplit(".", 1)[-1], failing)
                else:
                    patch.setattr(owner.ndarray, "__init__", failing)
            with pytest.raises(ours, match=words) as caught:
                work_on_cards()
            assert "cuda:0" in str(caught.value) or "cuda:1" in str(caught.value)
        del caught
        gc.collect()


def test_a_message_does_not_fail_where_nothing_answers(machine, monkeypatch):
    def silent(*args):
        raise fake_cupy.CUDARuntimeError(999)

    runtime, _ = runtimes()
    for place in ("memGetInfo", "driverGetVersion"):
        monkeypatch.setattr(runtime.cuda.runtime, place, silent)
    for error, ours in ((fake_cupy.OutOfMemoryError(1, 2), OutOfMemoryError), (ImportError("x"), DeviceError)):
        machine.fault = error
        with pytest.raises(ours, match=r"\(no answer: CUDA error 999\)"):
            runtime.synchronize()
    machine.fault = None


def test_a_function_is_asked_for_once(machine, monkeypatch):
    asked, real = [], fake_cupy.RawModule.get_function
    monkeypatch.setattr(fake_cupy.RawModule, "get_function", lambda self, name: asked.append(name) or real(self, name))
    x, y = (Tensor(np.ones(3, dtype), True, "cuda:0") for dtype in ("f", "d"))
    for _ in range(3):
        for tensor in (x, y):
            F.relu(tensor).sum().backward()
    assert asked.count("relu_forward") == asked.count("relu_backward") == 2  # one for each dtype
    runtime, other = runtimes()
    source = 'extern "C" __global__ void one(int n) {} extern "C" __global__ void two(int n) {}'
    first, second = runtime.function(source, (), "one"), runtime.function(source, (), "two")
    assert (first.name, second.name) == ("one", "two") and runtime.function(source, (), "one") is first
    assert other.function(source, (), "one") is not first
    assert runtime.function(source, ("-DREAL=float",), "one") is not first


@pytest.mark.parametrize("error", [fake_cupy.CUDARuntimeError(700), fake_cupy.CUDADriverError(719)])
def test_a_fault_on_the_card(machine, error):
    runtime, _ = runtimes()
    x = runtime.from_host(np.ones(3))
    machine.fault = error
    with pytest.raises(KernelError, match=f"copy to host on cuda:0: .*{error.status}.*cudasim:0"):
        runtime.to_host(x)
    machine.fault = fake_cupy.CUDARuntimeError(2)
    with pytest.raises(OutOfMemoryError, match="MB in use"):
        runtime.synchronize()
    machine.fault = None
    runtime.synchronize()


@pytest.mark.parametrize("machine", [{}, ONE_CARD], ids=["two cards", "one card twice"])
def test_threads_have_their_own_current_card_and_stream(machine):
    with fake_cupy.installed(**machine):
        work_in_two_threads()


def work_in_two_threads():
    errors, barrier = [], threading.Barrier(2)

    def work(name):
        try:
            barrier.wait()
            for i in range(20):
                x = Tensor(np.full((100, 10), i, "f"), device=name)
                assert F.relu(x).numpy().sum() == 1000 * i
                assert (x @ x.T).numpy().sum() == 1e5 * i * i
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"cuda:{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_timing_is_the_streams(machine):
    runtime, _ = runtimes()
    x, runs = runtime.from_host(np.ones(3)), []
    assert runtime.timed(lambda: runs.append(x), repeats=3) == 0.0005  # of the 1.5 ms that every pair of events says
    assert len(runs) == 3


# ---------------------------------------------------------------- products of matrices


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("flip_a", [False, True])
@pytest.mark.parametrize("flip_b", [False, True])
@pytest.mark.parametrize("m, n, k", [(7, 5, 3), (1, 5, 3), (7, 1, 3), (7, 5, 1), (4, 4, 4), (1, 1, 1)])
def test_gemm(machine, dtype, flip_a, flip_b, m, n, k):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((k, m) if flip_a else (m, k)), rng.standard_normal((n, k) if flip_b else (k, n))
    runtime, _ = runtimes()
    x, y = runtime.from_host(a.astype(dtype)), runtime.from_host(b.astype(dtype))
    x, y, out = x.T if flip_a else x, y.T if flip_b else y, runtime.empty((m, n), np.dtype(dtype))
    assert runtime.gemm(x, y, out, False) is out
    expected = (a.T if flip_a else a) @ (b.T if flip_b else b)
    np.testing.assert_allclose(runtime.to_host(out), expected, rtol=1e-5 if dtype == "f" else 1e-12, atol=1e-6)


def test_tf32_is_as_asked(machine, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    runtime, _ = runtimes()
    x, out = runtime.from_host(np.full((1, 1), 1 + 2**-12, "f")), runtime.empty((1, 1), np.dtype("f"))
    assert runtime.to_host(runtime.gemm(x, x, out, tf32=False)) == np.float32(1 + 2**-12) * np.float32(1 + 2**-12)
    assert runtime.to_host(runtime.gemm(x, x, out, tf32=True)) == 1
    assert [call[-1] for call in machine.calls if call[0] == "gemm"] == [0, 3]


def test_gemm_of_nothing(machine):
    runtime, _ = runtimes()
    a, b = (runtime.empty(shape, np.dtype("f")) for shape in [(3, 0), (0, 4)])
    out = runtime.from_host(np.full((3, 4), np.nan, "f"))
    np.testing.assert_array_equal(runtime.to_host(runtime.gemm(a, b, out, False)), np.zeros((3, 4)))
    assert runtime.gemm(b, runtime.empty((4, 5), np.dtype("f")), runtime.empty((0, 5), np.dtype("f")), False).size == 0
    assert not [call for call in machine.calls if call[0] == "gemm"]


def test_gemm_refuses_what_does_not_fit(machine):
    runtime, _ = runtimes()
    x, y, i = (runtime.from_host(np.ones((6, 6), dtype)) for dtype in ("f", "d", "i"))
    out, empty = runtime.empty((6, 6), np.dtype("f")), runtime.empty((0, 2**31), np.dtype("f"))
    wrong = [(x, x[:4], out), (x, x, out[:4]), (x, x, out.T), (x[::2, ::2], x[:3], out[:3])]
    wrong += [(x, y, out), (y, y, out), (i, i, i), (runtime.empty((0, 0), np.dtype("f")), empty, empty)]
    for a, b, c in wrong:
        with pytest.raises(KernelError, match=r"gemm on cuda:0: \("):
            runtime.gemm(a, b, c, False)


@pytest.mark.parametrize("machine", [{}, ONE_CARD], ids=["two cards", "one card twice"])
def test_each_device_has_a_handle_of_its_own(machine):
    """Fed by one thread or by several: a handle that serves two streams need not give the same bits every time."""
    with fake_cupy.installed(**machine) as machine:
        both = runtimes()
        for _ in range(2):
            for runtime in both:
                x = runtime.from_host(np.ones((4, 4)))
                thread = threading.Thread(target=runtime.gemm, args=(x, x, runtime.empty((4, 4), x.dtype), False))
                thread.start()
                thread.join()
                runtime.gemm(x, x, runtime.empty((4, 4), x.dtype), False)
        assert sorted(machine.handles) == sorted(runtime._blas for runtime in both)
        assert [handle.stream for handle in machine.handles.values()] == [runtime.stream for runtime in both]
        both[1]._blas = both[0]._blas
        with pytest.raises(KernelError, match="a handle serves one stream"):
            both[1].gemm(x, x, x, False)
        del x


# ---------------------------------------------------------------- CuPy itself


def real(path):
    """What CuPy has by that name; skipped where CuPy, or the library behind it, is not installed."""
    found = pytest.importorskip("cupy")
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except ImportError as error:
            pytest.skip(f"CuPy's {path} needs a library: {str(error).splitlines()[0]}")
    return found


def parameters(callable_):
    """The names of its parameters: inspect's, or those in the first line of a compiled function's docstring."""
    try:
        return [name for name in inspect.signature(callable_).parameters if name not in ("self", "args", "kwargs")]
    except ValueError:
        line = next(line for line in callable_.__doc__.splitlines() if "(" in line)
        inside = re.fullmatch(r"\w+\((.*)\)( -> .*)?", line)[1]
        names = [part.split("=")[0].split()[-1] for part in inside.split(",") if part.strip()]
        return [name for name in names if name != "*"]


CALLED = [path for path, value in fake_cupy.SURFACE.items() if callable(value)]
# CuPy's array shows (*args, **kwargs); what it has of NCCL, test_nccl.py calls.
ABSENT = {"ndarray", *(path for path in CALLED if path.startswith("cuda.nccl."))}


@pytest.mark.parametrize("path", [path for path in CALLED if path not in ABSENT])
def test_the_stand_in_takes_what_cupy_takes(path):
    theirs, ours = parameters(real(path)), parameters(fake_cupy.SURFACE[path])
    if isinstance(fake_cupy.SURFACE[path], type):
        assert theirs[: len(ours)] == ours or set(ours) <= set(theirs)
    else:
        plain = [name.replace("_", "").lower() for name in ours]
        assert [name.replace("_", "").lower() for name in theirs] == plain


@pytest.mark.parametrize("name", ["Stream.record", "Stream.wait_event", "Stream.synchronize", "Event.synchronize"])
def test_methods_too(name):
    kind, method = name.split(".")
    assert parameters(getattr(real(f"cuda.{kind}"), method)) == parameters(getattr(getattr(fake_cupy, kind), method))


def test_names_and_numbers():
    assert real("cuda.runtime.memcpyHostToDevice") == fake_cupy.HOST_TO_DEVICE
    assert real("cuda.runtime.memcpyDeviceToHost") == fake_cupy.DEVICE_TO_HOST
    error = real("cuda.runtime.CUDARuntimeError")
    assert error(cuda_runtime.OUT_OF_MEMORY).status == 2 and "MemoryAllocation" in str(error(2))
    assert "PeerAccessAlreadyEnabled" in str(error(cuda_runtime.PEER_ALREADY_ENABLED))
    for status, name in (
        (35, "InsufficientDriver"),
        (200, "InvalidKernelImage"),
        (209, "NoKernelImage"),
        (222, "UnsupportedPtx"),
    ):
        assert status in cuda_runtime.TOO_OLD and name.lower() in str(error(status)).lower(), str(error(status))
    for status, name in ((214, "ECC"), (700, "IllegalAddress"), (702, "LaunchTimeout"), (719, "LaunchFailure")):
        assert status in cuda_runtime.FATAL and name in str(error(status)), str(error(status))
    nvrtc_error = real("cuda.nvrtc").NVRTCError
    assert nvrtc_error(7).status == 7 and nvrtc_error.__name__ == "NVRTCError" and issubclass(nvrtc_error, RuntimeError)
    assert isinstance(real("cuda.Event").done, property)
    for name in ("ptr", "mem", "device_id"):
        assert hasattr(real("cuda.MemoryPointer"), name)
    assert hasattr(real("RawKernel"), "name") and "shared_mem" in real("RawKernel").__call__.__doc__
    for name in ("used_bytes", "total_bytes"):
        assert hasattr(real("cuda.MemoryPool"), name)


def test_cublas_numbers():
    cublas = real("cuda.cublas")
    error = cublas.CUBLASError(cuda_runtime.CUBLAS_OUT_OF_MEMORY)
    assert error.status == 3 and type(error).__name__ == "CUBLASError" and "ALLOC_FAILED" in str(error)
    names = [path.rsplit(".", 1)[1] for path in fake_cupy.SURFACE if path.startswith("cuda.cublas.CUBLAS")]
    assert {name: getattr(cublas, name) for name in names} == {n: fake_cupy.SURFACE[f"cuda.cublas.{n}"] for n in names}


def array_of_a_device():
    """As cuda_runtime.py makes them, but over memory that nobody owns."""
    memory = real("cuda.memory")
    pointer = memory.MemoryPointer(memory.UnownedMemory(1 << 20, 32, None, 0), 0)
    return type("array of cuda:1", (real("ndarray"),), {})((2, 4), "f", pointer)


def test_cupy_takes_the_arguments_that_launch_passes():
    """CuPy packs a kernel's arguments before it calls the driver: so it can be asked without one."""
    error = real("cuda.runtime.CUDARuntimeError")
    function = real("cuda.Function").__new__(real("cuda.Function"))
    stream = type("Null", (), {"ptr": 0})()
    layout = minigrad.gpu.layout_of((2, 3), ((3, 1), (0, 1)))[0]
    table = cuda_runtime.CudaRuntime.table(None, [], 32)
    scalars = [np.dtype(name).type(1) for name in minigrad.gpu.sources.C_TYPES]
    with pytest.raises(error, match="cuda"):  # no driver: but it came that far
        function((1, 1, 1), (1, 1, 1), (array_of_a_device(), *scalars, layout, table), 0, stream)
    with pytest.raises(TypeError, match="size one"):
        function((1, 1, 1), (1, 1, 1), (np.zeros(2),), 0, stream)


@pytest.mark.parametrize("members", [{"n": 3, "scale": 0.5}, {"n": 7, "steps": range(9), "scale": -2.0}])
def test_cupy_passes_the_bits_of_structs(members):
    """A struct is passed as a NumPy scalar: small ones lie within CuPy's object, others in memory of their own."""
    kinds = {"n": np.int32, "steps": (np.int64, 9), "scale": np.float64}
    filled = np.zeros(1, np.dtype([(name, kinds[name]) for name in members], align=True))
    filled[0] = tuple(members.values())
    passed = real("_core._scalar").CScalar(filled[0])
    there = np.frombuffer(ctypes.string_at(passed.ptr, filled.nbytes), filled.dtype)
    for name, value in members.items():
        np.testing.assert_array_equal(there[name][0], list(value) if name == "steps" else value)


@pytest.mark.parametrize("view", ["[1:]", "[0]", "[None]", ".T", ".transpose(1, 0)", ".swapaxes(0, 1)", ".reshape(8)"])
def test_a_view_keeps_its_class(view):
    """That of the device, by which a runtime knows its arrays.  No driver is asked."""
    x = array_of_a_device()
    y = eval(f"x{view}")
    assert type(y) is type(x) is not real("ndarray") and y.data.mem is x.data.mem


# ---------------------------------------------------------------- which devices there are, and on which cards


def test_a_machine_with_fewer_cards():
    with fake_cupy.installed(cards=1):
        assert cards() == (0,)
        with pytest.raises(DeviceError, match="cuda:1: the driver sees 1 card.*MINIGRAD_CUDA=0,0 makes cuda:0 and"):
            Tensor([1.0], device="cuda:1")
        with pytest.raises(argparse.ArgumentTypeError, match="cuda:1: .*MINIGRAD_CUDA=0,0 makes cuda:0 and cuda:1"):
            device_list("cuda:0,cuda:1")  # what --devices of the examples calls
    with fake_cupy.installed(**ONE_CARD):
        assert device_list("cuda:0,cuda:1") == ("cuda:0", "cuda:1")


def test_two_devices_of_one_card(one_card):
    one, other = runtimes()
    assert cards() == (0, 0) and (one.card, other.card) == (0, 0) and minigrad.device("cuda:1").card == 0
    assert one.stream is not other.stream and one.array_type is not other.array_type
    assert (one.name, other.name) == ("cuda:0", "cuda:1 (card 0)")
    x = Tensor(np.ones(2, "f"), device="cuda:1")
    assert str(x.device) == "cuda:1" and "device='cuda:1'" in repr(x)
    with pytest.raises(KernelError, match=r"kernel wrong .* on cuda:1 \(card 0\)"):
        other.function('extern "C" __global__ void wrong(int n) { nonsense; }', (), "wrong")
    draws = [F.dropout(Tensor(np.ones(1000, "f"), device=f"cuda:{i}"), 0.5, True).numpy() for i in (0, 1)]
    assert (draws[0] != draws[1]).any()


def test_any_card_may_be_listed():
    with fake_cupy.installed(cards=3, devices=" 2, 0,2 ") as machine:
        assert cards() == (2, 0, 2)
        zero, one, two = (minigrad.device(f"cuda:{i}").runtime for i in range(3))
        assert [runtime.name for runtime in (zero, one, two)] == ["cuda:0 (card 2)", "cuda:1 (card 0)", "cuda:2"]
        x = zero.from_host(np.ones(3))
        assert x.data.device_id == 2
        machine.calls.clear()
        one.copy_from(zero, x), two.copy_from(zero, x)
        assert machine.calls == [("peer", 2, 0, 24), ("on card", 2, 24)] and machine.enabled == {(0, 2), (2, 0)}
        del x


@pytest.mark.parametrize(
    "listed, message",
    [
        ("", "MINIGRAD_CUDA='': the card of cuda:0 must be a number, got '': list the card of each device, as in"),
        ("0,", "MINIGRAD_CUDA='0,': the card of cuda:1 must be a number, got ''"),
        ("0,x", "the card of cuda:1 must be a number, got 'x'"),
        ("-1", "the card of cuda:0 must be a number, got '-1'"),
        ("9" * 5000, "the card of cuda:0 must be a number, got '999"),
        ("0,1.0", "the card of cuda:1 must be a number, got '1.0'"),
        ("0,2,5", r"cuda:2: MINIGRAD_CUDA=0,2,5: there is no card 2 for cuda:1: the driver sees 2 card\(s\).*unset it"),
        ("1,1", r"cuda:2: MINIGRAD_CUDA=1,1 has the cards of 2 device\(s\).*list a card for each device that is used"),
    ],
)
def test_a_list_of_cards_that_is_wrong(listed, message):
    with fake_cupy.installed(devices=listed), pytest.raises(DeviceError, match=message):
        Tensor([1.0], device="cuda:2")


def test_the_list_is_read_once(one_card, monkeypatch):
    assert cards() == (0, 0)
    monkeypatch.setenv("MINIGRAD_CUDA", "0")
    assert cards() == (0, 0) and minigrad.device("cuda:1").runtime.card == 0


def test_a_copy_on_one_card(one_card):
    values = np.arange(24, dtype="f").reshape(2, 3, 4).transpose(2, 0, 1)
    zero, one = runtimes()
    x = zero.from_host(values)
    one_card.calls.clear()
    y = one.copy_from(zero, x)
    assert one_card.calls == [("on card", 0, 96)] and one_card.enabled == set()
    assert y.strides == x.strides and one.owns(y) and not one.owns(x) and not zero.owns(y)
    del x  # its memory may be handed out again, once the copy has read it
    again = zero.from_host(np.zeros_like(values))
    np.testing.assert_array_equal(one.to_host(y), values)
    np.testing.assert_array_equal(zero.to_host(zero.copy_from(one, y)), values)
    del y, again


def test_an_array_of_the_other_device_is_refused(one_card):
    """Nothing would fail on a card: the memory is within reach.  But nothing says which stream comes first."""
    x, other = Tensor(np.ones((3, 4), "f"), device="cuda:0"), minigrad.device("cuda:1")
    wrong = r"must be an array on cuda:1, got array of cuda:0 \(3, 4\)"
    for array in (x.data, x.data[:], x.data.reshape(4, 3).T, x.data[None][0]):
        with pytest.raises(KernelError, match=wrong):
            other.launch("relu", "relu_forward", 1, 32, Strided(array), other.empty((3, 4), "f"), 12, REAL="f")
        with pytest.raises(KernelError, match=wrong):
            other.copied(array)
    theirs, ours = x.device.empty((4, 4), "f"), other.empty((4, 4), "f")
    for i in range(3):
        matrices = [theirs if i == place else ours for place in range(3)]
        with pytest.raises(KernelError, match=r"gemm .*: must be an array of cuda:1 \(card 0\), got array of cuda:0"):
            other.runtime.gemm(*matrices, False)
    with pytest.raises(KernelError, match=r"copy to host: must be an array of cuda:1 .*, got array of cuda:0 \(3, 4\)"):
        other.to_host(x.data)
    with pytest.raises(KernelError, match=r"copy to cuda:0: must be an array of cuda:1 .*, got array of cuda:0"):
        x.device.received(x.data, other)
    nothing, cupys = x.data[:0], fake_cupy.ndarray
    assert not other.owns(nothing) and x.device.owns(nothing)
    with x.device.runtime._here("a test"):
        plain = cupys((3, 4), "f")
    assert not other.owns(plain) and not x.device.owns(plain)  # CuPy's own: on whose stream, nobody knows
    x.device.runtime.synchronize()
    del plain


def test_the_stand_in_notices_the_wrong_stream(one_card):
    """If the check above were not there."""
    zero, one = runtimes()
    x, one.array_type = zero.from_host(np.ones((3, 4), "f")), zero.array_type
    with pytest.raises(KernelError, match="STREAM-ORDER: uses memory .*, which stream fake card 0, stream 0 .* wrote"):
        minigrad.device("cuda:1").copied(x)
    with pytest.raises(KernelError, match="STREAM-ORDER"):
        one.to_host(x)


def test_two_devices_share_the_memory_of_their_card():
    with fake_cupy.installed(**ONE_CARD, memory=1 << 20):
        x, y = (Tensor(np.ones((100, 1000), "f"), device=f"cuda:{i}") for i in (0, 1))
        with pytest.raises(OutOfMemoryError, match=r"cuda:1 \(card 0\): out of memory: .*; 0.8 MB in use"):
            y + 1
        del x  # there is room again
        assert (y + 1).numpy().sum() == 2e5
        del y
