"""What all tests share: the device under test, the same seeds before each test, and hypothesis profiles."""

import contextlib
import os
import random
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import minigrad
from minigrad.gpu import cuda

# dev looks for new counterexamples on every run; ci tries the same examples every time.
_health = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", deadline=None, max_examples=50, suppress_health_check=_health)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# A shell starts its background jobs deaf to Ctrl-C, and what they start inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEST_DEVICE = os.environ.get("MINIGRAD_TEST_DEVICE", "cpu:0")

# Some tests need two devices.  On a machine with one card both are on it.
if minigrad.device(TEST_DEVICE).kind == "cuda" and "MINIGRAD_CUDA" not in os.environ:
    with contextlib.suppress(minigrad.DeviceError):  # without a card, every test says what is missing
        if cuda.cards() == (0,):
            os.environ["MINIGRAD_CUDA"] = "0,0"
    cuda._listed.cache_clear()

# What is tested on any device: the files tests/test_<name>.py.  The others bring their devices along, or have none.
ANY_DEVICE = frozenset(
    "alexnet_cudasim arithmetic astype avg_pool2d batch_norm clipping compare concat conv2d conv_transpose2d copy "
    "creation cross_entropy dropout extremes functional gemm gpu init linear lrn lrn_within_map matmul max_pool2d "
    "nccl_on_cards nn optim pad pointwise prepare reduce relu shape sigmoid softmax tanh tensor where".split()
)


@pytest.fixture
def device() -> str:
    """The name of the device on which op tests run: MINIGRAD_TEST_DEVICE, or cpu:0."""
    return str(minigrad.device(TEST_DEVICE))


def pytest_collection_modifyitems(config, items):
    """On another device than the CPU: the tests of ops and optimisers, but for those about the fast faces alone."""
    if minigrad.device(TEST_DEVICE).kind == "cpu":
        return
    elsewhere = [item for item in items if item.path.stem.removeprefix("test_") not in ANY_DEVICE]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in set(elsewhere)]
    for item in items:
        mark = item.get_closest_marker("cpu_only")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"about the CPU alone: {mark.args[0]}"))


@pytest.fixture(autouse=True)
def _fresh_state():
    """The same random numbers in every test, whatever ran before; no test's settings reach the next."""
    random.seed(0)
    np.random.seed(0)
    minigrad.manual_seed(0)
    minigrad.set_default_devices(TEST_DEVICE)
    yield
    minigrad.set_default_devices()
    minigrad.set_gemm("cublas")
    minigrad.allow_tf32(False)
    for name in ("cpu:0", "cpu:1"):
        minigrad.set_num_threads(None, name)
