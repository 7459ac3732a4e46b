"""From the text of a CUDA kernel to a shared library: g++ and a cache.

The library holds the kernels, compiled with cpp/cuda.hpp before them, and the emulator's runtime.  It is cached by
content below $XDG_CACHE_HOME/minigrad/cudasim (~/.cache where that is not set): a key over the source, the options, the
runtime, the version of g++ and the kind of CPU.  Files appear under their names only when complete.  Where the cache
cannot be written, a temporary folder takes its place until the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from ..base import files
from ..errors import DeviceError, KernelError, printable
from . import source as kernel_source

CPP = Path(__file__).resolve().parent / "cpp"
HEADERS = ("interface.hpp", "cuda.hpp", "cuda_math.hpp", "entry.hpp", "runtime.hpp", "shadow.hpp")
_ALWAYS = ("scheduler", "fibers", "waiting", "copies", "matrix_units", "shared_memory", "output")
RUNTIME = {
    "fast": (*_ALWAYS, "no_checks"),
    "check": (*_ALWAYS, "checks", "shadow", "undefined", "counters"),
}

_COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-U_FORTIFY_SOURCE", "-fno-stack-protector")
# Lines for loops without a body, too.
_LINES = ("-g1", "-gstatement-frontiers")
_RUNTIME_FLAGS = (*_COMMON, "-O2", "-g1", "-Wall")
# nvcc merges a * b + c into one instruction, as -ffp-contract=fast does, and casts pointers freely.
# C++ lets a compiler take every loop for one that ends, and leave it out: here a loop that never ends must be found.
# Large frames touch each of their pages, so that none leaps over the guard page of a stack.  A call leaves its return
# address, by which reports know its line (no sibling calls).
_KERNEL_COMMON = (
    *(*_COMMON, *_LINES, "-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=fast", "-march=native"),
    *("-fno-finite-loops", "-fstack-clash-protection", "-fno-optimize-sibling-calls"),
)
_KERNEL_FLAGS = {
    "fast": (*_KERNEL_COMMON, "-w", "-O3", "-fno-trapping-math"),
    # The sanitizers' calls go to our own functions of these names, in checks.cpp.  A float4 must stay one access of 16
    # bytes (no sra), and a loop over floats must not become one of wider accesses (no vectorize).
    "check": (
        *_KERNEL_COMMON,
        *("-O1", "-finline-functions", "-finline-small-functions"),  # so that g++ knows what a pointer points to
        "-fsanitize=thread,bounds,alignment,shift-exponent,integer-divide-by-zero,signed-integer-overflow,object-size",
        *("-Wuninitialized", "-Wmaybe-uninitialized"),  # module.py looks into what they suspect
        "-fno-tree-sra",
        "-fno-tree-vectorize",
        "-fno-tree-slp-vectorize",
        "-fno-tree-loop-distribute-patterns",
        "-DCUDASIM_CHECK",
    ),
}
REDZONE = 128  # CS_REDZONE of interface.hpp
MAX_SHARED = 48 * 1024  # bytes of shared memory that every GPU gives a block
_SHARED_GUARD = 1 << 20  # bytes on both sides of a module's shared memory that nobody may touch: shared_memory.cpp
_DYNAMIC_BYTES = 256 * 1024 + 4096


def available() -> str | None:
    """None where kernels can be emulated here, otherwise why not."""
    if not sys.platform.startswith("linux"):
        return f"runs on Linux, this is {sys.platform}: use cpu:0"
    if shutil.which("g++") is None:
        return "needs the C++ compiler g++, which is not on PATH: apt-get install g++, or use cpu:0"
    return None


# What g++ puts into local variables that the source gives no value: bytes of 0xFE, a float of -1.7e38.
UNSET = {"pattern": 0xFE, "zero": 0}


def compile_kernels(
    source: str, options: Sequence[str] = (), mode: str = "fast", copy: int = 0, unset: str = "pattern"
) -> Path:
    """The library with the kernels of `source`, from the cache where it has been built before.

    options: -D options.  mode: "fast" or "check".  unset: in check mode, what a local variable holds that nobody has
    set, a key of UNSET.  copy: libraries of different numbers are different files, so that a process can load the same
    kernels twice, each with shared memory of its own.
    Raises KernelError with the messages of g++ for a kernel that does not compile, DeviceError where g++ is missing.
    """
    source = kernel_source.without_ptx(source)
    kernel_source.check_rules(source)
    _require_compiler()
    text, files = _complete(source, options, mode)
    flags = _KERNEL_FLAGS[mode]
    if mode == "check" and _fills_locals():
        flags = (*flags, f"-ftrivial-auto-var-init={unset}")
    key = _key(text, mode, repr(flags), _runtime_key(mode), Path(__file__).read_text(encoding="utf-8"))
    library = _cached(f"{key}.so", lambda folder: _build(folder, text, mode, flags, files))
    if copy == 0:
        return library
    return _cached(f"{key}.{copy}.so", lambda folder: Path(shutil.copyfile(library, folder / "copy.so")))


def compile_host() -> Path:
    """The library that guards launches: cpp/host.cpp."""
    _require_compiler()

    def build(folder: Path) -> Path:
        # initial-exec: a signal handler may then look at thread_local variables without allocating them.
        flags = (*_RUNTIME_FLAGS, "-ftls-model=initial-exec", "-shared")
        _run("g++", *flags, CPP / "host.cpp", "-o", folder / "host.so", "-lpthread", "-lrt")
        return folder / "host.so"

    key = _key(_text("host.cpp"), _text("interface.hpp"), repr(_RUNTIME_FLAGS))
    return _cached(f"host-{key}.so", build)


# ---------------------------------------------------------------- one library


@cache
def _fills_locals() -> bool:
    """g++ 12 and later can."""
    return int(_run("g++", "-dumpversion").split(".")[0]) >= 12


def _complete(source: str, options: Sequence[str], mode: str) -> tuple[str, list[str]]:
    """What g++ gets: the source with dynamic shared memory as pointers, and the table of its entry points behind it.
    Also the names of its files, which have numbers there.

    -D options become lines before it: as options of g++ they would reach cuda.hpp too.
    """
    defined = [option[2:].partition("=") for option in options if option.startswith("-D")]
    definitions = "".join(f"#define {name} {value if equals else 1}\n" for name, equals, value in defined)
    entries = kernel_source.entries(definitions + source)
    table = [f"    {'CS_KERNEL_WAITS' if entry.waits else 'CS_KERNEL'}({entry.name})," for entry in entries]
    numbered, files = kernel_source.with_numbered_files(source)
    if mode == "check":
        numbered = kernel_source.with_checks(numbered)
    text = "\n".join(
        [
            definitions + kernel_source.with_dynamic_shared(numbered),
            '#line 1 "cudasim"',
            'extern "C" {',
            "extern const CsKernel cs_kernels[] = {",
            *table,
            "};",
            f"extern const cs_u32 cs_n_kernels = {len(table)};",
            '__attribute__((visibility("default"))) extern const cs_u32 cs_launch_bounds[] = {',
            "    " + ", ".join(f"(cs_u32)({' '.join(entry.bounds.split())})" for entry in entries),
            "};",
            "}",
            "",
        ]
    )
    return text, files


def _build(folder: Path, text: str, mode: str, flags: Sequence[str], files: Sequence[str]) -> Path:
    (folder / "kernel.cpp").write_text(text, encoding="utf-8")
    compiler = ("g++", *flags, "-include", str(CPP / "cuda.hpp"), "-S", str(folder / "kernel.cpp"))
    error = partial(_compile_error, files)
    warnings = _run(*compiler, "-o", folder / "kernel.s", failure=error, messages=True)
    assembly = with_redzones((folder / "kernel.s").read_text(), apart=_APART if mode == "check" else 0)
    (folder / "redzones.s").write_text(assembly + _suspected(warnings))
    library = folder / "kernel.so"
    _run("g++", "-shared", "-Wl,-Bsymbolic", folder / "redzones.s", _runtime(mode), "-o", library)
    return library


_FUNCTION_OF = re.compile(r"In (?:member )?function ['‘](?P<function>.*)['’]|inlined from ['‘](?P<from>.*?)['’] at")
_UNSET = re.compile(
    rf"{kernel_source.numbered_file('([0-9]+)')}:(\d+):\d+: warning: ['‘](.*?)['’] (?:is|may be) used uninitialized"
)


def _suspected(warnings: str) -> str:
    """g++'s warnings of variables that may have been left unset, as lines of a text that the library holds:
    number of the file, line, variable, functions that it may be a part of."""
    lines, functions = [], ""
    for line in warnings.splitlines():
        about, unset = _FUNCTION_OF.search(line), _UNSET.search(line)
        if about and about["function"]:
            functions = about["function"]
        elif about:
            functions += " " + about["from"]
        elif unset:
            lines.append("\t".join([unset[1], unset[2], unset[3], functions]))
    text = "\\n".join(lines).replace('"', "'").replace("\t", "\\t")
    return f'\t.section\t.rodata\n\t.globl\tcs_suspected_locals\ncs_suspected_locals:\n\t.string\t"{text}"\n'


def _compile_error(files: Sequence[str], messages: str) -> Exception:
    lines = [line for line in messages.splitlines() if re.search(r"\berror:|\bnote:", line)] or messages.splitlines()
    number = re.compile(kernel_source.numbered_file(r"(\d+)"))
    named = [number.sub(lambda match: printable(files[int(match[1])]), line[:1000]) for line in lines[:20]]
    return KernelError("the kernel does not compile:\n" + "\n".join(named))


# A static variable of a function, as g++ writes it: in one line, or, of a template, with a section of its own.
_LOCAL = re.compile(r"^\t\.local\t(_ZZ\w+)\n\t\.comm\t\1,(\d+),(\d+)$", re.MULTILINE)
_SHARED_SECTION = "cudasim_shared"
_IN_SECTION = re.compile(r"^(_ZZ\w+):\n\t\.zero\t(\d+)$", re.MULTILINE)


_APART = 16 * 1024  # bytes between the shared arrays, in check mode: a wrong row of one does not lie in another
_LAID_OUT = re.compile(r"^_ZZ\w+cs_laid_out_\w+:\n\t\.quad\t(\w+)\n\t\.quad\t(\d+)\n\t\.quad\t(\d+)$", re.MULTILINE)


def with_redzones(assembly: str, apart: int = 0) -> str:
    """g++'s assembly with all shared memory in one place, and with a table of the __shared__ arrays.

    Every array has REDZONE bytes behind it, and `apart` more.  Before the first and behind the last, dynamic shared
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
        return f"{section}\n{place}{symbol}:\n\t.zero\t{size + REDZONE + apart}\n\t.popsection"

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
        text = re.search(rf'^{re.escape(words[i])}:\n\t\.string\t"(\w+)"', assembly, re.MULTILINE)
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


