"""Device names, defaults, seeds, and what is said where a device cannot be used."""

import errno
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

import minigrad
from minigrad import ArgumentError, DeviceError, Tensor
from minigrad.base import random

# ---------------------------------------------------------------- names


def test_names():
    d = minigrad.device("cpu:1")
    assert (d.kind, d.index, d.name, str(d), repr(d)) == ("cpu", 1, "cpu:1", "cpu:1", "device('cpu:1')")
    assert minigrad.device("cpu") is minigrad.device("cpu:0") and minigrad.device(d) is d
    assert minigrad.device("cuda").name == "cuda:0" and not minigrad.device("cuda").on_host
    assert d.on_host and d.xp is np
    assert pickle.loads(pickle.dumps(d)) is d


@pytest.mark.parametrize(
    "name", ["gpu", "cpu:", "cpu:-1", "CPU:0", "cpu:0 ", "", "cuda:a", "cpu:٣", 0, None, ["cpu:0"]]
)
def test_names_that_are_none(name):
    with pytest.raises(DeviceError, match="device: expected a name such as 'cpu:0' or 'cuda:1', got"):
        minigrad.device(name)


def test_a_short_name_makes_no_device_anew():
    known = len(random._owners)
    assert all(minigrad.device(name) is minigrad.device(name + ":0") for name in ("cpu", "textbook") * 3)
    assert len(random._owners) <= known + 2


def test_the_function_is_not_hidden_by_the_module():
    import minigrad.device

    assert callable(minigrad.device)


# ---------------------------------------------------------------- defaults


def test_the_default_is_cpu_0(monkeypatch):
    monkeypatch.delenv("MINIGRAD_DEVICES", raising=False)
    minigrad.set_default_devices()
    assert [d.name for d in minigrad.default_devices()] == ["cpu:0"]
    assert Tensor([1.0]).device is minigrad.default_device()


def test_set_default_devices():
    minigrad.set_default_devices("cpu:1", minigrad.device("cpu:2"))
    assert [d.name for d in minigrad.default_devices()] == ["cpu:1", "cpu:2"]
    assert str(Tensor([1.0]).device) == "cpu:1" and str(minigrad.from_numpy(np.ones(2)).device) == "cpu:1"
    with pytest.raises(DeviceError):
        minigrad.set_default_devices("nowhere")
    assert minigrad.default_device().name == "cpu:1"  # a failed call changes nothing
    minigrad.set_default_devices("cuda:0")
    assert str(minigrad.from_numpy(np.ones(2)).device) == "cpu:0"  # shared memory is never on a card


def in_a_fresh_process(code, devices):
    env = {**os.environ, "MINIGRAD_DEVICES": devices, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_minigrad_devices():
    code = "import minigrad; print(*minigrad.default_devices(), minigrad.Tensor([1.0]).device)"
    assert in_a_fresh_process(code, "cpu:1, cpu:0").stdout.split() == ["cpu:1", "cpu:0", "cpu:1"]
    result = in_a_fresh_process("import minigrad; minigrad.Tensor([1.0])", "cpu:0,tpu")
    assert "DeviceError: MINIGRAD_DEVICES='cpu:0,tpu': device: expected a name" in result.stderr


# ---------------------------------------------------------------- seeds


def draws(*names):
    return [minigrad.device(name).generator.standard_normal(5).tolist() for name in names]


def test_the_same_seed_gives_the_same_bits():
    minigrad.manual_seed(7)
    first = draws("cpu:0", "cpu:1")
    assert minigrad.initial_seed() == 7 and draws("cpu:0", "cpu:1") != first
    minigrad.manual_seed(np.int64(7))
    assert draws("cpu:0", "cpu:1") == first
    minigrad.manual_seed(8)
    assert draws("cpu:0", "cpu:1") != first


def test_every_device_has_a_stream_of_its_own():
    minigrad.manual_seed(0)
    streams = draws("cpu:0", "cpu:1", "cpu:2", "cuda:0", "cuda:1")
    assert len({tuple(stream) for stream in streams}) == 5


def test_one_device_does_not_disturb_another():
    minigrad.manual_seed(3)
    alone = draws("cpu:1")
    minigrad.manual_seed(3)
    draws("cpu:0", "cpu:0")
    assert draws("cpu:1") == alone


def test_a_device_named_after_the_seed_has_it_too():
    code = "import minigrad as m; {}; print(m.device('cpu:5').generator.random())"
    before = in_a_fresh_process(code.format("m.device('cpu:5'); m.manual_seed(9)"), "cpu:0").stdout
    after = in_a_fresh_process(code.format("m.manual_seed(9)"), "cpu:0").stdout
    assert before and before == after


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True])
def test_refused_seeds(seed):
    with pytest.raises(ArgumentError, match="manual_seed: seed must be an integer >= 0, got"):
        minigrad.manual_seed(seed)


