"""Run a kernel of a CUDA file on the CPU, with all checks; no graphics card, no driver, no nvcc.

List the kernels of a file, each with an example line to copy:

    python -m minigrad.cudasim examples/cuda_homework/solution.cu

Run one, in three thread orders; the arguments are the kernel's parameters, by name:

    {EXAMPLE}

Arrays and numbers:

{GENERATORS}

What is found has file, line, block and thread.  Exit codes: 0, nothing was found; 1, a report, or a result that differs
from --expect's; 2, it could not be tried; 130, Ctrl-C.  docs/cudasim.md tells what is proven by it, and what is not.

minigrad's own kernels have cases of their own: python -m minigrad.cudasim kernels/lrn.cu --help
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base import files
from ..errors import ArgumentError, DataError, KernelError, MinigradError, printable, some
from .comparing import Difference, difference
from .cuda_file import Kernel
from .expecting import expected_outputs
from .gdb import gdb_line
from .listing import example_line, listing
from .running import TIME_LIMIT, Launch, Result, Source, opened, sizes_of, summary
from .settings import MODES, ORDERS, seconds
from .trace import Trace
from .values import GENERATORS, Value, variable_value

EXAMPLE = (
    "python -m minigrad.cudasim examples/cuda_homework/solution.cu --kernel row_sums --grid 30 --block 64 "
    "x=normal:30x100 sums=empty:30 columns=100"
)
PROGRAM = "python -m minigrad.cudasim"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing found; 1: a report, or a result that differs from --expect's; 2: it could not be tried."""
    asked = _asked(arguments)
    answer: dict[str, Any] = {"file": asked.file}
    printed = io.StringIO()  # by the kernel
    try:
        with contextlib.redirect_stdout(printed) if asked.json else contextlib.nullcontext():
            status = _list(asked, answer) if asked.list or not _runs(asked) else _run(asked, answer)
    except KernelError as error:
        status = 1 if error.reports else 2
        answer["error"] = str(error)
        answer["reports"] = [vars(report) for report in error.reports]
        if not asked.json:
            print(error, file=sys.stdout if error.reports else sys.stderr)
    except (MinigradError, OSError, MemoryError) as error:
        status = 2
        answer["error"] = str(error) or "no memory left"
        if not asked.json:
            print(answer["error"], file=sys.stderr)
    if asked.json:
        print(json.dumps({**answer, "printed": printed.getvalue(), "exit": status}, indent=1, allow_nan=False))
    return status


def _say(asked: argparse.Namespace, text: object) -> None:
    if not asked.json:
        print(text)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = (__doc__ or "").replace("{EXAMPLE}", EXAMPLE).replace("{GENERATORS}", GENERATORS)
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", help="a CUDA file")
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE", help="an argument, by its parameter's name")
    parser.add_argument("--list", action="store_true", help="list the kernels, and run none")
    parser.add_argument("--kernel", metavar="NAME", help="which kernel (needed where the file has several)")
    parser.add_argument("--grid", metavar="SIZES", help="blocks: 4, or 4x2 along x and y")
    parser.add_argument("--block", metavar="SIZES", help="threads of a block: 256, or 16x16")
    parser.add_argument("--shared", type=int, default=0, metavar="BYTES", help="dynamic shared memory")
    more = "where --shared is more than 48 KB: what the host asks for by cudaFuncAttributeMaxDynamicSharedMemorySize"
    parser.add_argument("--max-shared", type=int, metavar="BYTES", help=more)
    parser.add_argument("--template", metavar="ARGUMENTS", help="of a template kernel: float,16")
    parser.add_argument(
        "--variable",
        dest="variables",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what a __constant__ or __device__ variable holds: taps=[1,2,1]",
    )
    parser.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME=VALUE", help="a macro")
    parser.add_argument(
        "-I",
        dest="include",
        action="append",
        default=[],
        metavar="FOLDER",
        help="another folder for the headers of the file, whose own folder is looked into first",
    )
    modes = "check (the default); fast: few checks; debug: none, and as a debugger wants it"
    parser.add_argument("--mode", choices=(*MODES, "debug"), default="check", help=modes)
    parser.add_argument("--order", choices=(*ORDERS, "all"), default="all", help="of the threads (default: all three)")
    parser.add_argument(
        "--expect",
        metavar="FILE.py:FUNCTION",
        help="compare with what this function returns for the same arguments: an array, or a dict of them by name",
    )
    parser.add_argument("--tolerance", type=_share, help="for --expect: share of a value that it may be off")
    parser.add_argument("--seed", type=_whole, default=0, help="of random arrays and of the random order (default: 0)")
    parser.add_argument("--counters", action="store_true", help="count memory traffic, line by line")
    parser.add_argument(
        "--trace",
        nargs="+",
        metavar="thread=X,Y,Z",
        help="show every load, store and atomic of one thread: thread=5 block=2",
    )
    parser.add_argument("--trace-steps", type=int, default=200, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--gdb", action="store_true", help="print a line that starts gdb in this launch (--trace: where)"
    )
    parser.add_argument("--time-limit", type=_seconds, default=TIME_LIMIT, metavar="SECONDS", help="default: 10")
    parser.add_argument("--save", metavar="FILE.npz", help="write the outputs to a file of NumPy's")
    parser.add_argument("--json", action="store_true", help="answer in JSON, and print nothing else")
    asked = parser.parse_intermixed_args(arguments)
    asked.words = list(sys.argv[1:] if arguments is None else arguments)
    if asked.trace:  # takes all words up to the next option: those that are not its own are arguments of the kernel
        own = [word for word in asked.trace if re.match(r"(thread|block)=", word)]
        asked.values += [word for word in asked.trace if word not in own]
        asked.trace = own
    return asked


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"a whole number from 0 is wanted, got {printable(text)!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        if 0 <= float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"a number from 0 is wanted, got {printable(text)!r}")


