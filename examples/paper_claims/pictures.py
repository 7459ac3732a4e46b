"""The pictures of a setup, decoded once and kept: those to train on, and those held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from going_on import facts_of_data
from progress import progress

from minigrad.data import (
    CenterView,
    ImageArray,
    ImageStats,
    Loader,
    Subset,
    TenViews,
    TrainViews,
    compute_stats,
    open_images,
    pca_noise,
)

from .nets import PIXEL_SCALE
from .setups import Setup

SEEN = 1000  # training pictures, evenly from all classes, that the net is tested on as on those held out
TEST_BATCH = 100


@dataclass(frozen=True)
class Pictures:
    """facts: what tells whether another machine has the same ones."""

    train: ImageArray
    held_out: ImageArray
    stats: ImageStats
    facts: dict[str, Any]

    @property
    def classes(self) -> int:
        return len(self.train.classes)

    def seen(self) -> Subset:
        """Training pictures for tests."""
        count = min(SEEN, len(self.train))
        return Subset(self.train, np.arange(count) * len(self.train) // count)


class Library:
    """Keeps the pictures of the last path and setup, as most runs have the same ones."""

    def __init__(self) -> None:
        self._key: Any = None
        self._kept: Pictures | None = None

    def pictures(self, root: Path, setup: Setup) -> Pictures:
        """DataError where `root` has no such pictures, or one of them cannot be read."""
        key = (root, setup.data, setup.classes, setup.size, setup.per_class, setup.test_per_class)
        if self._kept is None or key != self._key:
            self._kept, self._key = None, None  # two sets need not fit into memory
            self._kept = _read(root, setup)
            self._key = key
        return self._kept


def _read(root: Path, setup: Setup) -> Pictures:
    sets = [
        some_classes(open_images(root, split, size=setup.size, limit=limit), setup.classes)
        for split, limit in (("train", setup.per_class), ("val", setup.test_per_class))
    ]
    facts = facts_of_data(*sets)
    arrays = []
    for images in sets:
        pixels = np.empty((len(images), setup.size, setup.size, 3), np.uint8)
        with progress(len(images), f"reading {setup.data}", "pictures") as bar:
            for i in range(len(images)):
                pixels[i] = images.image(i)
                bar.update()
        arrays.append(ImageArray(pixels, images.labels, images.classes))
    return Pictures(arrays[0], arrays[1], compute_stats(arrays[0]), {"name": setup.data, **facts})


def some_classes(images: Any, count: int | None) -> Any:
    """The pictures of `count` classes, evenly from all, with labels of their own; the same pictures where there are no
    more classes."""
    names = images.classes
    if count is None or count >= len(names):
        return images
    kept = np.arange(count) * len(names) // count
    found = Subset(images, np.flatnonzero(np.isin(images.labels, kept)))
    found.labels = np.searchsorted(kept, found.labels)
    found.classes = tuple(names[k] for k in kept)
    return found


# ---------------------------------------------------------------- what the net sees of them


def scale_of(setup: Setup) -> float:
    return PIXEL_SCALE if setup.first == "fitted" else 1.0


def train_loader(pictures: Pictures, setup: Setup, seed: int, workers: int) -> Loader:
    mean, scale = pictures.stats.mean_image, scale_of(setup)
    view: Callable[..., Any]
    if setup.views == "centre":
        view = Centre(setup, pictures.stats) if setup.colour_noise else CenterView(setup.crop, mean, scale)
    else:
        pca = pictures.stats.pca if setup.colour_noise else None
        view = TrainViews(setup.crop, mean, pca, setup.colour_noise, scale)
    drop_last = len(pictures.train) > setup.batch_size
    return Loader(
        pictures.train, setup.batch_size, view, shuffle=True, seed=seed, workers=workers, drop_last=drop_last,
        cache_bytes=0,
    )  # fmt: skip


class Centre:
    """The centre of a picture with the paper's colour noise, as TrainViews has it: no crop, no flip."""

    def __init__(self, setup: Setup, stats: ImageStats):
        self.view, self.pca = CenterView(setup.crop, stats.mean_image), stats.pca
        self.noise, self.scale = setup.colour_noise, np.float32(scale_of(setup))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return pca_noise(self.view(image), self.pca, rng, self.noise) * self.scale


def test_loader(images: Any, pictures: Pictures, setup: Setup, ten: bool = False) -> Loader:
    view = (TenViews if ten else CenterView)(setup.crop, pictures.stats.mean_image, scale_of(setup))
    return Loader(images, TEST_BATCH // 10 if ten else TEST_BATCH, view, workers=0, cache_bytes=0)
