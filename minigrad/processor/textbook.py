"""`textbook:N`, the processor once more: every op runs its first face, the formula in plain NumPy.

For reading, for stepping through a net with a debugger, and as the measure of the other faces.  Nothing here is shared
out to threads (on_devices runs textbook:0 and textbook:1 one after the other, in the calling thread), cut in tiles, or
written into memory from the pool (memory.py).  Backward is `backward_in_ten_lines` of engine.py where the loss is here,
also if parts of its graph are on other devices.  The price of its brevity: Ctrl-C in its last moment may leave some
leaves with a gradient and others without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..device import Array
from .cpu import CPU


class Textbook(CPU, kind="textbook"):
    shares_cores, plain = False, True

    def forward(self, function: Any, *arrays: Array) -> Array:
        return np.asarray(function.forward(*arrays))  # NumPy turns 0-d results into scalars

    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        grads = node.backward(dy)
        return grads if isinstance(grads, tuple) else (grads,)

    def added(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b)

    def add_into(self, total: Array, part: Array) -> None:
        total += part
