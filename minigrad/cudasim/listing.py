"""The kernels of a CUDA file, each with a command that runs it."""

from __future__ import annotations

import re
import shlex

from ..errors import printable
from .cuda_file import Kernel
from .running import Source
from .source import without_comments


def listing(path: str, source: Source) -> str:
    """Each kernel with its parameters, and a line to copy."""
    count = len(source.file.kernels)
    parts = [f"{printable(path)}: {count} kernel{'s' if count > 1 else ''}"]
    for kernel in source.file.kernels:
        template = f"template <{', '.join(kernel.template_parameters)}> " if kernel.template_parameters else ""
        declared = ", ".join(f"{type_} {name}".strip() for type_, name in kernel.parameters)
        parts += ["", printable(f"line {kernel.line}: {template}{kernel.name}({declared})")]
        parts.append("    " + printable(example_line(path, source, kernel)))
    parts += [
        "",
        "Sizes and values in these lines are guesses: fit them to the kernel.  --help tells what can be said.",
    ]
    return "\n".join(parts)


def example_line(path: str, source: Source, kernel: Kernel) -> str:
    """A command that runs the kernel.  Its sizes are guesses: arrays are large enough for the usual ways to index."""
    body = _body(source, kernel)
    flat = not re.search(r"(threadIdx|blockIdx)\.[yz]", body)
    values = [
        _value(type_, name or f"parameter{i + 1}", _counts(kernel)) for i, (type_, name) in enumerate(kernel.parameters)
    ]
    words = ["python -m minigrad.cudasim", shlex.quote(path), f"--kernel {kernel.name}"]
    if kernel.template_parameters:
        words.append("--template " + ",".join(map(_template, kernel.template_parameters)))
    words.append("--grid 4 --block 256" if flat else "--grid 2x2 --block 16x16")
    if re.search(r"\bextern\b[^;\"]*__shared__|__shared__[^;=]*\[\s*\]", body):
        words.append("--shared 16384")
    return " ".join([*words, *map(shlex.quote, values)])


def _body(source: Source, kernel: Kernel) -> str:
    """From the kernel's line to the next one's."""
    lines = without_comments(source.text).split("\n")
    later = [other.line for other in source.file.kernels if other.line > kernel.line]
    return "\n".join(lines[kernel.line - 1 : min(later, default=len(lines) + 1)])


_WHOLE = re.compile(r"\b(u?int(\d+_t)?|u?char|u?short|u?long|unsigned|size_t)\b")
_LANES = re.compile(r"\b(float|double|u?int|u?char|u?short|u?long|u?longlong)([1-4])\b")


def _counts(kernel: Kernel) -> int:
    """How many of the parameters are whole numbers: sizes, most likely."""
    return sum(1 for type_, _ in kernel.parameters if _is_integer(type_))


def _is_integer(declared: str) -> bool:
    return "*" not in declared and bool(_WHOLE.search(declared))


def _value(declared: str, name: str, counts: int) -> str:
    """One size: 1000 elements.  Two or three: 32 or 16 each, and arrays that hold their product."""
    size = {0: 1024, 1: 1000, 2: 32}.get(counts, 16)
    elements = size**2 if counts == 2 else size**3 if counts > 2 else size
    if "*" in declared or "[" in declared:
        if not re.search(r"\bconst\b[^*]*\*|\*.*\bconst\b.*\*", declared):
            return f"{name}=zeros:{elements}"
        lanes = _LANES.search(declared)
        whole = lanes[1] not in ("float", "double") if lanes else _WHOLE.search(declared) or "bool" in declared
        return f"{name}=integers:{elements}" if whole else f"{name}=normal:{elements}"
    if _is_integer(declared):
        return f"{name}={size}"
    if re.search(r"\bbool\b", declared):
        return f"{name}=true"
    lanes = _LANES.search(declared)
    return f"{name}=[{','.join('1' * int(lanes[2]))}]" if lanes else f"{name}=2.0"


def _template(parameter: str) -> str:
    return "float" if re.match(r"\s*(typename|class)\b", parameter) else "16"
