"""minigrad.debug(): errors name the line of the program that made the op."""

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, GraphError, NotFiniteError, Tensor, no_grad
from minigrad.tools import tracing


def line_of(text):
    """This file's line with that text, as messages name it."""
    with open(__file__, encoding="utf-8") as file:
        number = next(i for i, line in enumerate(file, 1) if text in line and "line_of" not in line)
    return rf"test_debugging\.py:{number} \("


@pytest.mark.parametrize("device", ["cpu:0", "textbook:0"])
def test_an_array_changed_in_place(device):
    x = Tensor([1.0, 2.0], True, device)
    with minigrad.debug():
        y = x * x  # the product
        loss = y.sum()
        with no_grad():
            x += 1
        with pytest.raises(
            GraphError, match="multiply at " + line_of("# the product") + r"y = x \* x  # the product\): "
        ):
            loss.backward()


def test_the_op_that_makes_nan_is_named_and_not_those_it_spreads_to():
    x = Tensor([[1.0, 2.0, 3.0], [4.0, -5.0, 0.0]], True)
    with minigrad.debug(check_finite=True), np.errstate(all="ignore"):
        message = (
            "log at "
            + line_of("# the logarithm")
            + r".*\): 2 of 6 elements of the result \(2, 3\) are nan or inf, first \[1, 1\]"
        )
        with pytest.raises(NotFiniteError, match=message):
            F.log(x).sum()  # the logarithm
        given = Tensor([np.nan, 1.0])
        assert np.isnan((given * 2).sum().item())  # came in from outside: no op's fault


def test_a_gradient_that_is_not_finite():
    x = Tensor([0.0, 4.0], True)
    with minigrad.debug(check_finite=True), np.errstate(all="ignore"):
        y = F.sqrt(x)  # the root
        with pytest.raises(
            NotFiniteError, match="sqrt at " + line_of("# the root") + r".*the gradient of input 0 \(2,\)"
        ):
            y.sum().backward()
    assert x.grad is None


def test_one_block_inside_another_names_the_line_once_and_profile_goes_outside():
    with minigrad.debug(), minigrad.debug(check_finite=True):
        y = F.exp(Tensor([1.0], True))
        assert y.node.name.count(" at ") == 1
        with pytest.raises(ArgumentError, match=r"debug\(\) is at work: .*with profile\(\), debug\(\)"):
            with minigrad.profile():
                pass
    assert tracing.recorder is None
    with minigrad.profile() as profile, minigrad.debug():
        F.exp(y)
    assert [event.name.split()[0] for event in profile.events] == ["exp"]


def test_outside_nothing_is_different():
    assert tracing.recorder is None
    with minigrad.debug():
        y = Tensor([1.0], True) * 2
    assert tracing.recorder is None and "test_debugging.py" in y.node.name
    assert (Tensor([1.0], True) * 2).node.name == "multiply"
    with pytest.raises(minigrad.ArgumentError, match="debug: check_finite must be True or False"):
        with minigrad.debug(check_finite=1):
            pass


def test_with_the_profiler_chunks_and_two_devices():
    w = Tensor(np.ones((3, 3)), True)

    def work(device, x):
        return F.tanh(x.to(device) @ w.to(device))

    with minigrad.profile() as prof, minigrad.debug(check_finite=True):
        x = Tensor(np.ones((4, 3)))
        a, b = minigrad.on_devices(["cpu:0", "cpu:1"], work, ["cpu:0", "cpu:1"], [x, x])
        (minigrad.in_chunks(lambda x: x * 2, a, size=2) + b.to("cpu:0")).sum().backward()
    assert w.grad is not None
    assert any(event.name.startswith("tanh at test_debugging.py") for event in prof.events)
