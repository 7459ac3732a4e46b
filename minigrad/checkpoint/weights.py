"""Weights on disk: the safetensors format, which holds named arrays and nothing that could run.

Every tool that reads safetensors reads these files.  The safetensors library writes and checks the format; here are
the checksum, the metadata, and the types.

Metadata is a dictionary of what JSON can hold: its strings are stored as they are, the rest as JSON text under
"minigrad.json", because the format knows strings only.  "minigrad.checksum" is "minigrad:crc32:" and eight hexadecimal
digits: the CRC-32 of the text

    json.dumps([[[name, dtype, shape], ... sorted by name], the other metadata], sort_keys=True, separators=(",", ":"))

with the format's names of types ("F32"), and, behind it, the bytes of the arrays, sorted by name.  It does not depend
on the order in the file, so that a file which another tool has copied keeps it.  Files without it, from elsewhere, are
read as they are.

A file is read, never mapped into memory: one that is cut off meanwhile is an error then, not the end of the process.
The library copies what it is given: a load takes twice the file's size in memory, and a save, beside the arrays
themselves, twice too (three times before safetensors 0.8).  It writes the metadata in no fixed order.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from ..base import files
from ..base.foreign import weights_of
from ..errors import CheckpointError, DeviceError, DTypeError, printable
from ..tensor import Tensor

PathLike = str | os.PathLike[str]

_OURS = "minigrad."
_JSON = "minigrad.json"  # the metadata key of everything that is not a string
_CHECKSUM = "minigrad.checksum"
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes: the format's own limit

# How files of torch.save begin: archives, and those of PyTorch before 1.6.
_PICKLED = (b"PK\3\4", b"\x80\2\x8a\n")
_OF_PYTORCH = (
    "it seems to be one of torch.save, which can hold programs and is not opened here: with PyTorch, "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE) makes one of its weights"
)

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
        raise CheckpointError(
            f"checkpoint: state and metadata must be dictionaries by name, got {kinds}: give model.state_dict()"
        )
    arrays = {name: _array(name, value) for name, value in state.items()}
    texts = _pack(metadata or {})
    texts[_CHECKSUM] = _checksum(arrays, {name: _NAMES[array.dtype] for name, array in arrays.items()}, texts)
    try:
        _make_sure_of(3 * sum(array.nbytes for array in arrays.values()))
        content = serialize(arrays, texts)
    except MemoryError as error:
        raise CheckpointError(
            f"checkpoint: cannot write {printable(path)}: no memory for a copy of its arrays: free some, or save fewer"
        ) from error
    length = int.from_bytes(content[:8], "little")
    if length > _LONGEST_HEADER:
        raise CheckpointError(
            f"checkpoint: names and metadata of {length} bytes, at most {_LONGEST_HEADER} fit: store what is large as "
            "arrays"
        )
    with files.writing(path, lambda message: CheckpointError(f"checkpoint: {message}")) as file:
        file.write(content)


def load(path: PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, metadata) of a safetensors file, the arrays each in memory of its own, to be written to.

    float16 and bfloat16 come as float32, which holds all their values.  CheckpointError where the file is missing, cut
    off, damaged (its checksum, where it has one, is another), not a safetensors file, or holds other types.
    """
    path = os.fspath(path)
    where = printable(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"checkpoint: there is no file {where}: check the path")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                return _read(file, size)
            except CheckpointError as error:
                raise CheckpointError(f"checkpoint: {where}: {error}") from error
            except (ValueError, RecursionError) as error:  # not in the format, or no JSON
                file.seek(0)
                advice = (
                    _OF_PYTORCH if file.read(4) in _PICKLED else "check that it is the right file, or take another copy"
                )
                raise CheckpointError(
                    f"checkpoint: {where} ({size} bytes) is no readable safetensors file: {error}: {advice}"
                ) from error
    except OSError as error:
        raise CheckpointError(f"checkpoint: cannot read {where}: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(
            f"checkpoint: {where}: no memory for the {size / 1e6:.0f} MB of its arrays: free twice as much"
        ) from error


# ---------------------------------------------------------------- writing


def _array(name: Any, value: Any) -> np.ndarray:
    """C-contiguous and little-endian, as the file holds it."""
    if not isinstance(name, str) or name == _METADATA or not _is_text(name):
        raise CheckpointError(f"checkpoint: names must be text other than {_METADATA!r}, got {name!r}")
    # asarray with order="C", not ascontiguousarray: that one makes 0-d arrays 1-d
    try:
        array = np.asarray(
            value.numpy() if isinstance(value, Tensor) else weights_of(value, f"checkpoint: {name!r}"), order="C"
        )
    except (DTypeError, DeviceError) as error:
        raise CheckpointError(str(error)) from error
    if array.dtype.newbyteorder("<") not in _NAMES:
        raise CheckpointError(
            f"checkpoint: {name!r} must be an array of numbers, got {array.dtype}: what is none goes into metadata"
        )
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
        raise CheckpointError(
            f"checkpoint: metadata must be what JSON can hold: {error}: give text, numbers, lists and dictionaries"
        ) from None
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
        crc = zlib.crc32(arrays[name].data, crc)
    return f"minigrad:crc32:{crc:08x}"


# ---------------------------------------------------------------- reading


def _read(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"its header would have {length} bytes")
    text = file.read(length)
    header = json.loads(text.decode(), object_pairs_hook=_once)  # first: the rest may be large and no weights at all
    _check_types(header)
    file.seek(0)
    content = file.read(size)
    if len(content) < size or content[8 : 8 + length] != text:
        raise ValueError("it was cut off, or changed, while it was read")
    _make_sure_of(size)
    try:
        tensors = dict(deserialize(content))
    except SafetensorError as error:  # it quotes the file, which may say anything at any length
        raise ValueError(f"{printable(error)[:300]} (cut off, or not all written?)") from error
    del content
    texts = header.pop(_METADATA, {})
    if texts is None:
        raise ValueError("its metadata are null")
    kinds = {name: tensors[name]["dtype"] for name in header}
    arrays = {
        name: np.frombuffer(tensors[name].pop("data"), _TYPES[kind]).reshape(tensors[name]["shape"])
        for name, kind in kinds.items()
    }
    _check(arrays, kinds, texts)
    rest = json.loads(texts.pop(_JSON, "{}"))
    if not isinstance(rest, dict):
        raise ValueError(f"{_JSON} in its metadata is no JSON object")
    return {name: _own(arrays.pop(name), kind) for name, kind in kinds.items()}, {**texts, **rest}


def _make_sure_of(size: int) -> None:
    """MemoryError where so many bytes are not to be had: without them the library would end the process, or hang."""
    np.empty(size, np.uint8)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _check_types(header: Any) -> None:
    """CheckpointError with the first array of another type than ours; the library refuses one that is no text."""
    for name, entry in header.items() if isinstance(header, dict) else ():
        kind = entry.get("dtype") if isinstance(entry, dict) and name != _METADATA else None
        if isinstance(kind, str) and kind not in _TYPES:
            raise CheckpointError(
                f"{name[:100]!r} is of type {kind[:100]!r}, which minigrad does not read: convert it to F32 or "
                f"another of {', '.join(_TYPES)} where the file was made"
            )


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


def _own(array: np.ndarray, kind: str) -> np.ndarray:
    """Its values in memory of its own, in a type that NumPy has and the models take."""
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL":
        return array.view(np.uint8) != 0
    return array.astype(np.float32 if kind == "F16" else array.dtype)
