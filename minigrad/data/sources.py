"""What pictures may come from: `find_source` says what lies at a path, and where its pictures' bytes are.

- ILSVRC2012's official files in one folder (ilsvrc.py), or as Kaggle has them (kaggle.py);
- Tiny ImageNet as it comes: train/<wnid>/images/, val/images/ with val/val_annotations.txt, words.txt; or its zip;
- class folders, by ImageFolder's rule of what counts: Imagenette, torchvision's layout, your own.  Without train/ and
  val/ all of them are for training;
- a tar or zip of class folders, of one folder with these inside, or of Tiny ImageNet's.

Nothing is unpacked: pictures in archives are read where they lie, by their offsets.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.base.arguments import integer
from minigrad.errors import ArgumentError, DataError, one_line, printable, some

from . import ilsvrc, kaggle
from .archives import Passed, clipped, compression_of, reader, tar_members, zip_members
from .decode import EXTENSIONS
from .folder import Tree, check_root, limited, listable, named_as_split, said_of, split_folder, subfolders
from .listing import (
    Archive,
    FolderListing,
    Found,
    Listing,
    Progress,
    Source,
    TarListing,
    ZipListing,
    class_folders,
    labels_of,
    read_zipped,
    renumbered,
)
from .prepare import prepare_bytes
from .words import FILES, near, read_words, words_near

SPLITS = ("train", "val")
ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet: picture, wnid and box in each line
_TEXTS = (*FILES, ANNOTATIONS, "wnids.txt", "README.txt", "README", "README.md")
_MOST_TEXT = 1 << 26  # bytes of such a file
_FEW = 100  # folders that are looked into for a dataset


def find_source(
    path: str | os.PathLike[str], splits: Sequence[str] = SPLITS, progress: Progress | None = None
) -> Source:
    """What lies at `path`, a folder or an archive.  Only headers and names are read.

    Args:
        splits: which are looked for; others are not listed.  One that is not there is named in `missing`.
        progress: called as progress(what, done, total) while something is searched: bytes of an archive, or class
            folders of a folder.

    Raises DataError where there is nothing to take pictures from, where that is damaged or not to be trusted (see
    archives.py), and where classes do not fit together; ArgumentError for other splits; MissingDependencyError where
    ILSVRC's development kit is to be read and scipy is not installed.
    """
    splits = tuple(splits)
    if not splits or not set(splits) <= set(SPLITS):
        raise ArgumentError(f"find_source: splits must be of 'train' and 'val', got {splits!r}")
    path = Path(path)
    told = progress or (lambda what, done, total: None)
    if path.name in ilsvrc.ARCHIVES and _is_file(path):
        path = path.parent
    with said_of(path), listable(path, ""):
        if _is_file(path):
            path = Path(os.path.abspath(path))  # pictures are read later, from wherever the program is then
            return ilsvrc.find_tar_of_tars(path, told) if ilsvrc.is_tar_of_tars(path) else _archive(path, splits, told)
        check_root(path, "", "a folder or an archive of pictures")
        path = kaggle.pictures_in(path)
        if ilsvrc.is_official(path):
            return ilsvrc.find(path, splits, told)
        return _folders(path, splits, told)


def in_class_folders(path: str | os.PathLike[str]) -> bool:
    """Whether ImageFolder is for what lies there; where not, SourceImages is.  Where there is nothing: yes, as
    ImageFolder's error says what should be there."""
    path = Path(path)
    with listable(path, ""):
        if not _is_folder(path):
            return not _is_file(path)
        return not (kaggle.pictures_in(path) != path or ilsvrc.is_official(path) or _is_tiny(path))


def _is_file(path: Path) -> bool:
    return "\0" not in str(path) and path.is_file()  # of such a name check_root says what is wrong


def _is_folder(path: Path) -> bool:
    return "\0" not in str(path) and path.is_dir()


# ---------------------------------------------------------------- folders


