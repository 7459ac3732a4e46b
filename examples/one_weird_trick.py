"""One weird trick: convolutions data parallel, fully connected layers split by neurons, over several processes.

    its images ─ convolutions ─> all images ─ its neurons of fc6 ─> all neurons ─ its of fc7 ─> all ─ its of fc8 ─> all

An arrow is a gather over the processes.  The convolutions hold 4 % of AlexNet's weights and do 90 % of its work: each
process does it for its own images, and the gradients are summed.  The fully connected layers hold the rest: their
weights and gradients stay where they are, and the activations travel, which are fewer.  Bytes that each of k processes
sends per step, of N images in all, f numbers an image between the two parts, h6 and h7 hidden neurons, C classes, P
weights of convolutions, s bytes a number:

    (k-1)/k s (N (2 f + 2 h6 + 2 h7 + C) + 2 P)          plain data parallel: (k-1)/k s 2 (P and all other weights)

The numbers are those of one process, to rounding.  Dropout acts on gathered activations, with the batch's own mask.

Source: Krizhevsky 2014 (arXiv 1404.5997), "One weird trick for parallelizing convolutional neural networks", its
scheme (a).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from alexnet import AlexNet, Column

import minigrad.functional as F
from minigrad import Tensor, get_rng_state, nn, set_rng_state
from minigrad.distributed import Comm, DataParallel
from minigrad.engine import Function
from minigrad.tensor import apply

CONNECTED = ("fc6", "fc7", "fc8")


class OneWeirdTrick:
    """An AlexNet on one device, trained by all processes of `comm`; what DataParallel is for the plain way.

    Called with this process's images of a batch it returns the logits of all images, on every process alike:
    `labels` puts the labels beside them, and `backward` takes the loss of all.  The optimiser gets `parameters()`.
    The model is taken apart: its fully connected layers are gone afterwards.  `state_dict` has all weights.
    """

    def __init__(self, model: AlexNet, comm: Comm):
        if len(model.devices) != 1:
            raise ValueError(f"OneWeirdTrick: the net must be on one device, it is on {model.devices}")
        self.comm, self.column, self.gathered_bytes = comm, model.columns[0], 0
        state, first = comm.broadcast(model.state_dict()), self.column.conv1.weight
        self.connected, generators = nn.Sequential(), get_rng_state()
        for name in CONNECTED:
            weight, bias = (
                np.array_split(state[f"{name}.{kind}"], comm.size)[comm.rank] for kind in ("weight", "bias")
            )
            layer = nn.Linear(weight.shape[1], weight.shape[0], device=first.device, dtype=first.dtype)
            layer.load_state_dict({"weight": weight, "bias": bias})
            setattr(self.connected, name, layer)
            delattr(self.column, name)
        set_rng_state(generators)  # new layers have drawn weights that nobody uses
        self.features = DataParallel(Features(self.column), comm)

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.features.model.parameters()
        yield from self.connected.parameters()

    def __call__(self, images: Tensor) -> Tensor:
        x = self.column.dropout("pool5", self.gather(self.features(images), axis=0))
        for name in CONNECTED[:-1]:
            x = self.gather(F.relu(getattr(self.connected, name)(x)), axis=1)
            x = self.column.dropout(name, x)
        return self.gather(getattr(self.connected, CONNECTED[-1])(x), axis=1, alike=True)

    def labels(self, own: np.ndarray) -> np.ndarray:
        """The labels of all images, in the order of the logits."""
        return np.concatenate(self.comm.gather(own))

    def backward(self, loss: Tensor) -> None:
        self.features.backward(loss, "sum")  # each has the gradient of its own images: of the convolutions, the sum

    def gather(self, x: Tensor, axis: int, alike: bool = False) -> Tensor:
        return apply(Gather(self, axis, alike), x) if self.comm.size > 1 else x

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights, by the names of AlexNet's; every process calls it."""
        parts = self.comm.gather(self.connected.state_dict())
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**self.column.state_dict(), **whole}

    @property
    def bytes_sent(self) -> int:
        """What this process has sent of activations, their gradients, and the gradients of convolutions."""
        return self.gathered_bytes + self.comm.bytes_sent


class Features(nn.Module):
    """The convolutions of a column that holds both: images (N, 3, H, W) to (N, f)."""

    def __init__(self, column: Column):
        self.column = column

    def forward(self, images: Tensor) -> Tensor:
        x = self.column.conv3_to_5(self.column.conv1_to_2(images))
        return x.reshape(len(x), math.prod(x.shape[1:]))


class Gather(Function):
    """y = the x of all processes beside each other, by rank, along an axis: images, or neurons.

    Each process uses all of y, for its own neurons: dx is the sum over the processes of their dy at its place.  alike:
    all use y for the same, and have the same dy already.
    """

    def __init__(self, trick: OneWeirdTrick, axis: int, alike: bool):
        self.trick, self.axis, self.alike = trick, axis, alike

    def forward(self, x: np.ndarray) -> np.ndarray:
        parts = self.trick.comm.gather(x)
        self.trick.gathered_bytes += (len(parts) - 1) * x.nbytes
        self.ends = tuple(np.cumsum([part.shape[self.axis] for part in parts]).tolist())
        return np.concatenate(parts, self.axis)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        rank, pieces = self.trick.comm.rank, np.split(dy, self.ends[:-1], self.axis)
        if self.alike:
            return pieces[rank].copy()
        self.trick.gathered_bytes += dy.nbytes - pieces[rank].nbytes
        dx, *others = self.trick.comm.exchange(pieces)
        for part in others:
            dx = dx + part
        return dx
