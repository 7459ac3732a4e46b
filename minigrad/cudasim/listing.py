"""The kernels of a CUDA file, each with a command that runs it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ..errors import printable
from .cuda_file import Kernel
from .declarations import CLASS_KEYS
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
    types = [_with_guesses(type_, kernel.template_parameters) for type_, _ in kernel.parameters]
    counts = sum(map(_is_integer, types))  # sizes, most likely
    values = [
        _value(type_, name or f"parameter{i + 1}", counts, _is_record(source, type_))
        for i, (type_, (_, name)) in enumerate(zip(types, kernel.parameters))
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


def _with_guesses(declared: str, template_parameters: Sequence[str]) -> str:
    """The type with what the example says for types of the template."""
    for parameter in template_parameters:
        name = re.search(r"\b(?:typename|class)\s+(\w+)", parameter)
        if name:
            declared = re.sub(rf"\b{name[1]}\b", _template(parameter), declared)
    return declared


def _is_integer(declared: str) -> bool:
    return "*" not in declared and bool(_WHOLE.search(declared))


def _is_record(source: Source, declared: str) -> bool:
    """Whether it names a struct of the file, or of a header."""
    words = set(re.findall(r"[A-Za-z_]\w*", declared))
    structs = [one for one in source.file.declarations if one.names & words and one.kind in ("class", "alias")]
    return any(one.words & (CLASS_KEYS - {"enum"}) for one in structs)


def _value(declared: str, name: str, counts: int, record: bool) -> str:
    """One size: 1000 elements.  Two or three: 32 or 16 each, and arrays that hold their product.

    record: it is, or points to, a struct."""
    size = {0: 1024, 1: 1000, 2: 32}.get(counts, 16)
    elements = size**2 if counts == 2 else size**3 if counts > 2 else size
    if "*" in declared or "[" in declared:
        if record or not re.search(r"\bconst\b[^*]*\*|\*.*\bconst\b.*\*", declared):
            return f"{name}=zeros:{elements}"
        lanes = _LANES.search(declared)
        whole = lanes[1] not in ("float", "double") if lanes else _WHOLE.search(declared) or "bool" in declared
        return f"{name}=integers:{elements}" if whole else f"{name}=normal:{elements}"
    if record:
        return f"{name}={name}.npy"  # its bytes: nothing else can say what is in it
    if re.search(r"\bdim3\b", declared):
        return f"{name}=[{size},1,1]"
    if _is_integer(declared):
        return f"{name}={size}"
    if re.search(r"\bbool\b", declared):
        return f"{name}=true"
    lanes = _LANES.search(declared)
    return f"{name}=[{','.join('1' * int(lanes[2]))}]" if lanes else f"{name}=2.0"


def _template(parameter: str) -> str:
    if not re.match(r"\s*(typename|class)\b", parameter):
        return "true" if re.match(r"\s*bool\b", parameter) else "16"
    name = parameter.partition("=")[0].split()[-1]
    return "int" if re.search(r"int|index|idx|offset|size", name, re.IGNORECASE) else "float"