def _folders(root: Path, splits: Sequence[str], progress: Progress) -> Source:
    """Class folders, or Tiny ImageNet's."""
    top = Path(os.path.abspath(root))
    there = [name for name in ("train", "val", "test") if (top / name).is_dir()]
    folders = subfolders(top)
    if not there and not any(named_as_split(folder.name) for folder in folders):
        _check_not_around(root, top, folders)
        train = top  # the class folders themselves
    else:
        train = split_folder(top, "train")
    classes = tuple(Tree(top, train).class_folders())
    kind = "Tiny ImageNet" if _is_tiny(top) else "class folders"
    missing: dict[str, str] = {}
    source = Source(kind, root, classes, words_near(classes, *near(top)), {}, missing)
    if "train" in splits:
        source.splits["train"] = class_folders(top, train, classes, progress)
    if "val" in splits and train == top:
        missing["val"] = f"the class folders lie in '{printable(root)}' itself, so all are for training"
    elif "val" in splits and _is_tiny(top):
        source.splits["val"] = _annotated_folder(top, classes)
    elif "val" in splits and not {"val", "test"} & set(there):
        missing["val"] = f"looked for val/ or test/ in '{printable(root)}'"
    elif "val" in splits:
        folder = split_folder(top, "val")
        if os.path.samefile(folder, train):
            warnings.warn(
                f"'{printable(folder)}' is '{printable(train)}': it tests on what was trained on", stacklevel=3
            )
        source.splits["val"] = class_folders(top, folder, classes, progress)
    return source


def _check_not_around(root: Path, top: Path, folders: Sequence[Path]) -> None:
    """DataError where `top` is no folder of class folders but one around a dataset, or one of its splits: its folders
    would be taken for classes."""
    if named_as_split(top.name):
        split_folder(top, "train")  # which says: pass its parent
    # As Kaggle has it, ILSVRC/Data/CLS-LOC: two deep.  Of a folder around a dataset nobody fills a hundred more.
    for folder in folders[:_FEW]:
        for inside in (folder, *subfolders(folder)[:_FEW]):
            if ilsvrc.is_official(inside) or any(
                (inside / name).is_dir() and subfolders(inside / name) for name in ("train", "val")
            ):
                raise DataError(
                    f"'{printable(root)}' has no train/ in it, but '{printable(inside)}' has the pictures of a "
                    "dataset: give that folder"
                )


def _is_tiny(root: Path) -> bool:
    """Whether val/ is as Tiny ImageNet has it; where it was put into class folders, the annotations may lie on."""
    return (root / "val" / ANNOTATIONS).is_file() and (root / "val" / "images").is_dir()


def _annotated_folder(root: Path, classes: Sequence[str]) -> FolderListing:
    """Tiny ImageNet's val/images, with the classes that val_annotations.txt gives."""
    place = root / "val" / ANNOTATIONS
    with files.open_regular(place) as file:
        text = file.read(_MOST_TEXT + 1)
    found, where = Found(), f"'{printable(root / 'val' / 'images')}'"
    with os.scandir(root / "val" / "images") as entries:
        for name in sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS)):
            if not name.startswith("."):
                found.add("val/images", name)
    return FolderListing(root, found, _annotated(text, found, np.arange(len(found)), classes, where))


def _annotated(
    text: bytes, found: Found, pictures: Iterable[int], classes: Sequence[str], where: str
) -> NDArray[np.int32]:
    """Labels of those `pictures` of `found` by a text of lines "picture, tab, class, ..."; -1 of the others.

    DataError where a picture has no line, or a line no picture: some would be lost, or the file is another's.
    """
    lines = [line.split("\t") for line in os.fsdecode(text).splitlines() if line.strip()]
    class_of = {line[0]: line[1] for line in lines if len(line) > 1}
    if len(text) > _MOST_TEXT or len(class_of) < len(lines):
        raise DataError(
            f"{ANNOTATIONS} of {where}: each line must be a picture's name, a tab and its class, once for each "
            "picture. Take the file that came with the pictures."
        )
    names = {found.name(i): i for i in pictures}
    odd = [*(name for name in names if name not in class_of), *(name for name in class_of if name not in names)]
    if odd or not names:
        raise DataError(
            f"{ANNOTATIONS} has {len(class_of)} pictures, and {where} holds {len(names)}: {len(odd)} are in one only "
            f"({some(odd, 5)}). Unpack the dataset again."
        )
    labels = np.full(len(found), -1, np.int32)
    labels[list(names.values())] = labels_of([class_of[name] for name in names], classes, ANNOTATIONS)
    return labels


