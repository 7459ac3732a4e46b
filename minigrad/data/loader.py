"""Batches of augmented images, prepared by threads while the network computes.

Reproducible by construction: the generator that augments an image is seeded from (seed, epoch, index) and the
shuffle from (seed, epoch), so a batch depends on its number alone, not on which thread made it or when.
Threads are enough, with no processes, because Pillow and NumPy release the interpreter lock while they work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.base.arguments import integer
from minigrad.errors import ArgumentError, CheckpointError, DataError

from .augment import CenterView, Drawn, Image, View, Views, channels_first, views_of
from .prepare import ImageSource, Report, UnreadableImageError, check_channels_last

# First word of every seed, because SeedSequence takes [s, e] and [s, e, 0] for the same: without it, image 0
# would be augmented by the very numbers that shuffled its epoch.
_SHUFFLE, _AUGMENT = 1, 2

Transform = Callable[[Image, np.random.Generator], View]


class Batch(NamedTuple):
    """images float32 (N, C, H, W), channels-last in memory; labels int64 (N,); dataset indices int64 (N,)."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


class PictureBatch(NamedTuple):
    """What a Loader with pictures=True makes: images uint8 (N, H, W, C), as they were decoded, labels and indices.

    `F.prepare(Tensor(images), *views)` makes of them what Batch.images would be.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    views: Views


# What a thread hands over: the batch (None if none of its files could be read), and those that could not.
_Made = tuple[Batch | PictureBatch | None, list[UnreadableImageError]]


class ImageArray:
    """Images that are in memory already, as a dataset for Loader and compute_stats.

    Args: images uint8 (N, H, W, C) with 1 to 4 channels, or (N, H, W) for grey; labels integers (N,); classes:
    optional names.  Three axes are always N grey images: give a single colour image as (1, H, W, 3).
    Raises DataError for other shapes or types, channels-first images among them, or counts that differ.
    """

    def __init__(self, images: NDArray[np.uint8], labels: ArrayLike, classes: Sequence[str] = ()) -> None:
        images, raw = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or raw.dtype.kind not in "iu":
            raise DataError(
                "ImageArray: need images uint8 (N, H, W) or (N, H, W, C) and integer labels, "
                f"got {images.dtype} {images.shape} and {raw.dtype} {raw.shape}; bring pixels to 0..255 and convert "
                "with astype"
            )
        if raw.shape != images.shape[:1]:
            raise DataError(
                f"ImageArray: need one label per image, got {len(images)} images and labels of shape {raw.shape}"
            )
        self.images = images[..., None] if images.ndim == 3 else images
        if len(images):  # without images there is nothing to check, and Loader refuses the set
            check_channels_last(self.images.shape, "ImageArray: images")
        self.labels: NDArray[np.int64] = raw.astype(np.int64)
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, C), a view of `images`."""
        image: NDArray[np.uint8] = self.images[index]
        return image


class CachedImages:
    """Keeps the decoded images of another dataset, up to `max_bytes`, so that a small set is decoded once.

    When full it keeps what it has: an epoch visits every image once, so evicting the oldest would evict just
    what is needed next.  The images it hands out are read-only.  Safe to use from several threads.
    """

    def __init__(self, source: ImageSource, max_bytes: int = 1 << 30) -> None:
        self.source, self.max_bytes, self.used_bytes = source, max_bytes, 0
        self.labels = source.labels
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, C) of the source, from memory if kept."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = self.source.image(index)  # outside the lock: decoding is the slow part
        image.flags.writeable = False  # a transform that writes into it must fail, not spoil later epochs
        with self._lock:
            if index not in self._kept and self.used_bytes + image.nbytes <= self.max_bytes:
                self._kept[index] = image
                self.used_bytes += image.nbytes
        return image


