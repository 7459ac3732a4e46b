"""Batches of any dataset, prepared by threads while the network computes.

Reproducible by construction: the generator that augments an item is seeded from (seed, epoch, index) and the
shuffle from (seed, epoch), so a batch depends on its number alone, not on which thread made it or when.
Threads are enough, with no processes, because Pillow and NumPy release the interpreter lock while they work: two
processes that write into shared memory load 0.8 to 1.4 times as fast as two threads, and no step is waiting for either
(benchmarks/loading.py).

datasets.py has the data, sampling.py the order, batches.py makes one batch; here is who makes it, and when.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.base.arguments import integer
from minigrad.base.spellings import spelled
from minigrad.errors import ArgumentError, CheckpointError, DataError

from .augment import CenterView
from .batches import Draws, Made, make_images, make_items, without_images
from .datasets import CachedImages, Dataset, ImageArray, checked_indices, holds_images
from .prepare import ImageSource, Report
from .sampling import RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler, occurrences
from .threads import Threads


class Loader:
    """Iterates over the batches of an epoch.

    Of images (the dataset has a method `image`) they are Batch: images, labels, indices.  Of anything else a batch is
    what `collate` makes of a list of items dataset[index].

    A file that cannot be read (UnreadableImageError) leaves its batch one item smaller, is noted in `report` and warned
    about once; the other batches stay as they are.  A batch with no readable item is passed over; an epoch without any
    is a DataError.  `for batch in loader` runs epoch `next_epoch` (first 0) and adds one to it; the method
    `epoch` takes the number from you.

    Args:
        dataset: ImageFolder, ImageArray, or anything with labels, len() and image(index); or ArrayDataset, a list, or
            anything with len() and dataset[index].  Threads ask it for several items at a time.
        batch_size: items per batch; the last batch has the rest, unless drop_last.
        transform: called with (item, generator), returns the item for the batch.
            Of images: called with uint8 (H, W, C), returns float32 (..., H, W, C): TrainViews, CenterView, TenViews,
            Compose of transforms.py, or your own.  None: the whole image as float32.  The channels are the last axis, 1
            to 4 of them, in what goes in and what comes out: channels-first is a DataError where it can be told.
        collate: called with the list of a batch's items, returns the batch.  None: default_collate.  Not for images.
        shuffle: a new order each epoch, from (seed, epoch).
        sampler: another order: WeightedRandomSampler, class_balanced(labels), or your own `sampler(seed, epoch)` with a
            length (see sampling.py).  An item drawn several times in an epoch gets other random numbers each time.
        workers: threads that prepare batches ahead; 0 prepares each in the caller when it is asked for.
        prefetch: batches in preparation or ready while the caller works on another; None: workers + 1.
            A batch of 128 at 224 x 224 takes 77 MB; as pictures of 256 x 256, 25 MB.
        pictures: the batches are PictureBatch: pictures as they were decoded, and what the transform has drawn for
            each, for a card that does the rest.  The transform is TrainViews, CenterView with a size, TenViews, or
            has a method `draw` as they do.
        send: called by the thread that made a batch, with its images (of other data, with the batch); what it returns
            takes their place.
            `lambda images: Tensor(images, device="cuda:0")` puts them on their way while the caller still computes.
        shard: (rank, size): of every batch this loader makes part number `rank` of `size` nearly equal ones, in order.
            Together, such loaders make the samples of one; each has as many batches.  The others' parts are not read;
            one without an image makes a batch of 0 images, for which it reads an image of another's.  Of other data
            than images no part may be empty.
        cache_bytes: bound for decoded images kept in memory (default 1 GiB; 0: none); of other data nothing is kept,
            nor of a dataset that says `in_memory`, as a packed store does.
        report: collects unreadable files; None makes a new one.

    Attributes: report; wait_seconds, the time this epoch's caller has spent waiting for batches; position,
    (epoch, batch) of the batch that comes next, which `epoch` takes to resume after an interruption.

    Raises ArgumentError for arguments out of range, DataError for an empty dataset.
    """

    @spelled
    def __init__(
        self,
        dataset: ImageSource | Dataset,
        batch_size: int,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        shuffle: bool = False,
        sampler: Sampler | None = None,
        seed: int = 0,
        workers: int = 2,
        prefetch: int | None = None,
        drop_last: bool = False,
        pictures: bool = False,
        send: Callable[[NDArray[Any]], Any] | None = None,
        shard: tuple[int, int] = (0, 1),
        cache_bytes: int = 1 << 30,
        report: Report | None = None,
    ) -> None:
        batch_size, seed = integer("Loader", "batch_size", batch_size, 1), integer("Loader", "seed", seed, 0)
        workers = integer("Loader", "workers", workers, 0)
        prefetch = workers + 1 if prefetch is None else integer("Loader", "prefetch", prefetch, 1)
        cache_bytes = integer("Loader", "cache_bytes", cache_bytes, 0)
        self.sampler: Sampler = _sampler(sampler, shuffle, len(dataset))
        if len(dataset) == 0 or len(self.sampler) < (batch_size if drop_last else 1):
            drawn = "" if sampler is None else f" of which a sampler draws {len(sampler)},"
            raise DataError(
                f"Loader: no batch to make from {len(dataset)} {'images' if holds_images(dataset) else 'items'},"
                f"{drawn} batch_size {batch_size} and drop_last {drop_last}; add some or take smaller batches"
            )
        self.dataset: Any = dataset
        self.transform: Any = transform
        self.collate = collate
        if holds_images(dataset):
            self._of_images(cache_bytes, pictures)
        elif pictures:
            raise ArgumentError(
                f"Loader: pictures=True is for datasets of images, with image(index) and labels, got {_a(dataset)}"
            )
        elif not hasattr(dataset, "__getitem__"):
            raise ArgumentError(
                "Loader: the dataset must have dataset[index], or for images image(index) and labels, got "
                f"{_a(dataset)}"
            )
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.workers, self.prefetch, self.drop_last = workers, prefetch, drop_last
        self.pictures, self.send = pictures, send
        self.shard = self._checked_shard(shard)
        self.report = Report() if report is None else report
        self.wait_seconds = 0.0
        self.next_epoch = 0
        self.position = (0, 0)
        self._start = 0  # the batch at which the next `for batch in loader` begins

    def _of_images(self, cache_bytes: int, pictures: bool) -> None:
        if self.collate is not None:
            raise ArgumentError(
                "Loader: images are put together as a Batch, and collate is for other data; give a transform, or a "
                "dataset without a method image"
            )
        at_hand = isinstance(self.dataset, ImageArray | CachedImages) or getattr(self.dataset, "in_memory", False)
        if cache_bytes and not at_hand:
            self.dataset = CachedImages(self.dataset, cache_bytes)
        if self.transform is None and not pictures:
            self.transform = CenterView()
        if pictures and (not hasattr(self.transform, "draw") or getattr(self.transform, "size", None) is None):
            raise ArgumentError(
                f"Loader: pictures=True needs a transform with a method draw and a size, got {self.transform!r}: "
                "TrainViews(size), CenterView(size) or TenViews(size)"
            )

    def _checked_shard(self, shard: Any) -> tuple[int, int]:
        if not isinstance(shard, tuple) or len(shard) != 2:
            raise ArgumentError(f"Loader: shard must be (rank, size), got {shard!r}")
        size = integer("Loader", "size in shard", shard[1], 1)
        rank = integer("Loader", "rank in shard", shard[0], 0, size - 1)
        smallest = 0 if self.drop_last else len(self.sampler) % self.batch_size
        smallest = min(smallest or self.batch_size, self.batch_size)
        if smallest < size and not holds_images(self.dataset):
            raise ArgumentError(
                f"Loader: a batch has {smallest} items, too few for {size} parts: drop_last, other batches, or fewer "
                "parts"
            )
        return rank, size

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        start, self._start = self._start, 0
        return self.epoch(epoch, start)

    def state_dict(self) -> dict[str, Any]:
        """Where `for batch in loader` goes on, and what its order depends on, for checkpoint.save_training."""
        epoch, batch = self.position
        done = batch == len(self)
        place = [epoch + 1, 0] if done else [epoch, batch]
        state = {"position": place, "seed": self.seed, "batch_size": self.batch_size, "images": len(self.dataset)}
        state["shuffle"] = self.shuffle
        if not isinstance(self.sampler, SequentialSampler):  # a sampler is known by the order that it gives
            state["sampler"] = zlib.crc32(self.order(0).tobytes())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next `for batch in loader` goes on where `state_dict()` was taken, in the middle of an epoch too.

        CheckpointError where the state is of other images (or items), another seed, batch size, shuffle or sampler: the
        batches would be others.
        """
        own, may_lack = self.state_dict(), {"sampler", "shuffle"}  # earlier versions did not write whether they shuffle
        if not isinstance(state, Mapping) or set(state) | may_lack != set(own) | may_lack:
            raise CheckpointError("Loader.load_state_dict: expected what state_dict() returns")
        for name in ("seed", "batch_size", "images", "sampler", "shuffle"):
            saved, here = state.get(name, own["shuffle"] if name == "shuffle" else None), own.get(name)
            if saved != here:
                what = f"{name} {saved}, this loader has {here}"
                if name == "sampler":  # known by a checksum, which tells nobody anything
                    what = "another order of the items (another sampler, other weights, or none)"
                raise CheckpointError(f"Loader.load_state_dict: the state is of {what}: make it as it was")
        self.next_epoch, self._start = map(int, state["position"])
        self.position = (self.next_epoch, self._start)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The dataset's indices in the order of that epoch, int64 (len(dataset),), or as many as the sampler draws."""
        order = checked_indices("Loader: a sampler", self.sampler(self.seed, epoch), len(self.dataset))
        if len(order) != len(self.sampler):
            raise DataError(
                f"Loader: the sampler has the length {len(self.sampler)}, but gave {len(order)} indices for epoch "
                f"{epoch}; it is to give as many in every epoch"
            )
        return order

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Any]:
        """The batches of an epoch from number `start_batch` on, the same for any number of workers.

        An exception in a worker is raised here, with the worker's traceback.  Leaving the loop early, with
        break or an exception, stops the threads (if you hold the iterator in a variable: its close() does).  One whose
        picture does not come is left behind after 5 seconds, or half a second after Ctrl-C.
        Raises ArgumentError for a negative epoch or start_batch beyond the epoch's end.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ArgumentError(
                f"Loader.epoch: need epoch >= 0 and start_batch in 0..{len(self)}, got {epoch} and {start_batch}"
            )
        return self._deliver(epoch, start_batch)

    def _deliver(self, epoch: int, start_batch: int) -> Iterator[Any]:
        self.wait_seconds, self.position = 0.0, (epoch, start_batch)
        readable = False
        batches = self._prepared(epoch, start_batch)
        try:
            while True:
                begin = time.perf_counter()
                made = next(batches, None)
                self.wait_seconds += time.perf_counter() - begin
                if made is None:
                    break
                batch, unreadable = made
                self.position = (epoch, self.position[1] + 1)
                for error in unreadable:  # here, in batch order: the report does not depend on timing either
                    self.report.add(error)
                if batch is not None:
                    readable = True
                    yield batch
        finally:
            batches.close()
        if not readable and start_batch == 0:
            what = "image" if holds_images(self.dataset) else "item"
            raise DataError(f"Loader: not one {what} of epoch {epoch} could be read. {self.report.summary()}")

    def _prepared(self, epoch: int, start_batch: int) -> Generator[Made, None, None]:
        """Yield every batch, in order, with up to `prefetch` of them under way."""
        batches = self._draws(epoch, start_batch)
        stop = threading.Event()
        make = self._make_images if holds_images(self.dataset) else self._make_items
        if self.workers == 0:
            for draws in batches:
                yield make(draws, stop)
            return
        with Threads(self.workers, "minigrad-loader") as threads:
            try:
                for draws in batches:
                    threads.submit(make, draws, stop)
                    if len(threads) > self.prefetch:
                        yield threads.take()
                while len(threads):
                    yield threads.take()
            finally:
                stop.set()  # ends a batch in preparation after its present image

    def _draws(self, epoch: int, start_batch: int) -> Iterator[Draws]:
        """For each batch: the indices of its items, and what their random numbers are made of."""
        order = self.order(epoch)
        again = occurrences(order)
        for begin in range(start_batch * self.batch_size, len(self) * self.batch_size, self.batch_size):
            chosen = slice(begin, begin + self.batch_size)
            yield [
                (index, (self.seed, epoch, index, before) if before else (self.seed, epoch, index))
                for index, before in zip(order[chosen].tolist(), again[chosen].tolist())
            ]

    def _part(self, draws: Draws) -> Draws:
        """What of a batch is this loader's."""
        rank, size = self.shard
        return draws[len(draws) * rank // size : len(draws) * (rank + 1) // size]

    def _make_images(self, draws: Draws, stop: threading.Event) -> Made:
        make = partial(make_images, self.dataset, self.transform, stop=stop, pictures=self.pictures, send=self.send)
        made = make(draws=self._part(draws))
        if made.batch is not None or self.shard[1] == 1:
            return made
        for draw in draws:  # no image is ours, yet others have a batch: so there is one here, with none in it
            one = make(draws=[draw])
            if one.batch is not None:
                return Made(without_images(one.batch), made.unreadable)
        return made

    def _make_items(self, draws: Draws, stop: threading.Event) -> Made:
        made = make_items(self.dataset, self.transform, self._part(draws), stop, self.collate, self.send)
        if made.batch is None and self.shard[1] > 1 and not stop.is_set():
            raise DataError(
                f"Loader: no item of part {self.shard[0]} of {self.shard[1]} of a batch could be read: take fewer "
                f"processes, or mend it: {made.unreadable[0]}"
            )
        return made


def _sampler(sampler: Any, shuffle: bool, n: int) -> Sampler:
    if sampler is None:
        return RandomSampler(n) if shuffle else SequentialSampler(n)
    if shuffle:
        raise ArgumentError("Loader: a sampler decides the order itself; leave shuffle out")
    if not callable(sampler) or not hasattr(sampler, "__len__"):
        raise ArgumentError(
            f"Loader: a sampler must have a length and be called with (seed, epoch), got {_a(sampler)}; "
            "WeightedRandomSampler and class_balanced of minigrad.data make one"
        )
    if isinstance(sampler, WeightedRandomSampler) and len(sampler.probabilities) != n:
        raise ArgumentError(
            f"Loader: the sampler has weights for {len(sampler.probabilities)} items, and the dataset has {n}: give "
            "one for each"
        )
    return sampler


def _a(thing: Any) -> str:
    return f"a {type(thing).__name__}"