# ---------------------------------------------------------------- one archive


def _archive(path: Path, splits: Sequence[str], progress: Progress) -> Source:
    """A tar or zip of class folders, or of Tiny ImageNet's."""
    archive, where = Archive(path), f"'{printable(path)}'"
    passed, texts = Passed(where, _TEXTS), dict[str, bytes]()
    with archive.open() as file:
        begin = file.read(6)
        if command := compression_of(begin):
            quoted = shlex.quote(printable(path))
            raise DataError(
                f"{where} is compressed: no picture of it can be had without unpacking all before it. Unpack it by "
                f"{command} {quoted}, and give the tar that comes out; or all of it by tar xf {quoted}, and give the "
                "folder."
            )
        zipped = begin.startswith((b"PK\3\4", b"PK\5\6"))
        found = Found("qIII" if zipped else "qI")
        members = zip_members(file, where) if zipped else tar_members(reader(file), 0, archive.size, where)
        for member in members:
            if member.name in _TEXTS:
                if len(texts) < 100:  # they lie at the top, but any folder may hold one of such a name
                    texts[member.path] = _text(file, archive, member.numbers)
            elif passed.picture(member):
                found.add(member.folder, member.name, *clipped(member.numbers))
                if len(found) % 1000 == 0:
                    progress(path.name, member.numbers[0], archive.size)
        progress(path.name, archive.size, archive.size)
    if not found:
        raise DataError(
            f"{where} holds no picture ({', '.join(EXTENSIONS)}) in a class folder. Give the archive of a dataset, or "
            "the folder that holds its files."
        )
    source = _split_archive(archive, found, texts, passed, splits, zipped)
    passed.tell()
    return source


def _split_archive(
    archive: Archive, found: Found, texts: dict[str, bytes], passed: Passed, splits: Sequence[str], zipped: bool
) -> Source:
    """What an archive's folders make of its pictures."""
    path, where = archive.path, f"'{printable(archive.path)}'"
    top = _top([folder.split("/") for folder in found.folders])
    parts = [folder.split("/")[len(top) :] if folder else [] for folder in found.folders]
    texts = {name[len("".join(f"{part}/" for part in top)) :]: text for name, text in texts.items()}
    found.folders = {"/".join(folder): k for k, folder in enumerate(parts)}  # the split comes first in names
    first = {folder[0] for folder in parts if folder}
    place = {"train": ["train"], "val": ["val"] if "val" in first else ["test"]}
    if not any(map(named_as_split, first)):
        place = {"train": []}
    elif "train" not in first:
        raise DataError(
            f"{where}: looked for train/, found {some(sorted(first), 5)}. Its folders must be train/ and val/."
        )

    def numbered(split: str) -> list[str | None]:
        """The class of each folder: None where it is not of this split, "" where its pictures have no class."""
        depth = len(place[split])
        return ["".join(names[depth : depth + 1]) if names[:depth] == place[split] else None for names in parts]

    own = numbered("train")
    classes = tuple(sorted({name for name in own if name}))
    words: dict[str, str] = {}
    for name in FILES:
        words = words or read_words(texts.get(name, b"").splitlines(), classes)
    words = words or words_near(classes, path.parent)
    flat = f"val/{ANNOTATIONS}" in texts and "val/images" in found.folders
    kind, missing = "Tiny ImageNet" if flat else "zip" if zipped else "tar", {}
    listings: dict[str, Listing] = {}
    folder_of = found.folder_of()
    for split in splits:
        if split not in place or not {*place[split]} <= first:
            missing[split] = f"looked for {'val/ or test/' if split == 'val' else 'train/'} in {where}"
            continue
        names = own if split == "train" else numbered(split)
        if flat and split == "val":
            pictures = np.flatnonzero(folder_of == found.folders["val/images"])
            labels = _annotated(
                texts[f"val/{ANNOTATIONS}"], found, pictures.tolist(), classes, f"val/images of {where}"
            )
            order = found.in_order(np.minimum(labels, 0), where)
        else:
            known = sorted({name for name in names if name})
            number = dict(zip(known, labels_of(known, classes, f"{'/'.join(place[split])}/ of {where}").tolist()))
            labels = np.array([number.get(name or "", -1) for name in names], np.int32)[folder_of]
            for i in np.flatnonzero(np.array([name == "" for name in names])[folder_of]).tolist():
                passed.add("as they lie beside the class folders and have no class", found.name(i))
            order = found.in_order(labels, where)
        these = (found, labels, order)
        listings[split] = ZipListing(archive, *these) if zipped else TarListing([archive], *these)
    return Source(kind, path, classes, words, listings, missing)


