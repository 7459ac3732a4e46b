"""The compile gate: every kernel through NVIDIA's own compiler, for many cards, on a machine that has none.

NVRTC is the compiler that CuPy calls; it needs neither a card nor a driver, and comes as a wheel.  What it reports of
each kernel (registers, shared memory, spills) is compared with kernels/budget.json:

    python -m minigrad.nvrtc                  the table of all kernels, and what breaks the budget
    python -m minigrad.nvrtc lrn --write      the budget of kernels/lrn.cu, as it is now

A kernel that compiles here has not run anywhere: running is the emulator's part (minigrad/cudasim).
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..base import files
from ..errors import KernelError, MinigradError, MissingDependencyError
from .occupancy import occupancy
from .sources import DTYPES, MACROS, constants, full_source, kernel_folder, kernel_names, open_types

CUDAS = (13, 12)
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100")

# The element types with which a kernel is compiled, by the names that it leaves open.
TYPES: dict[str, tuple[str, ...]] = {
    "REAL": ("float", "double"),
    "T": ("float", "double", "long long"),
    "TAP": ("unsigned char",),
}
CONVERSIONS = (("float", "float"), ("double", "double"), ("bool", "long long"))  # FROM, TO
# Rows of a tile that the host chooses among, by bytes of an element: TILE_ROWS of minigrad/ops/_tile_product.py.
TILE_ROWS = {"conv2d": {4: (128, 96, 64, 48, 32), 8: (64, 32)}, "gemm": {4: (128, 64, 32), 8: (64, 32)}}
TO_INTEGERS = (("float", "unsigned char"), ("double", "long long"))  # for copy.cu alone, which has a rule for these


@dataclass(frozen=True)
class CompiledKernel:
    """What ptxas reports of one entry point; all but `registers` in bytes.

    `stack` is the local memory of a thread: arrays that are indexed by variables, and spilled registers.  `spills` are
    the stores and loads that move registers there and back.
    """

    name: str
    registers: int
    shared: int
    stack: int
    spills: int


COLUMNS = ("registers", "shared", "stack", "spills")
Budget = dict[str, Any]  # {"nvrtc": "13.0", "kernels": {file: {"kernel REAL=float": {"sm_75": [one per column]}}}}


# ---------------------------------------------------------------- the library


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libnvrtc, from its wheel or a CUDA toolkit; MissingDependencyError where there is none."""
    for path in _candidates():
        try:
            for builtins in Path(path).parent.glob("libnvrtc-builtins.so*") if os.sep in path else ():
                ctypes.CDLL(str(builtins))  # or NVRTC looks for it in the system's folders alone
            found = ctypes.CDLL(path)
        except OSError:
            continue
        found.nvrtcGetErrorString.restype = ctypes.c_char_p
        return found
    raise MissingDependencyError(
        "nvrtc: NVIDIA's compiler library is not here (it needs no graphics card): pip install nvidia-cuda-nvrtc, or "
        "pip install 'minigrad[nvrtc]' (beside CuPy for CUDA 12: pip install nvidia-cuda-nvrtc-cu12)"
    )


