"""Try one of minigrad's own kernels: its cases with all checks, against NumPy, and what each line does to memory.

python -m minigrad.cudasim kernels/lrn.cu                      three thread orders, counters
python -m minigrad.cudasim my/lrn.cu                           your own file in place of kernels/lrn.cu
python -m minigrad.cudasim kernels/lrn.cu --source other.cu    the same, with another name
python -m minigrad.cudasim kernels/lrn.cu --mode fast          without the checks
python -m minigrad.cudasim my/lrn.cu --time-limit 60           a launch that takes longer is ended; 10 s if not said

Any other CUDA file, and its kernels one by one: python -m minigrad.cudasim --help
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..device import device
from ..errors import ArgumentError, MinigradError, printable
from ..gpu.cases import Case, cases_of, differences, run
from ..gpu.sources import kernel_file, kernel_folder, kernel_names, kernel_source, replace_source
from .runtime import SimRuntime
from .settings import MODES, ORDERS, options, seconds
from .source import entries, without_comments

DEVICE = "cudasim:0"
TIME_LIMIT = 10.0  # seconds: the longest launch of a small case takes one, in check mode


def means_own_kernel(path: str) -> bool:
    """Is this a file of kernels/, or one that stands in for such a file: of its name, and with a kernel of its?"""
    file = Path(path)
    if not file.is_file():
        return file.as_posix().removesuffix(".cu").removeprefix("kernels/") in kernel_names()
    if file.resolve().is_relative_to(kernel_folder()):
        return True
    name = next((n for n in kernel_names() if n.rsplit("/")[-1] == file.stem), None)
    if name is None:
        return False
    try:
        theirs = without_comments(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return True  # main says what is wrong with it
    ours = [entry.name for entry in entries(kernel_source(name))]
    return any(re.search(rf"\b__global__\b[^;{{]*\b{entry}\s*\(", theirs) for entry in ours)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing found; 1: a fault, or a result that differs from NumPy's; 2: it could not be tried."""
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.cudasim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kernel", help="a file of kernels/, or your own version of one, under the same name")
    parser.add_argument("--source", type=Path, help="the file to compile in its place")
    parser.add_argument("--case", help="one case alone, by name")
    parser.add_argument("--mode", choices=MODES, default="check", help="check (the default) or fast")
    parser.add_argument("--order", choices=ORDERS, help="in which threads run (default: one order after the other)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help="for each launch (default: %(default)g)",
    )
    asked = parser.parse_args(arguments)
    try:
        name, source, file = _found(asked.kernel, asked.source)
        cases = [case for case in cases_of(name) if asked.case in (None, case.name) and asked.dtype in case.dtypes]
        _ = device(DEVICE).runtime  # or an error that says what is missing
    except (MinigradError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if not cases:
        known = ", ".join(f"{case.name!r} ({', '.join(case.dtypes)})" for case in cases_of(name))
        wanted = f"{asked.case!r} in {asked.dtype}" if asked.case else f"in {asked.dtype}"
        print(f"kernels/{name}.cu has no case {wanted}; it has: {known or 'none'}", file=sys.stderr)
        return 2
    orders = (asked.order,) if asked.order else ORDERS
    try:
        replace_source(name, source, file)
        shown = printable(kernel_file(name))
        with options(time_limit=asked.time_limit):
            wrong = sum(_try(name, case, asked.mode, orders, asked.dtype) for case in cases)
    except MinigradError as error:
        print(f"\n{error}\n\n{shown}: a fault.")
        return 1
    finally:
        replace_source(name, None)
    if wrong:
        print(f"\n{shown}: {wrong} wrong results.")
        return 1
    checks = "no report, " if asked.mode == "check" else ""
    print(f"\n{shown}: {checks}results as NumPy's.  Emulated: nothing is said about speed.")
    return 0


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _found(path: str, source: Path | None) -> tuple[str, str | None, str | None]:
    """The name of the kernel file, the text that stands in for it (None: itself), and the file that this is from."""
    file = Path(path)
    if file.resolve().is_relative_to(kernel_folder()):
        name = file.resolve().relative_to(kernel_folder()).with_suffix("").as_posix()
    elif file.is_file():
        name = next((n for n in kernel_names() if n.rsplit("/")[-1] == file.stem), file.stem)
        source = source or file
    else:
        name = file.as_posix().removesuffix(".cu").removeprefix("kernels/")
    if name not in kernel_names():
        raise MinigradError(
            f"{printable(path)}: there is no kernel file of that name; there are {', '.join(kernel_names())}"
        )
    if source is None:
        return name, None, None
    try:
        return name, source.read_text(encoding="utf-8"), str(source)
    except UnicodeDecodeError as error:
        raise MinigradError(f"{printable(source)}: is no text in UTF-8: {error}") from None


def _try(name: str, case: Case, mode: str, orders: Sequence[str], dtype: str) -> int:
    """Run one case in these orders and print what came of it; the number of wrong results."""
    print(f"{case.name}, {dtype}: {', '.join(f'{key} {shape}' for key, shape in case.small.items())}")
    expected = run(case, "cpu:0", "small", np.dtype(dtype))
    wrong = 0
    for order in orders:
        count = mode == "check" and order == orders[0]
        with options(mode=mode, order=order, counters=count):
            _reset_counters()
            far = differences(case, run(case, DEVICE, "small", np.dtype(dtype)), expected)
            found = ", ".join(f"{key} {value:.2g}{'' if value <= 1 else ' WRONG'}" for key, value in far.items())
            print(f"  {mode}, threads {order}: distance from NumPy, in units of the tolerance: {found}")
            wrong += sum(not value <= 1 for value in far.values())
            if count:
                _print_counters(kernel_file(name))
    return wrong


def _reset_counters() -> None:
    for module in _runtime().modules():
        if module.mode == "check":
            module.counters().reset()


def _print_counters(file: str) -> None:
    """The table of each module that was compiled from this file and has run since the reset."""
    for module in _runtime().modules():
        counters = module.counters() if module.mode == "check" else None
        if counters is not None and any(row.file == file for row in counters.rows):
            print("    " + str(counters).replace("\n", "\n    "))


def _runtime() -> SimRuntime:
    runtime = device(DEVICE).runtime
    assert isinstance(runtime, SimRuntime)
    return runtime
