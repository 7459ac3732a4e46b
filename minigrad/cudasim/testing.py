"""For tests, such as those of a course: a kernel must be without fault, in all modes and orders, and right.

def test_saxpy():
    assert_kernel("saxpy.cu", "saxpy", 4, 256, 1000, np.float32(2), x, y, expect={"y": 2 * x + y})
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .comparing import difference
from .running import Result, run
from .settings import MODES


def assert_kernel(
    source: str | os.PathLike[str],
    kernel: str,
    grid: Any,
    block: Any,
    *arguments: Any,
    expect: Mapping[str, Any],
    tolerance: float | None = None,
    **settings: Any,
) -> Result:
    """Run a kernel in check mode and in fast mode, each in all orders of the threads, and compare what it leaves.

    expect: the right values of outputs, by the names of their parameters.  tolerance: how far an element may be off, as
    a share of its value (None: by its dtype).  The rest is as for `run`; the result is that of check mode.
    KernelError for a fault, AssertionError for a wrong result: it names the first wrong element, and both values.
    """
    results = [run(source, kernel, grid, block, *arguments, mode=mode, **settings) for mode in reversed(MODES)]
    for result in results:
        found = [difference(name, result[name], values, tolerance) for name, values in expect.items()]
        wrong = [str(one) for one in found if one]
        if wrong:
            raise AssertionError("\n".join([f"{result.title()}: wrong results", *wrong]))
    return results[0]