def _candidates() -> Iterable[str]:
    """Paths of libnvrtc, the best first: of the CUDA that the installed CuPy is for, of a wheel, of the newest CUDA."""
    wheels = importlib.util.find_spec("nvidia")  # cu13/lib in the wheel of CUDA 13, cuda_nvrtc/lib in that of 12
    folders = (wheels and wheels.submodule_search_locations) or ()
    found = [str(path) for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.[0-9]*")]
    cupys = [cuda for cuda in CUDAS if _is_installed(f"cupy-cuda{cuda}x")]

    def rank(path: str) -> tuple[bool, bool, int]:
        cuda = int(path.split(".so.")[1].split(".")[0])
        return cuda not in cupys, os.sep not in path, -cuda

    return sorted([*found, *(f"libnvrtc.so.{cuda}" for cuda in CUDAS)], key=rank)


def _is_installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def version() -> str:
    """The version of NVRTC, such as "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _check(status: int) -> None:
    if status:
        raise KernelError(f"nvrtc: {library().nvrtcGetErrorString(status).decode()}")


# ---------------------------------------------------------------- compiling


def compile_source(source: str, name: str, architecture: str, options: Sequence[str] = ()) -> list[CompiledKernel]:
    """The entry points of `source`, compiled for one architecture ("sm_90") with CuPy's options and these.

    `name` stands in the messages.  KernelError carries the compiler's log; warnings are errors here.
    """
    # CuPy appends its own options to those it is given in this order (cupy/cuda/compiler.py).
    cupy = ("--std=c++17", *options, "-ftz=true", f"-arch={architecture}", "--device-as-default-execution-space")
    log = _log(source, name, (*cupy, "--ptxas-options=-v"))
    if "warning" in log:
        raise KernelError(f"nvrtc: {name}, {architecture}, {' '.join(options)}: warnings:\n{_beginning(log)}")
    return _parsed(log)


def _log(source: str, name: str, options: tuple[str, ...]) -> str:
    """What the compiler says; from the user's cache where it has said it before."""
    asked = json.dumps([version(), source, name, options])
    key = hashlib.sha256(asked.encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        return (files.cache_folder() / "nvrtc" / key).read_text(encoding="utf-8")
    log = _compile(source, name, options)
    with suppress(OSError):  # a cache that cannot be written is no reason to fail
        cache = files.cache_folder() / "nvrtc"
        cache.mkdir(parents=True, exist_ok=True)
        with files.writing(cache / key) as file:
            file.write(log.encode())
    return log


def _compile(source: str, name: str, options: tuple[str, ...]) -> str:
    nvrtc, program, size = library(), ctypes.c_void_p(), ctypes.c_size_t()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        passed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), passed)
        _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetProgramLog(program, buffer))
        log = buffer.value.decode(errors="replace")
        if failed:
            reason = nvrtc.nvrtcGetErrorString(failed).decode()
            raise KernelError(f"nvrtc: {name} with {' '.join(options)}: {reason}\n{_beginning(log)}")
        return log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _beginning(log: str, lines: int = 30) -> str:
    """The first error is the one to read; what follows is often its consequence."""
    first = log.splitlines()
    return "\n".join([*first[:lines], *(["..."] if len(first) > lines else [])])


_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'(?P<report>.*?Used (?P<registers>\d+) registers[^\n]*)", re.S
)


def _parsed(log: str) -> list[CompiledKernel]:
    """Functions that the compiler did not inline report their own spills, which count as the kernel's."""
    return [
        CompiledKernel(
            found["name"],
            registers=int(found["registers"]),
            shared=_sum(r"(\d+) bytes smem", found["report"]),
            stack=_sum(r"(\d+) bytes stack frame", found["report"]),
            spills=_sum(r"(\d+) bytes spill (?:stores|loads)", found["report"]),
        )
        for found in _KERNEL.finditer(log)
    ]


def _sum(pattern: str, text: str) -> int:
    return sum(map(int, re.findall(pattern, text)))


# ---------------------------------------------------------------- the budget


def variants(name: str) -> list[dict[str, str]]:
    """The -D options with which kernels/<name>.cu is compiled: [{"REAL": "float"}, {"REAL": "double"}]."""
    names = open_types(name)
    pairs: list[dict[str, str]] = [{}]
    if "FROM" in names or "TO" in names:
        conversions = CONVERSIONS + (TO_INTEGERS if name == "copy" else ())
        pairs = [dict(zip(("FROM", "TO"), pair)) for pair in conversions]
        names = [name for name in names if name not in ("FROM", "TO")]
    unknown = [name for name in names if name not in TYPES]
    if unknown:
        raise KernelError(f"nvrtc: kernels/{name}.cu leaves {', '.join(unknown)} open: enter it in nvrtc.TYPES")
    rest = [dict(zip(names, types)) for types in itertools.product(*(TYPES[name] for name in names))]
    chosen = [first | second for first in pairs for second in rest]
    if name in TILE_ROWS:
        sizes = [(types, DTYPES[next(iter(types.values()))].itemsize) for types in chosen]
        chosen = [types | {"TILE_ROWS": str(rows)} for types, size in sizes for rows in TILE_ROWS[name][size]]
        chosen += [types | {"TF32": "1"} for types in chosen if "float" in types.values()]  # by matrix units
    return chosen