class Loader:
    """Iterates over the batches of an epoch.

    A file that cannot be read leaves its batch one image smaller, is noted in `report` and warned about once;
    the other batches stay as they are.  A batch with no readable image is passed over; an epoch without any
    is a DataError.  `for batch in loader` runs epoch `next_epoch` (first 0) and adds one to it; the method
    `epoch` takes the number from you.

    Args:
        dataset: ImageFolder, ImageArray, or anything with labels, len() and image(index).
        batch_size: images per batch; the last batch has the rest, unless drop_last.
        transform: called with (uint8 (H, W, C), generator), returns float32 (..., H, W, C): TrainViews,
            CenterView, TenViews, or your own.  None: the whole image as float32.  The channels are the last axis, 1 to
            4 of them, in what goes in and what comes out: channels-first is a DataError where it can be told.
        shuffle: a new order each epoch, from (seed, epoch).
        workers: threads that prepare batches ahead; 0 prepares each in the caller when it is asked for.
        prefetch: batches in preparation or ready while the caller works on another; None: workers + 1.
            A batch of 128 at 224 x 224 takes 77 MB; as pictures of 256 x 256, 25 MB.
        pictures: the batches are PictureBatch: pictures as they were decoded, and what the transform has drawn for
            each, for a card that does the rest.  The transform is TrainViews, CenterView with a size, TenViews, or
            has a method `draw` as they do.
        send: called by the thread that made a batch, with its images; what it returns takes their place.
            `lambda images: Tensor(images, device="cuda:0")` puts them on their way while the caller still computes.
        cache_bytes: bound for decoded images kept in memory (default 1 GiB; 0: none).
        report: collects unreadable files; None makes a new one.

    Attributes: report; wait_seconds, the time this epoch's caller has spent waiting for batches; position,
    (epoch, batch) of the batch that comes next, which `epoch` takes to resume after an interruption.

    Raises ArgumentError for arguments out of range, DataError for an empty dataset.
    """

    def __init__(
        self,
        dataset: ImageSource,
        batch_size: int,
        transform: Transform | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 2,
        prefetch: int | None = None,
        drop_last: bool = False,
        pictures: bool = False,
        send: Callable[[NDArray[Any]], Any] | None = None,
        cache_bytes: int = 1 << 30,
        report: Report | None = None,
    ) -> None:
        batch_size, seed = integer("Loader", "batch_size", batch_size, 1), integer("Loader", "seed", seed, 0)
        workers = integer("Loader", "workers", workers, 0)
        prefetch = workers + 1 if prefetch is None else integer("Loader", "prefetch", prefetch, 1)
        cache_bytes = integer("Loader", "cache_bytes", cache_bytes, 0)
        if len(dataset) == 0 or (drop_last and len(dataset) < batch_size):
            raise DataError(
                f"Loader: no batch to make from {len(dataset)} images, batch_size {batch_size} "
                f"and drop_last {drop_last}; add images or take smaller batches"
            )
        self.dataset = dataset
        at_hand = isinstance(dataset, ImageArray | CachedImages) or getattr(dataset, "in_memory", False)
        if cache_bytes and not at_hand:
            self.dataset = CachedImages(dataset, cache_bytes)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.transform: Any = CenterView() if transform is None else transform
        if pictures and (not hasattr(self.transform, "draw") or getattr(self.transform, "size", None) is None):
            raise ArgumentError(
                f"Loader: pictures=True needs a transform with a method draw and a size, got {self.transform!r}: "
                "TrainViews(size), CenterView(size) or TenViews(size)"
            )
        self.workers, self.prefetch, self.drop_last = workers, prefetch, drop_last
        self.pictures, self.send = pictures, send
        self.report = Report() if report is None else report
        self.wait_seconds = 0.0
        self.next_epoch = 0
        self.position = (0, 0)
        self._start = 0  # the batch at which the next `for batch in loader` begins

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch | PictureBatch]:
        epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        start, self._start = self._start, 0
        return self.epoch(epoch, start)

    def state_dict(self) -> dict[str, Any]:
        """Where `for batch in loader` goes on, and what its order depends on, for checkpoint.save_training."""
        epoch, batch = self.position
        done = batch == len(self)
        place = [epoch + 1, 0] if done else [epoch, batch]
        return {"position": place, "seed": self.seed, "batch_size": self.batch_size, "images": len(self.dataset)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next `for batch in loader` goes on where `state_dict()` was taken, in the middle of an epoch too.

        CheckpointError where the state is of other images, another seed or batch size: the batches would be others.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping) or set(state) != set(own):
            raise CheckpointError("Loader.load_state_dict: expected what state_dict() returns")
        for name in ("seed", "batch_size", "images"):
            if state[name] != own[name]:
                raise CheckpointError(
                    f"Loader.load_state_dict: the state is of {name} {state[name]}, this loader has {own[name]}: make "
                    "it as it was"
                )
        self.next_epoch, self._start = map(int, state["position"])
        self.position = (self.next_epoch, self._start)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The dataset's indices in the order of that epoch, int64 (len(dataset),)."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return np.random.default_rng([_SHUFFLE, self.seed, epoch]).permutation(len(self.dataset))

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch | PictureBatch]:
        """The batches of an epoch from number `start_batch` on, the same for any number of workers.

        An exception in a worker is raised here, with the worker's traceback.  Leaving the loop early, with
        break or an exception, stops the threads (if you hold the iterator in a variable: its close() does).
        Raises ArgumentError for a negative epoch or start_batch beyond the epoch's end.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ArgumentError(
                f"Loader.epoch: need epoch >= 0 and start_batch in 0..{len(self)}, got {epoch} and {start_batch}"
            )
        return self._deliver(epoch, start_batch)

    def _deliver(self, epoch: int, start_batch: int) -> Iterator[Batch | PictureBatch]:
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
            raise DataError(f"Loader: not one image of epoch {epoch} could be read. {self.report.summary()}")

    def _prepared(self, epoch: int, start_batch: int) -> Generator[_Made, None, None]:
        """Yield _make_batch of every batch, in order, with up to `prefetch` of them under way."""
        order = self.order(epoch)
        numbers = range(start_batch, len(self))
        batches = (order[n * self.batch_size : (n + 1) * self.batch_size] for n in numbers)
        stop = threading.Event()
        if self.workers == 0:
            for indices in batches:
                yield self._make_batch(epoch, indices, stop)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="minigrad-loader")
        pending: deque[Future[_Made]] = deque()
        try:
            for indices in batches:
                pending.append(pool.submit(self._make_batch, epoch, indices, stop))
                if len(pending) > self.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop.set()  # ends a batch in preparation after its present image, a queued one at once
            pool.shutdown(wait=True)

    def _make_batch(self, epoch: int, indices: NDArray[np.int64], stop: threading.Event) -> _Made:
        """Decode and augment the images at `indices`: the batch, and the files that could not be read."""
        images: NDArray[Any] | None = None
        kept: list[int] = []
        drawn: list[Drawn] = []
        unreadable: list[UnreadableImageError] = []
        for index in indices.tolist():
            if stop.is_set():
                return None, []
            try:
                image = self.dataset.image(index)
            except UnreadableImageError as error:
                unreadable.append(error)
                continue
            if images is None:
                source = self.dataset.source if isinstance(self.dataset, CachedImages) else self.dataset
                check_channels_last(np.shape(image), f"Loader: an image of {type(source).__name__}")
            random = np.random.default_rng([_AUGMENT, self.seed, epoch, index])
            if self.pictures:
                if image.dtype != np.uint8:
                    raise DataError(
                        f"Loader: with pictures=True images must be uint8, but image {index} is {image.dtype}: bring "
                        "pixels to 0..255 and convert with astype"
                    )
                view = image
                drawn.append(self.transform.draw(image, random))
            else:
                view = np.asarray(self.transform(image, random))
            if images is None:
                check_channels_last(view.shape, f"Loader: what the transform {_name(self.transform)} returns")
                images = np.empty((len(indices), *view.shape), dtype=np.uint8 if self.pictures else np.float32)
            if view.shape != images.shape[1:]:
                raise DataError(
                    f"Loader: the images of a batch must share one shape, but image {index} gave "
                    f"{view.shape} after {images.shape[1:]}; prepare or crop them to one size"
                )
            images[len(kept)] = view
            kept.append(index)
        if images is None:
            return None, unreadable
        chosen = np.array(kept, dtype=np.int64)
        labels, shape = self.dataset.labels[chosen], images.shape[1:]
        images = images[: len(kept)] if self.pictures else channels_first(images[: len(kept)])
        made: Any = images if self.send is None else self.send(images)
        if self.pictures:
            return PictureBatch(made, labels, chosen, views_of(self.transform, drawn, shape)), unreadable
        return Batch(made, labels, chosen), unreadable


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)
