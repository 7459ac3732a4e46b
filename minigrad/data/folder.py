"""Image folders: the layout of ILSVRC and torchvision, `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.

Only names are read here; pixels are decoded one image at a time by `ImageFolder.image`.

What counts, in one rule: every file below a class folder whose name ends in one of EXTENSIONS (.jpg, .jpeg, .jpe,
.jfif, .png, .gif, .bmp, .webp; in any case) is an image of that class. Passed over are

- names that begin with a dot, and folders that systems and programs leave behind (SYSTEM_FOLDERS);
- links to folders that lead back into the dataset: to a folder above, or into a split (train, val, test), where they
  would show a picture under two classes or to both training and test; other links to folders are followed;
- files with other endings;
- pictures that lie beside the class folders, as they have no class.

A warning for each kind counts them and names some. Silent are only dot files that are no pictures, Thumbs.db and
desktop.ini. A folder that cannot be listed, or a link beside the class folders that leads nowhere, is a DataError:
a class would be missing.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.base.arguments import integer
from minigrad.errors import ArgumentError, DataError, one_line, printable, some

from .decode import EXTENSIONS
from .prepare import prepare_image
from .words import near, words_near

SYSTEM_FOLDERS = ("@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", "System Volume Information")
_SYSTEM_FOLDERS = {name.lower() for name in SYSTEM_FOLDERS}
SYSTEM_FILES = ("thumbs.db", "desktop.ini")

_OWN = "ImageFolder: "  # begins messages
# Folder names accepted for each split, in the order in which they are tried.
_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "test"), "test": ("test",)}
# Other names that people give them, in any case: never taken, but pointed at where the split is missing.
OTHER_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "test", "testing"),
    "test": ("test", "testing"),
}


class ImageFolder:
    """The images of one split of a folder tree, with labels from the class folders' names.

    Layout: `root/train/<class>/...jpg` and `root/val/<class>/...jpg` (`test` serves where there is no `val`).
    Folders inside a class folder are searched too; the rule above says what is passed over, and warnings say
    what was.  Classes are the *sorted* names of the folders of `train` (for ILSVRC: sorted wnids, the order of
    torchvision, Caffe and the ONNX zoo; not ILSVRC2012_ID).  Every split is numbered by the classes of `train`,
    so a class absent from `val` does not shift the others.

    Args:
        root: the folder that holds `train` and `val`.
        split: "train", "val" or "test"; None where `root` itself holds the class folders.
        size: side in pixels of the prepared images (see prepare.py); the paper's is 256.
        limit: at most this many images of each class, drawn with `seed`; None for all.
        seed: of the draw for `limit` (>= 0).
        classes: class names in label order, in place of those of `train` (say, from a checkpoint).

    Attributes:
        classes: tuple of names; label k is classes[k].
        words: class -> what people call it, by synset_words.txt or words.txt in `root` or beside it; {} without one.
        paths: list of str, sorted by class and then by path.
        labels: int64 (len,), in 0..len(classes)-1.
        empty_classes: class folders without an image; they keep their label, and a warning names them.

    Raises:
        DataError: no such folder, one that cannot be read, no class folders, no images, or classes that `train`
            does not have.
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
        seed = integer("ImageFolder", "seed", seed, 0)
        limit = None if limit is None else integer("ImageFolder", "limit", limit, 1)
        self.root, self.split, self.size = Path(root), split, integer("ImageFolder", "size", size, 1)
        with listable(root):
            self._list(limit, seed, classes)

    def _list(self, limit: int | None, seed: int, classes: Sequence[str] | None) -> None:
        """Fill in classes, paths and labels.  Raises OSError for what cannot be read."""
        check_root(self.root)
        self.folder = split_folder(self.root, self.split)
        tree = Tree(self.root, self.folder)
        found = tree.class_folders()
        self.classes = tuple(found) if classes is None else tuple(classes)
        if len(set(self.classes)) != len(self.classes):
            raise ArgumentError(f"ImageFolder: the names in classes must differ, got {some(self.classes)}")
        one_folder = []
        if classes is None and self.split in ("val", "test"):
            train = split_folder(self.root, "train")
            self.classes = tuple(Tree(self.root, train).class_folders())
            if os.path.samefile(train, self.folder):
                one_folder = [f"'{printable(self.folder)}' is '{printable(train)}': it tests on what was trained on"]
        self._check_subset(found, given=classes is not None)
        self.words = words_near(self.classes, *near(self.root))

        number = {name: k for k, name in enumerate(self.classes)}
        self.paths: list[str] = []
        labels: list[int] = []
        empty = []
        for name in found:
            paths = tree.images(self.folder / name)
            if not paths:
                empty.append(name)
            self.paths += paths
            labels += [number[name]] * len(paths)
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        if limit is not None:
            chosen = limited(self.labels, limit, seed)
            self.paths, self.labels = [self.paths[i] for i in chosen.tolist()], self.labels[chosen]
        self.empty_classes = tuple(empty)
        notes = one_folder + tree.notes()
        if not self.paths:
            raise DataError(
                f"ImageFolder: looked for {', '.join(EXTENSIONS)} files in the {len(found)} "
                f"class folders of '{printable(self.folder)}' ({some(found)}), found none"
                f"{''.join(f'; {note}' for note in notes)}. Put the images there, one folder per class."
            )
        if empty:
            notes.append(f"{len(empty)} class folders of '{printable(self.folder)}' hold no image: {some(empty)}")
        for note in notes:
            warnings.warn(f"ImageFolder: {note}", stacklevel=3)  # where the ImageFolder is made

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
                f"ImageFolder: every class in '{printable(self.folder)}' must be one of the {len(self.classes)} known "
                f"({some(self.classes)}), but {len(odd)} of its folders are not: {some(odd, 50)}. "
                f"{advice}."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"ImageFolder('{printable(self.folder)}', {len(self)} images, {len(self.classes)} classes)"

    def image(self, index: int) -> NDArray[np.uint8]:
        """Decode image `index` to uint8 RGB (size, size, 3); raises UnreadableImageError (a DataError)."""
        return prepare_image(self.paths[index], self.size)


