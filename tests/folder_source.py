"""Class folders as a source of packing, as plain as can be, for the tests of packing itself."""

import os
from pathlib import Path

import numpy as np

from minigrad.data import UnreadableImageError
from minigrad.errors import one_line


class FolderListing:
    def __init__(self, root, split, classes):
        found = [(k, path) for k, name in enumerate(classes) for path in sorted((root / split / name).iterdir())]
        self.labels = np.array([k for k, _ in found], np.int32)
        self.paths = [path for _, path in found]
        self.names = [os.fspath(path.relative_to(root)) for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def name(self, index):
        return self.names[index]

    def read(self, index):
        try:
            return self.paths[index].read_bytes()
        except OSError as error:
            raise UnreadableImageError(self.names[index], one_line(error)) from error


class FolderSource:
    """root/<split>/<class>/<picture>; words from root/words.txt (class, tab, words)."""

    kind = "class folders"
    missing: dict[str, str] = {}

    def __init__(self, root, progress=None):
        root = Path(root)
        self.classes = tuple(sorted(path.name for path in (root / "train").iterdir()))
        words = root / "words.txt"
        lines = words.read_text().splitlines() if words.exists() else []
        self.words = dict(line.split("\t", 1) for line in lines)
        self.splits = {name: FolderListing(root, name, self.classes) for name in ("train", "val")}
