"""g++'s assembly of a kernel, with all shared memory in one place and tables of what a launch must know of it.

The tables: the __shared__ arrays, the __device__ variables, and the kernels that use each; the local variables that g++
takes for unset.
"""

from __future__ import annotations

import re

from ..errors import KernelError
from . import source as kernel_source

_REDZONE = 128  # CS_REDZONE of interface.hpp
MAX_SHARED = 48 * 1024  # bytes of shared memory that every GPU gives a block
_SHARED_GUARD = 1 << 20  # bytes on both sides of a module's shared memory that nobody may touch: shared_memory.cpp
_DYNAMIC_BYTES = 256 * 1024 + 4096

# A static variable of a function, as g++ writes it: in one line, or, of a template, with a section of its own.
_LOCAL = re.compile(r"^\t\.local\t(_ZZ\w+)\n\t\.comm\t\1,(\d+),(\d+)$", re.MULTILINE)
_SHARED_SECTION = "cudasim_shared"
_IN_SECTION = re.compile(r"^(_ZZ\w+):\n\t\.zero\t(\d+)$", re.MULTILINE)

APART = 16 * 1024  # bytes between the shared arrays, in check mode: a wrong row of one does not lie in another
_LAID_OUT = re.compile(r"^_ZZ\w+cs_laid_out_\w+:\n\t\.quad\t(\w+)\n\t\.quad\t(\d+)\n\t\.quad\t(\d+)$", re.MULTILINE)


