"""The idx format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped.

A file is: two zero bytes, a byte for the element type, a byte for the number of dimensions, each dimension as
a big-endian uint32, and then the elements, big-endian, last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from minigrad.base import files
from minigrad.errors import DataError, one_line, printable, some

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Mnist(NamedTuple):
    """images uint8 (N, 28, 28) in 0..255; labels int64 (N,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an idx file into an array of its shape, in native byte order.

    Element types: uint8, int8, int16, int32, float32, float64.  Gzip is recognised by content, not by name.
    Raises DataError for a file that is missing, not readable or not a regular file, a wrong magic number, or a length
    that the header does not announce.
    """
    name = f"read_idx: '{printable(path)}'"
    try:
        with files.open_regular(path) as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if zipped:
                with gzip.open(raw) as unzipped:
                    return _parse(cast(IO[bytes], unzipped), name)
            return _parse(raw, name)
    except DataError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, MemoryError) as error:  # ValueError: a 0 in the path
        raise DataError(
            f"{name} cannot be read ({one_line(error)}). Check the path, or download the file again."
        ) from error


def _parse(file: IO[bytes], name: str) -> NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] > 32:  # NumPy's bound
        known = ", ".join(f"{code:02x}" for code in _TYPES)
        raise DataError(
            f"{name} is no idx file: it must begin with 00 00, an element type ({known}) and the "
            f"number of dimensions (up to 32), but begins with '{magic.hex(' ')}'. "
            "Check that it is the right file."
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(
            f"{name} is truncated: it announces {magic[3]} dimensions but ends after "
            f"{len(header) // 4} of them. Download it again."
        )
    shape = struct.unpack(f">{magic[3]}I", header)
    dtype = np.dtype(_TYPES[magic[2]])
    expected = dtype.itemsize * math.prod(shape)
    # 1 MB at a time: a corrupt header may announce terabytes, and read(n) would reserve them at once.
    data = bytearray()
    while len(data) <= expected and (more := file.read(min(1 << 20, expected + 1 - len(data)))):
        data += more
    if len(data) != expected:
        what = "truncated" if len(data) < expected else "too long"
        found = f"{len(data)}" if len(data) < expected else "more"
        raise DataError(
            f"{name} is {what}: shape {shape} of {dtype.name} needs {expected} bytes, found {found}. Download it again."
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def load_mnist(folder: str | os.PathLike[str]) -> Mnist:
    """Read the four files of MNIST or Fashion-MNIST from a folder.

    Names: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte,
    each also as train-images.idx3-ubyte, each also with .gz; the plain file is preferred.
    Raises DataError for a missing file, and where types, dimensions or counts do not agree.
    """
    pairs = []
    for part in ("train", "t10k"):
        image_path = _find(Path(folder), part, "images", 3)
        label_path = _find(Path(folder), part, "labels", 1)
        images, labels = read_idx(image_path), read_idx(label_path)
        for path, array, rank in ((image_path, images, 3), (label_path, labels, 1)):
            if array.dtype != np.uint8 or array.ndim != rank:
                raise DataError(
                    f"load_mnist: '{printable(path)}' must hold uint8 in {rank} dimensions, "
                    f"got {array.dtype} {array.shape}. Check that files were not renamed."
                )
        if len(images) != len(labels):
            raise DataError(
                f"load_mnist: '{printable(image_path)}' has {len(images)} images but '{printable(label_path)}' has "
                f"{len(labels)} labels. Take both files from one dataset."
            )
        pairs += [images, labels.astype(np.int64)]
    return Mnist(*pairs)


def _find(folder: Path, part: str, kind: str, rank: int) -> Path:
    names = [f"{part}-{kind}{joint}idx{rank}-ubyte{end}" for end in ("", ".gz") for joint in "-."]
    for name in names:
        if os.path.isfile(folder / name):
            return folder / name
    found = "no such folder"
    try:
        present = sorted(os.listdir(folder))
        for name in names:
            if name in present:  # a folder, a pipe, a broken link: read_idx says which
                return folder / name
        found = some(present) or "nothing"
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise DataError(
            f"load_mnist: cannot list '{printable(folder)}' ({one_line(error)}). Check the path and its permissions."
        ) from error
    raise DataError(
        f"load_mnist: looked for {' or '.join(names)} in '{printable(folder)}', found {found}. "
        "Pass the folder that holds the four files of the dataset."
    )
