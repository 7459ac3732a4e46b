"""The whole two-column AlexNet on two cards, against the CPU: logits, every gradient, a training step.

The cards are emulated.  With MINIGRAD_TEST_DEVICE=cuda:0 they are real, or one that is both (conftest.py).
"""

import os
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor, optim
from minigrad.cudasim import compiler, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from alexnet import PRESETS, WIDTHS, AlexNet, merged  # noqa: E402

ON_CARD = minigrad.device(os.environ.get("MINIGRAD_TEST_DEVICE", "cpu:0")).kind == "cuda"
pytestmark = pytest.mark.skipif(not ON_CARD and compiler.available() is not None, reason=str(compiler.available()))
emulated = pytest.mark.skipif(ON_CARD, reason="about the emulator")

CPU, CARDS = ("cpu:0", "cpu:1"), ("cuda:0", "cuda:1") if ON_CARD else ("cudasim:0", "cudasim:1")
NARROW = (6, 8, 12, 12, 8, 40, 40)


def nets(preset, widths, dtype, classes, cards, **options):
    """The same weights on the CPU and on the cards."""
    pair = [
        AlexNet(classes, preset, devices[: PRESETS[preset].columns], widths=widths, dtype=dtype, **options)
        for devices in (CPU, cards)
    ]
    random = np.random.default_rng(1)  # larger than the paper's 0.01: every layer shall matter in the comparison
    state = {
        name: (random.standard_normal(a.shape) * (0.1 if a.ndim == 1 else np.sqrt(2 / a[0].size))).astype(a.dtype)
        for name, a in pair[0].state_dict().items()
    }
    for net in pair:
        net.load_state_dict(state)
    return pair


def step(net, x, target):
    """Logits, loss, gradients and weights of one training step; random ops draw the same on all kinds of devices."""
    for kind in ("cpu", "cuda", "cudasim"):
        for i in range(2):
            minigrad.device(f"{kind}:{i}").generator = np.random.Generator(np.random.SFC64(i))
    optimizer = optim.SGD(list(net.parameter_groups(0.01, 0.0005)), 0.01, momentum=0.9, update_rule="alexnet")
    logits = net(Tensor(x, device=net.columns[0].conv1.weight.device))
    loss = F.cross_entropy(logits, target)
    loss.backward()
    gradients = merged([{name: p.grad.numpy() for name, p in c.named_parameters()} for c in net.columns])
    optimizer.step()
    return {"logits": logits.numpy(), "loss": loss.numpy()}, gradients, net.state_dict()


def compare(preset, widths, dtype, classes, batch, tolerance, cards=CARDS, **options):
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(dtype)
    target = np.arange(batch) % classes
    cpu, card = (step(net, x, target) for net in nets(preset, widths, dtype, classes, cards, **options))
    for what, ours, theirs in zip(("", "gradient of ", "after the step "), card, cpu):
        assert ours.keys() == theirs.keys()
        for name, wanted in theirs.items():
            scale = np.abs(wanted).max()
            assert scale > 0, f"{what}{name} is all zero: nothing is compared"
            np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=tolerance * scale, err_msg=what + name)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_narrow_net(preset):
    compare(preset, NARROW, "float64", 10, 3, 1e-11)


@emulated
@pytest.mark.parametrize("devices", [None, "0,0"], ids=["two cards", "one card twice"])
def test_a_narrow_net_by_way_of_cupy(devices):
    """Events, copies and memory of the CuPy runtime, on a stand-in for CuPy: a wait that is missing is an exception."""
    with fake_cupy.installed(cards=1 if devices else 2, devices=devices) as machine:
        compare("paper", (4, 6, 6, 6, 4, 24, 24), "float64", 3, 1, 1e-11, cards=("cuda:0", "cuda:1"), dropout=0.2)
        copies = [call[0] for call in machine.calls if call[0] in ("peer", "on card")]
        assert len(copies) > 10 and set(copies) == {"on card" if devices else "peer"}


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("order", ["forward", "random"])
def test_a_narrow_net_with_all_checks(order):
    """No kernel does anything that it must not, in any thread order: a single report would be an exception."""
    with settings.options(mode="check", order=order, seed=5):
        compare("paper", (4, 6, 6, 6, 4, 24, 24), "float32", 3, 1, 1e-4, dropout=0.2)


@pytest.mark.slow
def test_at_full_size():
    compare("paper", WIDTHS, "float32", 1000, 2, 2e-4)
