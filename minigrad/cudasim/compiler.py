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
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import files
from ..errors import DeviceError, KernelError, printable, some
from . import assembly
from . import source as kernel_source

if TYPE_CHECKING:
    from .emission import Unit

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
# For the same kind of CPU as the kernels: a change between AVX and older instructions costs many cycles, and check mode
# goes to and fro at each load and store.
_RUNTIME_FLAGS = (*_COMMON, "-O2", "-g1", "-Wall", "-march=native", "-ffp-contract=off")
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
        "-fstack-protector-strong",  # a value behind the local arrays, looked at when their function ends
        # -fsanitize=thread passes over a structure that is handed to a function by value, or that one returns.
        *("--param=max-inline-insns-auto=2000", "--param=max-inline-insns-single=2000"),
        *("--param=large-function-insns=20000", "--param=inline-unit-growth=1000"),
        "-fsanitize=thread,bounds,alignment,shift-exponent,integer-divide-by-zero,signed-integer-overflow,object-size",
        *("-Wuninitialized", "-Wmaybe-uninitialized"),  # module.py looks into what they suspect
        "-fno-tree-sra",
        "-fno-tree-vectorize",
        "-fno-tree-slp-vectorize",
        "-fno-tree-loop-distribute-patterns",
        "-DCUDASIM_CHECK",
    ),
    # For a debugger: every variable is where gdb finds it, and a kernel is a function that one can stop in.
    "debug": (*_KERNEL_COMMON, "-O0", "-g2", "-gno-statement-frontiers", "-DCUDASIM_DEBUG"),
}
# For files of others, written for nvcc, which takes more than NVRTC.
_FOREIGN = ("-std=gnu++20", "-fpermissive", "-fno-threadsafe-statics", "-fno-exceptions", "-fno-rtti")


def available() -> str | None:
    """None where kernels can be emulated here, otherwise why not."""
    if not sys.platform.startswith("linux"):
        return f"runs on Linux, this is {sys.platform}: use cpu:0"
    if shutil.which("g++") is None:
        return "needs the C++ compiler g++, which is not on PATH: apt-get install g++, or use cpu:0"
    return None


def compile_kernels(
    source: str, options: Sequence[str] = (), mode: str = "fast", copy: int = 0, unset: str = "pattern"
) -> Path:
    """The library with the kernels of `source`, from the cache where it has been built before.

    options: -D options.  mode: "fast" or "check".  unset: in check mode, what a local variable holds that nobody has
    set: "pattern", bytes of 0xFE, a float of -1.7e38, or "zero".  copy: libraries of different numbers are different
    files, so that a process can load the same kernels twice, each with shared memory of its own.
    Raises KernelError with the messages of g++ for a kernel that does not compile, DeviceError where g++ is missing.
    """
    source = kernel_source.without_ptx(source)
    kernel_source.check_rules(source)
    require_compiler()
    text, files = _complete(source, options, mode)
    return _compile(text, files, mode, copy, unset)


def compile_unit(unit: Unit, mode: str, copy: int = 0, unset: str = "pattern") -> Path:
    """The same for a kernel of somebody's file, which brings its own table of entry points."""
    require_compiler()
    text = kernel_source.with_checks(unit.text) if mode == "check" else unit.text
    return _compile(text, unit.files, mode, copy, unset, unit.headers, unit.hint)


def _compile(
    text: str,
    files: Sequence[str],
    mode: str,
    copy: int,
    unset: str,
    headers: Sequence[str] = (),
    hint: str = "",
) -> Path:
    flags = (*_KERNEL_FLAGS[mode], *(_FOREIGN if headers else ()))
    if mode == "check" and _fills_locals():
        flags = (*flags, f"-ftrivial-auto-var-init={unset}")
    this = (Path(__file__), Path(assembly.__file__))
    texts = [*(file.read_text(encoding="utf-8") for file in this), *(_text(name) for name in headers)]
    key = _key(text, mode, repr(flags), _runtime_key(mode), *texts)
    library = _cached(f"{key}.so", lambda folder: _build(folder, text, mode, flags, files, headers, hint))
    if copy == 0:
        return library
    return _cached(f"{key}.{copy}.so", lambda folder: Path(shutil.copyfile(library, folder / "copy.so")))


def compile_host() -> Path:
    """The library that guards launches: cpp/host.cpp."""
    require_compiler()

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


