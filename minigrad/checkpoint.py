"""Weights on disk: the safetensors format, which holds named arrays and nothing that could run.

Every tool that reads safetensors reads these files.  Such a file is

    8 bytes     the length of the header, little-endian
    header      JSON: {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
                       "__metadata__": {key: text}}
    data        the arrays, C-contiguous, little-endian, without gaps; offsets count from its beginning

Metadata is a dictionary of what JSON can hold: its strings are stored as they are, the rest as JSON text under
"minigrad.json", because the format knows strings only.  "minigrad.checksum" is "minigrad:crc32:" and eight hexadecimal
digits: the CRC-32 of the text

    json.dumps([[[name, dtype, shape], ... sorted by name], the other metadata], sort_keys=True, separators=(",", ":"))

and, behind it, the bytes of the arrays, sorted by name.  It does not depend on the order in the file, so that a file
which another tool has copied keeps it.  Files without it, from elsewhere, are read as they are.

A file is read, never mapped into memory: one that is cut off meanwhile is an error then, not the end of the process.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from . import files
from .errors import CheckpointError, printable
from .tensor import Tensor

PathLike = str | os.PathLike[str]

_OURS = "minigrad."
_JSON = "minigrad.json"  # the metadata key of everything that is not a string
_CHECKSUM = "minigrad.checksum"
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes: the format's own limit

# The format's names of types; BF16 are the upper halves of float32 numbers.
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items() if name != "BF16"}


def save(path: PathLike, state: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Write named arrays (or Tensors) to one safetensors file, whole or not at all.

    The file is written beside `path` under another name, brought to the disk, and renamed: an interrupted or
    failed save leaves the old file as it was.  float16 arrays are stored as they are, and come back as float32.
    CheckpointError where a value is not an array of numbers, metadata is not JSON, or the place cannot be written.
    """
    if not isinstance(state, Mapping) or not isinstance(metadata, (Mapping, type(None))):
        kinds = f"{type(state).__name__} and {type(metadata).__name__}"
        raise CheckpointError(f"checkpoint: state and metadata must be dictionaries by name, got {kinds}")
    arrays = {name: _array(name, value) for name, value in state.items()}
    texts = _pack(metadata or {})
    texts[_CHECKSUM] = _checksum(arrays, {name: _NAMES[array.dtype] for name, array in arrays.items()}, texts)
    header: dict[str, Any] = {_METADATA: texts}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each is aligned
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise CheckpointError(f"checkpoint: names and metadata of {len(text)} bytes, at most {_LONGEST_HEADER} fit")
    with files.writing(path, lambda message: CheckpointError(f"checkpoint: {message}")) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(_bytes(arrays[name]))


