"""A CUDA file as it is: kernels of anybody's, with the host's code, headers and templates around them.

    file = CudaFile.read("reduce.cu")
    file.kernels                                              # their names, parameters, template parameters, lines
    module = file.module("reduce", templates=("float", 256))  # compiled, with what this kernel needs and no more
    module.get_function("reduce").launch(...)

The file goes through g++'s preprocessor (preprocess.py), is cut into declarations (declarations.py), and what a kernel
needs, by name and transitively, is compiled with headers of our own before it (emission.py, cpp/foreign.hpp).  The code
of the host is not read any further.  Lines keep their numbers: messages name the file and line that the user sees.

Every kernel is a module of its own: `__device__` variables of two kernels are two, though the file has them once.

The rules for minigrad's own kernels, which NVRTC compiles, are in source.py; nothing here loosens them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, KernelError, printable
from . import declarations as cpp
from .compiler import require_compiler
from .emission import unit
from .module import RawModule
from .preprocess import preprocess
from .source import file_of_marker
from .tokens import Text

# The types of C++ that NumPy's are, for template parameters that arguments decide.
_TYPES = {
    **{"float32": "float", "float64": "double", "float16": "__half", "bool": "bool", "bfloat16": "__nv_bfloat16"},
    **{"int8": "signed char", "int16": "short", "int32": "int", "int64": "long long"},
    **{"uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int", "uint64": "unsigned long long"},
    **{"complex64": "float2", "complex128": "double2"},
}


@dataclass(frozen=True)
class Kernel:
    """A __global__ function.

    name: without namespaces.  template_parameters: as declared, "typename T", "int SIZE = 16"; () where it is no
    template.  parameters: (type, name) of each.  file, line: where its name stands.  scope: the namespaces around it.
    """

    name: str
    template_parameters: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    file: str
    line: int
    scope: tuple[str, ...] = ()
    declaration: Any = field(default=None, repr=False, compare=False)


class CudaFile:
    """The kernels of a CUDA file.

    text: its text.  name: what messages call it.  defines: "NAME" or "NAME=VALUE".  arch: what __CUDA_ARCH__ says, 800
    for sm_80.  folder: where its own headers lie.  include: more folders to look for headers in.
    Raises KernelError for a text that g++'s preprocessor refuses or that has no kernel, DeviceError without g++.
    """

    def __init__(
        self,
        text: str,
        name: str = "kernel.cu",
        *,
        defines: Sequence[str] = (),
        arch: int = 800,
        folder: str | os.PathLike[str] | None = None,
        include: Sequence[str | os.PathLike[str]] = (),
    ):
        for define in defines:
            if not re.fullmatch(r"[A-Za-z_]\w*(=[^\n]*)?", define):
                raise ArgumentError(f"cudasim: defines: {define!r} is no NAME or NAME=VALUE")
        require_compiler()
        self.name = name
        code, self.missing = preprocess(
            text.removeprefix("\ufeff").replace("\r\n", "\n"),
            name,
            folder=None if folder is None else Path(folder),
            include=[Path(path) for path in include],
            defines=defines,
            arch=arch,
        )
        self.text = Text(code, "")
        self.files = [file_of_marker(file) for file in self.text.files]
        self.declarations = cpp.declarations(self.text)
        self.kernels = [self._kernel(one) for one in self.declarations if _is_kernel(one)]
        if not self.kernels:
            raise KernelError(f"{printable(name)}: there is no kernel in this file: no __global__ function with a body")

    @classmethod
    def read(cls, path: str | os.PathLike[str], **options: Any) -> CudaFile:
        """The file at `path`, whose headers lie beside it; options: as for CudaFile.  OSError if it is not there."""
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        return cls(text, os.fspath(path), folder=Path(path).parent, **options)

    def kernel(self, name: str, arguments: Sequence[Any] | None = None) -> Kernel:
        """The kernel of that name, with its namespaces where those are given, "ns::name".

        Of several with one name: the one whose parameters the dtypes in `arguments` fit, or "name#2", the second in
        the file.  KernelError names those there are.
        """
        path, _, number = name.partition("#")
        *scope, last = path.split("::")
        found = [k for k in self.kernels if k.name == last and (not scope or list(k.scope[-len(scope) :]) == scope)]
        if number:
            found = found[int(number) - 1 :][:1] if number.isdigit() and number != "0" else []
        elif len(found) > 1 and arguments is not None:
            found = [k for k in found if _fits(k, arguments)] or found
        if not found:
            names = ", ".join(dict.fromkeys(kernel.name for kernel in self.kernels))
            raise KernelError(f"{printable(self.name)}: there is no kernel '{printable(name)}'; there are {names}")
        if len(found) > 1:
            places = "; ".join(f"{printable(k.file)}:{k.line}, {'::'.join((*k.scope, k.name))}" for k in found)
            raise KernelError(
                f"{printable(self.name)}: there are {len(found)} kernels '{printable(name)}': {places}.  Say which: by "
                "its namespace, 'ns::name', by its place in the file, 'name#2', or by its arguments"
            )
        return found[0]

    def module(
        self,
        kernel: str,
        templates: Sequence[Any] = (),
        mode: str = "check",
        copy: int = 0,
        *,
        arguments: Sequence[Any] | None = None,
    ) -> RawModule:
        """The kernel, compiled: module(name).get_function(name).

        templates: the arguments of a template, in its order: types as C++ writes them, numbers, names.  arguments: the
        dtypes of the kernel's arguments (None for those without), which decide the template parameters that are types
        of parameters.  mode, copy: as of RawModule.
        Raises KernelError for what the emulator cannot run, with its line, and for what does not compile.
        """
        chosen = self.kernel(kernel, arguments)
        return RawModule(
            "", (), mode, copy, unit=unit(self, chosen, kernel, self._instantiation(chosen, templates, arguments))
        )

    def variable_type(self, name: str) -> str:
        """The type of a variable, or of its elements, as C++ writes it; "" of a pointer, or where that is unclear."""
        one = next((one for one in self.declarations if one.kind == "variable" and name in one.names), None)
        words = []
        for token in self.text.tokens[one.begin : one.end] if one else ():
            if token.text in ("*", "&", "(", "<", "::"):
                return ""
            if one and token.text in one.names:
                break
            if token.text not in ("__constant__", "__device__", "__managed__", "static", "const", "volatile", "extern"):
                words.append(token.text)
        return " ".join(words)

    # ---------------------------------------------------------------- inside

    def _kernel(self, one: cpp.Declaration) -> Kernel:
        text, tokens = self.text, self.text.tokens
        assert one.parameters is not None
        name = tokens[one.parameters - 1]
        headers = [text.code(*part) for begin, end in one.templates for part in _split(text, begin, end)]
        for other in self.declarations:  # a default may stand in a prototype
            if other.body is None and other.kind == "function" and other.names == one.names:
                declared = [text.code(*part) for begin, end in other.templates for part in _split(text, begin, end)]
                if len(declared) == len(headers):
                    headers = [late if "=" in late else early for late, early in zip(headers, declared)]
        parameters = []
        for begin, end in _split(text, one.parameters + 1, text.match[one.parameters]):
            parameters.append(_parameter(text, begin, end))
        return Kernel(
            name.text,
            tuple(headers),
            tuple(parameters),
            self.files[name.file],
            name.line,
            one.scope,
            one,
        )

    def _instantiation(self, kernel: Kernel, templates: Sequence[Any], arguments: Sequence[Any] | None) -> str:
        """The template arguments in angle brackets, "" of a kernel that is no template."""
        where = f"{printable(kernel.file)}:{kernel.line}: kernel {kernel.name}"
        given = [_template_argument(value) for value in templates]
        wanted = kernel.template_parameters
        pack = bool(wanted) and "..." in wanted[-1]
        if len(given) > len(wanted) and not pack:
            raise KernelError(f"{where} has {len(wanted)} template parameters, templates={tuple(templates)} are more")
        if not wanted:
            return ""
        dtypes = [None if a is None else np.dtype(a).name for a in arguments or ()]
        for declared in wanted[len(given) :]:
            name, default = _template_name(declared)
            deduced = _deduced(name, kernel.parameters, dtypes)
            if "..." in declared or (deduced is None and default):
                break  # g++ fills in the rest
            if deduced is None:
                raise KernelError(
                    f"{where} is a template<{', '.join(wanted)}>, and nothing decides '{declared}': say it, "
                    "templates=(...), in this order"
                )
            given.append(deduced)
        return f"<{', '.join(given)}>"


def _is_kernel(one: cpp.Declaration) -> bool:
    if one.kind != "function" or "__global__" not in one.head or one.body is None or one.parameters is None:
        return False
    return all(begin < end for begin, end in one.templates)  # template <>: belongs to the one that it specialises


def _split(text: Text, begin: int, end: int) -> list[tuple[int, int]]:
    """Tokens [begin, end) cut at commas outside of brackets; nothing for none, or for void."""
    parts, start, i = [], begin, begin
    while i < end:
        sign = text.tokens[i].text if text.tokens[i].kind == "sign" else ""
        if sign == "<":
            i = max(text.past_angles(i, end), i + 1)
            continue
        if sign in ("(", "[", "{"):
            i = text.match[i]
        elif sign == ",":
            parts.append((start, i))
            start = i + 1
        i += 1
    parts.append((start, end))
    return [] if text.code(begin, end) in ("", "void") else parts


def _parameter(text: Text, begin: int, end: int) -> tuple[str, str]:
    """Type and name of a parameter; "" where it has no name."""
    tokens = text.tokens
    for i in range(begin, end - 1):
        if tokens[i].text == "(" and tokens[i + 1].text == "*":  # float (*rows)[16]
            close = text.match[i]
            inmost = tokens[close - 1]
            declared = re.sub(r"\s+", " ", f"{text.code(begin, i)}(*){text.code(close + 1, end)}").strip()
            return declared, inmost.text if inmost.kind == "word" and "restrict" not in inmost.text else ""
    stop = next((i for i in range(begin, end) if tokens[i].text == "=" and tokens[i].kind == "sign"), end)
    brackets = stop
    while brackets - 1 > begin and tokens[brackets - 1].text == "]":  # float a[][3]: float(*)[3] is said as it stands
        brackets = max(i for i in range(begin, brackets) if text.match.get(i) == brackets - 1)
    last = tokens[brackets - 1]
    builtin = {"int", "float", "double", "unsigned", "char", "bool", "long", "short", "const", "signed"}
    named = brackets - 1 > begin and last.kind == "word" and last.text not in builtin
    if named and tokens[brackets - 2].text in ("::", "const", "volatile") and brackets - 2 == begin:
        named = False  # const T
    type_end = brackets - 1 if named else brackets
    words = text.code(begin, type_end)
    words = re.sub(r"\b(__restrict__|__restrict|restrict|__grid_constant__)\b", "", words)
    words = re.sub(r"\s+", " ", words).replace(" *", "*").strip()
    if brackets < stop:
        inner = text.code(brackets, stop)
        inner = inner[inner.index("]") + 1 :].strip()
        words += f"(*){inner}" if inner else "*"
    return words, last.text if named else ""


def _fits(kernel: Kernel, arguments: Sequence[Any]) -> bool:
    """Whether the parameters may be of these dtypes; None fits every type."""
    if len(kernel.parameters) != len(arguments):
        return False
    for (type_, _), argument in zip(kernel.parameters, arguments):
        plain = re.sub(r"\b(const|volatile)\b|[*&]", "", type_).strip()
        plain = {"unsigned": "unsigned int", "char": "signed char", "half": "__half"}.get(plain, plain)
        if argument is not None and plain in _TYPES.values() and _TYPES.get(np.dtype(argument).name) != plain:
            return False
    return True


def _template_name(declared: str) -> tuple[str, bool]:
    """The name of a template parameter, and whether it has a default: "int SIZE = 16" gives ("SIZE", True)."""
    before, equals, _ = declared.partition("=")
    words = re.findall(r"\w+", before)
    return words[-1] if words else "", bool(equals)


def _template_argument(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, str):
        if re.search(r"[;{}#\n]", value):
            raise ArgumentError(f"cudasim: templates: {value!r} is no argument of a template")
        return _TYPES.get(value, value)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    try:
        return _TYPES[np.dtype(value).name]
    except (TypeError, KeyError):
        raise ArgumentError(
            f"cudasim: templates: {value!r} is neither a number, nor a type as C++ writes it, nor a dtype"
        ) from None


def _deduced(name: str, parameters: Sequence[tuple[str, str]], dtypes: Sequence[str | None]) -> str | None:
    """What a template parameter is where a parameter is of this type, or a pointer to it."""
    for (type_, _), dtype in zip(parameters, dtypes):
        plain = re.sub(r"\b(const|volatile)\b", "", type_).replace(" ", "").rstrip("&")
        if dtype in _TYPES and plain.rstrip("*") == name and plain.count("*") <= 1:
            return _TYPES[dtype]
    return None
