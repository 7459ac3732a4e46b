"""python -m minigrad.hardware_check: see the package's docstring."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import MinigradError
from ..kernel_cases import CASES, Case
from . import __doc__ as package_doc
from .compare import compare
from .machine import Machine, checkout, look
from .report import Part
from .roofline import roofline
from .tests import run_tests
from .training import train

PARTS = ("tests", "compare", "roofline", "alexnet")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is right; 1: something failed, the results file says what; 2: there is no card to check."""
    asked = _arguments(arguments)
    try:
        machine = look(asked.devices.split(",") if asked.devices else ())
    except MinigradError as error:
        print(f"There is nothing to check here.\n{error}", file=sys.stderr)
        print("To see the check itself at work, on the emulator: --devices cudasim:0", file=sys.stderr)
        return 2
    print("\n".join([f"# {machine.title}", *machine.lines]), flush=True)
    cases = [case for name, case in CASES.items() if not asked.cases or any(part in name for part in asked.cases)]
    jobs = _jobs(machine, cases, asked)
    parts = []
    for name in asked.parts.split(","):
        parts.append(jobs[name]())
        print("\n".join(["", f"## {parts[-1].title}", "", *parts[-1].lines]), flush=True)
    failures = [failure for part in parts for failure in part.failures]
    out = asked.out or _file(machine)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_text(machine, parts, failures), encoding="utf-8")
    print("\n" + _verdict(failures) + f"\nWritten: {out}")
    return int(bool(failures))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.hardware_check",
        description=package_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--devices", help="cuda:0[,cuda:1] or cudasim:0[,cudasim:1] (default: the cards that are here)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"what to do, of {','.join(PARTS)} (default: all)")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only ops whose names contain one of these")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="test files (default: all of tests/)")
    parser.add_argument("--batch", type=int, help="images of a train step (default: 128; on the emulator 2)")
    parser.add_argument("--out", type=Path, help="the results file (default: benchmarks/results/hardware_<card>.md)")
    asked = parser.parse_args(arguments)
    unknown = set(asked.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if asked.cases and not any(part in name for part in asked.cases for name in CASES):
        parser.error(f"--cases: no op is called so; there are {', '.join(CASES)}")
    return asked


def _jobs(machine: Machine, cases: Sequence[Case], asked: argparse.Namespace) -> dict[str, Callable[[], Part]]:
    device = machine.devices[0]
    batch = asked.batch or (2 if machine.emulated else 128)
    return {
        "tests": lambda: run_tests(device, asked.tests),
        "compare": lambda: compare(device, cases, _progress),
        "roofline": lambda: roofline(device, cases, _progress),
        "alexnet": lambda: train(machine.devices, batch, _progress),
    }


def _progress(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def _file(machine: Machine) -> Path:
    """Where results go: beside the others in a checkout, else where we are."""
    root = checkout()
    card = re.sub(r"[^a-z0-9]+", "_", machine.title.lower()).strip("_")
    return (root / "benchmarks" / "results" if root else Path()) / f"hardware_{card}.md"


def _text(machine: Machine, parts: Sequence[Part], failures: Sequence[str]) -> str:
    lines = [f"# Hardware check: {machine.title}", "", *machine.lines, "", _verdict(failures)]
    for part in parts:
        lines += ["", f"## {part.title}", "", *part.lines]
    return "\n".join(lines) + "\n"


def _verdict(failures: Sequence[str]) -> str:
    if not failures:
        return "All that was checked is right."
    return "\n".join([f"**{len(failures)} failures:**", "", *(f"- {failure}" for failure in failures)])


if __name__ == "__main__":
    sys.exit(main())
