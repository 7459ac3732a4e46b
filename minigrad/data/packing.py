"""Packing: every picture of a source is decoded, brought to one size and written to a store (store.py), once.

The work is cut into shards of neighbouring pictures, by numbers that depend on the source alone.  A shard and then a
small file about it (shards.py) are each written whole or not at all.  So what a killed process leaves is whole shards,
which are kept, and at most some temporary files, which are removed; and the store comes out the same, byte for byte, as
if nothing had happened, whatever the number of threads.

Threads pack, not processes: Pillow and NumPy release the interpreter lock while they work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.base.arguments import integer, one_of
from minigrad.errors import DataError, one_line, printable, some

from . import store
from .folder import limited
from .listing import Listing, Source
from .prepare import BACKGROUND, ImageStats, stats_of_sums
from .shards import PackingError, Shards, StoppedError, Task

# Pictures in a shard: 1024 of 256 x 256 are 201 MB.  Small sets get smaller shards, so that all cores have work, and
# very large ones larger shards, so that a folder does not hold too many.
_LEAST_IN_SHARD, _IN_SHARD, _FEW_SHARDS, _MOST_SHARDS = 32, 1024, 64, 4096
LOCK = "lock"
_TEMPORARY = r".*\.[0-9a-f]{12}\.tmp"  # see base/files.py


def pack(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    size: int = 256,
    fit: str = "scale",
    jpeg_quality: int | None = None,
    limit: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write the pictures of `source` to a store in `folder`; a call that was cut off is taken up where it was.

    Pictures are converted as prepare_image does it.  One that cannot be read is left out: report.json in the store has
    its name and the reason, and the store counts, numbers and averages those that are there.

    Args:
        source: what find_source has found.
        folder: a new folder, an empty one, or a store of the same source and settings that is not finished.  A source
            is known by its kind and classes, and the names and labels of its pictures: whether a file of the same name
            has other content since is not seen.
        size: side of the packed pictures.  The main job takes 256.
        fit: "scale" enlarges pictures smaller than `size`, as the paper says ("we first rescaled the image such that
            the shorter side was of length 256").  "place" leaves those whose shorter side is below `size` as they are,
            in the centre of a square of ImageNet's mean colour: the other reading that circulates.
        jpeg_quality: None keeps pixels as they are, size * size * 3 bytes each; 1..100 keeps JPEGs of this quality, a
            tenth of the bytes at 90, whose pixels are no longer the same.
        limit: at most this many pictures of each class and split, the ones that ImageFolder(limit=...) takes.
        workers: threads; None: one for each core.
        progress: called from time to time, in the calling thread, with the pictures that are done and those there are;
            first with those that earlier calls have done.
        tell: called with a line on what the store will take, and on what is kept of earlier calls.

    Returns what report.json holds: {"pictures": {split: number}, "left_out": [{"split", "picture", "reason"}]}.

    Raises:
        ArgumentError: an argument out of range.
        DataError: the folder holds something else, or a store of other pictures or settings (both stay as they are),
            another process packs there, the disk is too small, or a split has no picture that can be read.
        PackingError: something could not be written or read half-way; what is whole is kept.
    """
    size = integer("pack", "size", size, 1, 65_500)  # the most that a JPEG takes
    one_of("pack", "fit", fit, ("scale", "place"))
    jpeg_quality = None if jpeg_quality is None else integer("pack", "jpeg_quality", jpeg_quality, 1, 100)
    limit = None if limit is None else integer("pack", "limit", limit, 1)
    workers = (os.cpu_count() or 1) if workers is None else integer("pack", "workers", workers, 1)
    settings = {
        "size": size,
        "fit": fit,
        "background": list(BACKGROUND) if fit == "place" else None,
        "jpeg_quality": jpeg_quality,
        "limit": limit,
    }
    root = Path(folder)
    _plan_in(root)  # before anything is made there
    packing, new = _Packing(source, root, settings, tell or (lambda line: None)), not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with files.holding(root / LOCK, f"process {os.getpid()} on {socket.gethostname()}"):
            return packing.run(workers, progress or (lambda done, total: None))
    except files.HeldError as error:
        raise DataError(
            f"pack: the store '{printable(folder)}' is being packed by {printable(error.holder)}: wait for its end, or "
            "end it"
        ) from None
    except OSError as error:
        raise PackingError(
            f"pack: cannot write to '{printable(folder)}': {files.reason(error)}; what is whole is kept, and the same "
            "call goes on with it"
        ) from error
    finally:
        if new:
            with suppress(OSError):
                root.rmdir()  # which leaves a folder that holds anything


