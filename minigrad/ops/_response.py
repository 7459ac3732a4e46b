"""What the two response normalisations share: their settings, and the power of the scale.

    y = x * s^-beta     with s = k + alpha * (sum of x^2 over a window)

They differ in the window alone: neighbouring channels (lrn) or neighbouring pixels (lrn_within_map).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine import Array
from ..errors import ArgumentError
from ._checks import integer


def inverse_power(s: Array, beta: float) -> Array:
    """s^-beta as a fresh array.  The paper's beta = 3/4 is two square roots: much faster than a power."""
    if beta != 0.75:
        return s ** s.dtype.type(-beta)
    p = np.sqrt(s)
    p *= np.sqrt(p)
    return np.reciprocal(p, out=p)


def check_response(op: str, n: Any, k: Any, alpha: Any, beta: Any) -> tuple[int, float, float, float]:
    """The settings as numbers; ArgumentError where they are out of range."""
    n = integer(op, "n", n, 1)
    if n % 2 == 0:
        raise ArgumentError(f"{op}: n must be odd, got {n}: even windows have no middle, use {n + 1}")
    named = {"k": k, "alpha": alpha, "beta": beta}
    for name, value in named.items():
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ArgumentError(f"{op}: {name} must be a finite number, got {value!r}")
    if k <= 0:
        raise ArgumentError(f"{op}: k must be > 0, got {k}: where all x are 0, s would be 0 and y undefined")
    if alpha < 0:
        raise ArgumentError(f"{op}: alpha must be >= 0, got {alpha}: s would turn negative for large x")
    return n, float(k), float(alpha), float(beta)
