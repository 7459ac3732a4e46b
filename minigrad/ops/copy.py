"""Copy to another device: how columns of a net that live on different devices exchange activations.

    y = x, on the other device
    dx = dy, back on the device of x

An ordinary op: the gradient of what was sent returns to where it came from, so that gradients always add up
on the device of the tensor that they belong to.

Source: Krizhevsky, Sutskever, Hinton 2012, section 3.2 (training on two GPUs).
"""

from __future__ import annotations

import numpy as np

from ..device import Device, DeviceLike
from ..device import device as device_named
from ..engine import Array, Function
from ..tensor import Tensor, apply, op
from ._checks import check_tensors


@op
def copy(x: Tensor, device: DeviceLike) -> Tensor:
    """x on `device`, values and memory order unchanged, any element type; x itself if it is there already."""
    check_tensors("copy", x=x)
    where = device_named(device)
    return x if x.device is where else apply(Copy(x.device), x, on=where)


class Copy(Function):
    def __init__(self, source: Device):
        self.source = source

    # ---- the textbook's face: y is an array of NumPy's, wherever x is

    def forward(self, x: Array) -> Array:
        return np.array(self.source.to_host(x))

    def backward(self, dy: Array) -> Array:
        return self.source.from_host(dy)

    # ---- fast, on the CPU, and on a card: the device that receives knows the shortest way

    def forward_cpu(self, x: Array) -> Array:
        return self.device.received(x, self.source)

    def backward_cpu(self, dy: Array) -> Array:
        if self.source.on_host and self.device.on_host:
            return dy  # lanes of one processor share their memory, and nobody writes into a gradient
        return self.source.received(dy, self.device)

    forward_gpu, backward_gpu = forward_cpu, backward_cpu
