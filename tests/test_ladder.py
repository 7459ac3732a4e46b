"""kernels/ladder/: every step computes what the first one does, and the first the formula."""

import sys
from pathlib import Path

import numpy as np
import pytest
from reference import conv2d_reference

import minigrad
from minigrad import Tensor
from minigrad.cudasim.settings import options
from minigrad.errors import DeviceError
from minigrad.kernel_cases.bare import LADDER, ladder

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from kernel_ladder import TOP, traffic  # noqa: E402

FIRST, *NEXT = LADDER

# (x, weight, stride, padding).  "tiles": more than one tile of every step, 64 channels, 64 pixels and sums by 16, with
# a remainder in each.
CASES = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0),
    "plain": ((2, 3, 6, 5), (4, 3, 3, 2), 1, 0),
    "stride": ((2, 2, 9, 8), (3, 2, 3, 2), 3, 0),
    "padding": ((1, 2, 5, 4), (3, 2, 3, 3), 1, 2),
    "padding beyond the kernel": ((1, 1, 3, 2), (2, 1, 2, 2), 2, 3),
    "tiles": ((3, 5, 8, 9), (70, 5, 3, 3), 2, 2),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture
def card(device):
    """The device under test, or the emulator where that is the CPU."""
    name = device if not minigrad.device(device).on_host else "cudasim:0"
    try:
        minigrad.device(name).runtime  # noqa: B018
    except DeviceError as error:
        pytest.skip(str(error))
    return name


def arrays(case, dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in case[:2]]


@cases
def test_the_first_step_is_the_formula(case, card):
    x, w = arrays(case, "float64")
    y = ladder(FIRST, Tensor(x, device=card), Tensor(w, device=card), *case[2:]).numpy()
    np.testing.assert_allclose(y, conv2d_reference(x, w, None, *case[2:]), atol=1e-12)


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", NEXT)
def test_every_step_is_the_first(step, case, dtype, card):
    x, w = (Tensor(a, device=card) for a in arrays(case, dtype))
    expected = ladder(FIRST, x, w, *case[2:]).numpy()
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(ladder(step, x, w, *case[2:]).numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("step", LADDER)
def test_no_fault_in_any_order(step, card):
    if not card.startswith("cudasim"):
        pytest.skip("the emulator looks for faults")
    case = CASES["tiles"]
    for order in ("forward", "reversed", "random"):
        with options(mode="check", order=order):
            x, w = arrays(case, "float32")
            y = ladder(step, Tensor(x, device=card), Tensor(w, device=card), *case[2:]).numpy()
    np.testing.assert_allclose(y, conv2d_reference(x, w, None, *case[2:]), atol=1e-4)


def test_each_step_reads_less(card):
    """What the ladder is there to show: loads by threads for each multiplication, and no bank conflicts."""
    if not card.startswith("cudasim"):
        pytest.skip("the emulator counts")
    rng = np.random.default_rng(0)
    with options(mode="check"):
        x = Tensor(rng.standard_normal((1, 4, 16, 16), dtype="f"), device=card)
        w = Tensor(rng.standard_normal((64, 4, 3, 3), dtype="f"), device=card)
    products, loads = 64 * 18 * 18 * 4 * 9, {}
    for step in (*LADDER, TOP):
        _, rows = traffic(step, x, w)
        for row in rows:
            if row.memory == "shared" and row.size <= 16:  # larger ones, of structs, are no one access on a card
                assert row.units == row.ideal, row
        loads[step] = [
            sum(row.accesses for row in rows if row.memory == memory and row.operation == "load") / products
            for memory in ("global", "shared")
        ]
    naive, tiled, blocked, top = loads.values()
    assert naive[0] > 8 * tiled[0] > 16 * blocked[0]
    assert tiled[1] > 3 * blocked[1] > 3 * top[1] > 0