def measure(names: Sequence[str], architectures: Sequence[str] = ARCHITECTURES) -> Budget:
    """The budget of these kernel files as they are now; KernelError for one that does not compile."""
    jobs = [(name, types, arch) for name in names for types in variants(name) for arch in architectures]

    def compiled(job: tuple[str, dict[str, str], str]) -> list[CompiledKernel]:
        name, types, architecture = job
        options = [f"-D{MACROS.get(key, key)}={value}" for key, value in types.items()]
        return compile_source(full_source(name), f"kernels/{name}.cu", architecture, options)

    kernels: dict[str, dict[str, dict[str, list[int]]]] = {name: {} for name in names}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (name, types, architecture), found in zip(jobs, threads.map(compiled, jobs)):
            label = ", ".join(f"{key}={value}" for key, value in types.items())
            for kernel in found:
                line = kernels[name].setdefault(f"{kernel.name} {label}".strip(), {})
                line[architecture] = list(astuple(kernel)[1:])
    return {"nvrtc": version(), "kernels": {name: dict(sorted(lines.items())) for name, lines in kernels.items()}}


SLACK = {True: 4, False: 24}  # registers more than in the budget; keys: whether the same NVRTC wrote it


def problems(measured: Budget, budget: Budget) -> list[str]:
    """How the kernels in `measured` break the budget, one line each; empty: they keep it.

    Registers may grow by SLACK; stack and spills may not grow; shared memory must be the same.  A kernel without a
    line in the budget breaks it, and so does a line without a kernel.
    """
    slack = SLACK[measured["nvrtc"] == budget["nvrtc"]]
    found = []
    for file, lines in measured["kernels"].items():
        known = budget["kernels"].get(file, {})
        where = f"kernels/{file}.cu"
        write = f"python -m minigrad.nvrtc {file} --write"
        found += [f"{where}: {line} is in kernels/budget.json only: {write}" for line in known if line not in lines]
        for line, by_architecture in lines.items():
            if line not in known:
                found.append(f"{where}: {line} is not in kernels/budget.json: look at the numbers, then {write}")
                continue
            for architecture, numbers in by_architecture.items():
                now = dict(zip(COLUMNS, numbers))
                then = dict(zip(COLUMNS, known[line].get(architecture, [0] * len(COLUMNS))))
                broken = [column for column in ("stack", "spills") if now[column] > then[column]]
                broken += ["shared"] * (now["shared"] != then["shared"])
                broken += ["registers"] * (now["registers"] > then["registers"] + slack)
                found += [
                    f"{where}: {line}, {architecture}: {column} {now[column]}, the budget has {then[column]}: "
                    f"mend it, or, if it must be so, {write}"
                    for column in broken
                ]
    return found


def lost_files(budget: Budget) -> list[str]:
    """Kernel files that the budget knows and kernels/ does not have."""
    return sorted(set(budget["kernels"]) - set(kernel_names()))


def budget_path() -> Path:
    return kernel_folder() / "budget.json"


def read_budget() -> Budget:
    """kernels/budget.json; an empty budget where there is none yet."""
    path = budget_path()
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"nvrtc": version(), "kernels": {}}


