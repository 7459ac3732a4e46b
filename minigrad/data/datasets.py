"""Datasets: arrays in memory, parts of another dataset, and decoded images that are kept.

A dataset is one of two things, and a Loader takes both:

- of anything: `len(d)` items, and `d[i]` is item i: a number, an array, a text, or tuples and dicts of them;
- of images (ImageSource in prepare.py): `len(d)`, `d.image(i)` and `d.labels`; it is known by its method `image`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad.base.arguments import integer, is_number
from minigrad.errors import ArgumentError, DataError

from .prepare import ImageSource, check_channels_last
from .sampling import SPLIT, generator


class Dataset(Protocol):
    """What Loader, Subset and random_split need of data that are no images; a list or an array will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def holds_images(dataset: Any) -> bool:
    """Whether its items come from `image(index)`, in place of `dataset[index]`."""
    return hasattr(dataset, "image")


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


class ArrayDataset:
    """Arrays of equal length, side by side (PyTorch's TensorDataset): item i is the tuple (x[i], y[i], ...).

    Args: arrays, or what np.asarray makes one of: (N, ...) each, numbers, booleans or text.
    The items are views that cannot be written into: a transform that changes one in place must fail, not spoil the
    next epoch.  Raises DataError where there is no array, one has no axis, holds objects, or lengths differ.
    """

    def __init__(self, *arrays: ArrayLike) -> None:
        self.arrays = tuple(map(_read_only, arrays))
        shapes = [array.shape for array in self.arrays]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise DataError(
                "ArrayDataset: need one or more arrays of equal length along their first axis, got "
                f"{'none' if not shapes else 'shapes ' + ', '.join(map(str, shapes))}"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(array[index] for array in self.arrays)


def _read_only(data: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(data).view()
    except ValueError as error:  # NumPy's message tells where the lists are uneven
        raise DataError(f"ArrayDataset: {error}; give items of differing length as a list to Loader") from None
    if array.dtype.hasobject:
        raise DataError(
            f"ArrayDataset: need numbers, booleans or text, got an array of {array.dtype} {array.shape}: give items "
            "that are objects as a list to Loader, with a collate of your own"
        )
    array.flags.writeable = False
    return array


class Subset:
    """Items of another dataset, in an order of their own: item k is dataset[indices[k]].

    A part of images is of images, too: it has image(k), labels, and paths, classes, words, folder and in_memory where
    the whole has them; label numbers stay those of the whole.
    Raises DataError where the indices are no integers (K,) in 0..len(dataset)-1.
    """

    def __init__(self, dataset: Any, indices: ArrayLike) -> None:
        self.dataset, self.indices = dataset, checked_indices("Subset", indices, len(dataset))
        if holds_images(dataset):
            self.image: Any = self._image
            self.labels: NDArray[np.int64] = np.asarray(dataset.labels)[self.indices]
            for name in ("classes", "words", "folder", "in_memory"):
                if hasattr(dataset, name):
                    setattr(self, name, getattr(dataset, name))
            if hasattr(dataset, "paths"):
                self.paths = Subset(dataset.paths, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def _image(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.dataset.image(int(self.indices[index]))
        return image


def random_split(dataset: Any, lengths: Sequence[float], seed: int = 0) -> list[Subset]:
    """Cut a dataset at random into parts that share no item; PyTorch's, with a seed in place of a generator.

    Args:
        lengths: the parts' lengths, integers whose sum is len(dataset); or their fractions of it, whose sum is 1: each
            is rounded down, and what is left over goes one by one to the parts that are not 0, from the first on.
        seed: the same seed and lengths give the same parts.

    Raises ArgumentError for other lengths, and where a fraction leaves its part without an item.
    """
    seed, n, given = integer("random_split", "seed", seed, 0), len(dataset), list(lengths)
    good = bool(given) and all(is_number(part) and part >= 0 for part in given)
    if good and math.isclose(math.fsum(given), 1, abs_tol=1e-9):
        # As the decimals that were written: 0.29 * 100 is 28.999..., and is meant to be 29.
        counts = [math.floor(Fraction(repr(float(part))) * n) for part in given]
        wanted = [k for k, part in enumerate(given) if part]
        for k in range(n - sum(counts)):
            counts[wanted[k % len(wanted)]] += 1
        if empty := [k for k, part in enumerate(given) if part and not counts[k]]:
            raise ArgumentError(
                f"random_split: of {n} items, parts {empty} of the fractions {given} would get none; add items or make "
                "these parts larger"
            )
    elif good and all(part == int(part) for part in given) and sum(given) == n:
        counts = [int(part) for part in given]
    else:
        raise ArgumentError(
            f"random_split: lengths must be integers >= 0 whose sum is {n}, the number of items, or fractions whose "
            f"sum is 1, got {given}"
        )
    order = generator(SPLIT, seed).permutation(n)
    ends = np.cumsum(counts)
    return [Subset(dataset, order[end - count : end]) for count, end in zip(counts, ends)]


def checked_indices(what: str, indices: ArrayLike, n: int) -> NDArray[np.int64]:
    """`indices` as int64 (K,), DataError where they are no places among n items."""
    array = np.asarray(indices)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{what}: indices must be integers (K,), got {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() >= n:
        wrong = array[(array < 0) | (array >= n)][0]
        raise DataError(f"{what}: indices must be in 0..{n - 1}, as there are {n} items, got {wrong}")
    return array.astype(np.int64)
