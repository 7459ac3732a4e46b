"""Where the pictures of a dataset are, for those that pack or show them: names, labels, and how to have the bytes.

All of ImageNet is 15 million pictures in 22,000 classes.  So there is no Python object for each picture: names lie in
one buffer of bytes, the rest in arrays.
"""

from __future__ import annotations

import os
import warnings
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.errors import ArgumentError, DataError, one_line, printable, some

from .decode import EXTENSIONS, MOST_BYTES
from .folder import Tree
from .prepare import UnreadableImageError

Progress = Callable[[str, int, int], Any]  # (what is searched, how much is done, of how much)

_LOOK = "Check the path, its permissions and the disk."


@dataclass(frozen=True)
class Source:
    """What `find_source` has found.

    kind: in a word.  path: the folder or file it was found in.  classes: names, label k is classes[k].
    words: what people call classes, where a file says so.  splits: the listings that are there, of "train" and "val".
    missing: for a split that is not there, what was looked for.
    """

    kind: str
    path: Path
    classes: tuple[str, ...]
    words: Mapping[str, str]
    splits: dict[str, Listing]
    missing: Mapping[str, str] = field(default_factory=dict)

    def split(self, name: str) -> Listing:
        """The listing of a split; DataError, which says what was looked for, where it is not there."""
        if name in self.splits:
            return self.splits[name]
        if name not in ("train", "val"):
            raise ArgumentError(f"Source.split: name must be 'train' or 'val', got {name!r}")
        raise DataError(
            f"'{printable(self.path)}' ({self.kind}) has no split '{name}': "
            f"{self.missing.get(name, 'it was not asked for')}"
        )


class Found:
    """The pictures that a search has met so far: folder and name of each, and the numbers that say where it lies."""

    def __init__(self, codes: str = "") -> None:
        """codes: the types, in the array module's letters, of the numbers that `add` is given."""
        self.folders: dict[str, int] = {}  # in the order in which they were met
        self.numbers = tuple(array(code) for code in codes)
        self._names, self._ends, self._folder = bytearray(), array("q", [0]), array("i")

    def __len__(self) -> int:
        return len(self._folder)

    def add(self, folder: str, name: str, *numbers: int) -> None:
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))
        self._folder.append(self.folders.setdefault(folder, len(self.folders)))
        for column, number in zip(self.numbers, numbers):
            column.append(number)

    def name(self, index: int) -> str:
        return os.fsdecode(bytes(self._names[self._ends[index] : self._ends[index + 1]]))

    def folder_of(self) -> NDArray[np.int32]:
        """For each picture which of `folders` it lies in."""
        return np.frombuffer(self._folder, np.int32) if self._folder else np.zeros(0, np.int32)

    def in_order(self, labels: NDArray[np.int32], where: str) -> NDArray[np.int64]:
        """The pictures with labels >= 0, sorted by label, and within a class as ImageFolder lists them.

        That is folder by folder: the files of one, sorted, before what lies in its folders.  DataError where two have
        the same name: `where` says of what.
        """
        order = np.argsort(labels, kind="stable")
        order = order[np.searchsorted(labels, 0, sorter=order) :]
        names = list(self.folders)
        rank = np.empty(len(names), np.int32)
        rank[sorted(range(len(names)), key=lambda k: names[k].split("/"))] = np.arange(len(names), dtype=np.int32)
        place = rank[self.folder_of()]
        bounds = np.append(np.flatnonzero(np.diff(labels[order], prepend=-1)), len(order)).tolist()
        twice: list[str] = []
        for begin, end in zip(bounds, bounds[1:]):
            members = order[begin:end]
            keys = sorted(zip(place[members].tolist(), map(self.name, members.tolist()), members.tolist()))
            twice += [a[1] for a, b in zip(keys, keys[1:]) if a[:2] == b[:2]]
            order[begin:end] = [key[2] for key in keys]
        if twice:
            raise DataError(
                f"{where} holds {len(twice)} pictures more than once, by their names ({some(twice, 5)}), and which is "
                "meant nobody can tell. Unpack it, keep one of each, and give the folder."
            )
        return order

    def taken(self, order: NDArray[np.int64] | None) -> tuple[Names, NDArray[np.int32], list[NDArray[Any]]]:
        """(names, folders, numbers) of these pictures, in this order; None: of all, as they were met."""
        ends, folder = np.frombuffer(self._ends, np.int64), self.folder_of()
        columns = [np.frombuffer(column, column.typecode) if column else np.zeros(0) for column in self.numbers]
        if order is not None:
            folder, columns, order = folder[order], [column[order] for column in columns], order.astype(np.uint32)
        return Names(self._names, ends, order), folder, columns


