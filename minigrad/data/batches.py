"""How a batch is made of the items at some indices: of images, and of items of any kind.

Made by one thread from beginning to end, and a function of its arguments alone: no thread's timing is in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import DataError

from .augment import Drawn, Image, View, Views, channels_first, views_of
from .collate import default_collate
from .datasets import CachedImages
from .prepare import UnreadableImageError, check_channels_last
from .sampling import AUGMENT, generator

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


class Made(NamedTuple):
    """What a thread hands over: the batch (None if no item could be read), and the files that could not."""

    batch: Any
    unreadable: list[UnreadableImageError]


# Of each item of a batch: its index in the dataset, and the numbers that its random generator is made of.
Draws = Sequence[tuple[int, tuple[int, ...]]]


def make_images(
    dataset: Any, transform: Any, draws: Draws, stop: threading.Event, pictures: bool, send: Callable[[Any], Any] | None
) -> Made:
    """Decode and augment images: a Batch, or a PictureBatch with `pictures`, and the files that could not be read."""
    images: NDArray[Any] | None = None
    kept: list[int] = []
    drawn: list[Drawn] = []
    unreadable: list[UnreadableImageError] = []
    for index, seed in draws:
        if stop.is_set():
            return Made(None, [])
        try:
            image = dataset.image(index)
        except UnreadableImageError as error:
            unreadable.append(error)
            continue
        if images is None:
            source = dataset.source if isinstance(dataset, CachedImages) else dataset
            check_channels_last(np.shape(image), f"Loader: an image of {type(source).__name__}")
        random = generator(AUGMENT, *seed)
        if pictures:
            if image.dtype != np.uint8:
                raise DataError(
                    f"Loader: with pictures=True images must be uint8, but image {index} is {image.dtype}: bring "
                    "pixels to 0..255 and convert with astype"
                )
            view = image
            drawn.append(transform.draw(image, random))
        else:
            view = np.asarray(transform(image, random))
        if images is None:
            check_channels_last(view.shape, f"Loader: what the transform {_name(transform)} returns")
            images = np.empty((len(draws), *view.shape), dtype=np.uint8 if pictures else np.float32)
        if view.shape != images.shape[1:]:
            raise DataError(
                f"Loader: the images of a batch must share one shape, but image {index} gave "
                f"{view.shape} after {images.shape[1:]}; prepare or crop them to one size"
            )
        images[len(kept)] = view
        kept.append(index)
    if images is None:
        return Made(None, unreadable)
    chosen = np.array(kept, dtype=np.int64)
    labels, shape = dataset.labels[chosen], images.shape[1:]
    images = images[: len(kept)] if pictures else channels_first(images[: len(kept)])
    made: Any = images if send is None else send(images)
    if pictures:
        return Made(PictureBatch(made, labels, chosen, views_of(transform, drawn, shape)), unreadable)
    return Made(Batch(made, labels, chosen), unreadable)


def without_images(batch: Any) -> Any:
    """A Batch or PictureBatch like this one, with no image in it."""
    none = batch._replace(images=batch.images[:0], labels=batch.labels[:0], indices=batch.indices[:0])
    if isinstance(batch, PictureBatch):
        views = batch.views
        none = none._replace(views=views._replace(windows=views.windows[:0], colours=views.colours[:0]))
    return none


def make_items(
    dataset: Any, transform: Any, draws: Draws, stop: threading.Event, collate: Any, send: Callable[[Any], Any] | None
) -> Made:
    """Fetch items, transform each, and put them together: whatever `collate` returns; None: default_collate."""
    items: list[Any] = []
    kept: list[int] = []
    unreadable: list[UnreadableImageError] = []
    for index, seed in draws:
        if stop.is_set():
            return Made(None, [])
        try:
            item = dataset[index]
        except UnreadableImageError as error:
            unreadable.append(error)
            continue
        items.append(item if transform is None else transform(item, generator(AUGMENT, *seed)))
        kept.append(index)
    if not items:
        return Made(None, unreadable)
    batch = default_collate(items, kept) if collate is None else collate(items)
    if batch is None:
        raise DataError(f"Loader: the collate {_name(collate)} returned None; it is to return the batch")
    return Made(batch if send is None else send(batch), unreadable)


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
