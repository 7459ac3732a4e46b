"""ILSVRC2012 from its official files: a tar of a thousand tars, a flat tar, and labels by numbers of their own.

In one folder are looked for

- the training pictures: ILSVRC2012_img_train.tar, or that unpacked in train/ or ILSVRC2012_img_train/, as
  n01440764.tar, ..., or as class folders;
- the validation pictures: ILSVRC2012_img_val.tar, or that unpacked in val/ or ILSVRC2012_img_val/, flat or in class
  folders;
- the development kit: ILSVRC2012_devkit_t12.tar.gz, or that unpacked; or what Kaggle has in its place (kaggle.py).

The labels of the flat validation pictures are the lines of the kit's ILSVRC2012_validation_ground_truth.txt.  Their
numbers are ILSVRC2012_ID, which is not the order of the wnids: the kit's meta.mat says which is which.  Labels here are
places among the sorted wnids, as everywhere else (torchvision, Caffe, the ONNX zoo).

A tar wins over what was unpacked from it: it is whole, or an error says so.  Without the kit the class folders of val
win over its tar, which has no labels then.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.errors import DataError, MissingDependencyError, one_line, printable, some

from . import kaggle
from .archives import Member, Passed, clipped, reader, tar_members
from .decode import EXTENSIONS
from .folder import Tree, listable
from .listing import Archive, FolderListing, Found, Listing, Progress, Source, TarListing, class_folders
from .words import near, words_near

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
ARCHIVES = (TRAIN, VAL, DEVKIT)
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_MOST_KIT = 1 << 28  # bytes that the kit unpacks to, at most: it has 2.6 MB
_MISSING = {
    "train": f"{TRAIN} (the training pictures; or train/ with the tars in it, or with class folders)",
    "val": f"{VAL} (the validation pictures; or val/ with these)",
}


@dataclass(frozen=True)
class Devkit:
    """The classes of the development kit, wnid by ILSVRC2012_ID, their words, and the ID of each validation picture."""

    wnids: Mapping[int, str]
    words: Mapping[str, str]
    truth: NDArray[np.int64]
    where: str


def is_official(root: Path) -> bool:
    """Whether pictures lie there as ILSVRC hands them out, or in class folders in folders named as its archives."""
    there = (root / TRAIN).is_file() or (root / VAL).is_file() or _class_tars(root) is not None
    named = any(_holds_folders(root / name) for name in ("ILSVRC2012_img_train", "ILSVRC2012_img_val"))
    return there or named or _flat_folder(root) is not None


def find(root: Path, splits: Sequence[str], progress: Progress) -> Source:
    """What lies in the folder; see find_source."""
    top = Path(os.path.abspath(root))
    train, flat, kit = _training(top), _flat(top), read_devkit(top)
    if kit is None and (solution := kaggle.read_solution(top)) is not None:
        kit = Devkit(*solution)
    folders = next((top / name for name in ("val", "ILSVRC2012_img_val") if _holds_folders(top / name)), None)
    if flat is not None and kit is None and folders is not None and _flat_folder(top) is None:
        flat = None  # a tar: its labels are in the kit, and those of the class folders are in their names
    if flat is not None and kit is None and "val" in splits:
        raise DataError(
            f"'{printable(root)}' lacks {DEVKIT} (the development kit: the labels of the validation pictures, and the "
            f"words of the classes; of Kaggle's, {kaggle.SOLUTION}). Put it there, packed or unpacked."
        )
    classes = tuple(sorted(kit.wnids.values())) if kit else tuple(train.classes) if train else ()
    if "train" in splits and train is not None and kit is not None and classes != tuple(train.classes):
        lost, odd = sorted(set(classes) - set(train.classes)), sorted(set(train.classes) - set(classes))
        raise DataError(
            f"{train.where} and {kit.where} must have the same classes: {len(lost)} of {len(classes)} are not among "
            f"the training pictures ({some(lost, 5) or 'none'}), and {len(odd)} there are not in the kit "
            f"({some(odd, 5) or 'none'}). Unpack the rest, or give the pictures that belong together."
        )
    if not classes and flat is None:
        raise DataError(
            f"'{printable(root)}' has validation pictures in class folders, and lacks {_MISSING['train']} and {DEVKIT}"
            ". One of these is to say which classes there are: put it there."
        )
    words = {name: kit.words[name] for name in classes if name in kit.words} if kit else words_near(classes, *near(top))
    found: dict[str, Listing] = {}
    if "train" in splits and train is not None:
        found["train"] = train.listing(progress)
    if "val" in splits and flat is not None and kit is not None:
        found["val"] = flat(kit, classes, progress)
    elif "val" in splits and folders is not None and classes:
        found["val"] = class_folders(top, folders, classes, progress)
    missing = {name: f"'{printable(root)}' lacks {_MISSING[name]}" for name in splits if name not in found}
    return Source("ILSVRC2012", root, classes, words, found, missing)


def is_tar_of_tars(path: Path) -> bool:
    """Whether a file is a tar that begins with a class's tar: all of ImageNet is handed out so, too."""
    with files.open_regular(path) as file:
        try:
            first = next(tar_members(reader(file), 0, os.fstat(file.fileno()).st_size, ""), None)
        except DataError:
            return False
    return first is not None and _CLASS_TAR.fullmatch(first.name) is not None