class Names(Sequence[str]):
    """Strings that lie end to end in a buffer, string k at bytes ends[k] .. ends[k + 1]; each is made when asked for.

    chosen: which of them these are, integers; None for all.
    """

    def __init__(self, content: Any, ends: NDArray[Any], chosen: NDArray[Any] | None = None) -> None:
        self._content, self._ends, self._chosen = content, ends, chosen

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # IndexError ends a for loop
        k = place if self._chosen is None else int(self._chosen[place])
        return os.fsdecode(bytes(self._content[int(self._ends[k]) : int(self._ends[k + 1])]))


class Listing:
    """The pictures of one split.  `labels` is int32 (N,); `name(i)` and `read(i)` take 0..N-1.

    Reading opens a file each time, so it may be done from several threads, and after a fork.  Names are as the source
    has them, with the split's folder first: "train/n01440764/n01440764_10026.JPEG".
    """

    def __init__(self, found: Found, labels: NDArray[np.int32], order: NDArray[np.int64] | None = None) -> None:
        """labels: of the pictures in `found`, there; order: which of them these are, None for all as they were met."""
        self._names, self._folder, self._numbers = found.taken(order)
        self._folders = list(found.folders)
        self.labels: NDArray[np.int32] = labels if order is None else labels[order]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        folder = self._folders[self._folder[index]]
        return f"{folder}/{self._names[index]}" if folder else self._names[index]

    def read(self, index: int) -> bytes:
        """The bytes of picture `index`, as they are; UnreadableImageError, with name and reason, where they cannot be
        had: the file is gone or has changed, is no regular file, or is larger than 512 MiB."""
        try:
            return self._read(index)
        except OSError as error:
            cure = _LOOK if error.errno else "Look at the file."
            raise UnreadableImageError(self.name(index), one_line(error), cure) from error

    def _read(self, index: int) -> bytes:
        """The bytes, or OSError."""
        raise NotImplementedError


class FolderListing(Listing):
    """Pictures that are files below the folder `root`."""

    def __init__(self, root: Path, *found: Any) -> None:
        super().__init__(*found)
        self._root = root

    def _read(self, index: int) -> bytes:
        with files.open_regular(self._root / self.name(index)) as file:
            _check_length(os.fstat(file.fileno()).st_size)
            return file.read()


