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
    "debug": (*_ALWAYS, "no_checks"),
    "check": (*_ALWAYS, "checks", "shadow", "undefined", "counters", "trace"),
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
    *(*_COMMON, *_LINES, "-w", "-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=fast", "-march=native"),
    *("-fno-finite-loops", "-fstack-clash-protection", "-fno-optimize-sibling-calls"),
)
_KERNEL_FLAGS = {
    "fast": (*_KERNEL_COMMON, "-O3", "-fno-trapping-math"),
    # The sanitizers' calls go to our own functions of these names, in checks.cpp.  A float4 must stay one access of 16
    # bytes (no sra), and a loop over floats must not become one of wider accesses (no vectorize).
    "check": (
        *_KERNEL_COMMON,
        "-O1",
        "-fsanitize=thread,bounds,alignment,shift,integer-divide-by-zero,signed-integer-overflow",
        "-fno-tree-sra",
        "-fno-tree-vectorize",
        "-fno-tree-slp-vectorize",
        "-fno-tree-loop-distribute-patterns",
        "-DCUDASIM_CHECK",
    ),
    # For a debugger: every variable is where gdb finds it, and a kernel is a function that one can stop in.
    "debug": (*_KERNEL_COMMON, "-O0", "-g2", "-gno-statement-frontiers", "-DCUDASIM_DEBUG"),
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


def compile_kernels(source: str, options: Sequence[str] = (), mode: str = "fast", copy: int = 0) -> Path:
    """The library with the kernels of `source`, from the cache where it has been built before.

    options: -D options.  mode: "fast" or "check".  copy: libraries of different numbers are different files, so that a
    process can load the same kernels twice, each with shared memory of its own.
    Raises KernelError with the messages of g++ for a kernel that does not compile, DeviceError where g++ is missing.
    """
    source = kernel_source.without_ptx(source)
    kernel_source.check_rules(source)
    _require_compiler()
    text, files = _complete(source, options)
    key = _key(text, mode, repr(_KERNEL_FLAGS[mode]), _runtime_key(mode), Path(__file__).read_text(encoding="utf-8"))
    library = _cached(f"{key}.so", lambda folder: _build(folder, text, mode, files))
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


def _complete(source: str, options: Sequence[str]) -> tuple[str, list[str]]:
    """What g++ gets: the source with dynamic shared memory as pointers, and the table of its entry points behind it.
    Also the names of its files, which have numbers there.

    -D options become lines before it: as options of g++ they would reach cuda.hpp too.
    """
    defined = [option[2:].partition("=") for option in options if option.startswith("-D")]
    definitions = "".join(f"#define {name} {value if equals else 1}\n" for name, equals, value in defined)
    entries = kernel_source.entries(definitions + source)
    table = [f"    {'CS_KERNEL_WAITS' if entry.waits else 'CS_KERNEL'}({entry.name})," for entry in entries]
    numbered, files = kernel_source.with_numbered_files(source)
    text = "\n".join(
        [
            definitions + kernel_source.with_dynamic_shared(numbered),
            '#line 1 "cudasim"',
            'extern "C" {',
            "extern const CsKernel cs_kernels[] = {",
            *table,
            "};",
            f"extern const cs_u32 cs_n_kernels = {len(table)};",
            "}",
            "",
        ]
    )
    return text, files


def _build(folder: Path, text: str, mode: str, files: Sequence[str]) -> Path:
    (folder / "kernel.cpp").write_text(text, encoding="utf-8")
    compiler = ("g++", *_KERNEL_FLAGS[mode], "-include", str(CPP / "cuda.hpp"))
    _run(*compiler, "-S", folder / "kernel.cpp", "-o", folder / "kernel.s", failure=partial(_compile_error, files))
    (folder / "redzones.s").write_text(with_redzones((folder / "kernel.s").read_text()))
    library = folder / "kernel.so"
    _run("g++", "-shared", "-Wl,-Bsymbolic", folder / "redzones.s", _runtime(mode), "-o", library)
    return library


def _compile_error(files: Sequence[str], messages: str) -> Exception:
    lines = [line for line in messages.splitlines() if re.search(r"\berror:|\bnote:", line)] or messages.splitlines()
    number = re.compile(kernel_source.numbered_file(r"(\d+)"))
    named = [number.sub(lambda match: printable(files[int(match[1])]), line[:1000]) for line in lines[:20]]
    return KernelError("the kernel does not compile:\n" + "\n".join(named))


# A static variable of a function, as g++ writes it: in one line, or, of a template, with a section of its own.
_LOCAL = re.compile(r"^\t\.local\t(_ZZ\w+)\n\t\.comm\t\1,(\d+),(\d+)$", re.MULTILINE)
_SHARED_SECTION = "cudasim_shared"
_IN_SECTION = re.compile(r"^(_ZZ\w+):\n\t\.zero\t(\d+)$", re.MULTILINE)


def with_redzones(assembly: str) -> str:
    """g++'s assembly with all shared memory in one place, and with a table of the __shared__ arrays.

    Every array has REDZONE bytes behind it.  Before the first and behind the last, dynamic shared memory, are guards.
    KernelError for an array that no block has room for.
    """
    arrays: list[tuple[str, int]] = []
    section = f'\t.pushsection\t{_SHARED_SECTION},"aw",@nobits'

    def moved(symbol: str, size: int, align: int) -> str:
        if size > MAX_SHARED:
            kernel, name = _demangle(symbol)
            where = f" of {kernel}" if kernel else ""
            raise KernelError(f"shared array '{name}'{where} has {size} bytes; a block has {MAX_SHARED}")
        arrays.append((symbol, size))
        return f"{section}\n\t.balign\t{align}\n{symbol}:\n\t.zero\t{size + REDZONE}\n\t.popsection"

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
        lines += [f"\t.quad\t{symbol}", f"\t.quad\t{size}", f"\t.quad\t.Lcs_name{i}", f"\t.quad\t.Lcs_kernel{i}"]
        strings += [f".Lcs_name{i}:", f'\t.string\t"{name}"', f".Lcs_kernel{i}:", f'\t.string\t"{kernel}"']
    lines += ["\t.globl\tcs_n_shared_arrays", "\t.hidden\tcs_n_shared_arrays", "cs_n_shared_arrays:"]
    lines += [f"\t.quad\t{len(arrays)}", *strings]
    return assembly + "\n".join(lines) + "\n"


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


def _run(*command: str | Path, failure: Callable[[str], Exception] | None = None) -> str:
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, errors="replace")
    if result.returncode:
        full = next((number for number in _FULL if os.strerror(number) in result.stderr), None)
        if full:
            raise OSError(full, os.strerror(full))
        if failure:
            raise failure(result.stderr)
        raise DeviceError(f"cudasim: {words[0]} failed:\n{result.stderr[:4000]}\nThe command: {' '.join(words)}")
    return result.stdout


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