def find_tar_of_tars(path: Path, progress: Progress) -> Source:
    """A tar of one tar for each class; all is for training."""
    train = TarOfTars(Archive(path))
    words = words_near(train.classes, path.parent)
    missing = {"val": f"{train.where} is a tar of a tar for each class, all for training"}
    return Source("tar of tars", path, tuple(train.classes), words, {"train": train.listing(progress)}, missing)


# ---------------------------------------------------------------- training pictures


class _Training:
    """The training pictures: classes at once, the listing when it is asked for."""

    where: str
    classes: list[str]

    def listing(self, progress: Progress) -> Listing:
        raise NotImplementedError


class TarOfTars(_Training):
    """A tar that holds one tar for each class."""

    def __init__(self, archive: Archive) -> None:
        self.where, self._archive = f"'{printable(archive.path)}'", archive
        self._tars: dict[str, tuple[int, ...]] = {}
        passed = Passed(self.where)
        with self._archive.open() as file:
            members = list(tar_members(reader(file), 0, self._archive.size, self.where))
        for member in members:
            match = _CLASS_TAR.fullmatch(member.name)
            if not match:
                passed.add("as they are no class's tar", member.path)
            elif match[1] in self._tars:
                raise DataError(f"{self.where} holds {printable(member.name)} twice. Fetch it again.")
            else:
                self._tars[match[1]] = member.numbers
        passed.tell()
        self.classes = sorted(self._tars)

    def listing(self, progress: Progress) -> Listing:
        found, counts, passed = Found("qI"), [], Passed(self.where)
        with self._archive.open() as file:
            for done, (name, (start, size)) in enumerate(sorted(self._tars.items(), key=lambda item: item[1])):
                add_class(found, reader(file), start, size, name, f"{name}.tar in {self.where}", passed)
                counts.append(len(found))
                progress(self._archive.path.name, start + size if done + 1 < len(self._tars) else self._archive.size,
                         self._archive.size)  # fmt: skip
        passed.tell()
        return TarListing([self._archive], *_by_class(found, self.classes, self.where))


class _Tars(_Training):
    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self.where = f"'{printable(folder)}'"
        if _holds_folders(folder) and folder.name in ("train", "ILSVRC2012_img_train"):
            raise DataError(
                f"{self.where} holds {len(paths)} tars of classes, and folders too: it was not unpacked to the end. "
                "Unpack the rest and remove the tars, or keep the tars alone."
            )
        self.classes = [path.stem for path in paths]
        self._paths = paths

    def listing(self, progress: Progress) -> Listing:
        found, passed, archives = Found("qI"), Passed(self.where), []
        for k, (name, path) in enumerate(zip(self.classes, self._paths)):
            archives.append(Archive(path))
            with archives[-1].open() as file:
                add_class(found, reader(file), 0, archives[-1].size, name, f"'{printable(path)}'", passed)
            progress("train/", k + 1, len(self._paths))
        passed.tell()
        # TarListing takes archives by the number of the folder: _by_class has refused tars without a picture.
        return TarListing(archives, *_by_class(found, self.classes, self.where))


class _ClassFolders(_Training):
    def __init__(self, root: Path, folder: Path) -> None:
        self.where, self._root, self._folder = f"'{printable(folder)}'", root, folder
        self.classes = Tree(root, folder).class_folders()

    def listing(self, progress: Progress) -> Listing:
        return class_folders(self._root, self._folder, self.classes, progress)


