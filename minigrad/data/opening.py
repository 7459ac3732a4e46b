"""Whatever lies in a folder of pictures, as a dataset: what the main job opens its data with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from minigrad.base.arguments import integer
from minigrad.errors import DataError, printable

from .folder import ImageFolder
from .prepare import ImageSource
from .sources import SourceImages, find_source, in_class_folders
from .store import PackedImages, is_store


class NamedImages(ImageSource, Protocol):
    """What the main job needs of a dataset, besides what a Loader does: PackedImages, ImageFolder, SourceImages."""

    @property
    def classes(self) -> Sequence[str]:
        """Label k is classes[k]."""
        ...

    @property
    def words(self) -> Mapping[str, str]:
        """What people call the classes, by name, as far as that is known."""
        ...

    @property
    def paths(self) -> Sequence[str]:
        """The name of every picture, for messages."""
        ...

    @property
    def folder(self) -> Path:
        """Where they are."""
        ...


def open_images(
    root: str | os.PathLike[str],
    split: str,
    *,
    size: int = 256,
    limit: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> NamedImages:
    """The images of a split: PackedImages where `root` is a packed store, ImageFolder where it has class folders, and
    else SourceImages of what find_source finds there.  Arguments as theirs.

    Raises DataError where nothing of them can be opened, or where a store is of another `size`.
    """
    if not is_store(root):
        if in_class_folders(root):
            return ImageFolder(root, split, size=size, limit=limit, seed=seed, classes=classes)
        source = find_source(root, splits=(split,))
        return SourceImages(source, split, size=size, limit=limit, seed=seed, classes=classes)
    size = integer("open_images", "size", size, 1)
    images = PackedImages(root, split, limit=limit, seed=seed, classes=classes)
    if images.size != size:
        raise DataError(
            f"open_images: the pictures of the store '{printable(root)}' are {images.size} x {images.size}, and "
            f"{size} x {size} are needed: pack them at that size"
        )
    return images
