"""`textbook:N`, the processor once more: every op runs its first face, the formula in plain NumPy.

For reading, for stepping through a net with a debugger, and as the measure of the other faces: nothing here is shared
out to threads, cut in tiles or written into memory that is used again.  Backward is `backward_in_ten_lines` of
engine.py, in the calling thread, for graphs that go on on other devices too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .cpu import CPU
from .device import Array
from .parallel import go_on


class Textbook(CPU, kind="textbook"):
    shares_cores, plain = False, True

    def forward(self, function: Any, *arrays: Array) -> Array:
        return function.forward(*arrays)

    def backward(self, node: Any, dy: Array) -> Sequence[Array | None]:
        grads = node.backward(dy)
        return grads if isinstance(grads, tuple) else (grads,)

    def begin(self) -> None:
        go_on()

    def added(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b)  # NumPy turns 0-d results into scalars

    def add_into(self, total: Array, part: Array) -> None:
        total += part