def budget_text(budget: Budget) -> str:
    """JSON with one line for each kernel, so that a change shows as one."""
    files = []
    for file, lines in sorted(budget["kernels"].items()):
        body = ",\n".join(f"   {json.dumps(line)}: {json.dumps(numbers)}" for line, numbers in lines.items())
        files.append(f"  {json.dumps(file)}: {{\n{body}\n  }}")
    head = f' "nvrtc": {json.dumps(budget["nvrtc"])},\n "columns": {json.dumps(COLUMNS)},\n'
    return "{\n" + head + ' "kernels": {\n' + ",\n".join(files) + "\n }\n}\n"


# ---------------------------------------------------------------- the command

THREADS = 256  # of a block, where a kernel's __launch_bounds__ does not say


def block_of(file: str, kernel: str) -> int:
    """How many threads a block of this kernel has at most; KernelError where its __launch_bounds__ cannot be read."""
    bounds = re.search(rf"__launch_bounds__\s*\(([^),]*)[^)]*\)\s*void\s+{kernel}\b", full_source(file))
    return _product(file, bounds[1]) if bounds else THREADS


def _product(file: str, text: str) -> int:
    """Of "256", or of "PIXELS * ROWS", whose factors the kernel's file #defines."""
    factors = [factor.strip() for factor in text.split("*")]
    return math.prod(int(factor) if factor.isdigit() else constants(file, factor)[0] for factor in factors)


LEGEND = f"""By architecture: warps at once on a multiprocessor, in % of its room; what ran out first: t threads,
r registers, s shared memory, b places for blocks.  Threads: of a block, by __launch_bounds__; without it, {THREADS}."""


def table(measured: Budget) -> str:
    """One line for each kernel and element type: the most on any architecture, and on which; the occupancy of each."""
    seen = list(next((numbers for lines in measured["kernels"].values() for numbers in lines.values()), ()))
    rows: list[tuple[str, ...]] = [("kernel", "registers", "shared B", "stack B", "spills B", "threads", *seen)]
    for file, lines in measured["kernels"].items():
        for line, numbers in lines.items():
            worst = [max(column) for column in zip(*numbers.values())]
            where = max(numbers, key=lambda architecture: numbers[architecture][0])
            threads = block_of(file, line.split()[0])
            fits = [occupancy(arch, threads, registers, shared) for arch, (registers, shared, *_) in numbers.items()]
            shares = (f"{round(100 * fit.share)} {fit.by[0]}" for fit in fits)
            rows.append((f"{file}: {line}", f"{worst[0]} ({where})", *map(str, worst[1:]), str(threads), *shares))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the kernels keep the budget (or it was written), else 1."""
    parser = argparse.ArgumentParser(prog="python -m minigrad.nvrtc", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kernels", nargs="*", help="files of kernels/, such as lrn (default: all)")
    parser.add_argument("--arch", action="append", help="an architecture, such as sm_90 (default: all of the budget's)")
    parser.add_argument("--write", action="store_true", help="write kernels/budget.json")
    options = parser.parse_args(arguments)
    if options.write and options.arch:
        parser.error("--write is for all architectures: leave out --arch")
    try:
        measured = measure(options.kernels or kernel_names(), options.arch or ARCHITECTURES)
    except MinigradError as error:
        print(error, file=sys.stderr)
        return 1
    architectures = ", ".join(options.arch or ARCHITECTURES)
    print(f"NVRTC {measured['nvrtc']}, CuPy's options, {architectures}\n\n{table(measured)}\n\n{LEGEND}\n")
    budget = read_budget()
    if not options.write:
        found = problems(measured, budget)
        print("\n".join(found) or "All within kernels/budget.json.")
        return int(bool(found))
    kept = {} if not options.kernels else budget["kernels"]
    text = budget_text({"nvrtc": measured["nvrtc"], "kernels": kept | measured["kernels"]})
    budget_path().write_text(text, encoding="utf-8")
    print(f"Written: {budget_path().name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
