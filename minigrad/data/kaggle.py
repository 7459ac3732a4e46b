"""ILSVRC2012 as Kaggle hands it out, in the "ImageNet Object Localization Challenge":

ILSVRC/Data/CLS-LOC/     train/<wnid>/*.JPEG, and val/ILSVRC2012_val_*.JPEG, flat (test/ has no labels)
LOC_val_solution.csv     "ImageId,PredictionString": the wnid of each validation picture, with a box around each
                         object of that class: "ILSVRC2012_val_00000003,n02105855 27 21 316 366 n02105855 ..."
LOC_synset_mapping.txt   the classes and their words: "n01440764 tench, Tinca tinca"
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.errors import DataError, one_line, printable, some

from .words import LOC_MAPPING, LOC_PICTURES, near, read_words

SOLUTION = "LOC_val_solution.csv"
_ID = re.compile(r"ILSVRC2012_val_(\d{8})")
_MOST_BYTES = 1 << 26  # that of 50,000 pictures has 3 MB


def pictures_in(root: Path) -> Path:
    """The folder that has train/ and val/: `root`, or the one in it that Kaggle's archive unpacks to."""
    inside = root.joinpath(*LOC_PICTURES)
    return inside if inside.is_dir() and not (root / "train").is_dir() else root


def read_solution(root: Path) -> tuple[dict[int, str], dict[str, str], NDArray[np.int64], str] | None:
    """What a development kit says, by Kaggle's files in the dataset's folder or around it; None without a solution.

    Returns (wnid by number, words by wnid, the number of each validation picture's class, what was read).  The numbers
    are places among the sorted wnids, from 1.  DataError where the files are no good, or do not fit together.
    """
    place = next((folder / SOLUTION for folder in near(root) if (folder / SOLUTION).is_file()), None)
    if place is None:
        return None
    where, mapping = f"'{printable(place)}'", place.with_name(LOC_MAPPING)
    try:
        wnid_of = _pictures(_text(place))
        lines = _text(mapping).splitlines() if mapping.is_file() else []
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{where} cannot be read: {one_line(error)}. Fetch it again.") from error
    classes = sorted({line.split()[0] for line in lines if line.strip()} or set(wnid_of.values()))
    number = {name: k + 1 for k, name in enumerate(classes)}
    odd = sorted(set(wnid_of.values()) - set(classes))
    if odd or sorted(wnid_of) != list(range(1, len(wnid_of) + 1)):
        raise DataError(
            f"{where} must have pictures 1, 2, ..., each once, of the classes in {LOC_MAPPING}, it has "
            f"{len(wnid_of):,} pictures, and {len(odd)} other classes ({some(odd, 5) or 'none'}). Fetch both again."
        )
    truth = np.array([number[wnid_of[k]] for k in sorted(wnid_of)], np.int64)
    words = read_words([line.encode() for line in lines], classes)
    return {k: name for name, k in number.items()}, words, truth, where


def _pictures(text: str) -> dict[int, str]:
    """The wnid of each picture, by its number; ValueError or csv.Error for anything else."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows[:1] != [["ImageId", "PredictionString"]] or len(rows) < 2:
        raise ValueError("its first line must be ImageId,PredictionString, and lines with pictures must follow")
    found: dict[int, str] = {}
    for row in rows[1:]:
        match, boxes = _ID.fullmatch(row[0]), row[1].split() if len(row) == 2 else []
        if not match or int(match[1]) in found or len(boxes) % 5 or len(set(boxes[::5])) != 1:
            raise ValueError(f"a line must be a picture, once, and boxes of one class, got {','.join(row)[:100]}")
        found[int(match[1])] = boxes[0]
    return found


def _text(path: Path) -> str:
    with files.open_regular(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{printable(path)} has more than {_MOST_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")
