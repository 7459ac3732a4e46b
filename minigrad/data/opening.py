"""Whatever lies at a path, folder, archive or store, as a dataset: what the main job opens its data with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from minigrad.base.arguments import integer
from minigrad.errors import DataError, printable

from .folder import ImageFolder, said_of
from .ilsvrc import ARCHIVES
from .listing import Progress, Source
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
        """The name of every picture, for messages: ImageFolder's are paths of files, others' are names as the source
        had them, with the split first ("val/n01440764/x.JPEG")."""
        ...

    @property
    def folder(self) -> Path:
        """Where they are: the split's folder (ImageFolder, PackedImages), or the whole source, which may be an archive
        (SourceImages)."""
        ...


def open_images(
    root: str | os.PathLike[str],
    split: str,
    *,
    size: int = 256,
    limit: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> NamedImages:
    """The images of a split: PackedImages where `root` is a packed store, ImageFolder where it has class folders, and
    else SourceImages of what find_source finds there.  Arguments as theirs; progress is find_source's.

    An archive is searched once for both of its splits: what was found in the last one is kept, as long as the file is
    the same by its path, size and time.

    Raises DataError where nothing of them can be opened, or where a store is of another `size`.
    """
    if not is_store(root):
        if in_class_folders(root):
            with said_of(root):
                return ImageFolder(root, split, size=size, limit=limit, seed=seed, classes=classes)
        source = _found(Path(root), split, progress)
        return SourceImages(source, split, size=size, limit=limit, seed=seed, classes=classes)
    size = integer("open_images", "size", size, 1)
    images = PackedImages(root, split, limit=limit, seed=seed, classes=classes)
    if images.size != size:
        raise DataError(
            f"open_images: the pictures of the store '{printable(root)}' are {images.size} x {images.size}, and "
            f"{size} x {size} are needed: pack them at that size"
        )
    return images


_last: list[tuple[tuple[str, int, int], Source]] = []  # of the archive that was searched last: which it was, its source


def _found(path: Path, split: str, progress: Progress | None) -> Source:
    """find_source, and of an archive what it has found before."""
    if not path.is_file() or path.name in ARCHIVES:  # which mean their folder, where a split is looked for on its own
        return find_source(path, (split,), progress)
    state = os.stat(path)
    which = (os.path.abspath(path), state.st_size, state.st_mtime_ns)
    for known, source in _last:
        if known == which:
            return source
    source = find_source(path, progress=progress)
    _last[:] = [(which, source)]
    return source
