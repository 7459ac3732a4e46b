"""A model that is trained by several processes: parts of batches, masks of dropout, and what is refused."""

from __future__ import annotations

import zlib
from typing import Any

from ..backward import run_backward
from ..base.arguments import integer, number
from ..base.grad_mode import is_grad_enabled
from ..base.interrupts import hold
from ..base.random import get_rng_state, part_of_batch, set_rng_state
from ..device import Device
from ..errors import ArgumentError, GraphError, ShapeError, printable
from ..tensor import Tensor
from .buckets import Sums
from .comm import Comm
from .nccl import Nccl, connect


class DataParallel:
    """A model that is trained by several processes: call it as the model, and `backward(loss)` instead of the loss's.

    At the start all take the weights and the generators of rank 0.  Every process calls it with its images of the same
    batch, in the order of the ranks; none is a number of images, too.  Dropout gives an image the mask that it would
    have in the whole batch.  Inside no_grad() each may do what it likes.

    model: an nn.Module that treats every image by itself; batch normalisation is an ArgumentError.
    bucket_mb: MB of gradients that travel together, or more, as no parameter is cut.
    overlap: False lets them travel when backward is through, to measure what it gains.
    check_every: after so many batches it is made sure that all have the same weights, bit for bit (ArgumentError).

    Every parameter that requires a gradient must take part in the loss (GraphError).
    """

    def __init__(self, model: Any, comm: Comm, bucket_mb: float = 4.0, overlap: bool = True, check_every: int = 100):
        self.model, self.comm, self.overlap = model, comm, overlap
        self.bucket_bytes = int(number("DataParallel", "bucket_mb", bucket_mb, above=0) * 1e6)
        self.check_every = integer("DataParallel", "check_every", check_every, 1)
        self.batches, self.images, self.all_images = 0, 0, 0  # the last two: of the last batch, here and everywhere
        self.order: list[Any] | None = None  # in which the gradients come
        self.cards: dict[Device, Nccl] = {}  # whose gradients travel without the host
        if comm.size > 1:
            self._refuse_batch_norm()
            comm.agree("the model", {name: (p.shape, str(p.dtype)) for name, p in model.named_parameters()})
            model.load_state_dict(comm.broadcast(model.state_dict()))
            set_rng_state(comm.broadcast(get_rng_state()))
            self.check()
            self.cards = connect(comm, list(dict.fromkeys(p.device for p in model.parameters() if p.requires_grad)))

    def __call__(self, images: Any, *rest: Any) -> Any:
        if self.comm.size == 1 or not is_grad_enabled():
            self.images = self.all_images = len(images)
            return self.model(images, *rest)
        if self.batches % self.check_every == 0:
            self.check()
        self.batches += 1
        counts = self.comm.gather(len(images))
        self.images, self.all_images = len(images), sum(counts)
        with part_of_batch(sum(counts[: self.comm.rank]), len(images)):
            return self.model(images, *rest)

    def _refuse_batch_norm(self) -> None:
        for name, module in self.model.named_modules():
            kinds = [kind.__name__ for kind in type(module).__mro__]
            if any("BatchNorm" in kind for kind in kinds) or hasattr(module, "running_mean"):
                raise ArgumentError(
                    f"DataParallel: {printable(name)} ({kinds[0]}) looks at all images of a batch, and each process "
                    "has a part of them only: train this net in one process, or leave that layer out"
                )

    def check(self) -> None:
        """ArgumentError where the weights of two processes differ; it names the first parameter that does."""
        sums = {name: zlib.crc32(p.numpy().tobytes()) for name, p in self.model.named_parameters()}
        self.comm.agree("the weights (their CRC-32)", sums)

    def backward(self, loss: Tensor, reduction: str = "mean") -> None:
        """Add to every parameter's `.grad` the gradient of the loss over all processes' images; the same bits on all.

        reduction: what `loss`, one number, is of this process's images, and the whole of all: their "mean", or "sum".
        """
        if reduction not in ("mean", "sum"):
            raise ArgumentError(f"DataParallel.backward: reduction must be mean or sum, got {reduction!r}")
        if self.comm.size == 1:
            loss.backward()
            return
        if reduction == "mean":
            loss = loss * (self.images / max(self.all_images, 1))
        if loss.size != 1 or loss.node is None:
            raise ShapeError(f"DataParallel.backward: the loss must be one number that the model made, got {loss!r}")
        parameters = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if self.order is None or {id(p) for p in self.order} != {id(p) for _, p in parameters}:
            first, order = True, [p for _, p in reversed(parameters)]
        else:
            first, order = False, self.order
        sums = Sums(self.comm, order, self.bucket_bytes, self.cards)
        with hold() as held:  # parameters get their gradients all or none
            with sums.travelling(self.overlap):
                run_backward(loss.node, loss.device.ones(loss.shape, loss.dtype), sums.deliver)
                missing = [name for name, p in parameters if p not in sums.came]
                if missing and not held.stopping:
                    raise GraphError(
                        f"DataParallel.backward: {missing[0]} takes no part in the loss, as {len(missing)} parameters "
                        "do: leave it as it is with .requires_grad_(False)"
                    )
                sums.complete = not held.stopping
            if sums.complete:
                for leaf, array in sums.gradients():
                    leaf.accumulate_grad(array)
        if first:  # rank 0's order for all: with several devices it depends on which was faster
            place = {id(p): i for i, (_, p) in enumerate(parameters)}
            order = self.comm.broadcast([place[id(p)] for p in sums.came if id(p) in place])
            self.order = [parameters[i][1] for i in order]
