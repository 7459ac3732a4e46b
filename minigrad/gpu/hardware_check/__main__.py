"""python -m minigrad.hardware_check: see the package's docstring."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..cases import CASES
from . import __doc__ as package_doc
from .compare import compare
from .machine import Machine, checkout, look_at
from .process import Ended, ended_by_signals, supervise
from .roofline import roofline
from .tests import run_tests
from .training import train

# What there is to do: the title of its results, the function that does it, and the seconds that it may take.
PARTS: dict[str, tuple[str, Callable[..., None], float]] = {
    "tests": ("Tests", run_tests, 3600),
    "compare": ("Comparison", compare, 1800),
    "roofline": ("Rooflines", roofline, 900),
    "alexnet": ("AlexNet train step", train, 900),
}
LOOK = 120  # seconds to find out what machine this is


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is right; 1: something failed, the results file says what; 2: there is no card to check, or no file.

    128 + n: ended by signal n; the results file has what was found until then.
    """
    asked = _arguments(arguments)
    with ended_by_signals():
        try:
            return _check(asked)
        except Ended as error:
            return 128 + error.number


def _check(asked: argparse.Namespace) -> int:
    machine, errors = _look(asked.devices.split(",") if asked.devices else [])
    if machine is None:
        print("There is nothing to check here.", *errors, sep="\n", file=sys.stderr)
        print("To see the check itself at work, on the emulator: --devices cudasim:0", file=sys.stderr)
        return 2
    out = asked.out or _file(machine)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.replace(out.with_name(f"{out.stem}.old{out.suffix}"))
        file = out.open("w", encoding="utf-8")
    except OSError as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
        return 2
    try:
        with file:
            return _run(asked, machine, Results(file), out)
    except OSError as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
        return 1


def _look(names: Sequence[str]) -> tuple[Machine | None, list[str]]:
    """What a process of its own finds on this machine (this process never touches a card); or None, and why."""
    found: dict[str, list[Any]] = {"machine": [], "failure": []}
    supervise("", look_at, (names,), LOOK, lambda kind, what: found.setdefault(kind, []).append(what))
    return (found["machine"] or [None])[0], found["failure"]


class Results:
    """The results file, as it grows; each line is in it, and on the screen, as soon as it is known."""

    def __init__(self, file: TextIO):
        self.file, self.failures, self.label = file, list[str](), ""

    def write(self, *lines: str) -> None:
        for line in lines:
            self.file.write(line + "\n")
            self.file.flush()
            with contextlib.suppress(OSError):  # a terminal that was closed is no reason to stop
                print(line, flush=True)

    def hear(self, kind: str, text: str) -> None:
        """What the process of a part tells."""
        if kind == "line":
            self.write(text)
        elif kind == "failure":
            self.failures.append(text)
        elif kind == "begin":
            self.label = text
            with contextlib.suppress(OSError):
                print(f"... {text}", file=sys.stderr, flush=True)

    def verdict(self) -> None:
        self.write("", "## Verdict", "")
        if not self.failures:
            self.write("All that was checked is right.")
        else:
            count = "1 failure" if len(self.failures) == 1 else f"{len(self.failures)} failures"
            self.write(f"**{count}:**", "", *(f"- {failure}" for failure in self.failures))


def given(machine: Machine, asked: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    """The arguments of each part's function."""
    cases = [name for name in CASES if not asked.cases or any(part in name for part in asked.cases)]
    return {
        "tests": (machine.devices[0], asked.tests),
        "compare": (machine.devices[0], cases),
        "roofline": (machine.devices[0], cases),
        "alexnet": (machine.devices, asked.batch or (2 if machine.emulated else 128)),
    }


def _run(asked: argparse.Namespace, machine: Machine, results: Results, out: Path) -> int:
    results.write(f"# Hardware check: {machine.title}", "", *machine.lines)
    results.write("", "Without a verdict at its end, this is what was found before the check was cut short.")
    try:
        for name in asked.parts.split(","):
            title, function, seconds = PARTS[name]
            results.write("", f"## {title}", "")
            results.label = title
            supervise(title, function, given(machine, asked)[name], asked.limit or seconds, results.hear)
    except Ended as error:
        results.failures.append(f"{error}, at {results.label}: what follows was not checked")
        raise
    finally:
        results.verdict()
        with contextlib.suppress(OSError):
            print(f"\nWritten: {out}", flush=True)
    return int(bool(results.failures))


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
    limits = ", ".join(f"{name} {seconds:g}" for name, (_, _, seconds) in PARTS.items())
    parser.add_argument("--limit", type=float, metavar="S", help=f"seconds that a part may take (default: {limits})")
    parser.add_argument("--out", type=Path, help="the results file (default: benchmarks/results/hardware_<card>.md)")
    asked = parser.parse_args(arguments)
    unknown = set(asked.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if asked.cases and not any(part in name for part in asked.cases for name in CASES):
        parser.error(f"--cases: no op is called so; there are {', '.join(CASES)}")
    for name in ("batch", "limit"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name}: must be greater than 0, got {value}")
    return asked


def _file(machine: Machine) -> Path:
    """Where results go: in a checkout beside the others, else the current folder."""
    root = checkout()
    card = re.sub(r"[^a-z0-9]+", "_", machine.title.lower()).strip("_")
    return (root / "benchmarks" / "results" if root else Path()) / f"hardware_{card}.md"


if __name__ == "__main__":
    sys.exit(main())