# ---------------------------------------------------------------- the runtime


def _runtime_key(mode: str) -> str:
    texts = [_text(name) for name in (*HEADERS, *(f"{part}.cpp" for part in RUNTIME[mode]))]
    return _key(*texts, repr(_RUNTIME_FLAGS), mode)


@cache
def _runtime(mode: str) -> Path:
    """The runtime of a mode as one object file."""

    def build(folder: Path) -> Path:
        objects = []
        check = ("-DCUDASIM_CHECK",) if mode == "check" else ()
        for part in RUNTIME[mode]:
            objects.append(folder / f"{part}.o")
            _run("g++", *_RUNTIME_FLAGS, *check, "-c", CPP / f"{part}.cpp", "-o", objects[-1])
        _run("ld", "-r", *objects, "-o", folder / "runtime.o")
        return folder / "runtime.o"

    return _cached(f"runtime-{mode}-{_runtime_key(mode)}.o", build)


@cache
def _text(name: str) -> str:
    return (CPP / name).read_text()


# ---------------------------------------------------------------- g++ and the cache


def _require_compiler() -> None:
    reason = available()
    if reason:
        raise DeviceError(f"cudasim: {reason}")


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _run(*command: str | Path, failure: Callable[[str], Exception] | None = None, messages: bool = False) -> str:
    words = [str(word) for word in command]
    english = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(words, capture_output=True, text=True, errors="replace", env=english)
    if result.returncode:
        full = next((number for number in _FULL if os.strerror(number) in result.stderr), None)
        if full:
            raise OSError(full, os.strerror(full))
        if failure:
            raise failure(result.stderr)
        raise DeviceError(f"cudasim: {words[0]} failed:\n{result.stderr[:4000]}\nThe command: {' '.join(words)}")
    return result.stderr if messages else result.stdout


