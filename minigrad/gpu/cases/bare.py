"""Kernels that belong to no op, launched by themselves: what a card can do at most."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import gpu
from ...device import Device
from ...tensor import Tensor

PIECE = 16  # bytes that a thread of copy_pieces moves at a time
CHAINS = 8  # of multiply_add in kernels/peaks.cu


def copied_pieces(x: Tensor) -> Tensor:
    """x, copied by copy_pieces."""
    return x if x.device.on_host else tensor_of(x.device, copy_pieces(x.device, x.data, x.device.empty_like(x.data)))


def copy_pieces(device: Device, x: Any, y: Any) -> Any:
    """y = x for contiguous arrays of a whole number of pieces, as fast as a kernel can; returns y."""
    n = x.nbytes // PIECE
    device.launch("peaks", "copy_pieces", gpu.blocks(n), gpu.THREADS, y, x, n, REAL=x.dtype)
    return y


def multiplied_and_added(x: Tensor) -> Tensor:
    """What multiply_add makes with a = 0.5, b = 0.25 in 5 rounds, in every element of an array of x's shape."""
    if not x.device.on_host:
        blocks = x.size // gpu.THREADS
        return tensor_of(x.device, multiply_add(x.device, blocks, 5, x.dtype).reshape(x.shape))
    values = np.arange(CHAINS).astype(x.dtype)
    for _ in range(5):
        values = values * x.dtype.type(0.5) + x.dtype.type(0.25)
    return Tensor(np.full(x.shape, values.sum()), dtype=x.dtype, device=x.device)


def multiply_add(device: Device, blocks: int, rounds: int, dtype: Any) -> Any:
    """An array with one number for each thread, which has done 2 * CHAINS * rounds operations for it."""
    y = device.empty((blocks * gpu.THREADS,), dtype)
    device.launch("peaks", "multiply_add", blocks, gpu.THREADS, y, 0.5, 0.25, rounds, REAL=y.dtype)
    return y


def tensor_of(device: Device, array: Any) -> Tensor:
    """A tensor of an array that a kernel has filled."""
    tensor = Tensor(np.zeros((), array.dtype), device=device)
    tensor.data = array
    return tensor