def add_class(
    found: Found, read: Callable[[int, int], bytes], start: int, size: int, name: str, where: str, passed: Passed
) -> None:
    """The pictures in the tar of the class `name`, which is not trusted any more than the one around it."""
    folder = f"train/{name}"
    for member in tar_members(read, start, size, where):
        if passed.picture(member):
            found.add(folder, member.path, *clipped(member.numbers))


def _by_class(found: Found, classes: Sequence[str], where: str) -> tuple[Found, NDArray[np.int32], NDArray[np.int64]]:
    """What a listing is made of, where each class has a folder of its own: (found, labels, order)."""
    number = {name: k for k, name in enumerate(classes)}
    label = np.array([number[folder.split("/")[1]] for folder in found.folders], np.int32)
    labels = label[found.folder_of()] if len(found) else np.zeros(0, np.int32)
    empty = [classes[k] for k in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0).tolist()]
    if empty:
        raise DataError(
            f"{where}: {len(empty)} of {len(classes)} classes have no picture ({', '.join(EXTENSIONS)}): "
            f"{some(empty, 5)}. Fetch it again."
        )
    return found, labels, found.in_order(labels, where)


def _training(root: Path) -> _Training | None:
    if (root / TRAIN).is_file():
        return TarOfTars(Archive(root / TRAIN))
    if (tars := _class_tars(root)) is not None:
        return _Tars(*tars)
    for name in ("train", "ILSVRC2012_img_train"):
        if _holds_folders(root / name):
            return _ClassFolders(root, root / name)
    return None


def _class_tars(root: Path) -> tuple[Path, list[Path]] | None:
    """The folder that holds n01440764.tar, ..., and these, sorted."""
    for folder in (root / "train", root / "ILSVRC2012_img_train", root):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if _CLASS_TAR.fullmatch(entry.name))
            if names:
                return folder, [folder / name for name in names]
    return None


def _holds_folders(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


# ---------------------------------------------------------------- validation pictures


def _flat(root: Path) -> Callable[[Devkit, Sequence[str], Progress], Listing] | None:
    """What lists the flat validation pictures, in a tar or a folder."""
    if (root / VAL).is_file():
        return lambda kit, classes, progress: _flat_tar(root / VAL, kit, classes, progress)
    folder = _flat_folder(root)
    return None if folder is None else lambda kit, classes, _: _flat_files(root, folder, kit, classes)


def _flat_folder(root: Path) -> Path | None:
    for folder in (root / "val", root / "ILSVRC2012_img_val"):
        if folder.is_dir():
            with os.scandir(folder) as entries:
                if any(_PICTURE.fullmatch(entry.name) for entry in entries):
                    return folder
    return None


def _flat_tar(path: Path, kit: Devkit, classes: Sequence[str], progress: Progress) -> Listing:
    archive, found, where = Archive(path), Found("qI"), f"'{printable(path)}'"
    passed = Passed(where)
    with archive.open() as file:
        for member in tar_members(reader(file), 0, archive.size, where):
            _add_flat(found, "val", member, passed)
            if len(found) % 1000 == 0:
                progress(path.name, member.numbers[0], archive.size)
        progress(path.name, archive.size, archive.size)
    passed.tell()
    labels = _flat_labels(found, kit, classes, where)
    return TarListing([archive], found, labels, found.in_order(np.zeros_like(labels), where))


def _flat_files(root: Path, folder: Path, kit: Devkit, classes: Sequence[str]) -> Listing:
    found, where = Found(), f"'{printable(folder)}'"
    passed = Passed(where)
    with os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries if not entry.is_dir()):
            _add_flat(found, folder.name, Member("", name, ()), passed)
    passed.tell()
    return FolderListing(root, found, _flat_labels(found, kit, classes, where))


def _add_flat(found: Found, folder: str, member: Member, passed: Passed) -> None:
    if _PICTURE.fullmatch(member.name):
        found.add(folder, member.name, *clipped(member.numbers))
    elif passed.picture(member):
        passed.add("as no label belongs to their names", member.path)


