"""Memory of emulated devices: views, guard zones, poison, marks of what was written, and what the host may not do."""

import gc

import numpy as np
import pytest

import minigrad
from minigrad.cudasim import compiler, settings
from minigrad.cudasim.streams import bytes_in_use
from minigrad.errors import DeviceError, KernelError, OutOfMemoryError
from minigrad.gpu.sources import kernel_source, replace_source

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))


@pytest.fixture
def sim():
    return minigrad.device("cudasim:0")


@pytest.mark.parametrize("values", [np.float32(3), np.arange(24.0).reshape(2, 3, 4), np.zeros((0, 3), np.int8)])
def test_there_and_back(sim, values):
    x = sim.upload(values)
    assert (x.shape, x.dtype, x.size, x.ndim, x.nbytes) == (
        np.shape(values),
        values.dtype,
        values.size,
        values.ndim,
        values.nbytes,
    )
    back = x.get()
    np.testing.assert_array_equal(back, values)
    assert back.dtype == values.dtype and type(back) is np.ndarray


def test_views_of_nothing_go_to_the_host_in_check_mode(sim):
    """An array without elements has no memory, and its slices begin behind that."""
    with settings.options(mode="check"):
        x = sim.upload(np.zeros((3, 0, 2)))
        assert (x[1:].get().shape, x[..., ::-1].get().shape) == ((2, 0, 2), (3, 0, 2))


def test_memory_order_is_kept(sim):
    values = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    x = sim.upload(values)
    assert x.strides == values.strides and x.get().strides == values.strides
    np.testing.assert_array_equal(x.get(), values)


def test_the_copy_is_the_devices_own(sim):
    values = np.arange(3.0)
    x = sim.upload(values)
    values[:] = 9
    x.get()[:] = 7
    np.testing.assert_array_equal(x.get(), [0, 1, 2])


def test_views(sim):
    values = np.arange(24.0).reshape(2, 3, 4)
    x = sim.upload(values)
    for view, wanted in [
        (x.reshape(6, 4), values.reshape(6, 4)),
        (x.reshape((2, -1)), values.reshape(2, -1)),
        (x.transpose(2, 0, 1), values.transpose(2, 0, 1)),
        (x.swapaxes(0, 2), values.swapaxes(0, 2)),
        (x.T, values.T),
        (x[1, ..., ::-2], values[1, ..., ::-2]),
        (x[:, None, 2], values[:, None, 2]),
        (x[1, 2, 3], values[1, 2, 3]),
    ]:
        assert view.shape == wanted.shape and view.data.mem is x.data.mem
        np.testing.assert_array_equal(view.get(), wanted)
    assert x[1].data.ptr == x.data.ptr + 12 * 8
    with pytest.raises(DeviceError, match=r"reshape: \(4, 3, 2\) with strides .* has no view of shape \(24,\)"):
        x.T.reshape(24)
    for index in ([0, 1], np.array([True, False]), True):
        with pytest.raises(DeviceError, match="takes ints, slices, None and ... as index, got"):
            x[index]


def test_the_host_cannot_compute_with_it(sim):
    x = sim.upload(np.ones(3))
    for use in (np.asarray, np.exp, bool, lambda x: np.ones(3) + x, lambda x: x + 1, lambda x: [*x] and x + x):
        with pytest.raises(TypeError):
            use(x)


def test_fresh_memory_is_poison(sim):
    assert np.isnan(sim.empty((5,), np.float32).host).all()
    assert (sim.empty((5,), np.int64).host == -1).all()


def test_reading_what_was_never_written(sim):
    with settings.options(mode="check"):
        x = sim.empty((5,), np.float32)
        with pytest.raises(KernelError, match="UNINITIALISED: 20 bytes were never written"):
            x.get()
        sim.fill(x[:3], 1)
        with pytest.raises(KernelError, match="UNINITIALISED: 8 bytes"):
            x.get()
        np.testing.assert_array_equal(x[:3].get(), [1, 1, 1])
        sim.fill(x[3:], 2)
        np.testing.assert_array_equal(x.get(), [1, 1, 1, 2, 2])


def test_guard_zones(sim):
    x = sim.upload(np.arange(3.0))
    x.memory.guards[1][0] ^= 1
    with pytest.raises(
        KernelError, match=r"OUT-OF-BOUNDS: wrote behind y \(argument 0, float64 \(3,\)\), into its guard"
    ):
        sim.fill(x, 1)
    sim.fill(x, 1)  # reported once


def test_memory_is_counted_and_limited(sim):
    gc.collect()
    before = bytes_in_use("cudasim:0")
    x = sim.empty((1000,), np.float32)
    assert bytes_in_use("cudasim:0") == before + 4000
    with settings.options(memory_limit=before + 10_000):
        y = sim.empty((1000,), np.float32)
        with pytest.raises(OutOfMemoryError, match=r"cudasim:0: out of memory: 0.0 MB wanted for \(1000,\) float32"):
            sim.empty((1000,), np.float32)
        del y
        sim.empty((1000,), np.float32)
    del x
    assert bytes_in_use("cudasim:0") == before


def test_out_of_memory_names_the_op(sim):
    x = minigrad.Tensor(np.ones((100, 100), np.float32), True, sim)
    with settings.options(memory_limit=bytes_in_use("cudasim:0") + 39_000):
        with pytest.raises(OutOfMemoryError, match=r"relu \(inputs \(100, 100\)\): cudasim:0: out of memory"):
            x.relu()
    y, dy = x.relu(), minigrad.Tensor(np.ones((100, 100), np.float32), device="cudasim:0")
    with settings.options(memory_limit=bytes_in_use("cudasim:0") + 79_000):  # room for a copy of dy, not for dx
        with pytest.raises(OutOfMemoryError, match=r"backward of relu \(output \(100, 100\)\): cudasim:0: out of mem"):
            y.backward(dy)


def test_large_arrays_take_no_memory_until_they_are_used(sim):
    with settings.options(poison=False):
        x = sim.empty((2**33,), np.uint8)
        assert x.nbytes == 2**33 and x.host[2**32] == 0


def test_a_wild_write_is_an_exception_and_harms_nobody(sim):
    """Whatever the distance: device memory has addresses of its own, with nothing of Python's near it."""
    source = kernel_source("relu")
    try:
        for shift in ("1000000", "-3000000", "(1ll << 31)", "-(1ll << 31)", "(1ll << 40)", "(1ll << 46)"):
            replace_source("relu", source.replace("each(n, y,", f"each(n, y + {shift},"))
            x = minigrad.Tensor(np.ones(1000, np.float32), device=sim)
            with pytest.raises(KernelError, match=r"kernels/relu.cu:\d+: FAULT: block \(\d,0,0\) thread \(\d+,0,0\)"):
                x.relu()
    finally:
        replace_source("relu", None)
    np.testing.assert_array_equal(x.relu().numpy(), 1)


def test_freed_memory_is_closed(sim):
    x = sim.upload(np.arange(1000.0))
    pointer = x.data.ptr
    host = x.host
    del x
    gc.collect()
    assert host[999] == 999  # as long as somebody looks at it
    del host
    gc.collect()
    again = sim.empty((1000,), np.float64)
    assert again.data.ptr == pointer and np.isnan(again.host).all()
