"""A store of packed images: pictures prepared once, in a few large files, which training reads through memory maps.

A store is a folder, made by `pack` (packing.py):

    manifest.json            format, version, settings, classes, words, and size and CRC-32 of every file
    stats.npz                mean image and colour components of all training pictures (ImageStats)
    report.json              the pictures that were left out, with their reasons
    train/, val/             for each split:
        00000.pixels ...     uint8 (images, size, size, 3), one picture after the other; or
        00000.jpegs ...      the same as JPEG files, end to end; picture i is at jpegs.uint64[i] .. [i + 1], counted
                             through all shards
        labels.int64         the label of each picture
        names.utf8           their names, end to end; name i is at names.uint64[i] .. [i + 1]

Numbers are little-endian.  A shard holds 32 to 1024 pictures, more in stores of above four million (packing.py), so
that packing can go on after the last whole shard.
Nothing is kept in memory for each picture: labels, names and pixels are mapped, and the system reads what is looked at.
For raw pixels `image` returns a view of the map, without a copy.  While a view lives its shard stays mapped, and each
mapped shard holds a file open: who keeps many pictures keeps copies.
"""

from __future__ import annotations

import errno
import json
import mmap
import operator
import os
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.base.arguments import integer
from minigrad.errors import DataError, one_line, printable, some

from .folder import limited
from .listing import Names, renumbered
from .prepare import ImageStats, UnreadableImageError, prepare_bytes

MANIFEST, STATS, REPORT = "manifest.json", "stats.npz", "report.json"
UNFINISHED = "packing.json"  # in place of the manifest while a store is being packed
FORMAT, VERSION = "minigrad packed images", 1
LABELS, NAMES, NAME_ENDS, JPEG_ENDS = "labels.int64", "names.utf8", "names.uint64", "jpegs.uint64"

_MOST_MAPS = 128  # shards mapped at a time: each map holds a file open, and a process may open 1024 of them, or 256
_CHUNK = 1 << 24  # bytes that are read at a time
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # what the system says of the process, and not of a file


