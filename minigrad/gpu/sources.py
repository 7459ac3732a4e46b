"""The CUDA sources: where they lie, and what Python reads in them: entry points, constants, structs.

They are the files of the top-level folder kernels/, named after the ops.  A checkout, and an editable install of one,
reads them there; a wheel carries a copy inside the package.

What both sides must know is written once, in the .cu file, so that a kernel can be read and run without Python:
`constants` gives the host a kernel's #defines, `struct` fills one of its structs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from ..errors import DeviceError, KernelError, printable

_PACKAGE = Path(__file__).resolve().parent.parent
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

    name: "lrn" for kernels/lrn.cu; with its ending, "tile_product.cuh", for what kernels include.
    file: what messages call it, where it is not kernels/<name>.cu.
    """
    if text is None:
        _replaced.pop(name, None)
    else:
        _replaced[name] = text, file
    for function in _remembering:
        function.cache_clear()


Function = TypeVar("Function", bound=Callable[..., Any])
_remembering: list[Any] = []


def remembered(function: Function) -> Function:
    """Decorates what depends on the kernels' text and on its arguments alone: structs, grids and the like for shapes.

    An op asks for the same at every step, so each is worked out once, until `replace_source` changes a kernel.  The
    arguments are hashable; the results are shared, and nobody writes into them (`struct` makes read-only arrays).
    """
    found = lru_cache(maxsize=1024)(function)
    _remembering.append(found)
    return cast(Function, found)


def kernel_file(name: str) -> str:
    """What messages call the source of that name: kernels/<name>.cu, or a file elsewhere by its own path."""
    stand_in = _replaced.get(name, ("", None))[1]
    return stand_in or (f"{name}.cu" if os.path.isabs(name) else f"kernels/{name}.cu")


def line_marker(file: str, line: int = 1) -> str:
    """`#line 1 "file"`: the next line is that of the file.  What a C string cannot hold becomes an octal escape."""
    plain = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in os.fsencode(file))
    return f'#line {line} "{plain}"'


@remembered
def full_source(name: str) -> str:
    """What the compiler gets: common.cuh, then kernels/<name>.cu with the files of kernels/ that it includes.

    Markers between them let messages name file and line.
    """
    common = f"{line_marker('kernels/common.cuh')}\n{_header('common.cuh')}"
    file, source = kernel_file(name), kernel_source(name)
    return f"{common}\n{line_marker(file)}\n{_with_headers(file, source, {'common.cuh'})}\n"


def _with_headers(file: str, source: str, known: set[str]) -> str:
    """The source with the files of kernels/ that it includes, and those that they include; each once.

    The marker behind a header says where the file goes on.  Where the header stands in an #if that does not hold, the
    compiler skips its marker and counts its lines all the same: so there is one behind #else, #elif and #endif, too.
    """
    headers = False

    def included(match: re.Match[str]) -> str:
        nonlocal headers
        name = match["header"]
        back = line_marker(file, source.count("\n", 0, match.start()) + 2)
        if name is None:
            return f"{match[0]}\n{back}" if headers else match[0]
        header = "" if name in known else _header(name)
        if header is None:
            return match[0]
        headers = True
        known.add(name)
        header = _with_headers(f"kernels/{name}", header, known)
        return f"{line_marker(f'kernels/{name}')}\n{header}\n{back}"

    return _INCLUDE_OR_BRANCH.sub(included, source)


_INCLUDE_OR_BRANCH = re.compile(
    r'^[ \t]*#[ \t]*(?:include[ \t]*"(?P<header>\w+\.cuh)"[^\n]*|(?:else|elif|endif)\b[^\n/\\]*(?://[^\n\\]*)?)$',
    re.MULTILINE,
)


def _header(file: str) -> str | None:
    """The text of kernels/<file>, which kernels share; None where there is no such file."""
    if file in _replaced:
        return _replaced[file][0]
    path = kernel_folder() / file
    return path.read_text(encoding="utf-8") if path.is_file() else None


# ---------------------------------------------------------------- constants


@remembered
def constants(name: str, *wanted: str) -> tuple[int, ...]:
    """The integers that kernels/<name>.cu, or what it includes, #defines under these names; in their order.

    KernelError names the file, and the constant that is not there or is no plain integer.
    """
    defined = _defines(full_source(name))
    for constant in wanted:
        if constant not in defined:
            raise KernelError(
                f"{printable(kernel_file(name))}: the host asks for its {constant}, and there is no such #define"
            )
        if not _INTEGER.fullmatch(defined[constant]):
            raise KernelError(
                f"{printable(kernel_file(name))}: the host asks for its {constant}, which must be an integer, "
                f"not `{printable(defined[constant])}`"
            )
    return tuple(int(defined[constant], 0) for constant in wanted)


_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+([^\n]*)$", re.MULTILINE)
_INTEGER = re.compile(r"0|[1-9]\d*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def _defines(source: str) -> dict[str, str]:
    """The text of every #define with one."""
    return {name: text.strip() for name, text in _DEFINE.findall(_COMMENT.sub("", source))}


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

_ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)'
)