def _runs(asked: argparse.Namespace) -> bool:
    return bool(asked.kernel or asked.values or asked.grid or asked.block)


def _list(asked: argparse.Namespace, answer: dict[str, Any]) -> int:
    source = _opened(asked)
    answer["kernels"] = [
        {
            "name": kernel.name,
            "line": kernel.line,
            "templates": list(kernel.template_parameters),
            "parameters": [{"type": type_, "name": name} for type_, name in kernel.parameters],
            "example": example_line(asked.file, source, kernel),
        }
        for kernel in source.file.kernels
    ]
    _say(asked, listing(asked.file, source))
    return 0


def _opened(asked: argparse.Namespace) -> Source:
    if not os.path.isfile(asked.file):
        there = "is no file" if os.path.exists(asked.file) else "there is no such file"
        raise DataError(f"{printable(asked.file)}: {there}")
    source = opened(Path(asked.file), asked.defines, asked.include)
    if not source.file.kernels:
        raise DataError(f"{printable(asked.file)}: has no kernel: no function is declared __global__ void")
    return source


def _run(asked: argparse.Namespace, answer: dict[str, Any]) -> int:
    source = _opened(asked)
    kernel = _kernel(asked, source)
    values = _values(asked, kernel)
    for option in ("grid", "block"):
        if getattr(asked, option) is None:
            raise ArgumentError(f"--{option} is missing.  For example:\n{example_line(asked.file, source, kernel)}")
    templates = [part.strip() for part in asked.template.split(",")] if asked.template else []
    launch = Launch(source, kernel.name, templates, "debug" if asked.gdb else asked.mode, values)
    launch.grid, launch.block, launch.shared = _sizes("grid", asked.grid), _sizes("block", asked.block), asked.shared
    launch.allow_shared(asked.max_shared)
    launch.set_variables(_variables(asked, source))
    given = [value.of(parameter) for value, parameter in zip(values, launch.parameters)]
    trace = _trace(asked, launch)
    _check_place(asked.save)
    if asked.gdb:
        return _gdb(asked, launch, trace)
    expected = expected_outputs(asked.expect, launch.parameters, given) if asked.expect is not None else {}
    orders = ORDERS if asked.order == "all" and asked.mode != "debug" else (asked.order.replace("all", "forward"),)
    answer.update(kernel=kernel.name, grid=launch.grid, block=launch.block, mode=asked.mode, orders=orders)
    if asked.counters and asked.mode != "check":
        raise ArgumentError("--counters needs check mode")
    try:
        result = launch.run(orders, given, asked.counters, asked.time_limit, asked.seed, trace)
    except KernelError:
        _show_trace(asked, trace, answer)
        raise
    _say(asked, result)
    _answer(result, answer)
    _show_trace(asked, trace, answer)
    _save(asked, result)
    return _compare(asked, result, expected, answer)


def _kernel(asked: argparse.Namespace, source: Source) -> Kernel:
    known = [kernel.name for kernel in source.file.kernels]
    if asked.kernel is None and len(known) == 1:
        return source.file.kernels[0]
    if asked.kernel is None:
        raise ArgumentError(f"{printable(asked.file)} has several kernels: say --kernel {' or '.join(known)}")
    if asked.kernel not in known:
        raise ArgumentError(f"{printable(asked.file)} has no kernel '{printable(asked.kernel)}'; it has {some(known)}")
    return source.file.kernels[known.index(asked.kernel)]


def _values(asked: argparse.Namespace, kernel: Kernel) -> list[Value]:
    """One for each parameter, in their order."""
    texts: dict[str, str] = {}
    for word in asked.values:
        name, equals, text = word.partition("=")
        if not equals:
            raise ArgumentError(f"{printable(word)}: arguments are written NAME=VALUE, such as n=1000")
        if name in texts:
            raise ArgumentError(f"{printable(name)} is given twice")
        texts[name] = text
    names = [name or f"parameter{i + 1}" for i, (_, name) in enumerate(kernel.parameters)]
    wrong = [name for name in texts if name not in names]
    missing = [name for name in names if name not in texts]
    if wrong or missing:
        told = [f"has no parameter {some(wrong)}"] if wrong else []
        told += [f"needs {some(missing)} too"] if missing else []
        declared = ", ".join(f"{type_} {name}" for (type_, _), name in zip(kernel.parameters, names))
        raise ArgumentError(f"{kernel.name}({printable(declared)}) {', and '.join(told)}")
    return [Value(name, texts[name], asked.seed * 1000 + i) for i, name in enumerate(names)]


