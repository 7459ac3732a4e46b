"""The CUDA sources: where they lie, and what their entry points take.

They are the files of the top-level folder kernels/, named after the ops.  A checkout, and an editable install of one,
reads them there; a wheel carries a copy inside the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DeviceError, KernelError

_PACKAGE = Path(__file__).resolve().parent
_replaced: dict[str, tuple[str, str | None]] = {}  # what stands in for files of kernels/: replace_source


def kernel_folder() -> Path:
    """The folder with the .cu files; DeviceError where an installation has lost it."""
    for folder in (_PACKAGE / "_kernels", _PACKAGE.parent / "kernels"):
        if (folder / "README.md").is_file():
            return folder
    raise DeviceError(f"kernels: no folder with CUDA sources beside or inside {_PACKAGE}: install minigrad again")


def kernel_names() -> list[str]:
    """The kernel files: "conv2d", "ladder/conv2d_1_naive", ..."""
    folder = kernel_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.cu"))


def kernel_source(name: str) -> str:
    """The text of kernels/<name>.cu; DeviceError names the kernels there are."""
    if name in _replaced:
        return _replaced[name][0]
    path = kernel_folder() / f"{name}.cu"
    if not path.is_file():
        known = ", ".join(kernel_names()) or "none yet"
        raise DeviceError(f"kernels: there is no {name}.cu in {kernel_folder()}; there are: {known}")
    return path.read_text(encoding="utf-8")


def replace_source(name: str, text: str | None, file: str | None = None) -> None:
    """Let `text` stand in for kernels/<name>.cu in this process (None: the file again): for trying a changed kernel.

    file: what messages call it, where it is not kernels/<name>.cu.
    """
    if text is None:
        _replaced.pop(name, None)
    else:
        _replaced[name] = text, file
    full_source.cache_clear()


def kernel_file(name: str) -> str:
    """What messages call the source of that name: kernels/<name>.cu, or a file elsewhere by its own path."""
    stand_in = _replaced.get(name, ("", None))[1]
    return stand_in or (f"{name}.cu" if os.path.isabs(name) else f"kernels/{name}.cu")


def line_marker(file: str) -> str:
    """`#line 1 "file"`: the next line is the file's first.  What C would not take as it is becomes an octal escape."""
    plain = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in os.fsencode(file))
    return f'#line 1 "{plain}"'


@cache
def full_source(name: str) -> str:
    """What the compiler gets: common.cuh, then kernels/<name>.cu, with markers so that messages name file and line."""
    header = (kernel_folder() / "common.cuh").read_text(encoding="utf-8")
    return f"{line_marker('kernels/common.cuh')}\n{header}\n{line_marker(kernel_file(name))}\n{kernel_source(name)}\n"


# ---------------------------------------------------------------- entry points

# C's name of each element type, for -D options, and the way back.
C_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
}
DTYPES = {c: np.dtype(name) for name, c in C_TYPES.items()} | {"unsigned": np.dtype(np.uint32)}

# Names of element types that are not macros of the same name: NVRTC's own headers have templates over a T, so that -DT=
# would break them.  common.cuh makes T of it.
MACROS = {"T": "TYPE"}

# Bytes of `struct Layout` of common.cuh, filled by gpu/layout.py.
LAYOUT = np.dtype([("size", np.int64, 6), ("stride", np.int64, (3, 6)), ("axes", np.int64)])

# `struct Convolution` of conv2d.cu, filled by ops/conv2d.py.
_SIZES = "n groups cg og height width oh ow kh kw sh sw dh dw top left"
CONVOLUTION = np.dtype([(name, np.int32) for name in _SIZES.split()])

STRUCTS = {"Layout": LAYOUT, "Convolution": CONVOLUTION}

_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)'
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point: an array (pointer) or a value of `dtype`."""

    name: str
    dtype: np.dtype[Any]
    pointer: bool
    const: bool


def entry_points(source: str, types: Mapping[str, str]) -> dict[str, list[Parameter]]:
    """The parameters of every `extern "C" __global__` function, with the macros in `types` ({"REAL": "float"}).

    KernelError for a type that the launcher cannot pass.
    """
    found = {}
    for match in _ENTRY.finditer(_COMMENT.sub("", source)):
        texts = [text for text in match["parameters"].split(",") if text.strip()]
        found[match["name"]] = [_parameter(match["name"], text, types) for text in texts]
    return found


def open_types(name: str) -> list[str]:
    """The element types that kernels/<name>.cu leaves open, as its parameters name them: ["REAL"], ["TO", "FROM"]."""
    found: dict[str, None] = {}
    for match in _ENTRY.finditer(_COMMENT.sub("", kernel_source(name))):
        for text in filter(str.strip, match["parameters"].split(",")):
            kind = _c_type(text)
            if kind not in DTYPES and kind not in STRUCTS:
                found[kind] = None
    return list(found)


def _c_type(text: str) -> str:
    """The type of a parameter, without const, * and the parameter's name."""
    words = text.replace("*", " ").replace("__restrict__", " ").split()
    return " ".join(word for word in words[:-1] if word != "const")


def _parameter(kernel: str, text: str, types: Mapping[str, str]) -> Parameter:
    words = text.replace("*", " * ").replace("__restrict__", " ").split()
    *kind, name = words
    c_type = types.get(_c_type(text), _c_type(text))
    dtype = DTYPES.get(c_type, STRUCTS.get(c_type))
    if dtype is None:
        raise KernelError(
            f"{kernel}: parameter '{' '.join(words)}' has a type that launch cannot pass: use REAL or another -D type, "
            f"{', '.join(sorted(DTYPES))} or {', '.join(STRUCTS)}"
        )
    return Parameter(name, dtype, "*" in kind, "const" in kind)
