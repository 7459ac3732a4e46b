"""What every op on a graphics card goes through, real (cuda:N) or emulated (cudasim:N): memory, views, and `launch`.

Arrays there are C-contiguous unless an op made a view of one (transpose, slices) or they came so from the host.  A room
makes its inputs `contiguous`, asks its device for memory for its outputs, and launches its kernel:

    x = self.device.contiguous(x)
    y = self.device.empty_like(x)
    self.device.launch("relu", "relu_forward", gpu.pack_blocks(x), THREADS, x, y, x.size, REAL=x.dtype)

`launch` knows from the kernel's own source what its parameters are, and is the only place that passes anything to a
kernel.  CuPy would take whatever it gets: a Python float as a double, an int as 64 bits, a transposed array as if it
were contiguous, each without a word.
"""

from .arrays import memory_order
from .card import Card
from .launching import MOST_BLOCKS, THREADS, Array, Strided, blocks, c_type
from .layout import MAX_AXES, Shape, layout_of, pack_blocks, strides_of, walks

__all__ = [
    "MAX_AXES",
    "MOST_BLOCKS",
    "THREADS",
    "Array",
    "Card",
    "Shape",
    "Strided",
    "blocks",
    "c_type",
    "layout_of",
    "memory_order",
    "pack_blocks",
    "strides_of",
    "walks",
]