class PackedImages:
    """The images of one split of a packed store, with labels, as `ImageFolder` has those of a folder.

    The order is that of what was packed: a store of a folder of readable files gives the same pictures as the folder,
    to the bit, where its pixels are raw and small pictures were enlarged.  Its statistics are of all of them.  Safe to
    use from several threads, after a fork, and in another process (pickled, it is opened there anew).

    Args:
        folder: the store.
        split: "train" or "val", or whatever the store has.
        limit: at most this many images of each class, drawn with `seed` as ImageFolder does; None for all.
        seed: of the draw for `limit` (>= 0).
        classes: class names in label order, in place of the store's own (say, from a checkpoint).

    Attributes:
        classes: tuple of names; label k is classes[k].
        words: what the classes are in words, {class: words}, as far as the source told.
        paths: a sequence of str, the names that the pictures had in what was packed: "val/n01440764/x.JPEG".
        labels: int64 (len,), read-only.
        folder: where the pictures of this split are.
        size: side of the pictures in pixels.
        kind: "raw", or "JPEG 90" and the like: how pixels are kept.
        fit: what became of pictures smaller than `size`: "scale", they were enlarged, or "place", see `pack`.
        in_memory: whether images are at hand without decoding, so that a Loader need not keep them.

    Raises:
        DataError: no store, one that is not finished, of a newer format or damaged, or without that split, or with
            classes that `classes` does not have.
        ArgumentError: limit or seed out of range, or equal names in `classes`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str = "train",
        *,
        limit: int | None = None,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        seed = integer("PackedImages", "seed", seed, 0)
        limit = None if limit is None else integer("PackedImages", "limit", limit, 1)
        self._given = (os.path.abspath(folder), split, limit, seed, classes)
        self.root = Path(folder)
        manifest = read_manifest(self.root)
        settings, splits = manifest["settings"], manifest["splits"]
        if split not in splits:
            raise DataError(
                f"PackedImages: the store '{printable(folder)}' has no split {split!r}, it has {some(splits)}. Pack it "
                "again from a source that has one."
            )
        self.split, self.folder, self.size, self.fit = split, self.root / split, settings["size"], settings["fit"]
        self.jpeg = settings["jpeg_quality"] is not None
        self.kind, self.in_memory = f"JPEG {settings['jpeg_quality']}" if self.jpeg else "raw", not self.jpeg
        self.words: dict[str, str] = manifest["words"]
        facts = splits[split]
        problems = [
            problem for name, size, _ in files_of(facts, self.jpeg) for problem in sized(self.folder / name, size)
        ]
        if problems:
            raise _damaged(self.root, problems)
        self._starts = [0, *np.cumsum([images for images, _, _ in facts["shards"]]).tolist()]
        self._shards: dict[int, NDArray[np.uint8]] = {}
        self._jpeg_ends = mapped(self.folder / JPEG_ENDS, "<u8") if self.jpeg else None
        labels: NDArray[np.int64] = mapped(self.folder / LABELS, "<i8")
        _, size, checksum = next(entry for entry in files_of(facts, self.jpeg) if entry[0] == LABELS)
        # A wrong label looks like any other.  This reads 8 bytes a picture; check_store looks at all the rest.
        if zlib.crc32(labels.data) != checksum:
            raise _damaged(self.root, [f"{split}/{LABELS} has another checksum than when it was written"])
        self.classes = tuple(manifest["classes"])
        if classes is not None:
            labels = renumbered(labels, self.classes, classes, "PackedImages", f"'{printable(self.folder)}'")
            self.classes = tuple(classes)
        self._chosen = None if limit is None else limited(labels, limit, seed)
        self.labels = labels if self._chosen is None else labels[self._chosen]
        self.labels.flags.writeable = False
        names, ends = mapped(self.folder / NAMES, "u1"), mapped(self.folder / NAME_ENDS, "<u8")
        self.paths: Sequence[str] = Names(names, ends, self._chosen)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"PackedImages('{printable(self.folder)}', {len(self)} images, {len(self.classes)} classes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, self._given

    @property
    def stats(self) -> ImageStats:
        """Mean image and colour components of *all* training pictures of the store; DataError where it has none."""
        if not (self.root / STATS).exists():
            raise DataError(
                f"PackedImages: the store '{printable(self.root)}' has no training pictures, and so no statistics. "
                "Compute them from others: compute_stats."
            )
        return replace(ImageStats.load(self.root / STATS), fit=self.fit)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Picture `index`, uint8 RGB (size, size, 3): of raw pixels a read-only view, of a JPEG a new array.

        Raises IndexError; UnreadableImageError (a DataError) where a shard cannot be read any more, and a plain
        DataError where it is this process that may open or map no more files: every picture would be missing then.
        """
        place = _within(operator.index(index), len(self.labels))
        i = place if self._chosen is None else int(self._chosen[place])
        k = bisect_right(self._starts, i) - 1
        try:
            shard = self._shard(k)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DataError(
                    f"PackedImages: cannot map '{printable(self.folder / shard_name(k, self.jpeg))}': "
                    f"{one_line(error)}. This process may hold no more files open, or no more memory: keep copies of "
                    "pictures and not views of them, close other files, or allow more of them (ulimit -n)."
                ) from error
            raise UnreadableImageError(
                self.folder / shard_name(k, self.jpeg), one_line(error), "Check the disk, and the store (check_store)."
            ) from error
        if self._jpeg_ends is None:
            image: NDArray[np.uint8] = shard[i - self._starts[k]]
            return image
        begin, end = (int(self._jpeg_ends[j] - self._jpeg_ends[self._starts[k]]) for j in (i, i + 1))
        return prepare_bytes(shard[begin:end].tobytes(), self.paths[place], self.size)

    def _shard(self, k: int) -> NDArray[np.uint8]:
        """A shard's bytes, mapped: (images, size, size, 3), or (bytes,) of JPEG files.

        No lock, which a fork could find taken: two threads may map a shard at once, and one of the maps goes.  A map
        that goes stays for those who still look at a view of it.
        """
        shard = self._shards.get(k)
        if shard is None:
            shard = mapped(self.folder / shard_name(k, self.jpeg), "u1")
            if not self.jpeg:
                shard = shard.reshape(-1, self.size, self.size, 3)
            while len(self._shards) >= _MOST_MAPS:
                with suppress(RuntimeError, StopIteration, KeyError):  # another thread was faster
                    del self._shards[next(iter(self._shards))]
            self._shards[k] = shard
        return shard