def with_tables(assembly: str, apart: int = 0) -> str:
    """g++'s assembly with all shared memory in one place, and with a table of the __shared__ arrays.

    Every array has _REDZONE bytes behind it, and `apart` more.  Before the first and behind the last, dynamic shared
    memory, are guards.  An array of which it is told how it is aligned lies where a card would have it, as far as
    alignment goes: NVRTC packs arrays by what their declarations ask for, so that float[64] behind float[3] is no place
    for a float4; g++ would align both.
    KernelError for an array that no block has room for.
    """
    arrays: list[tuple[str, int]] = []
    users, laid_out, at = _users(assembly), _LAID_OUT.findall(assembly), {}
    sizes = {name: int(size) for pattern in (_IN_SECTION, _LOCAL) for name, size, *_ in pattern.findall(assembly)}
    ends: dict[str, int] = {}
    for symbol, align, _ in sorted(laid_out, key=lambda one: int(one[2])):
        kernels = users.get(symbol) or [""]
        start = max(ends.get(kernel, 0) for kernel in kernels)
        at[symbol] = -(-start // int(align)) * int(align)
        ends.update(dict.fromkeys(kernels, at[symbol] + sizes.get(symbol, 0)))
    section = f'\t.pushsection\t{_SHARED_SECTION},"aw",@nobits'

    def moved(symbol: str, size: int, align: int) -> str:
        if size > MAX_SHARED:
            kernel, name = _demangle(symbol)
            where = f" of {kernel}" if kernel else ""
            raise KernelError(f"shared array '{name}'{where} has {size} bytes; a block has {MAX_SHARED}")
        arrays.append((symbol, size))
        place = f"\t.balign\t{align}\n"
        if symbol in at:
            place = f"\t.balign\t1024\n\t.zero\t{at[symbol] % 128 + apart}\n"
        return f"{section}\n{place}{symbol}:\n\t.zero\t{size + _REDZONE + apart}\n\t.popsection"

    assembly = _IN_SECTION.sub(lambda match: moved(match[1], int(match[2]), 1024), assembly)
    assembly = _LOCAL.sub(lambda match: moved(match[1], int(match[2]), int(match[3])), assembly)

    def place(symbol: str, size: int) -> str:
        visible = f"\t.globl\t{symbol}\n\t.hidden\t{symbol}"
        return f"{section}\n\t.balign\t1024\n{visible}\n{symbol}:\n\t.zero\t{size}\n\t.popsection\n"

    assembly = place("cs_guard_before", _SHARED_GUARD) + assembly
    assembly += place("cs_dynamic_memory", _DYNAMIC_BYTES) + place("cs_guard_behind", _SHARED_GUARD)
    lines = [
        '\t.section\t.data.rel.ro,"aw"',
        "\t.balign\t16",
        "\t.globl\tcs_shared_arrays",
        "\t.hidden\tcs_shared_arrays",
    ]
    lines += ["cs_shared_arrays:"]
    strings = []
    for i, (symbol, size) in enumerate(arrays):
        kernel, name = _demangle(symbol)
        kernel = kernel if kernel in users[""] else ",".join(users.get(symbol, []))
        lines += [f"\t.quad\t{symbol}", f"\t.quad\t{size}", f"\t.quad\t.Lcs_name{i}", f"\t.quad\t.Lcs_kernel{i}"]
        strings += [f".Lcs_name{i}:", f'\t.string\t"{name}"', f".Lcs_kernel{i}:", f'\t.string\t"{kernel}"']
    lines += ["\t.globl\tcs_n_shared_arrays", "\t.hidden\tcs_n_shared_arrays", "cs_n_shared_arrays:"]
    lines += [f"\t.quad\t{len(arrays)}", *strings]
    return assembly + "\n".join([*lines, *_device_variables(assembly, users)]) + "\n"


_VARIABLE = re.compile(
    r"^\t\.type\t(\w+), @object\n\t\.size\t\1, (\d+)$|^\t\.local\t(\w+)\n\t\.comm\t\3,(\d+),", re.MULTILINE
)


def _device_variables(assembly: str, users: dict[str, list[str]]) -> list[str]:
    """A table of the variables of the file: __device__ ones.  What begins with _ZZ is a function's, or shared."""
    found = [(match[1] or match[3], match[2] or match[4]) for match in _VARIABLE.finditer(assembly)]
    found = [(name, size) for name, size in found if not re.match(r"_ZZ|_ZL?\d*cs_|cs_", name)]
    lines, strings = ['\t.section\t.data.rel.ro,"aw"', "\t.balign\t16"], []
    lines += ["\t.globl\tcs_device_variables", "cs_device_variables:"]
    for i, (symbol, size) in enumerate(found):
        lines += [f"\t.quad\t{symbol}", f"\t.quad\t{size}", f"\t.quad\t.Lcs_variable{i}", f"\t.quad\t.Lcs_users{i}"]
        name = re.match(r"_ZL?(?:\d+)(\w+)$", symbol)
        strings += [f".Lcs_variable{i}:", f'\t.string\t"{name[1] if name else symbol}"']
        strings += [f".Lcs_users{i}:", f'\t.string\t"{",".join(users.get(symbol, []))}"']
    lines += ["\t.globl\tcs_n_device_variables", "cs_n_device_variables:", f"\t.quad\t{len(found)}"]
    return [*lines, *strings]


_BODY = re.compile(r"^\t\.type\t([\w.]+), @function\n(.*?)^\t\.size\t\1, ", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"^cs_kernels:\n(.*?)^(?!\t\.(?:quad|long|zero))", re.MULTILINE | re.DOTALL)
_SYMBOL = re.compile(r"[A-Za-z_][\w.]*")


def _users(assembly: str) -> dict[str, list[str]]:
    """Which entry points use a symbol, themselves or in what they call; under "" the names of all entry points."""
    uses: dict[str, set[str]] = {}
    for match in _BODY.finditer(assembly):
        uses.setdefault(match[1], set()).update(_SYMBOL.findall(match[2]))
    table = _TABLE.search(assembly)
    words = re.findall(r"\.quad\t(\S+)", table[1]) if table else []
    users: dict[str, list[str]] = {"": []}
    for i in range(0, len(words) - 3, 4):  # as CsKernel of interface.hpp: name, describe, thread, block
        text = re.search(rf'^{re.escape(words[i])}:\n\t\.string\t"([^"]*)"', assembly, re.MULTILINE)
        kernel = text[1] if text else ""
        users[""].append(kernel)
        reached, new = set(), {words[i + 2], words[i + 3]}
        while new:
            reached |= new
            new = {used for name in new for used in uses.get(name, ())} - reached
        for symbol in reached:
            users.setdefault(symbol, []).append(kernel)
    return users


def _demangle(symbol: str) -> tuple[str, str]:
    """_ZZ5sgemmE2As: kernel sgemm, array As.  Of a helper function the kernel is "": whichever calls it."""
    match = re.fullmatch(r"_ZZ(\d+)(\w+)", symbol)
    if match:
        kernel, rest = match[2][: int(match[1])], match[2][int(match[1]) :]
        array = re.match(r"E(\d+)(\w+)", rest)  # an extern "C" function has no types of parameters here
        if array:
            return kernel, array[2][: int(array[1])]
    array = re.match(r".*E(\d+)([A-Za-z_]\w*)", symbol)
    return "", array[2][: int(array[1])] if array else symbol


# ---------------------------------------------------------------- what g++ warns of


_FUNCTION_OF = re.compile(r"In (?:member )?function ['‘](?P<function>.*)['’]|inlined from ['‘](?P<from>.*?)['’] at")
_PLACE = rf"{kernel_source.numbered_file('([0-9]+)')}:(\d+):\d+: "
_UNSET = re.compile(r"warning: ['‘](.*?)['’] (?:is|may be) used uninitialized")
_DECLARED = re.compile(r"note: ['‘](.*?)['’] (?:was )?declared here")


def suspected_locals(warnings: str) -> str:
    """g++'s warnings of variables that may have been left unset, as lines of a text that the library holds:
    number of the file, line, variable, functions that it may be a part of.

    The line is where it is used; where it is declared, if a function of the emulator's own headers is what uses it."""
    lines: list[list[str]] = []
    functions = waiting = ""
    for line in warnings.splitlines():
        about, place = _FUNCTION_OF.search(line), re.search(_PLACE, line)
        unset, declared = _UNSET.search(line), _DECLARED.search(line)
        if about and about["function"]:
            functions = about["function"]
        elif about:
            functions += " " + about["from"]
        elif unset and place:
            lines.append([place[1], place[2], unset[1], functions])
        elif unset:
            waiting = functions
        elif declared and place and waiting:
            lines.append([place[1], place[2], declared[1], waiting])
            waiting = ""
    text = "\\n".join(map("\t".join, lines)).replace('"', "'").replace("\t", "\\t")
    return f'\t.section\t.rodata\n\t.globl\tcs_suspected_locals\ncs_suspected_locals:\n\t.string\t"{text}"\n'
