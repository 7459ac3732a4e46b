"""What is compiled for one kernel of somebody's file: the declarations that it needs, and a table that names it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import KernelError, printable
from . import declarations as cpp
from .source import Entry, numbered_file, split
from .tokens import Text, Token

if TYPE_CHECKING:
    from .cuda_file import CudaFile, Kernel


@dataclass(frozen=True)
class Unit:
    """text: what g++ gets behind `headers`.  files: the names of the numbered files in its #line markers.

    entries: the kernel.  hint: what to say where it does not compile.
    """

    text: str
    files: tuple[str, ...]
    headers: tuple[str, ...]
    entries: tuple[Entry, ...]
    hint: str = ""


# Words that may make a thread wait for others.  Who mentions one, or something that does, waits: perhaps too many do,
# which are slower, and still right.
_WAITS = re.compile(
    r"__syncthreads\w*|__syncwarp|__activemask|__\w+_sync|__(shfl|shfl_up|shfl_down|shfl_xor|ballot|any|all)"
    r"|sync|barrier\w*|wait\w*|shfl\w*|cooperative_groups|this_thread_block|coalesced_threads|tiled_partition|this_grid"
    r"|atomicCAS|atomicExch"  # for a lock
)

# What the emulator has not: a pattern for a word, whether :: or ( must follow, and what to do instead.
_REFUSED = [
    (r"asm|__asm__|__asm", "", "inline assembly: write it in C++, with CUDA's intrinsics"),
    (r"u?tex(1D|2D|3D|Cubemap)\w*|surf(1D|2D|3D)\w*", "(<", "a texture: read from an array, at a clamped index"),
    (r"texture|surface", "<", "a texture: read from an array, at a clamped index"),
    (r"cub|thrust", "::", "a library of the device: write the loop, or use __shfl_down_sync and shared memory"),
    (r"cuda", "::", "libcu++: use __syncthreads, __syncwarp and the atomic functions"),
    (r"nvcuda|wmma", "::", "matrix units: write the product as loops over shared memory"),
    (r"cute|cutlass|at|torch|c10|nvshmem|raft", "::", "a library that is not here: write out what the kernel needs"),
    (r"curand\w*", "", "cuRAND: pass an array of random numbers, or write a generator of your own"),
    (r"cuda[A-Z]\w*", "(", "a call of CUDA's runtime in a kernel: the host must make it"),
    (r"(cublas|cufft|cusparse|cudnn)\w*", "(", "a call of a library in a kernel: the host must make it"),
]

_HALF = re.compile(r"_*(half|half2|half_raw|nv_bfloat16|nv_bfloat162|nv_bfloat16_raw)")
_HALF_HEADERS = re.compile(r"cuda_(fp16|bf16)\.(h|hpp)|mma\.h")
_VECTORS = re.compile(r"(.*/)?(helper_math|cutil_math|vector_math|helper_cuda_math)\.(h|cuh)")
_KNOWN = re.compile(  # headers of C, C++, CUDA and its samples: a kernel needs nothing from them that is not here
    r"[a-z_0-9]+|(.*/)?(helper_\w+|exception|cuda\w*|device_\w+|driver_\w+|cooperative_groups\w*|math\w*|std\w+|time"
    r"|string|float|limits|assert|complex|errno|signal|unistd|omp|vector_\w+|builtin_types|host_\w+|mma|sm_\w+"
    r"|crt|cub|curand\w*|cublas\w*|cufft\w*|nv\w+|texture_\w+|surface_\w+|malloc|memory|getopt|windows|ctype|wchar"
    r"|common_functions|channel_descriptor|library_types|glob|dirent|netdb|fcntl|pthread)(/.*)?\.(h|hpp|cuh|inl)"
    r"|(sys|arpa|netinet|cub|thrust|cuda|cooperative_groups)/.*"
)


def unit(file: CudaFile, kernel: Kernel, name: str, instantiation: str) -> Unit:
    """What to compile for the kernel, which is then called `name`.

    KernelError names what the emulator cannot run, with its line.
    """
    roots = {kernel.name, *re.findall(r"[A-Za-z_]\w*", instantiation)}
    kept = cpp.closure(file.declarations, roots, lambda one: one.kind == "always" and _known_namespace(file, one))
    _refuse(file, kept)
    waits = any(_WAITS.fullmatch(word) for one in kept for word in cpp.used_words(one) if one.kind != "always")
    entry = _entry(kernel, name, waits)
    scopes = {one.scope[:n] for one in file.declarations for n in range(1, len(one.scope) + 1)}
    lines = [_inside(scope, "") for scope in sorted(scopes)]
    unique = f"cs_one_{kernel.name}" if _overloaded(file, kernel) else kernel.name
    for one in kept:
        lines.append(_inside(one.scope, _code(one, unique if one is kernel.declaration else None)))
    words = {word for one in kept for word in cpp.used_words(one)} | roots
    headers = _headers(file.missing, words)
    lines.append('#line 1 "cudasim"')
    if kernel.scope or kernel.template_parameters:  # where the words of the bounds mean what they mean in the file
        lines.append(_inside(kernel.scope, _bounds_of(kernel, entry.bounds)))
        entry = replace(entry, bounds=_qualified(kernel.scope, "cs_bounds_of_kernel") + instantiation + "::most")
    lines += [
        'extern "C" {',
        *_entry_table(entry, _qualified(kernel.scope, unique) + instantiation),
    ]
    lines += [*_variable_table(kept, "heap.hpp" in headers), "}", ""]
    return Unit("\n".join(lines), tuple(file.files), headers, (entry,), _hint(file))


def _overloaded(file: CudaFile, kernel: Kernel) -> bool:
    """Whether there are others of that name, be it a prototype with more or fewer parameters."""
    one = kernel.declaration
    same = [other for other in file.declarations if other.names == one.names and other.scope == one.scope]
    prototypes = [other for other in same if other.kind == "function" and other.body is None]
    return sum(k.name == kernel.name and k.scope == kernel.scope for k in file.kernels) > 1 or any(
        len(_parameters(other)) != len(_parameters(one)) for other in prototypes
    )


def _parameters(one: cpp.Declaration) -> list[str]:
    return split(one.text.code(one.parameters + 1, one.text.match[one.parameters])) if one.parameters else []


def _entry(kernel: Kernel, name: str, waits: bool) -> Entry:
    """What is known of the kernel uncompiled."""
    one = kernel.declaration
    text = one.text
    bounds = "1024"
    for i in range(one.begin, one.parameters):
        if text.tokens[i].text == "__launch_bounds__":
            bounds = split(text.code(i + 2, text.match[i + 1]))[0]
    restricted = tuple("restrict" in parameter for parameter in _parameters(one))
    return Entry(name, waits, kernel.file, kernel.line, bounds, restricted)


def _bounds_of(kernel: Kernel, bounds: str) -> str:
    header = f"template <{', '.join(kernel.template_parameters)}> " if kernel.template_parameters else ""
    value = " ".join(bounds.split())
    return f"{header}struct cs_bounds_of_kernel {{ static constexpr unsigned most = (unsigned)({value}); }};"


def _known_namespace(file: CudaFile, one: cpp.Declaration) -> bool:
    """Whether `using namespace x`, or `namespace y = x`, names one that is here."""
    tokens = one.text.tokens[one.begin : one.end]
    path = [token.text for token in tokens if token.kind == "word" and token.text not in ("using", "namespace")]
    if any(token.text == "=" for token in tokens):
        path = path[1:]
    own = {name for other in file.declarations for name in other.scope}
    has_groups = any(name.startswith("cooperative_groups") for name in file.missing)
    return path[:1] == ["std"] or bool(own & set(path[:1])) or (has_groups and path[:1] == ["cooperative_groups"])


def _headers(missing: set[str], words: set[str]) -> tuple[str, ...]:
    headers = ["foreign.hpp"]
    half = any(_HALF_HEADERS.fullmatch(name) for name in missing) or any(_HALF.fullmatch(word) for word in words)
    if words & {"malloc", "free", "new", "delete"}:
        headers.append("heap.hpp")
    if half:
        headers.append("half.hpp")
    if any(name.startswith("cooperative_groups") for name in missing):
        headers.append("groups.hpp")
    if any(_VECTORS.fullmatch(name) for name in missing):
        headers.append("vector_operators.hpp")
    return tuple(headers)


def _hint(file: CudaFile) -> str:
    unknown = sorted(name for name in file.missing if not _KNOWN.fullmatch(name))
    if not unknown:
        return ""
    names = ", ".join(printable(name) for name in unknown[:8])
    where = "Their folders: -I FOLDER, or include=[...]"
    return f"These headers were not found, and are taken for empty: {names}.  {where}"


# ---------------------------------------------------------------- what cannot be run


def _refuse(file: CudaFile, kept: Sequence[cpp.Declaration]) -> None:
    tokens = file.text.tokens
    own = {name for one in file.declarations for name in (*one.names, *one.scope)}
    found = []
    for one in kept:
        if one.kind == "always":
            continue
        gone = _host_tokens(one)
        for i in range(one.begin, one.end):
            if i in gone:
                continue
            advice = _refused(file.text, i, own) or _initialised(file.text, i, one.end)
            if advice:
                place = f"{printable(file.files[tokens[i].file])}:{tokens[i].line}"
                stop = next((j for j in range(i, one.end) if tokens[j].text in (";", "{")), one.end)
                said = file.text.code(max(i - 1, one.begin) if tokens[i].text == "<<" else i, stop)
                found.append(f"{place}: {printable(said[:120])}: not supported: {advice}")
    if found:
        raise KernelError("\n".join(dict.fromkeys(found[:20])))


def _refused(text: Text, i: int, own: set[str]) -> str | None:
    token = text.tokens[i]
    next_ = text.tokens[i + 1].text if i + 1 < len(text.tokens) else ""
    if token.text == "<<" and next_ == "<":
        return "a launch from within a kernel: launch from the host"
    if token.kind != "word" or token.text in own:
        return None
    before = text.tokens[i - 1].text if i else ""
    for pattern, follows, advice in _REFUSED:
        if (
            before not in (".", "->")
            and re.fullmatch(pattern, token.text)
            and (not follows or (next_ and next_ in follows))
        ):
            return advice
    return None


def _initialised(text: Text, i: int, end: int) -> str | None:
    """What to say where token i is the __shared__ of a variable with an initial value."""
    tokens = text.tokens
    if tokens[i].text != "__shared__":
        return None
    is_class = False  # struct name {
    while i < end and tokens[i].text != ";":
        is_class |= tokens[i].text in cpp.CLASS_KEYS
        if tokens[i].text == "=" or (tokens[i].text == "{" and not is_class):
            return "an initial value of a __shared__ variable: let a thread write it, and all wait"
        i = text.match[i] + 1 if tokens[i].text in ("(", "[", "{") else i + 1
    return None


def _host_tokens(one: cpp.Declaration) -> set[int]:
    return {i for member in cpp.host_members(one) for i in range(member.begin, member.end)}


# ---------------------------------------------------------------- one declaration


def _inside(scope: Sequence[str], code: str) -> str:
    return "".join(f"namespace {name} {{ " for name in scope) + code + "}" * len(scope)


def _code(one: cpp.Declaration, name: str | None = None) -> str:
    """Its text, on the lines that it has in its file, with what CUDA adds replaced; a kernel's, called `name`."""
    tokens = one.text.tokens
    edits: dict[int, str] = dict.fromkeys(_host_tokens(one), "")
    if one.kind == "function" and "__global__" in one.head:
        stop = one.parameters or one.begin
        for i in range(one.begin, stop):
            if tokens[i].text in ("static", "inline", "__inline__", "__inline", "__forceinline__", "extern"):
                edits[i] = ""
        if name:
            edits[stop - 1] = name
    for i in range(one.begin, one.end):
        if tokens[i].text == "__shared__" and i not in edits:
            _shared(one, i, edits)
        elif tokens[i].text in ("new", "delete") and i not in edits:
            _heap(tokens, i, edits)
    if one.kind == "variable" and _is_memory(one):
        for i in range(one.begin, one.end):
            if tokens[i].text in ("__device__", "__constant__", "__managed__"):
                edits[i] = "" if "CS_VARIABLE" in edits.values() else "CS_VARIABLE"
    out: list[str] = []
    file = line = -1
    for i in range(one.begin, one.end):
        token = tokens[i]
        if token.file != file or not 0 <= token.line - line <= 8:
            out.append(f'\n#line {token.line} "{numbered_file(token.file)}"\n')
        elif token.line > line:
            out.append("\n" * (token.line - line))
        elif i > one.begin and token.start > tokens[i - 1].end:
            out.append(" ")
        out.append(edits.get(i, token.text))
        file, line = token.file, token.line + token.text.count("\n")
    return "".join(out) + "\n"


