"""Kernels that belong to no op, launched by themselves: the ladder of convolutions, and what a card can do at most."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from .. import gpu
from ..device import Device
from ..tensor import Tensor

LADDER: dict[str, dict[str, Any]] = {  # kernel files: entry point, block, and output pixels and channels of a block
    "conv2d_1_naive": {"kernel": "conv2d_naive", "block": 256, "tile": None},
    "conv2d_2_tiled": {"kernel": "conv2d_tiled", "block": (16, 16), "tile": 16},
    "conv2d_3_register_blocked": {"kernel": "conv2d_register_blocked", "block": (16, 16), "tile": 64},
}
PIECE = 16  # bytes that a thread of copy_pieces moves at a time
CHAINS = 8  # of multiply_add in kernels/peaks.cu


def ladder(step: str, x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
    """conv2d by a kernel of kernels/ladder/; on the CPU by the op."""
    if x.device.on_host:
        return F.conv2d(x, w, stride=stride, padding=padding)
    kernel, block, tile = LADDER[step].values()
    (n, c, height, width), (o, _, kh, kw) = x.shape, w.shape
    oh, ow = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    y = x.device.empty((n, o, oh, ow), x.dtype)
    grid = gpu.blocks(y.size) if tile is None else (gpu.blocks(n * oh * ow, tile), gpu.blocks(o, tile))
    sizes = n, c, height, width, o, oh, ow, kh, kw, stride, padding
    x.device.launch(f"ladder/{step}", kernel, grid, block, x.data, w.data, y, *sizes, REAL=x.dtype)
    return _tensor(x.device, y)


def copied_pieces(x: Tensor) -> Tensor:
    """x, copied by copy_pieces."""
    return x if x.device.on_host else _tensor(x.device, copy_pieces(x.device, x.data, x.device.empty_like(x.data)))


def copy_pieces(device: Device, x: Any, y: Any) -> Any:
    """y = x for contiguous arrays of a whole number of pieces, as fast as it can be; returns y."""
    n = x.nbytes // PIECE
    device.launch("peaks", "copy_pieces", gpu.blocks(n), gpu.THREADS, y, x, n, REAL=x.dtype)
    return y


def multiplied_and_added(x: Tensor) -> Tensor:
    """What multiply_add makes with a = 0.5, b = 0.25 in 5 rounds, in every element of an array of x's shape."""
    if not x.device.on_host:
        blocks = x.size // gpu.THREADS
        return _tensor(x.device, multiply_add(x.device, blocks, 5, x.dtype).reshape(x.shape))
    values = np.arange(CHAINS).astype(x.dtype)
    for _ in range(5):
        values = values * x.dtype.type(0.5) + x.dtype.type(0.25)
    return Tensor(np.full(x.shape, values.sum()), dtype=x.dtype, device=x.device)


def multiply_add(device: Device, blocks: int, rounds: int, dtype: Any) -> Any:
    """An array of one number a thread; it has cost 2 * CHAINS * rounds operations each."""
    y = device.empty((blocks * gpu.THREADS,), dtype)
    device.launch("peaks", "multiply_add", blocks, gpu.THREADS, y, 0.5, 0.25, rounds, REAL=y.dtype)
    return y


def _tensor(device: Device, array: Any) -> Tensor:
    """A tensor of an array that a kernel has filled."""
    tensor = Tensor(np.zeros((), array.dtype), device=device)
    tensor.data = array
    return tensor
