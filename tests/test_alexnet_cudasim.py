"""The whole two-column AlexNet on emulated cards, against the CPU: logits, every gradient, a training step."""

import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor, optim
from minigrad.cudasim import compiler, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from alexnet import PRESETS, WIDTHS, AlexNet, merged  # noqa: E402

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))

CPU, SIM = ("cpu:0", "cpu:1"), ("cudasim:0", "cudasim:1")
NARROW = (6, 8, 12, 12, 8, 40, 40)


def nets(preset, widths, dtype, classes, **options):
    """The same weights on the CPU and on the emulated cards."""
    pair = [AlexNet(classes, preset, devices, widths=widths, dtype=dtype, **options) for devices in (CPU, SIM)]
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
    for i, name in enumerate((*CPU, *SIM)):
        minigrad.device(name).generator = np.random.Generator(np.random.SFC64(i % 2))
    optimizer = optim.SGD(list(net.parameter_groups(0.01, 0.0005)), 0.01, momentum=0.9, update_rule="alexnet")
    logits = net(Tensor(x, device=net.columns[0].conv1.weight.device))
    loss = F.cross_entropy(logits, target)
    loss.backward()
    gradients = merged([{name: p.grad.numpy() for name, p in c.named_parameters()} for c in net.columns])
    optimizer.step()
    return {"logits": logits.numpy(), "loss": loss.numpy()}, gradients, net.state_dict()


def compare(preset, widths, dtype, classes, batch, tolerance, **options):
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(dtype)
    target = np.arange(batch) % classes
    cpu, sim = (step(net, x, target) for net in nets(preset, widths, dtype, classes, **options))
    for what, ours, theirs in zip(("", "gradient of ", "after the step "), sim, cpu):
        assert ours.keys() == theirs.keys()
        for name, wanted in theirs.items():
            scale = np.abs(wanted).max()
            assert scale > 0, f"{what}{name} is all zero: nothing is compared"
            np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=tolerance * scale, err_msg=what + name)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_narrow_net(preset):
    compare(preset, NARROW, "float64", 10, 3, 1e-11)


@pytest.mark.parametrize("order", ["forward", pytest.param("random", marks=pytest.mark.slow)])
def test_a_narrow_net_with_all_checks(order):
    """No kernel does anything that it must not, in any thread order: a single report would be an exception."""
    with settings.options(mode="check", order=order, seed=5):
        compare("paper", (4, 6, 6, 6, 4, 24, 24), "float32", 3, 1, 1e-4, dropout=0.2)


@pytest.mark.slow
def test_at_full_size():
    compare("paper", WIDTHS, "float32", 1000, 2, 2e-4)
