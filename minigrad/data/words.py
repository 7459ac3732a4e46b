"""Human words for class names, from `synset_words.txt` ("n01440764 tench, Tinca tinca"), `LOC_synset_mapping.txt` (the
same, as Kaggle calls it) or `words.txt` (by a tab).

Words are for showing only.  Nothing is numbered by them, and a dataset without them is as good.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from minigrad.base import files
from minigrad.errors import one_line, printable

LOC_MAPPING = "LOC_synset_mapping.txt"
LOC_PICTURES = ("ILSVRC", "Data", "CLS-LOC")  # the folders in which Kaggle's pictures lie, and the mapping around them
FILES = ("synset_words.txt", LOC_MAPPING, "words.txt")  # in the order in which they are tried
_MOST_BYTES = 1 << 26  # all of WordNet's 82,115 synsets take 2.7 MB


def read_words(lines: Iterable[bytes], classes: Collection[str]) -> dict[str, str]:
    """The words of those `classes` that a file of such lines names.  Other lines are passed over.

    A tab ends the name where there is one, else the first space does.  Of two lines for a class the first counts.
    """
    known = {name: k for k, name in enumerate(classes)}
    found: dict[str, str] = {}
    for line in lines:
        text = line.decode("utf-8-sig", "replace").strip()
        name, _, words = text.partition("\t") if "\t" in text else text.partition(" ")
        if name in known and words.strip():
            found.setdefault(name, " ".join(words.split()))
    return {name: found[name] for name in sorted(found, key=known.__getitem__)}


def near(root: Path) -> list[Path]:
    """The folders in which lists that belong to a dataset are looked for: its own, the one around it, and Kaggle's."""
    top = Path(os.path.abspath(root))
    return [top, top.parent, *([top.parents[2]] if top.parts[-3:] == LOC_PICTURES else [])]


def words_near(classes: Collection[str], *folders: Path) -> dict[str, str]:
    """The words for `classes` that a file in one of the folders has; {} where there is none.

    The first file that names one of the classes counts.  One that cannot be read is a warning: only words are lost.
    """
    for path in (folder / name for folder in folders for name in FILES):
        try:
            with files.open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                    raise OSError(f"more than {_MOST_BYTES >> 20} MiB are no list of words")
                found = read_words(file, classes)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            warnings.warn(f"no words are read from '{printable(path)}': {one_line(error)}", stacklevel=2)
            continue
        if found:
            return found
    return {}


def shown_names(classes: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """What to call each class where people read it: the first of its words, or its name where it has none.

    No two are called the same: ILSVRC has two kinds of "crane", which become "crane (n02012849)" and
    "crane (n03126707)".
    """
    names = [words.get(name, "").split(",")[0].strip() or name for name in classes]
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} ({own})" for name, own in zip(names, classes))
