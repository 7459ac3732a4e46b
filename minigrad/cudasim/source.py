"""What can be told from the text of a CUDA kernel without compiling it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..errors import KernelError, printable

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_MARKER = re.compile(
    r"^(?P<before>[ \t]*#[ \t]*(?:line[ \t]+)?(?P<line>\d+))"
    r'(?:[ \t]+"(?P<file>(?:[^"\\\n]|\\.)*)"(?:[ \t]+\d+)*)?[ \t]*$',
    re.MULTILINE,
)
UNNAMED = "kernel.cu"  # what a source is called before its first marker with a name
_BOUNDS = r"(?:__launch_bounds__\s*\((?P<%s>(?:[^()]|\([^()]*\))*)\)\s*)?"  # the numbers may be in brackets
_ENTRY = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS % "before"}void\s+{_BOUNDS % "behind"}(?P<name>\w+)\s*\(')
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?P<align>__align__\s*\(\s*\d+\s*\)\s*)?(?P<type>[\w ]+?)\s+(?P<name>\w+)\s*\[\s*\]\s*;"
)
_FUNCTION = re.compile(  # parameters may have brackets of their own: float (&sums)[4]
    r"\b(?!if\b|for\b|while\b|switch\b)(?P<name>operator\b[^;{}()]*(?:\(\s*\))?|\w+)\s*"
    r"\((?P<parameters>(?:[^()]|\([^()]*\))*)\)\s*"
    # const, noexcept(true), -> float, : member(1), other{2}
    r"(?:(?:const|volatile|mutable|override|final|noexcept(?:\s*\([^()]*\))?|&&?)\s*)*"
    r"(?:->[^{};]*|:(?:\w\{[^{};]*\}|[^{};])*)?\{"
)
_LAMBDA = re.compile(r"\b(?P<name>\w+)\s*=\s*\[[^\[\]]*\][^{};]*\{")
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(?P<name>\w+)(?P<body>(?:[^\n\\]|\\.|\\\n)*)", re.MULTILINE)
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")

# Names whose use makes a thread wait for others.
_WAITS = re.compile(
    r"__syncthreads(_count|_or|_and)?|__syncwarp|__activemask|__(shfl|shfl_up|shfl_down|shfl_xor|ballot|any|all)_sync"
    r"|multiply_add_tf32|copy_async(_commit|_wait)?|atomicCAS|atomicExch"  # the last two: for a lock
)

# What kernels must not use, and what to do instead.
_RULES = [
    (r"#[ \t]*include\b", "#include: NVRTC has no header files; what kernels share is in kernels/common.cuh"),
    (r"\b__constant__\b", "__constant__: pass the values as parameters"),
    (r"\b(?:asm|__asm__|__asm)\b", "inline assembly: write it in C++, or use what kernels/instructions.cuh has"),
    (r"\b(?:texture|surface|tex1D\w*|tex2D\w*|tex3D\w*|cudaTextureObject_t)\b", "textures: read from an array"),
    (
        r"\b__(?:shfl|shfl_up|shfl_down|shfl_xor|ballot|any|all)\b",
        "a warp intrinsic without a mask: use the _sync form",
    ),
    (r"\bcooperative_groups\b", "cooperative groups: use __syncthreads and the _sync intrinsics"),
    (r"<<<", "a launch from within a kernel: launch from Python"),
]


@dataclass(frozen=True)
class Entry:
    """An entry point: its name, whether its threads wait for each other, and where it is defined.

    bounds: the most threads of a block that __launch_bounds__ allows, as C++; restricted: which of its parameters are
    __restrict__.
    """

    name: str
    waits: bool
    file: str
    line: int
    bounds: str = "1024"
    restricted: tuple[bool, ...] = ()


def without_comments(text: str, *, strings: bool = False) -> str:
    """The text with comments (and strings) blanked out; every line keeps its number."""

    def blank(match: re.Match[str]) -> str:
        if match[0][0] == '"' and not strings:
            return match[0]
        return re.sub(r"[^\n]", " ", match[0])

    return _COMMENT_OR_STRING.sub(blank, text)


def position(text: str, offset: int) -> tuple[str, int]:
    """File and line of a character, by the #line markers before it."""
    file, line = UNNAMED, 1
    for content in text[:offset].split("\n")[:-1]:
        marker = _MARKER.match(content)
        if marker:
            file, line = _file(marker, file), int(marker["line"])
        else:
            line += 1
    return file, line