class _Packing:
    """One call of pack."""

    def __init__(self, source: Source, root: Path, settings: dict[str, Any], tell: Callable[[str], None]) -> None:
        self.source, self.root, self.settings, self.tell = source, root, settings, tell
        self.size, self.quality = settings["size"], settings["jpeg_quality"]
        self.shards = Shards(source, root, settings)
        self.tasks: list[Task] = []
        self.plan: dict[str, Any] = {"format": store.FORMAT, "version": store.VERSION, "settings": settings}
        self.plan["source"] = {
            "kind": source.kind,
            "classes": _checksum(source.classes),
            "splits": {split: self._cut(split, listing) for split, listing in source.splits.items()},
        }

    def _cut(self, split: str, listing: Listing) -> dict[str, Any]:
        """Cut a split into tasks; returns what tells these pictures from others."""
        if not re.fullmatch(r"\w+", split, re.ASCII):
            raise DataError(f"pack: the name of a split must be one word, got '{printable(split)}'")
        labels, last = np.asarray(listing.labels), len(self.source.classes) - 1
        if not len(labels) or len(labels) != len(listing) or labels.min() < 0 or labels.max() > last:
            seen = f"{len(listing)} pictures and {len(labels)} labels"
            seen += f" in {labels.min()}..{labels.max()}" if len(labels) else ""
            raise DataError(
                f"pack: {split} of the source must have pictures, and for each a label in 0..{last}, got {seen}"
            )
        limit = self.settings["limit"]
        indices = np.arange(len(labels)) if limit is None else limited(labels, limit, 0)
        n = len(indices)
        each = max(min(max(_LEAST_IN_SHARD, -(-n // _FEW_SHARDS)), _IN_SHARD), -(-n // _MOST_SHARDS))
        cuts = range(0, n, each)
        self.tasks += [Task(split, k, indices[start : start + each]) for k, start in enumerate(cuts)]
        return {
            "pictures": n,
            "in_shard": each,
            "names": _checksum(listing.name(i) for task in self._tasks_of(split) for i in task.indices.tolist()),
            "labels": f"{zlib.crc32(labels[indices].astype('<i8').data):08x}",
        }

    def _tasks_of(self, split: str) -> list[Task]:
        return [task for task in self.tasks if task.split == split]

    # ---------------------------------------------------------------- before, and the packing

    def run(self, workers: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
        before = _plan_in(self.root)
        if before is not None:
            self._check_plan(before)
        if (self.root / store.MANIFEST).exists():
            self.tell(f"{printable(self.root)} is packed already, with these settings")
            self._tidy()
            return _report_of(self.root)
        self._remove_dead()
        left = [task for task in self.tasks if not self.shards.finished(task)]
        total = sum(len(task.indices) for task in self.tasks)
        self.shards.done = total - sum(len(task.indices) for task in left)
        self._check_space(left)
        if before is None:
            _write_json(self.root / store.UNFINISHED, self.plan)
        for split in self.source.splits:
            (self.root / split).mkdir(exist_ok=True)
        if self.shards.done:
            self.tell(f"{self.shards.done} of {total} pictures are packed already: going on")
        progress(self.shards.done, total)
        self._pack_all(left, workers, lambda: progress(self.shards.done, total))
        return self._finish()

    def _check_plan(self, before: Mapping[str, Any]) -> None:
        """DataError where the store there is of other pictures, by their names and labels, or of other settings."""
        other = [
            f"{name} {printable(json.dumps(before['settings'].get(name)))} there, {json.dumps(value)} now"
            for name, value in self.settings.items()
            if before["settings"].get(name) != value
        ]
        if before["source"] != self.plan["source"]:
            there, now = (
                ", ".join(f"{facts['pictures']} of {printable(split)}" for split, facts in plan["splits"].items())
                for plan in (before["source"], self.plan["source"])
            )
            other.append(f"other pictures or classes ({there} there, {now} now)")
        if other:
            raise DataError(
                f"pack: '{printable(self.root)}' is a store of something else: {'; '.join(other)}. It is left as it "
                "is: give the same source and settings, or another folder"
            )

    def _check_space(self, left: Sequence[Task]) -> None:
        """DataError where the disk has less room than what is left to be packed will take."""
        pictures, raw = sum(len(task.indices) for task in left), self.size * self.size * 3
        each, about = raw, ""
        if self.quality is not None:
            each, about = round(raw * _jpeg_share(self.quality)), "about "
        parts = sum(4 * raw for task in self.tasks if task.split == "train")
        needed = pictures * (each + 100) + parts  # 100: label, name and places, which is more than they take
        free = shutil.disk_usage(self.root).free
        square = f"{self.size} x {self.size}"
        self.tell(f"{pictures} pictures of {square} take {about}{_bytes(needed)}, and {_bytes(free)} are free")
        if needed > free:
            raise DataError(
                f"pack: {pictures} pictures need {about}{_bytes(needed)} ({needed} bytes) in '{printable(self.root)}', "
                f"and {_bytes(free)} ({free} bytes) are free: free some, choose another disk, or keep the pictures as "
                "JPEG (jpeg_quality=90)"
            )

    def _pack_all(self, tasks: Sequence[Task], workers: int, look: Callable[[], None]) -> None:
        """Pack the shards, several at a time; the first error ends all of it, with every finished shard kept."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="minigrad-pack")
        try:
            pending = {pool.submit(self.shards.pack, task) for task in tasks}
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in finished:
                    error = future.exception()
                    if error is not None and not isinstance(error, StoppedError):  # which follows another's error
                        raise error
                look()
        finally:
            self.shards.end()
            pool.shutdown(wait=True, cancel_futures=True)

    # ---------------------------------------------------------------- the end

    def _finish(self) -> dict[str, Any]:
        """All shards are there: labels, names, statistics, the report, and at last the manifest."""
        words = self.source.words
        manifest = {
            **self.plan,
            "classes": list(self.source.classes),
            "words": {name: words[name] for name in self.source.classes if name in words},
            "splits": {},
            "stats": None,
        }
        left_out: list[dict[str, str]] = []
        for split in self.source.splits:
            facts, stats = self._gather(split, left_out)
            manifest["splits"][split] = facts
            if stats is not None:
                path = self.root / store.STATS
                stats.save(path)
                manifest["stats"] = [path.stat().st_size, store.checksum_of(path)]
        numbers = {split: facts["images"] for split, facts in manifest["splits"].items()}
        report = {"pictures": numbers, "left_out": left_out}
        _write_json(self.root / store.REPORT, report)
        _write_json(self.root / store.MANIFEST, {**manifest, "checksum": store.manifest_checksum(manifest)})
        self._tidy()
        return report

    def _gather(self, split: str, left_out: list[dict[str, str]]) -> tuple[dict[str, Any], ImageStats | None]:
        """Write the files of a split beside its shards; what the manifest says of it, and statistics of `train`."""
        listing, here = self.source.splits[split], self.root / split
        sums, products = np.zeros((), np.int64), np.zeros((3, 3), np.int64)
        shards: list[list[int]] = []
        chosen: list[NDArray[np.int64]] = []
        name_lengths, lengths = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]  # the first name begins at 0
        with files.writing(here / store.NAMES) as file:
            for task in self._tasks_of(split):
                part = self.shards.part(task)
                sums, products = sums + part.sums, products + part.products
                kept, gone = task.indices[part.kept], task.indices[~part.kept]
                shards.append([len(kept), part.size, part.checksum])
                names = [os.fsencode(listing.name(i)) for i in kept.tolist()]
                file.write(b"".join(names))
                chosen.append(kept)
                name_lengths.append(np.array([len(name) for name in names], np.int64))
                lengths.append(part.lengths)
                for i, reason in zip(gone.tolist(), part.reasons):
                    left_out.append({"split": split, "picture": listing.name(i), "reason": reason})
        indices = np.concatenate(chosen)
        if not len(indices):
            reasons = [entry["reason"] for entry in left_out if entry["split"] == split]
            raise DataError(f"pack: not one of the pictures of {split} can be read: {some(reasons, 3)}")
        arrays = {
            store.LABELS: np.asarray(listing.labels)[indices].astype("<i8"),
            store.NAME_ENDS: np.cumsum(np.concatenate(name_lengths)).astype("<u8"),
        }
        if self.quality is not None:
            arrays[store.JPEG_ENDS] = np.cumsum(np.concatenate(lengths)).astype("<u8")
        for name, array in arrays.items():
            with files.writing(here / name) as file:
                file.write(array.data)
        written = {name: here / name for name in (*arrays, store.NAMES)}
        facts = {name: [path.stat().st_size, store.checksum_of(path)] for name, path in written.items()}
        n = len(indices)
        stats = stats_of_sums(sums, products, n, n) if split == "train" else None
        return {"images": n, "shards": shards, "files": facts}, stats

    def _remove_dead(self) -> None:
        """Remove what killed processes have left half written."""
        for folder in (self.root, *(self.root / split for split in self.source.splits)):
            files.remove_dead(folder, _TEMPORARY)

    def _tidy(self) -> None:
        """Remove what only a store has that is being packed."""
        self._remove_dead()
        for task in self.tasks:
            self.shards.forget(task)
        with suppress(FileNotFoundError):
            os.unlink(self.root / store.UNFINISHED)


# ---------------------------------------------------------------- small pieces


def _plan_in(root: Path) -> dict[str, Any] | None:
    """The plan of the store in a folder, None where there is room for a new one; DataError for anything else."""
    if (root / store.MANIFEST).exists():
        return store.read_manifest(root)
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(f"pack: '{printable(root)}' must be a folder: {one_line(error)}. Choose another.") from error
    plan: Any = None
    with suppress(OSError, ValueError, RecursionError):
        plan = json.loads((root / store.UNFINISHED).read_text(encoding="utf-8"))
    if isinstance(plan, dict) and plan.get("format") == store.FORMAT:
        if plan.get("version") == store.VERSION:
            return plan
        raise DataError(
            f"pack: the store '{printable(root)}' was begun in format {printable(plan.get('version'))}, and this "
            f"minigrad writes format {store.VERSION}: go on with the one that began it, or give another folder"
        )
    foreign = sorted(name for name in names if name != LOCK and not re.fullmatch(_TEMPORARY, name))
    if foreign:
        raise DataError(
            f"pack: '{printable(root)}' holds something else ({some(foreign, 5)}), and is left as it is: give a new "
            "folder, or an empty one"
        )
    return None


def _report_of(root: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((root / store.REPORT).read_text(encoding="utf-8"))
        return report
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"pack: cannot read '{printable(root / store.REPORT)}': {one_line(error)}") from error


def _jpeg_share(quality: int) -> float:
    """Bytes of a JPEG as a share of its pixels': an estimate, meant to be more than photographs take."""
    return 0.1 if quality <= 75 else 0.15 if quality <= 90 else 0.5


def _bytes(count: int) -> str:
    """A number of bytes for people: 251.9 GB."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def _checksum(names: Iterable[str]) -> str:
    """CRC-32 of names, with an end after each."""
    checksum = 0
    for name in names:
        checksum = zlib.crc32(os.fsencode(name) + b"\0", checksum)
    return f"{checksum:08x}"


def _write_json(path: Path, content: Any) -> None:
    with files.writing(path) as file:
        file.write((json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
