"""Whether a packed store is as it was written: every byte that training reads, and whether its parts fit together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.errors import one_line, printable

from . import store
from .prepare import ImageStats


def check_store(folder: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read all of a store but its report, and return what is wrong with it, a line for each fault; [] where nothing is.

    Looked at are sizes, checksums, counts, labels (each that of a class), names, and the statistics.  progress is
    called with the bytes that are read and those there are.  Raises DataError where there is no store, or no manifest
    that could say what belongs to it.
    """
    root = Path(folder)
    manifest = store.read_manifest(root)
    jpeg = manifest["settings"]["jpeg_quality"] is not None
    listed = [(store.STATS, *manifest["stats"])] if manifest["stats"] else []
    for split, facts in manifest["splits"].items():
        listed += [(f"{split}/{name}", size, checksum) for name, size, checksum in store.files_of(facts, jpeg)]
    done, everything = 0, sum(size for _, size, _ in listed)
    if progress is not None:
        progress(done, everything)
    faults = []
    for name, size, checksum in listed:
        wrong = store.sized(root / name, size)
        try:
            if not wrong and store.checksum_of(root / name) != checksum:
                wrong = [f"{printable(name)} has another checksum than when it was written: its content has changed"]
        except OSError as error:
            wrong = [f"{printable(name)} cannot be read: {one_line(error)}"]
        faults += wrong
        done += size
        if progress is not None:
            progress(done, everything)
    if not faults:
        for split, facts in manifest["splits"].items():
            faults += [f"{printable(split)}: {fault}" for fault in _contradictions(root / split, facts, manifest)]
        if "train" in manifest["splits"] and not manifest["stats"]:
            faults.append(f"there is no {store.STATS}, although there are training pictures")
        elif manifest["stats"]:
            stats, size = ImageStats.load(root / store.STATS), manifest["settings"]["size"]
            if stats.mean_image.shape != (size, size, 3) or stats.count != manifest["splits"]["train"]["images"]:
                faults.append(f"{store.STATS} is of {stats.count} images {stats.mean_image.shape}, not of those here")
    return faults


def _contradictions(folder: Path, facts: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """What does not fit together in a split whose files are those that were written."""
    faults, n, classes = [], facts["images"], len(manifest["classes"])
    labels, ends = store.mapped(folder / store.LABELS, "<i8"), store.mapped(folder / store.NAME_ENDS, "<u8")
    if sum(images for images, _, _ in facts["shards"]) != n:
        faults.append(f"the shards hold {sum(images for images, _, _ in facts['shards'])} pictures, not {n}")
    if len(labels) != n:
        faults.append(f"{len(labels)} labels for {n} pictures")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        faults.append(
            f"{len(outside)} labels are outside 0..{classes - 1}, the first is {labels[outside[0]]}, of picture "
            f"{outside[0]}"
        )
    runs = [(store.NAMES, ends, np.array([(folder / store.NAMES).stat().st_size]))]
    if manifest["settings"]["jpeg_quality"] is not None:
        bounds = np.cumsum([size for _, size, _ in facts["shards"]])
        runs.append(("the shards", store.mapped(folder / store.JPEG_ENDS, "<u8"), bounds))
        starts = np.cumsum([images for images, _, _ in facts["shards"]])
        if len(runs[1][1]) == n + 1 and not np.array_equal(runs[1][1][starts], bounds):
            faults.append(f"{store.JPEG_ENDS} does not fit the sizes of the shards")
    for what, places, bounds in runs:
        good = len(places) == n + 1 and places[0] == 0 and places[-1] == bounds[-1]
        if not good or (places[1:] < places[:-1]).any():
            faults.append(f"the places of {n} pictures in {what} are not in order, from 0 to {bounds[-1]}")
    return faults