def _top(folders: list[list[str]]) -> list[str]:
    """The folders around the dataset: those that all pictures lie in, above the splits or the class folders."""
    top: list[str] = []
    least = min(len(folder) for folder in folders)
    for names in zip(*folders):
        if len(set(names)) > 1 or names[0] in ("train", "val", "test") or len(top) + 1 >= least:
            break
        top.append(names[0])
    return top


def _text(file: BinaryIO, archive: Archive, numbers: tuple[int, ...]) -> bytes:
    """A small file in an archive."""
    if max(numbers[1:3]) > _MOST_TEXT:
        return b""
    try:
        return read_zipped(file, archive, *numbers) if len(numbers) > 2 else reader(file)(*numbers)
    except OSError as error:
        raise DataError(f"'{printable(archive.path)}': {one_line(error)}. Fetch it again.") from error


# ---------------------------------------------------------------- a dataset


class SourceImages:
    """The pictures of one split of a source, as a dataset: decoded and prepared each time they are asked for.

    Args:
        source: what find_source has found.
        split: "train" or "val".
        size, limit, seed: as ImageFolder's.
        classes: class names in label order, in place of the source's (say, from a checkpoint).

    Attributes:
        labels: int64 (N,).  classes: tuple of str, label k is classes[k].  words: class -> words, {} without any.
        paths: sequence of the pictures' names, not held one by one.  folder: where the source lies.

    Raises DataError where the split is not there or has classes that are not among the given ones; ArgumentError for a
    setting out of range.
    """

    def __init__(
        self,
        source: Source,
        split: str = "train",
        *,
        size: int = 256,
        limit: int | None = None,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        seed = integer("SourceImages", "seed", seed, 0)
        limit = None if limit is None else integer("SourceImages", "limit", limit, 1)
        self.size = integer("SourceImages", "size", size, 1)
        self._listing, self.split, self.folder = source.split(split), split, source.path
        labels = self._listing.labels.astype(np.int64)
        self.classes = source.classes if classes is None else tuple(classes)
        where = f"'{split}' of '{printable(source.path)}'"
        labels = renumbered(labels, source.classes, self.classes, "SourceImages", where)
        self.words = {name: source.words[name] for name in self.classes if name in source.words}
        self._indices: NDArray[np.int64] | None = None
        if limit is not None:
            self._indices = limited(labels, limit, seed)
            labels = labels[self._indices]
        self.labels: NDArray[np.int64] = labels
        self.paths: Sequence[str] = _Paths(self._listing, self._indices)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"SourceImages('{printable(self.folder)}', '{self.split}', {len(self)} images, {len(self.classes)} classes)"
        )

    def image(self, index: int) -> NDArray[np.uint8]:
        """Decode image `index` to uint8 RGB (size, size, 3); raises UnreadableImageError (a DataError)."""
        place = index if self._indices is None else int(self._indices[index])
        return prepare_bytes(self._listing.read(place), self._listing.name(place), self.size)


class _Paths(Sequence[str]):
    """The names of some pictures of a listing."""

    def __init__(self, listing: Listing, indices: NDArray[np.int64] | None) -> None:
        self._listing, self._indices = listing, indices

    def __len__(self) -> int:
        return len(self._listing if self._indices is None else self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        k = range(len(self))[index]  # IndexError ends a for loop
        return self._listing.name(k if self._indices is None else int(self._indices[k]))
