"""One shard of a packed store: a run of neighbouring pictures, written whole or not at all (see packing.py).

A shard is finished when a small file beside it, its *part*, says what is in it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minigrad.base import files
from minigrad.errors import DataError, printable

from .listing import Source
from .prepare import UnreadableImageError, prepare_bytes
from .store import NO_ROOM, shard_name

_MANY = 32  # pictures, of which not one can be read: then it is not the pictures

# What the system says of itself and not of a file.  A picture that was not read for one of these is not left out.
_NOT_THE_FILE = {
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENODEV", "ENXIO",
    )
    if hasattr(errno, name)
} | NO_ROOM  # fmt: skip


class PackingError(DataError):
    """A store that could not be packed to its end; what is whole is kept, and the same call goes on with it."""


class StoppedError(Exception):
    """Another thread has failed, or Ctrl-C has come."""


class Task(NamedTuple):
    """Shard `number` of a split: the pictures `indices` of its listing."""

    split: str
    number: int
    indices: NDArray[np.int64]


class Part(NamedTuple):
    """What is known of a finished shard.

    kept: which of its pictures are in it, bool; reasons: why the others are not; size, checksum: of its file; lengths:
    of its JPEGs; sums, products: over its pictures, for the statistics of training pictures (see stats_of_sums).
    """

    kept: NDArray[np.bool_]
    reasons: list[str]
    size: int
    checksum: int
    lengths: NDArray[np.int64]
    sums: NDArray[np.uint32]
    products: NDArray[np.int64]


class Shards:
    """The shards of a store that is being packed; safe to use from several threads.

    settings: those of the store.  done: pictures that have been looked at; set `stop` to end all work soon.
    """

    def __init__(self, source: Source, root: Path, settings: Mapping[str, Any]) -> None:
        self.source, self.root = source, root
        self.size: int = settings["size"]
        self.quality: int | None = settings["jpeg_quality"]
        self.background: Any = None if settings["background"] is None else tuple(settings["background"])
        self.stop = threading.Event()
        self.done = 0
        self._at_work = 0
        self._counting = threading.Lock()
        self._good: dict[str, int] = {}  # of each split, a picture that could be read

    def pack(self, task: Task) -> None:
        """Write a shard, and then its part.

        Raises StoppedError; OSError where it cannot be written; PackingError where pictures cannot be read for a reason
        that is not theirs.
        """
        with self._counting:
            if self.stop.is_set():
                raise StoppedError
            self._at_work += 1
        try:
            part = self._write(task)
            content = io.BytesIO()
            np.savez(content, **part._replace(reasons=_as_bytes(part.reasons))._asdict())  # type: ignore[arg-type]
            with files.writing(self._part_path(task)) as file:
                file.write(content.getbuffer())
        except BaseException:
            self.stop.set()
            raise
        finally:
            with self._counting:
                self._at_work -= 1

    def end(self) -> None:
        """Stop all work, and return when nobody is at it any more.

        A thread may be at work that its pool does not know of: Ctrl-C came between its start and its being noted.
        """
        self.stop.set()
        while self._at_work:
            time.sleep(0.01)

    def _write(self, task: Task) -> Part:
        listing, train = self.source.splits[task.split], task.split == "train"
        kept, lengths, reasons = np.zeros(len(task.indices), bool), [], []
        sums = np.zeros((self.size, self.size, 3) if train else 0, np.uint32)  # enough for 16 million pictures
        products = np.zeros((3, 3), np.int64)
        written = checksum = 0
        with files.writing(self.path(task)) as file:
            for j, index in enumerate(task.indices.tolist()):
                if self.stop.is_set():
                    raise StoppedError
                try:
                    data, name = self._read_picture(task.split, index), listing.name(index)
                    image = prepare_bytes(data, name, self.size, background=self.background)
                except UnreadableImageError as error:
                    if isinstance(error.__cause__, MemoryError):
                        raise _not_its_fault(error) from error
                    reasons.append(error.reason)
                else:
                    content = image.tobytes()
                    if self.quality is not None:
                        content = _jpeg(image, self.quality)
                        lengths.append(len(content))
                        image = prepare_bytes(content, name, self.size)  # statistics are of what training will see
                    file.write(content)
                    checksum, written = zlib.crc32(content, checksum), written + len(content)
                    kept[j] = True
                    if train:
                        sums += image
                        products += _products(image)
                with self._counting:
                    self.done += 1
        if not kept.any() and (len(kept) >= _MANY or task.split not in self._good):
            first = listing.name(int(task.indices[0]))
            raise PackingError(
                f"pack: of {len(kept)} pictures, from '{printable(first)}' on, not one can be read "
                f"({printable(reasons[0])}): bring the source back, and give the same call again; or take "
                "these pictures out of it"
            )
        return Part(kept, reasons, written, checksum, np.array(lengths, np.int64), sums, products)

    def _read_picture(self, split: str, index: int) -> bytes:
        """The bytes of a picture; UnreadableImageError where these are not to be had.

        PackingError where it is the disk, the network or the source as a whole that is at fault, and not this picture:
        all that follow would be left out.
        """
        listing = self.source.splits[split]
        try:
            data = listing.read(index)
        except UnreadableImageError as error:
            cause = error.__cause__
            gone = isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _NOT_THE_FILE)
            if not gone and split in self._good:
                try:
                    listing.read(self._good[split])  # as it could be before
                except UnreadableImageError:
                    gone = True
            if gone:
                raise _not_its_fault(error) from error
            raise
        self._good[split] = index
        return data

    def path(self, task: Task) -> Path:
        return self.root / task.split / shard_name(task.number, self.quality is not None)

    def _part_path(self, task: Task) -> Path:
        return self.path(task).with_suffix(".part")

    def finished(self, task: Task) -> bool:
        """Whether the shard and its part are there."""
        return self._read(task, ("kept", "size")) is not None

    def part(self, task: Task) -> Part:
        """What is known of a finished shard; where it is not, it will be packed anew, and this is a PackingError."""
        values = self._read(task, Part._fields)
        if values is None:
            self.forget(task)
            raise PackingError(
                f"pack: '{printable(self.path(task))}' was written, and is gone or changed: does something else work "
                "in the store? Give the same call again"
            )
        reasons = json.loads(values["reasons"].tobytes())
        return Part(**{**values, "reasons": reasons, "size": int(values["size"]), "checksum": int(values["checksum"])})

    def forget(self, task: Task) -> None:
        """Remove the part of a shard."""
        with suppress(FileNotFoundError):
            os.unlink(self._part_path(task))

    def _read(self, task: Task, names: Sequence[str]) -> dict[str, Any] | None:
        try:
            with np.load(self._part_path(task), allow_pickle=False) as archive:
                values = {name: archive[name] for name in names}
            whole = os.stat(self.path(task)).st_size == values["size"] and len(values["kept"]) == len(task.indices)
            return values if whole else None
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return None


def _as_bytes(reasons: list[str]) -> Any:
    return np.frombuffer(json.dumps(reasons).encode(), np.uint8)


def _jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "jpeg", quality=quality)
    return content.getvalue()


def _products(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The sum over all pixels of colour times colour, (3, 3): in integers, so without BLAS and its own threads."""
    r, g, b = np.ascontiguousarray(image.reshape(-1, 3).T).astype(np.int64)
    rg, rb, gb = r @ g, r @ b, g @ b
    return np.array([[r @ r, rg, rb], [rg, g @ g, gb], [rb, gb, b @ b]])


def _not_its_fault(error: UnreadableImageError) -> PackingError:
    return PackingError(
        f"pack: cannot read '{printable(error.path)}': {printable(error.reason)}. That is not the picture's fault: "
        "look at disk and memory, bring the source back, and give the same call again"
    )