def load(path: PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, metadata) of a safetensors file, the arrays each in memory of its own, to be written to.

    float16 and bfloat16 come as float32, which holds all their values.  CheckpointError where the file is missing, cut
    off, damaged (its checksum, where it has one, is another), not a safetensors file, or holds other types.
    """
    path = os.fspath(path)
    where = printable(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"checkpoint: there is no file {where}")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                return _read(file, size)
            except CheckpointError as error:
                raise CheckpointError(f"checkpoint: {where}: {error}") from error
            except (ValueError, RecursionError) as error:  # not in the format, or no JSON
                raise CheckpointError(
                    f"checkpoint: {where} ({size} bytes) is no readable safetensors file: {error}"
                ) from error
    except OSError as error:
        raise CheckpointError(f"checkpoint: cannot read {where}: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(f"checkpoint: {where}: no memory for the {size / 1e6:.0f} MB of its arrays") from error


# ---------------------------------------------------------------- writing


def _array(name: Any, value: Any) -> np.ndarray:
    """C-contiguous and little-endian, as the file holds it."""
    if not isinstance(name, str) or name == _METADATA or not _is_text(name):
        raise CheckpointError(f"checkpoint: names must be text other than {_METADATA!r}, got {name!r}")
    # asarray with order="C", not ascontiguousarray: that one makes 0-d arrays 1-d
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value, order="C")
    if array.dtype.newbyteorder("<") not in _NAMES:
        raise CheckpointError(f"checkpoint: {name!r} must be an array of numbers, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def _pack(metadata: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
    rest = {key: value for key, value in metadata.items() if not isinstance(value, str)}
    if any(not isinstance(key, str) or key.startswith(_OURS) for key in metadata):
        raise CheckpointError(
            f"checkpoint: metadata keys must be strings that do not begin with {_OURS!r}, got {list(metadata)}"
        )
    try:
        texts = {**texts, _JSON: json.dumps(rest)} if rest else texts
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint: metadata must be what JSON can hold: {error}") from None
    for key, text in texts.items():
        if not _is_text(key) or not _is_text(text):
            raise CheckpointError(f"checkpoint: metadata must be text that UTF-8 can hold, got {key!r}: {text!r}")
    return texts


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: half a pair of surrogates, as in names of odd files, it cannot."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def _checksum(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], texts: Mapping[str, str]) -> str:
    table = [[name, dtypes[name], list(arrays[name].shape)] for name in sorted(arrays)]
    crc = zlib.crc32(json.dumps([table, dict(texts)], sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(arrays):
        crc = zlib.crc32(_bytes(arrays[name]), crc)
    return f"minigrad:crc32:{crc:08x}"


def _bytes(array: np.ndarray) -> memoryview:
    """The memory of a C-contiguous array, also of one without axes or elements."""
    return array.reshape(-1).view(np.uint8).data


# ---------------------------------------------------------------- reading


_limits = reprlib.Repr()
_limits.maxstring, _limits.maxlist = 100, 8
_brief = _limits.repr  # what a file says may be of any length


def _read(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"its header would have {length} bytes")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    texts = header.pop(_METADATA, {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its metadata are not texts by name")
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    in_file = sorted(entries, key=lambda name: entries[name][2:])  # by begin and end
    position = 0
    for name in in_file:
        begin, end = entries[name][2:]
        if begin != position:
            raise ValueError(f"the bytes of {_brief(name)} begin at {begin}, and the array before ends at {position}")
        position = end
    if position != size - 8 - length:
        raise ValueError(
            f"its arrays have {position} bytes, {size - 8 - length} are there: cut off, or not all written"
        )
    arrays: dict[str, np.ndarray] = {}
    for name in in_file:
        kind, shape = entries[name][:2]
        arrays[name] = np.empty(shape, _TYPES[kind])
        if file.readinto(_bytes(arrays[name])) != arrays[name].nbytes:  # type: ignore[attr-defined]
            raise ValueError("it was cut off while it was read")
    _check(arrays, {name: entry[0] for name, entry in entries.items()}, texts)
    rest = json.loads(texts.pop(_JSON, "{}"))
    if not isinstance(rest, dict):
        raise ValueError(f"{_JSON} in its metadata is no JSON object")
    return {name: _widened(array, entries[name][0]) for name, array in arrays.items()}, {**texts, **rest}


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(type, shape, begin, end) of an array, as the header says."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{_brief(name)} has no dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{_brief(name)} has dtype {_brief(kind)}, shape {_brief(shape)}, data_offsets {_brief(offsets)}"
        )
    if kind not in _TYPES:
        raise CheckpointError(
            f"{_brief(name)} is of type {_brief(kind)}, which minigrad does not read: convert it to F32 or another of "
            f"{', '.join(_TYPES)} where the file was made"
        )
    begin, end = offsets
    if len(shape) > 64 or end - begin != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise ValueError(f"{_brief(name)}, {kind} of shape {_brief(shape)}, cannot have {end - begin} bytes")
    return kind, tuple(shape), begin, end


def _is_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check(arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], texts: dict[str, str]) -> None:
    """Takes the checksum out of the metadata; CheckpointError where it is another than that of all the rest."""
    stated = texts.pop(_CHECKSUM, "none")
    if stated == "none" and not any(
        text.startswith("minigrad:") or (key.startswith(_OURS) and key != _JSON) for key, text in texts.items()
    ):
        return  # neither there nor under a damaged name
    found = _checksum(arrays, dtypes, texts)
    if stated != found:
        raise CheckpointError(
            f"damaged: its checksum should be {printable(stated)} and is {found}: take another copy of the file (a "
            f"program that changes one on purpose is to drop {_CHECKSUM!r} from its metadata)"
        )


def _widened(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL":
        return array.view(np.uint8) != 0
    return array.astype(np.float32) if kind == "F16" else array