def _file(marker: re.Match[str], before: str) -> str:
    """The name in a #line marker, as C reads it; one without a name goes on with the file before."""
    return before if marker["file"] is None else file_of_marker(marker["file"])


def file_of_marker(quoted: str) -> str:
    """What stands between the quotes of a #line marker, as C reads it."""
    return os.fsdecode(re.sub(rb"\\([0-7]{1,3}|.)", _character, os.fsencode(quoted)))


def _character(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 8) & 255]) if escape[1].isdigit() else escape[1]


def with_numbered_files(text: str) -> tuple[str, list[str]]:
    """The text with `minigrad-file-0` and so on for the names in its #line markers, and the names.

    So a name may hold what compilers and debuggers trip over: quotes, newlines, bytes that are no UTF-8.
    """
    names: list[str] = [UNNAMED]

    def numbered(marker: re.Match[str]) -> str:
        if marker["file"] is None:
            return marker[0]
        name = _file(marker, "")
        if name not in names:
            names.append(name)
        return f'{marker["before"]} "{numbered_file(names.index(name))}"'

    numbered_text = _MARKER.sub(numbered, text)
    return f'#line 1 "{numbered_file(0)}"\n{numbered_text}', names


def numbered_file(number: int | str) -> str:
    return f"minigrad-file-{number}"


_CONDITION = re.compile(r"[ \t]*#[ \t]*(?P<word>if|ifdef|ifndef|elif|else|endif)\b[ \t]*(?P<about>.*?)[ \t]*$")


def without_ptx(text: str) -> str:
    """The text without what `#ifdef CUDASIM` keeps from the emulator; every line keeps its number.

    Only lines between the conditions go: the compiler, for which CUDASIM is defined, reads the conditions again.
    """
    lines: list[str] = []
    branches: list[tuple[str, bool]] = []  # of each open condition: its line, and whether to leave the branch out
    for line, code in zip(text.split("\n"), without_comments(text).split("\n")):
        match = _CONDITION.match(code)
        if match and match["word"].startswith("if"):
            condition = f"{match['word']} {match['about']}"
            branches.append((condition, condition == "ifndef CUDASIM"))
        elif match and branches:
            condition, _ = branches.pop()
            if match["word"] != "endif":
                branches.append((condition, condition in ("ifdef CUDASIM", "if defined(CUDASIM)")))
        left_out = not match and any(out for _, out in branches)
        lines.append("" if left_out else line)
    return "\n".join(lines)


def check_rules(text: str) -> None:
    """KernelError that names file and line of every rule for kernel sources that is broken."""
    code = without_comments(text, strings=True)
    broken = []
    for pattern, advice in _RULES:
        for match in re.finditer(pattern, code):
            file, line = position(text, match.start())
            broken.append(f"{printable(file)}:{line}: not allowed in kernels: {advice}")
    if broken:
        raise KernelError("\n".join(broken))


def entries(text: str) -> list[Entry]:
    """The `extern "C" __global__` functions.  KernelError where there is none."""
    code = without_comments(text)
    waiting = _waiting_names(code)
    found = [
        Entry(
            match["name"],
            match["name"] in waiting,
            *position(text, match.start()),
            bounds=split(match["before"] or match["behind"] or "1024")[0],
            restricted=tuple("restrict" in one for one in split(_braces(code, match.end(), "()"))),
        )
        for match in _ENTRY.finditer(code)
    ]
    if not found:
        file, line = position(text, len(text))
        raise KernelError(f'{printable(file)}:{line}: no entry point: write extern "C" __global__ void name(...)')
    return found


