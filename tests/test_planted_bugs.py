"""Every planted bug is found, in every order of the threads; the same kernels without the mistake are clean."""

import numpy as np
import pytest
from planted_bugs import BROKEN, BUGS, REPAIRED, kinds, run, seen_in_fast_mode

from minigrad.cudasim import compiler
from minigrad.cudasim.settings import ORDERS

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))
by_name = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)


def test_there_are_enough():
    assert len(BUGS) >= 50 and len({bug.kernel for bug in BUGS}) == len(BUGS)
    assert {bug.category for bug in BUGS} >= {"race", "bounds", "barrier", "warp", "initialise", "unwritten", "const"}
    assert all(bug.source(BROKEN) != bug.source(REPAIRED) for bug in BUGS)


@by_name
@pytest.mark.parametrize("order", ORDERS)
def test_check_mode_finds_it(bug, order):
    assert bug.kind in kinds(bug, BROKEN, "check", order)


@by_name
def test_without_the_mistake_nothing_is_found(bug):
    results = [np.asarray(run(bug, REPAIRED, mode, order)) for mode in ("fast", "check") for order in ORDERS]
    for result in results:
        assert not np.isnan(result).any()
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-6)


def test_fast_mode_shows_most():
    """What makes a wrong result, or stops the launch, is seen without checks: the rest is why there is check mode."""
    seen = [bug.name for bug in BUGS if seen_in_fast_mode(bug, "forward")]
    print(f"fast mode shows {len(seen)} of {len(BUGS)} planted bugs")
    assert 0.6 * len(BUGS) < len(seen) < len(BUGS)