def _variables(asked: argparse.Namespace, source: Source) -> dict[str, Any]:
    pairs = [word.partition("=")[::2] for word in asked.variables]
    known = [name for one in source.file.declarations if one.kind == "variable" for name in sorted(one.names)]
    for name, _ in pairs:
        if name not in known:
            raise ArgumentError(
                f"--variable {printable(name)}: the file has no such variable; it has {some(known) or 'none'}"
            )
    return {
        name: variable_value(name, source.file.variable_type(name), text, asked.seed * 1000 + 500 + i)
        for i, (name, text) in enumerate(pairs)
    }


def _sizes(option: str, text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"\d+([x,]\d+){0,2}", text):
        raise ArgumentError(f"--{option} takes one to three sizes, 4 or 4x2, got {printable(text)}")
    return sizes_of(option, tuple(map(int, re.split("[x,]", text))))


# ---------------------------------------------------------------- --trace


def _trace(asked: argparse.Namespace, launch: Launch) -> Trace | None:
    if asked.trace is None:
        return None
    if asked.mode != "check" and not asked.gdb:
        raise ArgumentError("--trace needs check mode")
    at = {"thread": (0, 0, 0), "block": (0, 0, 0)}
    for word in asked.trace:
        name, _, text = word.partition("=")
        if sum(other.startswith(f"{name}=") for other in asked.trace) > 1:
            raise ArgumentError(f"--trace follows one thread: {name} is given twice")
        if not re.fullmatch(r"\d+(,\d+){0,2}", text):
            raise ArgumentError(f"--trace {printable(word)}: is written {name}=5, or {name}=5,0,1")
        x, y, z = (*map(int, text.split(",")), 0, 0)[:3]
        at[name] = x, y, z
    trace = Trace(at["thread"], at["block"], asked.trace_steps)
    trace.check(launch.grid, launch.block)
    return trace


def _show_trace(asked: argparse.Namespace, trace: Trace | None, answer: dict[str, Any]) -> None:
    if trace is None:
        return
    answer["trace"] = {
        "thread": trace.thread,
        "block": trace.block,
        "steps": [vars(step) for step in trace.steps],
        "cut": trace.cut,
    }
    _say(asked, f"\n{trace}\n")


def _gdb(asked: argparse.Namespace, launch: Launch, trace: Trace | None) -> int:
    own = {"--gdb", "--json", "--trace", *asked.trace} if trace is not None else {"--gdb", "--json"}
    words = [word for word in asked.words if word not in own]
    print(gdb_line(launch.module, launch.name, [*words, "--mode", "debug", "--time-limit", "inf"], trace))
    return 0


# ---------------------------------------------------------------- --expect, --save, --json


def _compare(asked: argparse.Namespace, result: Result, expected: dict[str, Any], answer: dict[str, Any]) -> int:
    wrong: list[Difference] = []
    for name, values in expected.items():
        found = difference(name, result[name], values, asked.tolerance)
        if found:
            wrong.append(found)
    if expected:
        answer["differences"] = [str(one) for one in wrong]
        told = [f"WRONG: {one}" for one in wrong] or [f"as {asked.expect} says: {some(expected)}"]
        _say(asked, "\n".join(map(printable, told)))
    return 1 if wrong else 0


def _check_place(path: str | None) -> None:
    """DataError where --save could not write, before a kernel has run for hours."""
    if path is None:
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not path or os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise DataError(f"--save {printable(path)}: give a file in a folder that is there and can be written to")


def _save(asked: argparse.Namespace, result: Result) -> None:
    if asked.save is None:
        return
    with files.writing(asked.save, DataError) as file:
        np.savez(file, **result.outputs)  # type: ignore[arg-type]
    _say(asked, f"saved: {printable(asked.save)}")


def _answer(result: Result, answer: dict[str, Any]) -> None:
    answer["reports"], answer["notes"] = [], result.notes
    answer["outputs"] = {}
    for name, values in result.outputs.items():
        first, least, largest, mean = summary(values)
        written = result.written[name]
        answer["outputs"][name] = {
            "dtype": str(values.dtype),
            "shape": values.shape,
            "first": first,
            "min": least,
            "max": largest,
            "mean": mean,
            "written": None if written is None else int(np.count_nonzero(written)),
            "not written": result.unwritten(name),
        }
    if result.counters is not None:
        answer["counters"] = [vars(row) for row in result.counters.rows]