class Archive:
    """A file that pictures lie in, as it was when it was searched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with files.open_regular(path) as file:
            self.size, self._changed = _state(file)

    def open(self) -> BinaryIO:
        """The file, to be closed by the caller; OSError where it is gone, or no longer the one that was searched."""
        file = files.open_regular(self.path)
        if _state(file) != (self.size, self._changed):
            file.close()
            raise OSError(f"'{printable(self.path)}' has changed since it was searched: begin anew")
        return file


class TarListing(Listing):
    """Pictures in tars, by offset and size (numbers "qI"): one tar for all of them, or one for each folder."""

    def __init__(self, archives: Sequence[Archive], *found: Any) -> None:
        super().__init__(*found)
        self._archives = archives

    def _read(self, index: int) -> bytes:
        offsets, sizes = self._numbers
        size = int(sizes[index])
        _check_length(size)
        archive = self._archives[self._folder[index] if len(self._archives) > 1 else 0]
        with archive.open() as file:
            return _exactly(file, int(offsets[index]), size, archive)


class ZipListing(Listing):
    """Pictures in a zip, by the offset of their header there, their size, packed and not, and CRC-32 ("qIII")."""

    def __init__(self, archive: Archive, *found: Any) -> None:
        super().__init__(*found)
        self._archive = archive

    def _read(self, index: int) -> bytes:
        with self._archive.open() as file:
            return read_zipped(file, self._archive, *(int(column[index]) for column in self._numbers))


def class_folders(root: Path, folder: Path, classes: Sequence[str], progress: Progress) -> FolderListing:
    """The pictures below the class folders in `folder`, which is `root` or in it; DataError for other classes."""
    tree, found, counts = Tree(root, folder), Found(), []
    names, below = tree.class_folders(), len(os.path.join(root, ""))
    labels = labels_of(names, classes, f"'{printable(folder)}'")
    for k, name in enumerate(names):
        paths = tree.images(folder / name)
        for path in paths:
            found.add(*os.path.split(path[below:]))
        counts.append(len(paths))
        progress(f"{folder.name}/", k + 1, len(names))
    empty = [name for name, count in zip(names, counts) if not count]
    notes = tree.notes()
    if empty:
        notes.append(f"{len(empty)} class folders of '{printable(folder)}' hold no image: {some(empty)}")
    if not found:
        raise DataError(
            f"looked for {', '.join(EXTENSIONS)} files in the {len(names)} class folders of '{printable(folder)}', "
            f"found none{''.join(f'; {note}' for note in notes)}. Put the images there, one folder per class."
        )
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return FolderListing(root, found, np.repeat(labels, counts))


def labels_of(names: Sequence[str], classes: Sequence[str], where: str, given: bool = False) -> NDArray[np.int32]:
    """Their numbers among `classes`, which are those of train, or were given; DataError where one is not among them."""
    number = {name: k for k, name in enumerate(classes)}
    odd = [name for name in names if name not in number]
    if odd:
        advice = (
            "The classes were given (say, by a net's weights): these images are of other data, so pass those that "
            "belong to them"
            if given
            else "Rename or remove those, or add them to the training set"
        )
        raise DataError(
            f"every class in {where} must be one of the {len(classes)} known ({some(classes)}), but {len(odd)} are "
            f"not: {some(odd, 50)}. {advice}."
        )
    return np.array([number[name] for name in names], np.int32)


def renumbered(
    labels: NDArray[np.int64], own: Sequence[str], classes: Sequence[str], what: str, where: str
) -> NDArray[np.int64]:
    """Labels by the numbers of the given `classes`, of labels that are numbered by `own`.

    ArgumentError where two of `classes` are equal, DataError where labels are of others: `what` and `where` name them.
    """
    if len(set(classes)) != len(classes):
        raise ArgumentError(f"{what}: the names in classes must differ, got {some(classes)}")
    if tuple(classes) == tuple(own):
        return labels
    used, number = np.unique(labels), np.full(len(own), -1, np.int64)
    number[used] = labels_of([own[k] for k in used.tolist()], classes, where, given=True)
    return number[labels]


def read_zipped(file: BinaryIO, archive: Archive, offset: int, packed: int, size: int, checksum: int) -> bytes:
    """A member of a zip, stored or deflated; OSError for anything else.  (ZipFile would read the whole index anew.)"""
    _check_length(max(packed, size))
    header = _exactly(file, offset, 30, archive)
    method, name, extra = (int.from_bytes(header[k : k + 2], "little") for k in (8, 26, 28))
    content = _exactly(file, offset + 30 + name + extra, packed, archive)
    if header[:4] != b"PK\3\4" or method not in (0, 8):
        raise OSError(f"no stored or deflated member begins at byte {offset:,} of '{printable(archive.path)}'")
    if method == 8:
        try:
            content = zlib.decompressobj(-15).decompress(content, size + 1)
        except zlib.error as error:
            raise OSError(f"damaged in '{printable(archive.path)}': {error}") from error
    if len(content) != size or zlib.crc32(content) != checksum:
        raise OSError(f"damaged in '{printable(archive.path)}': its checksum does not fit")
    return content


def _exactly(file: BinaryIO, offset: int, count: int, archive: Archive) -> bytes:
    file.seek(offset)
    content = file.read(count)
    if len(content) != count:
        raise OSError(f"cut off: '{printable(archive.path)}' ends within it, at byte {offset + len(content):,}")
    return content


def _check_length(size: int) -> None:
    if size > MOST_BYTES:
        raise OSError(f"a file of {size >> 20:,} MiB, more than the {MOST_BYTES >> 20} that are read")


def _state(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