# `const __grid_constant__ Arrays<const REAL> g` of kernels/update.cuh: many arrays in place of one, `const REAL* g`.
_ARRAYS = re.compile(
    r"\s*const\s+__grid_constant__\s+Arrays\s*<\s*(?P<const>const\s)?(?P<type>[\w ]+?)\s*>\s*(?P<name>\w+)\s*"
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point: an array (pointer), up to `many` arrays, or a value of `dtype`."""

    name: str
    dtype: np.dtype[Any]
    pointer: bool
    const: bool
    many: int = 0


def entry_points(source: str, types: Mapping[str, str]) -> dict[str, list[Parameter]]:
    """The parameters of every `extern "C" __global__` function, with the macros in `types` ({"REAL": "float"}).

    KernelError for a type that the launcher cannot pass.
    """
    found = {}
    for match in _ENTRY.finditer(_COMMENT.sub("", source)):
        texts = [text for text in match["parameters"].split(",") if text.strip()]
        found[match["name"]] = [_parameter(match["name"], text, types, source) for text in texts]
    return found


def open_types(name: str) -> list[str]:
    """The element types that kernels/<name>.cu leaves open, as its parameters name them: ["REAL"], ["TO", "FROM"]."""
    found: dict[str, None] = {}
    structs = _structs(full_source(name))
    for match in _ENTRY.finditer(_COMMENT.sub("", kernel_source(name))):
        for text in filter(str.strip, match["parameters"].split(",")):
            kind = _c_type(text)
            if kind not in DTYPES and kind not in structs:
                found[kind] = None
    return list(found)


def _c_type(text: str) -> str:
    """The type of a parameter, without const, * and the parameter's name; of arrays that of their elements."""
    arrays = _ARRAYS.fullmatch(text)
    if arrays:
        return arrays["type"]
    words = text.replace("*", " ").replace("__restrict__", " ").split()
    return " ".join(word for word in words[:-1] if word not in ("const", "__grid_constant__"))


def _parameter(kernel: str, text: str, types: Mapping[str, str], source: str) -> Parameter:
    arrays = _ARRAYS.fullmatch(text)
    words = text.replace("*", " * ").replace("__restrict__", " ").split()
    *kind, name = words
    c_type = types.get(_c_type(text), _c_type(text))
    dtype = DTYPES.get(c_type)
    if dtype is None and c_type in _structs(source):
        dtype = struct_dtype(source, c_type)
    if dtype is None:
        raise KernelError(
            f"{kernel}: parameter '{' '.join(words)}' has a type that launch cannot pass: use REAL or another -D type, "
            f"{', '.join(sorted(DTYPES))} or a struct of these"
        )
    if arrays:
        return Parameter(name, dtype, True, bool(arrays["const"]), int(_defines(source)["MANY"]))
    return Parameter(name, dtype, "*" in kind, "const" in kind)


# ---------------------------------------------------------------- structs

_STRUCT = re.compile(r"\bstruct\s+(\w+)\s*\{([^{}]*)\}\s*;")  # of data alone: a function would have braces
_MEMBERS = re.compile(r"(?P<type>[\w ]+?)\s+(?P<names>\w+(?:\[\w+\])*(?:\s*,\s*\w+(?:\[\w+\])*)*)")


def struct(name: str, kind: str, /, **members: Any) -> np.ndarray:
    """One `struct <kind>` of kernels/<name>.cu with these members, as launch passes it: by name, whatever their order.

    Read-only, so that it can be `remembered`.

    KernelError where the members are not those of the struct.
    """
    source = full_source(name)
    if kind not in _structs(source):
        raise KernelError(f"{printable(kernel_file(name))}: there is no struct {kind} of plain members")
    dtype = struct_dtype(source, kind)
    names = dtype.names or ()
    if len(members) != len(names) or any(member not in members for member in names):
        raise KernelError(
            f"{printable(kernel_file(name))}: struct {kind} has the members {', '.join(names)}; "
            f"given were {', '.join(members)}"
        )
    filled = np.zeros(1, dtype)
    try:
        filled[0] = tuple([members[member] for member in names])
    except OverflowError:
        for member in names:  # which?
            try:
                filled[member] = members[member]
            except OverflowError:
                raise KernelError(
                    f"{printable(kernel_file(name))}: struct {kind}: {member} = {members[member]!r} does not fit "
                    f"{dtype[member].base}"
                ) from None
    filled.flags.writeable = False
    return filled


_STRUCT_DTYPES: dict[str, np.dtype[Any]] = {}  # each one once, as NumPy compares different objects field by field


@cache
def struct_dtype(source: str, kind: str) -> np.dtype[Any]:
    """`struct <kind>` of a source, laid out as C does it.  KernelError for members that launch cannot pass."""
    defined, fields = _defines(source), list[Any]()
    for declaration in filter(None, (" ".join(text.split()) for text in _structs(source)[kind].split(";"))):
        match = _MEMBERS.fullmatch(declaration)
        dtype = DTYPES.get(match["type"]) if match else None
        if match is None or dtype is None:
            raise KernelError(f"struct {kind}: '{declaration}' has a type that launch cannot pass: {', '.join(DTYPES)}")
        for member in match["names"].split(","):
            word, *sizes = re.findall(r"\w+", member)
            lengths = [defined.get(size, size) for size in sizes]
            if not all(map(_INTEGER.fullmatch, lengths)):
                raise KernelError(f"struct {kind}: '{declaration}' must have an integer, or one's #define, in brackets")
            fields.append((word, dtype, tuple(map(int, lengths))))
    dtype = np.dtype(fields, align=True)
    return _STRUCT_DTYPES.setdefault(str(dtype), dtype)


@cache
def _structs(source: str) -> dict[str, str]:
    """The members of every struct that has nothing but data."""
    return dict(_STRUCT.findall(_COMMENT.sub("", source)))


# Where the elements of up to four arrays lie, filled by gpu/layout.py.
LAYOUT = struct_dtype(_header("common.cuh") or "", "Layout")