@cache
def _machine() -> str:
    """The version of g++ and the kind of CPU: -march=native makes code for this kind only."""
    flags = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("flags", "Features", "model name")):
                flags += line
            elif not line.strip() and flags:
                break
    return _run("g++", "--version").splitlines()[0] + flags


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join([*texts, _machine()]).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return files.cache_folder() / "cudasim"


def _cached(name: str, build: Callable[[Path], Path]) -> Path:
    """The file of the cache with this name; build(an empty folder) makes it where there is none."""
    try:
        path = cache_folder() / name
        if os.path.exists(path):  # not path.exists(): that raises where one may not look
            return path
        return _built((_substitute or path.parent) / name, build)
    except OSError as error:
        refused = error
    try:
        return _built((_substitute or _open_substitute(refused)) / name, build)
    except OSError as error:
        raise DeviceError(
            f"cudasim: cannot write compiled kernels ({files.reason(error)}): set XDG_CACHE_HOME to a folder that can "
            "be written to"
        ) from error


def _built(path: Path, build: Callable[[Path], Path]) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(path.parent / "build", "tmp[a-z0-9_]{8}") as folder:
            files.move(build(folder), path)  # at once: nobody sees half a file
    return path


_substitute: Path | None = None  # a temporary folder of this process, once the cache could not be written


def _open_substitute(refused: OSError) -> Path:
    global _substitute
    end = contextlib.ExitStack()
    _substitute = end.enter_context(files.scratch_folder(Path(tempfile.gettempdir()) / "minigrad-cudasim"))
    atexit.register(end.close)
    warnings.warn(
        f"cudasim: cannot write compiled kernels to the cache ({files.reason(refused)}): they are kept in "
        f"{printable(_substitute)} until this process ends; XDG_CACHE_HOME names another cache folder",
        stacklevel=2,
    )
    return _substitute