def _flat_labels(found: Found, kit: Devkit, classes: Sequence[str], where: str) -> NDArray[np.int32]:
    """Picture N's label: line N of the truth is an ILSVRC2012_ID, that is a wnid, that is a place in `classes`."""
    numbers = np.array([int(found.name(i)[15:23]) for i in range(len(found))], np.int64)
    lost = np.setdiff1d(np.arange(1, len(kit.truth) + 1), numbers)
    if len(lost) or len(numbers) == 0 or numbers.min() < 1 or numbers.max() > len(kit.truth):
        odd = numbers[(numbers < 1) | (numbers > len(kit.truth))]
        raise DataError(
            f"{where} must hold the {len(kit.truth):,} pictures that {kit.where} has labels for, it holds "
            f"{len(numbers):,}: {len(lost):,} are not there (numbers {some(lost[:5], 5, len(lost)) or 'none'}), "
            f"{len(odd):,} have no label (numbers {some(odd[:5], 5, len(odd)) or 'none'}). "
            "Unpack the rest, or take the kit that belongs to them."
        )
    place = {name: k for k, name in enumerate(classes)}
    of_id = np.full(max(kit.wnids) + 1, -1, np.int32)
    for number, wnid in kit.wnids.items():
        of_id[number] = place[wnid]
    return of_id[kit.truth[numbers - 1]]


# ---------------------------------------------------------------- the development kit


def read_devkit(root: Path) -> Devkit | None:
    """The development kit in a folder, packed or unpacked; None where there is none, DataError where it is no good."""
    folder = root / DEVKIT.removesuffix(".tar.gz")
    packed = root / DEVKIT
    where = f"'{printable(packed if packed.is_file() else folder)}'"
    if packed.is_file():
        contents = _unpacked(packed, where)
    elif folder.is_dir():
        contents = {}
        for name in (META, TRUTH):
            place = next((p for p in (folder / "data" / name, folder / name) if p.is_file()), None)
            if place is not None:
                with listable(place, ""), files.open_regular(place) as file:
                    contents[name] = file.read(_MOST_KIT)
    else:
        return None
    for name, what in ((META, "which class is which"), (TRUTH, "the labels of the validation pictures")):
        if name not in contents:
            raise DataError(f"{where} lacks data/{name} ({what}). Fetch {DEVKIT} again.")
    try:
        wnids, words = _classes(contents[META])
        truth = np.array([int(line) for line in contents[TRUTH].split()], np.int64)
        if not wnids or len(set(wnids.values())) < len(wnids) or sorted(wnids) != list(range(1, len(wnids) + 1)):
            raise ValueError(f"{META} has {len(wnids)} classes, and their IDs must be 1, 2, ...")
        if len(truth) == 0 or truth.min() < 1 or truth.max() > len(wnids):
            raise ValueError(f"the numbers in {TRUTH} must be the IDs 1..{len(wnids)}")
    except MissingDependencyError:
        raise
    except Exception as error:  # scipy says in many ways that a file is damaged
        raise DataError(f"{where} cannot be read: {one_line(error)}. Fetch {DEVKIT} again.") from error
    return Devkit(wnids, words, truth, where)


def _unpacked(path: Path, where: str) -> dict[str, bytes]:
    """meta.mat and the ground truth, out of the kit's tar.gz, which is read once from its beginning."""
    found: dict[str, bytes] = {}
    try:
        with files.open_regular(path) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if tar.offset > _MOST_KIT:
                    raise tarfile.ReadError(f"it unpacks to more than {_MOST_KIT >> 20} MiB")
                name = os.path.basename(member.name)
                if name in (META, TRUTH) and member.isreg():
                    content: Any = tar.extractfile(member)
                    found.setdefault(name, content.read())
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read: {one_line(error)}. Fetch {DEVKIT} again.") from error
    return found


def _classes(meta: bytes) -> tuple[dict[int, str], dict[str, str]]:
    """(wnid by ILSVRC2012_ID, words by wnid) of the classes in meta.mat: the synsets that have no children."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingDependencyError(
            f"the labels of ILSVRC2012's validation pictures are in {META}, and to read that needs scipy ({error}): "
            "pip install 'minigrad[imagenet]'"
        ) from None
    file: BinaryIO = io.BytesIO(meta)
    wnids, words = {}, {}
    for synset in np.atleast_1d(loadmat(file, squeeze_me=True)["synsets"]):
        if int(synset["num_children"]) == 0:
            number, wnid = int(synset["ILSVRC2012_ID"]), str(synset["WNID"])
            if number in wnids:
                raise ValueError(f"ILSVRC2012_ID {number} is there twice")
            wnids[number], words[wnid] = wnid, str(synset["words"])
    return wnids, words