def _heap(tokens: Sequence[Token], i: int, edits: dict[int, str]) -> None:
    """new and delete as those of heap.hpp; a new with arguments of its own stays."""
    if tokens[i - 1].text == "operator" or (tokens[i].text == "delete" and tokens[i - 1].text == "="):
        return
    if tokens[i].text == "new":
        if tokens[i + 1].text != "(":
            edits[i] = "new (CsOnDevice())"
    elif tokens[i + 1].text == "[":
        edits.update({i: "CsDeleteArray() %", i + 1: "", i + 2: ""})
    else:
        edits[i] = "CsDelete() %"


def _is_memory(one: cpp.Declaration) -> bool:
    """Whether it is a variable that the host may read and write by name."""
    return bool(one.head & {"__device__", "__constant__", "__managed__"}) and "constexpr" not in one.head


def _shared(one: cpp.Declaration, at: int, edits: dict[int, str]) -> None:
    """__shared__ memory at token `at`: what is extern becomes a pointer to the block's dynamic memory."""
    tokens, match = one.text.tokens, one.text.match
    begin = at
    while begin > one.begin and tokens[begin - 1].text not in (";", "{", "}", ":"):
        begin -= 1
    if begin > one.begin and tokens[begin - 1].text == ":" and tokens[begin - 2].text == ":":
        begin -= 1
    end = at
    while end < one.end and tokens[end].text != ";":
        end = match[end] + 1 if tokens[end].text in ("(", "[", "{") else end + 1
    head = [tokens[i].text for i in range(begin, at + 3)]
    file_scope = one.kind == "variable"
    if "extern" in head:
        _dynamic(one, begin, end, file_scope, edits)
        return
    for i in range(begin, end):
        if tokens[i].text == "static":
            edits[i] = ""
    if not file_scope:
        return
    for i in _declarators(one.text, begin, end):  # the name that shared memory of functions has, for compiler.py
        behind = i + 1
        while tokens[behind].text == "[":
            behind = match[behind] + 1
        name = tokens[i].text
        edits[behind - 1] = f'{tokens[behind - 1].text} __asm__("_ZZE{len(name)}{name}")'


