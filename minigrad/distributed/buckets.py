"""Gradients side by side in buckets of some MB, and their sums, which travel while backward is running.

A thread adds a bucket up over the processes as soon as its last gradient is complete, while backward goes on with the
layers before:

    all to all    piece r of everybody's bucket goes to process r, which adds the pieces in the order of their ranks
    all gather    everybody gets the sums of the others

So an element is added by one process, in one order: two runs give the same bits, and all processes have the same.  Each
sends 2 (k-1)/k of the bucket, k processes, which is the least that there is (Patarasuk and Yuan 2009, "Bandwidth
optimal all-reduce algorithms").  A bucket is in the host's memory, or on the card whose gradients it has (nccl.py).

Source: buckets that travel during backward as in PyTorch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..device import Array, Device
from ..processor import memory
from ..tools import tracing
from .comm import Comm
from .nccl import Nccl


class Bucket:
    """Gradients of one element type, for one way of adding up, and when they are complete."""

    def __init__(self, leaves: Sequence[Any], comm: Comm, card: Nccl | None):
        self.starts = dict(zip(leaves, np.cumsum([0] + [p.size for p in leaves]).tolist()))
        self.missing, self.full = len(leaves), threading.Event()
        self.way, self.card, dtype = card or comm, card, leaves[0].dtype
        count = sum(p.size for p in leaves)
        length = -(-count // comm.size) * comm.size
        self.flat = card.device.zeros((length,), dtype) if card else memory.empty((length,), dtype)
        if card is None:
            self.flat[count:] = 0  # nobody reads it, but what lay there could overflow in a sum

    def put(self, leaf: Any, gradient: Array) -> None:
        if self.card is None:
            self.part(leaf)[...] = leaf.device.to_host(gradient)
        else:
            leaf.device.assign(self.part(leaf), gradient)
        self.missing -= 1
        if self.missing == 0:
            self.full.set()

    def get(self, leaf: Any) -> Array:
        """The leaf's gradient, for it alone: where the host's memory is the device's, a part of the bucket itself."""
        part = self.part(leaf)
        if self.card is not None:
            return leaf.device.copied(part)
        return part if leaf.device.on_host else leaf.device.from_host(part)

    def part(self, leaf: Any) -> Array:
        start = self.starts[leaf]
        return self.flat[start : start + leaf.size].reshape(leaf.shape)


class Sums:
    """The sums of one backward, on their way.

    order: the leaves, as their gradients are expected.  cards: the devices whose gradients need not pass the host.
    """

    def __init__(self, comm: Comm, order: Sequence[Any], bucket_bytes: int, cards: Mapping[Device, Nccl]):
        self.complete = False
        self.came: dict[Any, None] = {}  # the leaves, in the order in which their gradients have come
        self.others: list[tuple[Any, Array]] = []  # what is no parameter of the model: an input, say
        self.buckets: list[Bucket] = []
        self.error: BaseException | None = None
        open_: dict[Any, list[Any]] = {}
        for leaf in order:
            card = cards.get(leaf.device)
            leaves = open_.setdefault((card, leaf.dtype), [])
            leaves.append(leaf)
            if sum(p.size * p.dtype.itemsize for p in leaves) >= bucket_bytes:
                self.buckets.append(Bucket(open_.pop((card, leaf.dtype)), comm, card))
        self.buckets += [Bucket(leaves, comm, card) for (card, _), leaves in open_.items()]
        self.bucket_of = {leaf: bucket for bucket in self.buckets for leaf in bucket.starts}

    def deliver(self, leaf: Any, gradient: Array) -> None:
        """Takes a leaf's gradient; called by one thread at a time."""
        bucket = self.bucket_of.get(leaf)
        if bucket is None:
            self.others.append((leaf, gradient))
        else:
            self.came[leaf] = None
            bucket.put(leaf, gradient)

    @contextmanager
    def travelling(self, overlap: bool) -> Iterator[None]:
        """Full buckets are added up while what is in here runs; at the end, when it has set `complete`, all are."""
        thread = threading.Thread(target=self._travel, name="minigrad-sums", daemon=True)
        if overlap:
            thread.start()
        try:
            yield
        finally:
            if not self.complete:  # what was begun ends with the processes
                for bucket in self.buckets:
                    bucket.full.set()
        if self.complete:
            if not overlap:
                thread.start()
            with tracing.waited("sums of gradients"):
                thread.join()
        if self.error is not None:
            raise self.error

    def _travel(self) -> None:
        try:
            for bucket in self.buckets:  # in this order everywhere: MPI knows a message by its turn
                bucket.full.wait()
                if bucket.missing:
                    return
                with tracing.region("sum over processes"):
                    bucket.way.add_up(bucket.flat)
        except BaseException as error:
            self.error = error

    def gradients(self) -> Iterator[tuple[Any, Array]]:
        """(leaf, its gradient)."""
        yield from self.others
        for bucket in self.buckets:
            for leaf in bucket.starts:
                yield leaf, bucket.get(leaf)