@contextmanager
def listable(root: str | os.PathLike[str], what: str = _OWN) -> Iterator[None]:
    """Turn the OSError of a folder that cannot be listed into a DataError that names it; `what` begins it."""
    try:
        yield
    except OSError as error:
        where = root if error.filename is None else error.filename
        raise DataError(
            f"{what}cannot read '{printable(where)}': {one_line(error)}. Check the path, its permissions "
            "and the disk, or take it out of the dataset."
        ) from error


@contextmanager
def said_of(root: str | os.PathLike[str]) -> Iterator[None]:
    """DataErrors begin with the path that was given, or one in it: who has given that alone knows no ImageFolder."""
    try:
        yield
    except DataError as error:
        text = str(error).removeprefix(_OWN)
        if type(error) is not DataError or str(error).startswith("'"):
            raise
        raise DataError(text if text.startswith("'") else f"'{printable(root)}': {text}") from error.__cause__


def is_system_folder(name: str) -> bool:
    """Whether a folder of that name, in any case, is one that systems leave behind."""
    return name.lower() in _SYSTEM_FOLDERS


def limited(labels: NDArray[Any], limit: int, seed: int) -> NDArray[np.int64]:
    """Which images are left where each class has at most `limit`, drawn with `seed`: their indices, ascending."""
    kept, by_class = [np.zeros(0, np.int64)], np.argsort(labels, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        if len(members) > limit:
            # One generator per class: a change in one class leaves the draws in the others alone.
            rng = np.random.default_rng([seed, int(labels[members[0]])])
            members = members[np.sort(rng.choice(len(members), limit, replace=False))]
        kept.append(members)
    return np.sort(np.concatenate(kept))


class Tree:
    """The class folders of one split and their images, by the rule above, and notes on what it passes over."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        splits = [root / name for name in _SPLIT_FOLDERS if os.path.lexists(root / name)]
        self._root = os.path.realpath(root)
        self._splits = {os.path.realpath(path) for path in (folder, *splits)}
        self._passed: dict[str, tuple[int, list[str]]] = {}  # kind: how many, and the first few

    def class_folders(self) -> list[str]:
        """Sorted names of the class folders; a DataError where there are none."""
        names, beside = self._entries(os.fspath(self.folder), top=True)
        if not names:
            hint = (
                "Move each image into the folder of its class"
                if beside
                else "Unpack the dataset there, one folder per class"
            )
            raise DataError(
                f"ImageFolder: looked for class folders in '{printable(self.folder)}', "
                f"found {_contents(self.folder)}. {hint}."
            )
        for name in beside:
            self._pass("beside", self.folder / name)
        return names

    def images(self, folder: Path) -> list[str]:
        """Paths of the images below a class folder, in the order of torchvision: folder by folder, each sorted."""
        paths: list[str] = []
        seen = set()
        ahead = [os.fspath(folder)]
        while ahead:
            here = ahead.pop()
            real = os.path.realpath(here)  # two links may lead to one folder, or in a circle outside the dataset
            if real not in seen:
                seen.add(real)
                folders, files = self._entries(here)
                paths += [os.path.join(here, name) for name in files]
                ahead += [os.path.join(here, name) for name in reversed(folders)]
        return paths

    def notes(self) -> list[str]:
        """One line for each kind of thing that was passed over."""
        below = f"below '{printable(self.folder)}'"
        told = {
            "name": f"folders or pictures {below} passed over for their names, hidden or a system's",
            "link": f"links {below} not followed, as they lead back into the dataset",
            "beside": f"pictures {below} passed over, as they lie beside the class folders and have no class",
        }
        lines = [
            f"{self._passed[kind][0]} {text}: {some(self._passed[kind][1], 5, self._passed[kind][0])}"
            for kind, text in told.items()
            if kind in self._passed
        ]
        endings = {kind: passed for kind, passed in sorted(self._passed.items()) if kind not in told}
        if endings:
            each = [f"{n} {kind or 'without an ending'} ({some(names, 2, n)})" for kind, (n, names) in endings.items()]
            count = sum(n for n, _ in endings.values())
            lines.append(f"{count} files {below} passed over for their endings: {some(each)}")
        return lines

    def _entries(self, here: str, top: bool = False) -> tuple[list[str], list[str]]:
        """Sorted names of the folders and of the images in `here`; the rest is noted."""
        folders, files = [], []
        with os.scandir(here) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name, lower = entry.name, entry.name.lower()
            if _is_folder(entry):
                if name.startswith(".") or lower in _SYSTEM_FOLDERS:
                    self._pass("name", entry.path)
                elif entry.is_symlink() and self._leads_back(entry.path):
                    self._pass("link", entry.path)
                else:
                    folders.append(name)
            elif lower.endswith(EXTENSIONS):
                if name.startswith("."):
                    self._pass("name", entry.path)
                else:
                    files.append(name)
            elif top:  # a link that leads nowhere was a class once: without it the others would be renumbered
                if entry.is_symlink() and not os.path.exists(entry.path):
                    raise DataError(
                        f"ImageFolder: '{printable(entry.path)}' is a link to '{printable(os.readlink(entry.path))}', "
                        "which cannot be reached. Bring that back, or remove the link."
                    )
            elif not name.startswith(".") and lower not in SYSTEM_FILES:
                ending = os.path.splitext(lower)[1]
                # Names like x.0001, x.0002 would be as many kinds as files.
                self._pass(ending if ending in self._passed or len(self._passed) < 100 else "others", entry.path)
        return folders, files

    def _leads_back(self, link: str) -> bool:
        target = os.path.realpath(link)
        return _within(self._root, target) or any(_within(target, s) or _within(s, target) for s in self._splits)

    def _pass(self, kind: str, path: str | os.PathLike[str]) -> None:
        count, names = self._passed.get(kind, (0, []))
        if len(names) < 5:
            names.append(os.path.relpath(path, self.folder))
        self._passed[kind] = (count + 1, names)


def _within(path: str, folder: str) -> bool:
    """Whether a real path is that real folder, or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # follows symbolic links
    except OSError:  # a link that leads in a circle, or to where we may not look
        return False


def check_root(root: Path, what: str = _OWN, wanted: str = "a folder with train/ and val/ inside") -> None:
    """Raise DataError where there is no such folder, OSError where one cannot tell; `what` begins the message."""
    try:
        mode = os.stat(root).st_mode
        if stat.S_ISDIR(mode):
            return
        seen = "it is a file" if stat.S_ISREG(mode) else "it is neither a folder nor a file"
    except (FileNotFoundError, NotADirectoryError):
        seen = "it does not exist"
    except ValueError:
        seen = "a path cannot hold the character 0"
    raise DataError(f"{what}'{printable(root)}' should be {wanted}, but {seen}. Check the path.")


def named_as_split(name: str) -> bool:
    """Whether a folder of that name is one that people give a split."""
    return any(name.lower() in names for names in OTHER_NAMES.values())


def split_folder(root: Path, split: str | None) -> Path:
    """The folder of a split, or a DataError that tells the usual mistakes apart."""
    if split is None:
        return root
    for name in _SPLIT_FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/" for name in _SPLIT_FOLDERS[split])
    folders = subfolders(root)
    misnamed = [path.name for path in folders if path.name.lower() in OTHER_NAMES[split]]
    beside = [path.name for path in folders if named_as_split(path.name)]
    if misnamed:
        advice = f"Rename {printable(misnamed[0])}/ to {split}/"
    elif beside or not any(_holds_images(folder) for folder in folders[:3]):
        advice = f"Pass the folder that holds {wanted}, with one folder per class inside it"
    elif named_as_split(root.name):
        advice = f"This looks like a split itself: pass its parent, '{printable(root.resolve().parent)}'"
    else:
        advice = f"Its folders hold images, like those of a split: move them into {split}/, or pass split=None"
    raise DataError(f"ImageFolder: looked for {wanted} in '{printable(root)}', found {_contents(root)}. {advice}.")


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, sorted by name."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names) if name.lower() not in _SYSTEM_FOLDERS]


def _holds_images(folder: Path) -> bool:
    """Whether an image lies somewhere below, as far as one can look: for an error message."""
    return any(name.lower().endswith(EXTENSIONS) for _, _, names in os.walk(folder) for name in names)


def _contents(folder: Path) -> str:
    """What a folder holds, for an error message."""
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, _is_folder(entry)) for entry in entries)
    folders = [name + "/" for name, is_dir in listed if is_dir]
    files = [name for name, is_dir in listed if not is_dir]
    parts = [
        f"{len(group)} {what} ({some(group, 5)})" for group, what in ((folders, "folders"), (files, "files")) if group
    ]
    return " and ".join(parts) or "nothing"