# ---------------------------------------------------------------- a card that cannot be used


def fake_cupy(monkeypatch, count):
    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(getDeviceCount=device_count)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime)))


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    with pytest.raises(DeviceError, match=r"cuda:0: CuPy cannot be imported.*pip install 'minigrad\[cuda12\]'"):
        Tensor([1.0], device="cuda")
    with pytest.raises(DeviceError, match=r"cuda:1: CuPy cannot be imported"):
        Tensor([1.0]).to("cuda:1")


def test_a_home_that_cupy_cannot_write_to(monkeypatch):
    def find(name, *_):
        if name == "cupy":  # importing CuPy 14 makes ~/.cupy/kernel_cache
            raise OSError(errno.EROFS, "Read-only file system", "/home/me/.cupy")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [types.SimpleNamespace(find_spec=find), *sys.meta_path])
    with pytest.raises(DeviceError, match=r"cuda:0: CuPy cannot be imported .*Read-only.*set CUPY_CACHE_DIR"):
        Tensor([1.0], device="cuda")


def test_without_a_driver(monkeypatch):
    fake_cupy(monkeypatch, RuntimeError("cudaErrorInsufficientDriver"))
    with pytest.raises(DeviceError, match="cuda:0: CuPy is here, but the NVIDIA driver does not answer .*Insufficient"):
        Tensor([1.0], device="cuda:0")


def test_without_that_card(monkeypatch):
    fake_cupy(monkeypatch, 1)
    with pytest.raises(DeviceError, match=r"cuda:3: the driver sees 1 card\(s\), numbered from 0"):
        Tensor([1.0], device="cuda:3")
    assert minigrad.device("cuda:0").xp is sys.modules["cupy"]


def test_naming_a_card_does_not_touch_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert minigrad.device("cuda:7").name == "cuda:7"
    minigrad.manual_seed(1)


# ---------------------------------------------------------------- two devices in one op


def test_mixed_devices_are_refused():
    a, b = Tensor([1.0, 2.0], device="cpu:0"), Tensor([1.0, 2.0], device="cpu:1")
    for op in (lambda: a + b, lambda: a @ b, lambda: a < b, lambda: minigrad.concat([a, b])):
        with pytest.raises(DeviceError, match=r"inputs on cpu:0, cpu:1: bring them to one device with .to\(\)"):
            op()
    with pytest.raises(DeviceError, match="backward: the tensor is on cpu:0, its gradient on cpu:1"):
        a.requires_grad_()
        (a * 2).backward(b)


def test_gradients_live_with_their_tensors():
    a, b = Tensor([1.0, 2.0], True, "cpu:0"), Tensor([3.0, 4.0], True, "cpu:1")
    y = a.to("cpu:1") * b
    assert str(y.device) == "cpu:1"
    (y.to("cpu:0") + a).sum().backward()
    assert str(a.grad.device) == "cpu:0" and str(b.grad.device) == "cpu:1"
    np.testing.assert_array_equal(a.grad.numpy(), [4, 5])
    np.testing.assert_array_equal(b.grad.numpy(), [1, 2])


# ---------------------------------------------------------------- fork

FORKS = """
import os, signal, sys, threading, time
import minigrad
from minigrad import Tensor, init

weights, mine = (Tensor([[0.0] * 300] * 300) for _ in range(2))

def draw():
    while True:
        init.normal_(weights)

threading.Thread(target=draw, daemon=True).start()
hung = 0
for _ in range(8):
    child = os.fork()
    if child == 0:
        init.normal_(mine)
        os._exit(0)
    patience = time.monotonic() + 60
    while not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.002)
        if time.monotonic() > patience:
            hung += 1
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
    if hung:
        break
sys.stdout.write(f"{hung} hung")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_another_thread_draws_can_draw():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0 hung", done.stderr


# ---------------------------------------------------------------- kinds


def test_a_kind_of_device_is_one_class():
    """It enters itself, and tensors, ops and backward are at home there."""

    class Counting(minigrad.processor.cpu.CPU, kind="counting"):
        ran = 0

        def forward(self, function, *arrays):
            self.ran += 1
            return super().forward(function, *arrays)

    try:
        where = minigrad.device("counting:1")
        assert (where.kind, where.name, minigrad.device("counting") is not where) == ("counting", "counting:1", True)
        x = Tensor([1.0, 2.0], True, where)
        (x * x).sum().backward()
        assert where.ran == 2 and x.grad.device is where and x.grad.numpy().tolist() == [2, 4]
        assert x.to("cpu:0").device.name == "cpu:0" and Tensor([1.0]).to(where).device is where
    finally:
        del minigrad.device.__globals__["KINDS"]["counting"]
    with pytest.raises(DeviceError, match="the kinds are cpu, cuda, cudasim, textbook"):
        minigrad.device("counting:2")
