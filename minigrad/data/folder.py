"""Image folders: the layout of ILSVRC and torchvision, `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.

Only names are read here; pixels are decoded one image at a time by `ImageFolder.image`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, DataError

from .prepare import prepare_image

EXTENSIONS = (".jpg", ".jpeg", ".png")

# Folder names accepted for each split, in the order in which they are tried.
_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "test"), "test": ("test",)}


class ImageFolder:
    """The images of one split of a folder tree, with labels from the class folders' names.

    Layout: `root/train/<class>/...jpg` and `root/val/<class>/...jpg` (`test` serves where there is no `val`).
    Files end in .jpg, .jpeg or .png in any case; folders inside a class folder are searched too, symbolic
    links are followed, names that start with a dot are passed over.  Classes are the *sorted* names of the
    folders of `train` (for ILSVRC: sorted wnids, the order of torchvision, Caffe and the ONNX zoo; not
    ILSVRC2012_ID).  Every split is numbered by the classes of `train`, so a class absent from `val` does not
    shift the others.

    Args:
        root: the folder that holds `train` and `val`.
        split: "train", "val" or "test"; None where `root` itself holds the class folders.
        size: side in pixels of the prepared images (see prepare.py); the paper's is 256.
        limit: at most this many images of each class, drawn with `seed`; None for all.
        seed: of the draw for `limit` (>= 0).
        classes: class names in label order, in place of those of `train` (say, from a checkpoint).

    Attributes:
        classes: tuple of names; label k is classes[k].
        paths: list of str, sorted by class and then by path.
        labels: int64 (len,), in 0..len(classes)-1.
        empty_classes: class folders without an image; they keep their label, and a warning names them.

    Raises:
        DataError: no such folder, no class folders, no images, or classes that `train` does not have.
        ArgumentError: an unknown split, or a limit, size or seed out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        size: int = 256,
        limit: int | None = None,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        if split is not None and split not in _SPLIT_FOLDERS:
            raise ArgumentError(f"ImageFolder: split must be 'train', 'val', 'test' or None, got {split!r}")
        for name, value, least in (("size", size, 1), ("limit", limit, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                raise ArgumentError(f"ImageFolder: {name} must be at least {least}, got {value}")
        self.root, self.split, self.size = Path(root), split, size
        if not self.root.is_dir():
            what = "it is a file" if self.root.exists() else "it does not exist"
            raise DataError(
                f"ImageFolder: '{root}' should be a folder with train/ and val/ inside, but {what}. Check the path."
            )
        self.folder = _split_folder(self.root, split)
        found = _class_folders(self.folder)
        self.classes = tuple(found) if classes is None else tuple(classes)
        if len(set(self.classes)) != len(self.classes):
            raise ArgumentError(f"ImageFolder: the names in classes must differ, got {_some(self.classes)}")
        if classes is None and split in ("val", "test"):
            self.classes = tuple(_class_folders(_split_folder(self.root, "train")))
        self._check_subset(found, given=classes is not None)

        number = {name: k for k, name in enumerate(self.classes)}
        self.paths: list[str] = []
        labels: list[int] = []
        empty = []
        for name in found:
            paths = _image_files(self.folder / name)
            if not paths:
                empty.append(name)
            if limit is not None and len(paths) > limit:
                # One generator per class: a change in one class leaves the draws in the others alone.
                rng = np.random.default_rng([seed, number[name]])
                paths = [paths[i] for i in np.sort(rng.choice(len(paths), limit, replace=False))]
            self.paths += paths
            labels += [number[name]] * len(paths)
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        self.empty_classes = tuple(empty)
        if not self.paths:
            raise DataError(
                f"ImageFolder: looked for {', '.join(EXTENSIONS)} files in the {len(found)} "
                f"class folders of '{self.folder}' ({_some(found)}), found none. "
                "Put the images there, one folder per class."
            )
        if empty:
            warnings.warn(
                f"ImageFolder: {len(empty)} class folders of '{self.folder}' hold no image: {_some(empty)}",
                stacklevel=2,
            )

    def _check_subset(self, found: Sequence[str], given: bool) -> None:
        """Refuse class folders that have no label."""
        odd = sorted(set(found) - set(self.classes))
        if odd:
            advice = (
                "The classes were given (say, by a net's weights): these images are of other data, so pass the folder "
                "that belongs to them"
                if given
                else "Rename or remove those folders, or add them to the training set"
            )
            raise DataError(
                f"ImageFolder: every class in '{self.folder}' must be one of the {len(self.classes)} known "
                f"({_some(self.classes)}), but {len(odd)} of its folders are not: {_some(odd, 50)}. "
                f"{advice}."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"ImageFolder('{self.folder}', {len(self)} images, {len(self.classes)} classes)"

    def image(self, index: int) -> NDArray[np.uint8]:
        """Decode image `index` to uint8 RGB (size, size, 3); raises UnreadableImageError (a DataError)."""
        return prepare_image(self.paths[index], self.size)


def _split_folder(root: Path, split: str | None) -> Path:
    """The folder of a split, or a DataError that tells the usual mistakes apart."""
    if split is None:
        return root
    for name in _SPLIT_FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in _SPLIT_FOLDERS[split])
    if root.name in ("train", "val", "test") and _subfolders(root):
        advice = f"This looks like a split itself: pass its parent, '{root.resolve().parent}'"
    elif any(_image_files(folder) for folder in _subfolders(root)[:3] if folder.name not in ("train", "val", "test")):
        advice = "Its folders hold images, like those of a split: move them into train/, or pass split=None"
    else:
        advice = f"Pass the folder that holds {wanted}, with one folder per class inside it"
    raise DataError(f"ImageFolder: looked for {wanted} in '{root}', found {_contents(root)}. {advice}.")


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, sorted by name."""
    with os.scandir(folder) as entries:  # is_dir follows symbolic links
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names)]


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders; a DataError where there are none."""
    names = [path.name for path in _subfolders(folder)]
    if not names:
        hint = (
            "Move each image into the folder of its class"
            if _image_files(folder)
            else "Unpack the dataset there, one folder per class"
        )
        raise DataError(f"ImageFolder: looked for class folders in '{folder}', found {_contents(folder)}. {hint}.")
    return names


def _image_files(folder: Path) -> list[str]:
    """Paths of the images below `folder`, in the order of torchvision: folder by folder, each sorted."""
    paths: list[str] = []
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        # A link to a parent would be walked for ever: each real folder is entered once.
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [
            os.path.join(here, name)
            for name in sorted(files)
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return paths


def _some(names: Iterable[str], most: int = 10) -> str:
    """'a, b, c', cut after `most` names."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _contents(folder: Path) -> str:
    """What a folder holds, for an error message."""
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    folders = [name + "/" for name, is_dir in listed if is_dir]
    files = [name for name, is_dir in listed if not is_dir]
    parts = [
        f"{len(group)} {what} ({_some(group, 5)})" for group, what in ((folders, "folders"), (files, "files")) if group
    ]
    return " and ".join(parts) or "nothing"