def _build(
    folder: Path,
    text: str,
    mode: str,
    flags: Sequence[str],
    files: Sequence[str],
    headers: Sequence[str],
    hint: str,
) -> Path:
    (folder / "kernel.cpp").write_text(text, encoding="utf-8", errors="surrogateescape")
    compiler = ["g++", *flags, "-include", str(CPP / "cuda.hpp")]
    for header in headers:
        compiler += ["-include", str(CPP / header)]
    failure = partial(_compile_error, files, hint, bool(headers))
    with ThreadPoolExecutor(2) as meanwhile:  # the first time, the runtime takes ten times as long as a small kernel
        runtime, _ = meanwhile.submit(_runtime, mode), meanwhile.submit(compile_host)
        warnings = _run(
            *compiler, "-S", folder / "kernel.cpp", "-o", folder / "kernel.s", failure=failure, messages=True
        )
        apart = assembly.APART if mode == "check" else 0
        code = assembly.with_tables((folder / "kernel.s").read_text(), apart)
        (folder / "tables.s").write_text(code + assembly.suspected_locals(warnings))
        library = folder / "kernel.so"
        link = ("g++", "-shared", "-Wl,-Bsymbolic", *(("-Wl,--no-undefined",) if headers else ()))
        _run(*link, folder / "tables.s", runtime.result(), "-o", library, failure=_link_error if headers else None)
    return library


def _compile_error(files: Sequence[str], hint: str, foreign: bool, messages: str) -> Exception:
    undeclared = re.findall(r"error: '(\w+)' (?:was not declared|has not been declared|does not name)", messages)
    if foreign and undeclared and not hint:
        names = some(list(dict.fromkeys(undeclared)))
        hint = (
            f"Nothing here declares {names}.  If another file includes this one, run that one.  A macro: "
            "-D NAME=VALUE, or defines={...}"
        )
    lines = [line for line in messages.splitlines() if re.search(r"\berror:|\bnote:", line)] or messages.splitlines()
    number = re.compile(kernel_source.numbered_file(r"(\d+)"))
    named = [number.sub(lambda match: printable(files[int(match[1])]), line[:1000]) for line in lines[:20]]
    return KernelError("\n".join(["the kernel does not compile:", *named, *([hint] if hint else [])]))


def _link_error(messages: str) -> Exception:
    names = ", ".join(dict.fromkeys(re.findall(r"undefined (?:reference to|symbol:?) [`']?([^'\n]+)", messages)))
    return KernelError(
        f"the kernel uses what its file and its headers declare and do not define: {printable(names or messages[:500])}"
    )


# ---------------------------------------------------------------- the runtime


def _runtime_key(mode: str) -> str:
    texts = [_text(name) for name in (*HEADERS, *(f"{part}.cpp" for part in RUNTIME[mode]))]
    return _key(*texts, repr(_RUNTIME_FLAGS), mode)


@cache
def _runtime(mode: str) -> Path:
    """The runtime of a mode as one object file."""

    def build(folder: Path) -> Path:
        check = ("-DCUDASIM_CHECK",) if mode == "check" else ()

        def compiled(parts: Sequence[str]) -> Path:
            unit = folder / f"{parts[0]}.cpp"
            unit.write_text("".join(f'#include "{CPP / part}.cpp"\n' for part in parts))
            _run("g++", *_RUNTIME_FLAGS, *check, "-c", unit, "-o", unit.with_suffix(".o"))
            return unit.with_suffix(".o")

        # Each file takes g++ 0.1 s before it begins, and checks.cpp as long as all others.
        alone = [part for part in RUNTIME[mode] if part == "checks"]
        others = [part for part in RUNTIME[mode] if part != "checks"]
        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, filter(None, (alone, others))))
        _run("ld", "-r", *objects, "-o", folder / "runtime.o")
        return folder / "runtime.o"

    return _cached(f"runtime-{mode}-{_runtime_key(mode)}.o", build)


@cache
def _text(name: str) -> str:
    return (CPP / name).read_text()


# ---------------------------------------------------------------- g++ and the cache


def require_compiler() -> None:
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
_opening = threading.Lock()


def _open_substitute(refused: OSError) -> Path:
    global _substitute
    with _opening:
        if _substitute:
            return _substitute
        end = contextlib.ExitStack()
        _substitute = end.enter_context(files.scratch_folder(Path(tempfile.gettempdir()) / "minigrad-cudasim"))
        atexit.register(end.close)
    warnings.warn(
        f"cudasim: cannot write compiled kernels to the cache ({files.reason(refused)}): they are kept in "
        f"{printable(_substitute)} until this process ends; XDG_CACHE_HOME names another cache folder",
        stacklevel=2,
    )
    return _substitute
