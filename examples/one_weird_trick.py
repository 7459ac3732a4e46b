"""One weird trick: convolutions data parallel, fully connected layers split by neurons, over several processes.

    its images ─ convolutions ─> all images ─ its neurons of fc6 ─> all neurons ─ its of fc7 ─> all ─ its of fc8 ─> all

An arrow is a gather over the processes.  The convolutions hold 4 % of AlexNet's weights and do 90 % of its work: each
process does it for its own images, and the gradients are summed.  The fully connected layers hold the rest: their
weights and gradients stay where they are, and the activations travel, which are fewer.  Bytes that each of k processes
sends per step, of N images in all, f numbers an image between the two parts, h6 and h7 hidden neurons, C classes, P
weights of convolutions, s bytes a number:

    (k-1)/k s (N (2 f + 2 h6 + 2 h7 + C) + 2 P)          plain data parallel: (k-1)/k s 2 (P and all other weights)

The numbers are those of one process, to rounding.  Dropout acts on gathered activations, with the batch's own mask.
With the paper's two columns each is split so, on its device; between the devices of a process the halves pass as ever.

Source: Krizhevsky 2014 (arXiv 1404.5997), "One weird trick for parallelizing convolutional neural networks", its
scheme (a).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from alexnet import AlexNet, Column, beside, both, merged, same

import minigrad
import minigrad.functional as F
from minigrad import Tensor, get_rng_state, nn, set_rng_state
from minigrad.distributed import Comm, DataParallel
from minigrad.engine import Function
from minigrad.tensor import apply

CONNECTED = ("fc6", "fc7", "fc8")


class OneWeirdTrick:
    """An AlexNet, on one device or in two columns, trained by all processes of `comm`; what DataParallel is for the
    plain way.

    Called with this process's images of a batch it returns the logits of all images, on every process alike:
    `labels` puts the labels beside them, and `backward` takes the loss of all.  The optimiser gets `parameters()`.
    The model is taken apart: its fully connected layers are gone afterwards.  `state_dict` has all weights.
    """

    def __init__(self, model: AlexNet, comm: Comm):
        self.comm, self.devices = comm, model.devices
        self.parts = [Part(column, device, comm) for column, device in zip(model.columns, model.devices)]
        self.features = DataParallel(Features(model), comm)

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.features.model.parameters()
        for part in self.parts:
            yield from part.layers.parameters()

    def __call__(self, images: Tensor) -> Tensor:
        halves = self.each(lambda part, half: part.gather(half, axis=0), self.features(images))
        halves = self.each(lambda part, _: part.hidden("fc6", part.dropout("pool5", part.read(halves))), halves)
        halves = self.each(lambda part, _: part.hidden("fc7", part.read(halves)), halves)
        first = self.parts[0]
        return first.gather(first.layers.fc8(first.read(halves)), axis=1, alike=True)

    def each(self, work: Callable[[Part, Tensor], Tensor], halves: list[Tensor]) -> list[Tensor]:
        """The work of each column, at the same time, each on its device."""
        return minigrad.on_devices(self.devices, work, self.parts, halves)

    def labels(self, own: np.ndarray) -> np.ndarray:
        """The labels of all images, in the order of the logits."""
        return np.concatenate(self.comm.gather(own))

    def backward(self, loss: Tensor) -> None:
        self.features.backward(loss, "sum")  # each has the gradient of its own images: of the convolutions, the sum

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights, by the names of AlexNet's; every process calls it."""
        return merged([part.state_dict() for part in self.parts])

    @property
    def bytes_sent(self) -> int:
        """What this process has sent of activations, their gradients, and the gradients of convolutions."""
        return self.comm.bytes_sent + sum(part.comm.bytes_sent for part in self.parts)


class Features(nn.Module):
    """The convolutions: images (N, 3, H, W) to a half (N, f) on each device."""

    def __init__(self, model: AlexNet):
        self.net = model

    def forward(self, images: Tensor) -> list[Tensor]:
        halves = self.net.each(Column.conv1_to_2, reads=same(images))
        halves = self.net.each(Column.conv3_to_5, reads=both(halves))
        return [x.reshape(len(x), math.prod(x.shape[1:])) for x in halves]


class Part:
    """This process's neurons of one column's fully connected layers.

    comm: for the gathers of this column alone, which its device's own thread makes.
    """

    def __init__(self, column: Column, device: str, comm: Comm):
        self.column, self.device, self.comm = column, device, comm.beside()
        state, generators, self.layers = comm.broadcast(column.state_dict()), get_rng_state(), nn.Sequential()
        for name in CONNECTED:
            if hasattr(column, name):  # fc8 is on the first device
                own = {kind: own_neurons(state[f"{name}.{kind}"], comm) for kind in ("weight", "bias")}
                outputs, inputs = own["weight"].shape
                layer = nn.Linear(inputs, outputs, device=device, dtype=own["weight"].dtype)
                layer.load_state_dict(own)
                setattr(self.layers, name, layer)
                delattr(column, name)
        set_rng_state(generators)  # new layers have drawn weights that nobody uses

    def read(self, halves: list[Tensor]) -> Tensor:
        """Both columns' halves, on this one's device."""
        return beside(both(halves)(self.device))

    def hidden(self, name: str, x: Tensor) -> Tensor:
        """All neurons of this column's half of a layer, of all images."""
        return self.dropout(name, self.gather(F.relu(getattr(self.layers, name)(x)), axis=1))

    def dropout(self, name: str, x: Tensor) -> Tensor:
        return self.column.dropout(name, x)

    def gather(self, x: Tensor, axis: int, alike: bool = False) -> Tensor:
        return apply(Gather(self.comm, axis, alike), x) if self.comm.size > 1 else x

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights of the column."""
        parts = self.comm.gather(self.layers.state_dict())
        return {**self.column.state_dict(), **{name: np.concatenate([p[name] for p in parts]) for name in parts[0]}}


def own_neurons(whole: np.ndarray, comm: Comm) -> np.ndarray:
    """This process's neurons."""
    return np.array_split(whole, comm.size)[comm.rank]


class Gather(Function):
    """y = the x of all processes beside each other, by rank, along an axis: images, or neurons.

    Each process uses all of y, for its own neurons: dx is the sum over the processes of their dy at its place.  alike:
    all use y for the same, and have the same dy already.
    """

    def __init__(self, comm: Comm, axis: int, alike: bool):
        self.comm, self.axis, self.alike = comm, axis, alike

    def forward(self, x: np.ndarray) -> np.ndarray:
        parts = self.comm.gather(x)
        self.comm.bytes_sent += (len(parts) - 1) * x.nbytes
        self.ends = tuple(np.cumsum([part.shape[self.axis] for part in parts]).tolist())
        return np.concatenate(parts, self.axis)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        rank, pieces = self.comm.rank, np.split(dy, self.ends[:-1], self.axis)
        if self.alike:
            return pieces[rank].copy()
        self.comm.bytes_sent += dy.nbytes - pieces[rank].nbytes
        dx, *others = self.comm.exchange(pieces)
        for part in others:
            dx = dx + part
        return dx
