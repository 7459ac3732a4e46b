"""What every op on a graphics card goes through, real (cuda:N) or emulated (cudasim:N): memory, views, and `launch`.

Arrays there are C-contiguous unless an op made a view of one (transpose, slices) or they came so from the host.  A room
makes its inputs `contiguous`, asks for memory for its outputs, and launches its kernel:

    x = gpu.contiguous(self.device, x)
    y = gpu.empty_like(self.device, x)
    gpu.launch(self.device, "relu", "relu_forward", gpu.blocks(x.size), THREADS, x, y, x.size, REAL=x.dtype)

`launch` knows from the kernel's own source what its parameters are, and is the only place that passes anything to a
kernel.  CuPy would take whatever it gets: a Python float as a double, an int as 64 bits, a transposed array as if it
were contiguous, each without a word.
"""

from .arrays import (
    add,
    arithmetic,
    assign,
    contiguous,
    converted,
    copied,
    dense,
    empty,
    empty_in_order_of,
    empty_like,
    fill,
    full,
    is_array,
    may_share_memory,
    memory_order,
    reshaped,
    upload,
    zeros,
)
from .indexing import plain_index, put, rows_of, sum_rows, take, take_rows, update, view
from .launching import MOST_BLOCKS, THREADS, Array, Strided, blocks, c_type, launch
from .layout import MAX_AXES, Shape, layout_of, strides_of, walks

__all__ = [
    "MAX_AXES",
    "MOST_BLOCKS",
    "THREADS",
    "Array",
    "Shape",
    "Strided",
    "add",
    "arithmetic",
    "assign",
    "blocks",
    "c_type",
    "contiguous",
    "converted",
    "copied",
    "dense",
    "empty",
    "empty_in_order_of",
    "empty_like",
    "fill",
    "full",
    "is_array",
    "launch",
    "layout_of",
    "may_share_memory",
    "memory_order",
    "plain_index",
    "put",
    "reshaped",
    "rows_of",
    "strides_of",
    "sum_rows",
    "take",
    "take_rows",
    "update",
    "upload",
    "view",
    "walks",
    "zeros",
]