def _waiting_names(code: str) -> set[str]:
    """Functions and macros that make a thread wait, themselves or through others.

    By name only: every mention counts as a use, so it may find too many (slower, still right), not too few.
    """
    uses: dict[str, set[str]] = {}
    for match in (*_FUNCTION.finditer(code), *_LAMBDA.finditer(code)):
        name = "operator" if match["name"].startswith("operator") else match["name"]
        uses.setdefault(name, set()).update(_WORD.findall(_braces(code, match.end())))
    for match in _MACRO.finditer(code):
        uses.setdefault(match["name"], set()).update(_WORD.findall(match["body"]))
    waiting = {name for words in uses.values() for name in words if _WAITS.fullmatch(name)}
    grown = True
    while grown:
        more = {name for name, words in uses.items() if name not in waiting and words & waiting}
        waiting |= more
        grown = bool(more)
    return set(uses) if "operator" in waiting else waiting  # an operator may be anywhere, and is not named there


def split(text: str) -> list[str]:
    """What the commas outside of brackets separate."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _braces(code: str, start: int, pair: str = "{}") -> str:
    """The text from behind an opening brace to the one that closes it."""
    depth = 1
    for match in re.compile(f"[{re.escape(pair)}]").finditer(code, start):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return code[start : match.start()]
    return code[start:]


def with_dynamic_shared(text: str) -> str:
    """`extern __shared__ T s[];` as a pointer to the emulator's dynamic shared memory, on the same lines."""

    def pointer(match: re.Match[str]) -> str:
        declaration = f"{match['type']}* {match['name']} = ({match['type']}*)cs_dynamic_shared();"
        return declaration + "\n" * match[0].count("\n")

    return _DYNAMIC.sub(pointer, text)


_SHARED = re.compile(r"(?<!\w)__shared__\b(?P<declarators>[^;=(){}]*(?:\([^()]*\)[^;=(){}]*)*);")
_DECLARATOR = re.compile(r"(\w+)\s*(?:\[[^\[\]]*\]\s*)*$")
_NUMBER = re.compile(r"\b(?:blockIdx|blockDim)\.([xyz])\s*\*\s*(?:blockIdx|blockDim)\.\1\b(?!\s*[.\w])")


def with_checks(text: str) -> str:
    """What check mode must be told, on the same lines: how static shared arrays are aligned, and products that number
    the threads of a grid, which wrap around at 2^32."""
    code = without_comments(text, strings=True)
    places: list[tuple[int, int, str]] = []
    for match in _SHARED.finditer(code):
        if code.count("{", 0, match.start()) == code.count("}", 0, match.start()):
            continue  # of the whole file
        if code[: match.start()].rstrip().endswith("extern"):
            continue  # dynamic shared memory
        if code[code.rfind("\n", 0, match.start()) + 1 : match.start()].lstrip().startswith("#"):
            continue
        end, element = match.start("declarators"), ""
        for declarator in split(match["declarators"]):
            name = _DECLARATOR.search(declarator)
            if not name:
                break
            element = element or declarator[: name.start()].strip()
            end += len(declarator)
            if "align" not in element:  # or else g++ aligns it further, and takes that for granted
                places.append((end, end, f" __attribute__((aligned(__alignof__({element}))))"))
            places.append((match.end(), match.end(), f" CS_LAID_OUT({name[1]})"))
            end += 1
    for match in _NUMBER.finditer(code):
        before = code[: match.start()].rstrip()[-1:]
        if before in tuple(")*/%"):  # a cast, or the end of a longer product, which may be of 64 bits
            continue
        a, b = code[match.start() : match.end()].split("*")
        if a.strip() != b.strip():
            places.append((match.start(), match.end(), f"cs_product({a.strip()}, {b.strip()})"))
    for start, end, new in sorted(places, key=lambda place: place[0], reverse=True):
        text = text[:start] + new + "\n" * text.count("\n", start, end) + text[end:]
    return text
