"""Kernels that belong to no op, launched by themselves: what a card can do at most."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import gpu
from ...device import Device
from ...tensor import Tensor
from ..layout import PACK
from ..sources import constants


def copied_packs(x: Tensor) -> Tensor:
    """x, copied by copy_packs."""
    return x if x.device.on_host else tensor_of(x.device, copy_packs(x.device, x.data, x.device.empty_like(x.data)))


def copy_packs(device: Device, x: Any, y: Any) -> Any:
    """y = x for contiguous arrays of a whole number of packs, as fast as a kernel can; returns y."""
    packs = x.nbytes // PACK
    device.launch("peaks", "copy_packs", gpu.blocks(packs), gpu.THREADS, y, x, packs, REAL=x.dtype)
    return y


def multiplied_and_added(x: Tensor) -> Tensor:
    """What multiply_add makes with a = 0.5, b = 0.25 in 5 rounds, in every element of an array of x's shape."""
    if not x.device.on_host:
        blocks = x.size // gpu.THREADS
        return tensor_of(x.device, multiply_add(x.device, blocks, 5, x.dtype).reshape(x.shape))
    (chains,) = constants("peaks", "CHAINS")
    values = np.arange(chains).astype(x.dtype)
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