def _opened(folder: str, split: str, limit: int | None, seed: int, classes: Sequence[str] | None) -> PackedImages:
    return PackedImages(folder, split, limit=limit, seed=seed, classes=classes)


def is_store(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is a packed store, finished or not, of whatever version."""
    return any(_format_of(Path(folder) / name) == FORMAT for name in (MANIFEST, UNFINISHED))


# ---------------------------------------------------------------- the files of a store


def read_manifest(root: Path) -> dict[str, Any]:
    """What manifest.json says; DataError where there is none, or none that this version can read."""
    here = printable(root)
    try:
        with files.open_regular(root / MANIFEST) as file:
            manifest = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        if _format_of(root / UNFINISHED) == FORMAT:
            raise DataError(
                f"the store '{here}' is not finished: pack it on, with the command that began it "
                "(examples/prepare_imagenet.py)"
            ) from None
        raise DataError(f"'{here}' is no packed store: there is no {MANIFEST} in it. Check the path.") from None
    except OSError as error:
        raise DataError(f"cannot read '{here}/{MANIFEST}': {one_line(error)}. Check path and disk.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(root, [f"{MANIFEST} is no JSON ({one_line(error)[:100]})"]) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"'{here}' is no packed store: its {MANIFEST} is of something else. Check the path.")
    version = manifest.get("version")
    if not isinstance(version, int) or version < 1:
        raise _damaged(root, [f"{MANIFEST} gives the version {version!r}"])
    if version > VERSION:
        raise DataError(
            f"the store '{here}' has format {version}, and this minigrad reads formats up to {VERSION}: take a newer "
            "minigrad, or pack the pictures again with this one"
        )
    if manifest.pop("checksum", None) != manifest_checksum(manifest):
        raise _damaged(root, [f"{MANIFEST} has been changed since it was written"])
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """CRC-32 of everything else in a manifest."""
    return f"{zlib.crc32(json.dumps(manifest, sort_keys=True).encode()):08x}"


def shard_name(number: int, jpeg: bool) -> str:
    return f"{number:05d}.{'jpegs' if jpeg else 'pixels'}"


def files_of(facts: Mapping[str, Any], jpeg: bool) -> list[tuple[str, int, int]]:
    """(name, bytes, CRC-32) of every file of a split, by what the manifest says of it."""
    shards = [(shard_name(k, jpeg), size, checksum) for k, (_, size, checksum) in enumerate(facts["shards"])]
    return shards + [(name, size, checksum) for name, (size, checksum) in facts["files"].items()]


def sized(path: Path, size: int) -> list[str]:
    """What is wrong with a file that should have `size` bytes, if anything."""
    name = f"{printable(path.parent.name)}/{printable(path.name)}"
    try:
        found = os.stat(path).st_size
    except OSError as error:
        return [f"{name} is missing ({one_line(error)})"]
    return [] if found == size else [f"{name} has {found} bytes in place of {size}"]


def checksum_of(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with files.open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def mapped(path: Path, kind: str) -> NDArray[Any]:
    """A file's content as an array (N,), read-only, of which the system reads what is looked at; or OSError."""
    with files.open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return np.empty(0, kind)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), kind)


def _format_of(path: Path) -> Any:
    with suppress(OSError, ValueError, RecursionError, AttributeError), files.open_regular(path) as file:
        return json.load(file).get("format")
    return None


def _damaged(root: Path, problems: Sequence[str]) -> DataError:
    return DataError(
        f"the store '{printable(root)}' is damaged: {some(problems, 3)}. Copy it again, or move it away and pack anew."
    )


def _within(index: int, length: int) -> int:
    """An index from 0 on, of one that may count from the end, as sequences take it."""
    if not -length <= index < length:
        raise IndexError(f"picture {index} of {length}")
    return index + length if index < 0 else index
