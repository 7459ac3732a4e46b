"""From one element type to another: one rule for all devices.

    to a float              the nearest number; infinity beyond the largest
    to bool                 x != 0: NaN is True
    integers to integers    x modulo 2^bits: the last bits of x
    floats to integers      the same of x without its fraction; of NaN and infinities, 0

C++ leaves open what a float beyond an integer type becomes, and processors differ: x86 gives the smallest integer, ARM
and graphics cards the nearest, and NumPy whatever the processor does.  By this rule -1.0 is 255 as a uint8, as the
integer -1 is, on all of them; kernels/copy.cu has it for cards.  (A card takes a float32 below 2^-126 for 0, in this as
in all kernels.)
"""

from __future__ import annotations

from typing import Any

import numpy as np


def cast(x: np.ndarray, dtype: Any) -> np.ndarray:
    """A copy of x with another element type, its memory in the same order.  NumPy's warnings: overflow, NaN and inf."""
    to = np.dtype(dtype)
    return _whole(x).astype(to, copy=False) if x.dtype.kind == "f" and to.kind in "iu" else x.astype(to)


def _whole(x: np.ndarray) -> np.ndarray:
    """Floats without their fractions, modulo 2^64, as int64."""
    x = x.astype(np.float32) if x.dtype == np.float16 else x  # float16 does not reach 2^63
    half = x.dtype.type(2.0**63)
    if (np.abs(x) < half).all():
        return x.astype(np.int64)
    with np.errstate(invalid="ignore"):
        x = np.fmod(x, 2 * half)  # exact, as are the two additions; NaN for infinities
        x = x - 2 * half * (x >= half) + 2 * half * (x < -half)
    y = np.asarray(x.astype(np.int64))
    np.copyto(y, 0, where=np.isnan(x))
    return y