def _dynamic(one: cpp.Declaration, begin: int, end: int, file_scope: bool, edits: dict[int, str]) -> None:
    tokens, match = one.text.tokens, one.text.match
    names = _declarators(one.text, begin, end)
    if not names:
        return
    drop = {"extern", "__shared__", "static"}
    words, i = [], begin
    while i < names[0]:
        if (
            tokens[i].text in ("__align__", "alignas", "__attribute__", "__builtin_align__")
            and tokens[i + 1].text == "("
        ):
            i = match[i + 1]
        elif tokens[i].text not in drop:
            words.append(tokens[i].text)
        i += 1
    kind = " ".join(words)
    parts = []
    for i in names:
        j, dimensions = i + 1, ""
        if tokens[j].text == "[":
            j = match[j] + 1
            dimensions = "".join(token.text for token in tokens[j:end]) if tokens[j].text == "[" else ""
            name = f"(*{tokens[i].text}){dimensions}" if dimensions else f"*{tokens[i].text}"
            cast = f"{kind} (*){dimensions}" if dimensions else f"{kind}*"
            parts.append(f"{kind} {name} = ({cast})cs_dynamic_shared()")
        else:
            parts.append(f"{kind}& {tokens[i].text} = *({kind}*)cs_dynamic_shared()")
    for i in range(begin, end):
        edits[i] = ""
    edits[begin] = "; ".join("static " * file_scope + part for part in parts)


