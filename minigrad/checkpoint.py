"""Weights on disk: the safetensors format, which holds named arrays and nothing that could run.

Every tool that reads safetensors reads these files.  Metadata is a dictionary of what JSON can hold: its
strings are stored as they are, the rest as JSON text under one key, because the format knows strings only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import CheckpointError
from .tensor import Tensor

PathLike = str | os.PathLike[str]

_JSON = "minigrad.json"  # the metadata key of everything that is not a string


def save(path: PathLike, state: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Write named arrays (or Tensors) to one safetensors file, whole or not at all.

    The file is written beside `path` under another name, brought to the disk, and renamed: an interrupted or
    failed save leaves the old file as it was.  CheckpointError where a value is not an array of numbers,
    metadata is not JSON, or the place cannot be written.
    """
    arrays = {name: _array(name, value) for name, value in state.items()}
    texts = _pack(metadata or {})
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        save_file(arrays, temporary, texts)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint: cannot write {os.fspath(path)}: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def load(path: PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, metadata) of a safetensors file; CheckpointError where it is missing, cut off or not one."""
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise CheckpointError(f"checkpoint: there is no file {where}")
    try:
        with safe_open(where, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            texts = dict(file.metadata() or {})
        rest = json.loads(texts.pop(_JSON, "{}"))
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint: {where} ({os.path.getsize(where)} bytes) is no readable safetensors file: {error}"
        ) from error
    return arrays, {**texts, **rest}


def _array(name: str, value: Any) -> np.ndarray:
    # asarray with order="C", not ascontiguousarray: that one makes 0-d arrays 1-d
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value, order="C")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise CheckpointError(f"checkpoint: {name!r} must be an array of numbers, got {array.dtype}")
    return array


def _pack(metadata: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
    rest = {key: value for key, value in metadata.items() if not isinstance(value, str)}
    if any(not isinstance(key, str) or key == _JSON for key in metadata):
        raise CheckpointError(f"checkpoint: metadata keys must be strings other than {_JSON!r}, got {list(metadata)}")
    try:
        return {**texts, _JSON: json.dumps(rest)} if rest else texts
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint: metadata must be what JSON can hold: {error}") from None
