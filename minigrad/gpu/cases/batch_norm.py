"""Batch normalisation: statistics of maps, of small maps and of rows, and given ones."""

from __future__ import annotations

from ... import functional as F
from ...tensor import Tensor
from .case import Case

MAPS, FEATURES = (128, 96, 55, 55), (128, 4096)


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x + 4.0, None, None, weight, bias, training=True)


def _batch_norm_given(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean, var = bias.detach() * 0.5, weight.detach() ** 2.0
    return F.batch_norm(x, mean, var, weight, bias)


CASES = [
    Case(
        f"batch_norm, {name}",
        ("batch_norm",),
        function,
        {"x": small, "weight": (small[1],), "bias": (small[1],)},
        {"x": real, "weight": (real[1],), "bias": (real[1],)},
        "x x y",
        "dy x dy x dx" if function is _batch_norm else "dy x dy dx",
    )
    for name, function, small, real in [
        ("maps", _batch_norm, (5, 3, 61, 59), MAPS),
        ("small maps", _batch_norm, (37, 35, 3, 5), (128, 1024, 4, 4)),
        ("rows", _batch_norm, (300, 67), FEATURES),
        ("given, maps", _batch_norm_given, (3, 5, 7, 9), MAPS),
        ("given, rows", _batch_norm_given, (37, 68), FEATURES),
    ]
]