def _declarators(text: Text, begin: int, end: int) -> list[int]:
    """The tokens of the names that a declaration of variables gives."""
    tokens, names, i = text.tokens, [], begin
    initialised = False
    while i < end:
        sign = tokens[i].text if tokens[i].kind == "sign" else ""
        if sign == "<" and not initialised and tokens[i - 1].kind == "word":
            i = max(text.past_angles(i, end), i + 1)
            continue
        if sign in ("(", "[", "{"):
            i = text.match[i]
        elif sign == "=":
            initialised = True
        elif sign == ",":
            initialised = False
        elif tokens[i].kind == "word" and not initialised and tokens[i + 1].text in ("[", ",", ";", "=", "{"):
            if tokens[i].text not in cpp.CLASS_KEYS:
                names.append(i)
        i += 1
    return names


# ---------------------------------------------------------------- tables: entry.hpp, foreign.hpp


def _qualified(scope: Sequence[str], name: str) -> str:
    return "::" + "::".join([*(part for part in scope if part), name])


def _entry_table(entry: Entry, function: str) -> Iterator[str]:
    threads = f"CsEntry<({function})>"
    block = "nullptr" if entry.waits else f"{threads}::block"
    yield "extern const CsKernel cs_kernels[] = {"
    yield f'    {{"{entry.name}", {int(entry.waits)}, {threads}::describe, {threads}::thread, {block}}},'
    yield "};"
    yield "extern const cs_u32 cs_n_kernels = 1;"
    yield f"CS_EXPORT extern const cs_u32 cs_launch_bounds[] = {{(cs_u32)({' '.join(entry.bounds.split())})}};"


def _variable_table(kept: Sequence[cpp.Declaration], heap: bool) -> Iterator[str]:
    rows = ['    {"cs_heap", (void*)&cs_heap, sizeof cs_heap, 0},'] if heap else []
    for one in kept:
        if one.kind != "variable" or not _is_memory(one) or one.templates or "extern" in one.head:
            continue
        constant = int("__constant__" in one.head)
        for i in _declarators(one.text, one.begin, one.end):
            name = one.text.tokens[i].text
            whole = _qualified(one.scope, name)
            rows.append(f'    {{"{name}", (void*)&{whole}, sizeof({whole}), {constant}}},')
    yield "CS_EXPORT extern const CsVariable cs_variables[] = {"
    yield from rows
    yield "    {},"
    yield "};"
    yield f"CS_EXPORT extern const cs_u32 cs_n_variables = {len(rows)};"
