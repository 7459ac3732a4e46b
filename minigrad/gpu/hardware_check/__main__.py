"""python -m minigrad.hardware_check: see the package's docstring."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from ..cases import CASES
from ..sources import kernel_names
from . import __doc__ as package_doc
from .compare import compare
from .first import first_light
from .kernels import kernels
from .learning import learn
from .machine import Machine, checkout, look_at
from .process import Ended, ended_by_signals, supervise
from .report import NO_TIME
from .roofline import roofline
from .sanitizer import sanitize
from .steps import steps, two_columns
from .tests import run_tests

# What there is to do, in order of worth: the title of its results, the function that does it, the seconds that it may
# take.
PARTS: dict[str, tuple[str, Callable[..., None], float]] = {
    "first": ("First light", first_light, 300),
    "compare": ("Comparison", compare, 1800),
    "steps": ("Speed of whole nets", steps, 900),
    "kernels": ("Speed of kernels", kernels, 900),
    "logical": ("Two logical devices on one card", two_columns, 300),
    "learn": ("Training", learn, 1800),
    "sanitizer": ("compute-sanitizer", sanitize, 1800),
    "roofline": ("Rooflines", roofline, 900),
    "tests": ("Tests", run_tests, 3600),
}
OTHER_NAMES = {"speed": "steps,kernels,logical", "alexnet": "steps"}  # which --parts takes, too
LOOK = 120  # seconds to find out what machine this is

# --quick: seconds in all, and of each part; what one leaves is for those after it.  A job that still runs then is
# given GRACE.
QUICK_SECONDS, LOOKING, GRACE = 90.0, 6.0, 8.0
QUICK = {"first": 12.0, "compare": 18.0, "steps": 24.0, "kernels": 16.0, "logical": 12.0}
TELLING = (
    "conv2d, conv1",
    "conv2d, conv2",
    "lrn",
    "max_pool2d",
    "linear",
    "linear, few rows",
    "relu",
    "dropout, p 0.5",
    "cross_entropy",
    "SGD, alexnet rule",
    "sum of columns",
    "concat",
    "transpose",
    "conv2d, conv3",
    "softmax",
    "add",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is right; 1: something failed, the results file says what; 2: there is no card to check, or no file.

    128 + n: ended by signal n; the results file has what was found until then.
    """
    asked = _arguments(arguments)
    asked.begin = time.monotonic()
    with ended_by_signals():
        try:
            return _check(asked)
        except Ended as error:
            return 128 + error.number


def _check(asked: argparse.Namespace) -> int:
    machine, errors = _look(asked.devices.split(",") if asked.devices else [], QUICK_SECONDS if asked.quick else LOOK)
    if machine is None:
        print("There is nothing to check here.", *errors, sep="\n", file=sys.stderr)
        print("To see the check itself at work, on the emulator: --devices cudasim:0", file=sys.stderr)
        return 2
    out = asked.out or _file(machine)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_file() and not out.is_symlink():  # not /dev/null, and no folder
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


def _look(names: Sequence[str], seconds: float) -> tuple[Machine | None, list[str]]:
    """What a process of its own finds on this machine (this process never touches a card); or None, and why."""
    found: dict[str, list[Any]] = {"machine": [], "failure": []}
    supervise("", look_at, (names,), seconds, lambda kind, what: found.setdefault(kind, []).append(what))
    return (found["machine"] or [None])[0], found["failure"]


class Results:
    """The results file, as it grows; each line is in it, and on the screen, as soon as it is known."""

    def __init__(self, file: TextIO):
        self.file, self.failures, self.undone, self.label = file, list[str](), list[str](), ""

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
        elif kind == "undone":
            self.undone.append(text)
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
        if self.undone:
            self.write("", "Not done, as there was no time left:", "", *(f"- {what}" for what in self.undone))


def given(machine: Machine, asked: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    """The arguments of each part's function."""
    known = TELLING if asked.quick else CASES
    cases = [name for name in known if not asked.cases or any(part in name for part in asked.cases)]
    batch, card = asked.batch or (2 if machine.emulated else 128), machine.devices[0]
    return {
        "first": (card,),
        "compare": (card, cases, not asked.quick),
        "steps": (card, batch, asked.quick),
        "kernels": (card, batch, asked.quick),
        "logical": (card, batch),
        "learn": (machine.devices, asked.data, asked.epochs),
        "sanitizer": (card, asked.cases),
        "roofline": (card, cases),
        "tests": (card, asked.tests),
    }


def environment(name: str, machine: Machine) -> dict[str, str]:
    """What a part's process finds in its environment besides."""
    if name != "logical" or machine.emulated:
        return {}
    first, listed = machine.devices[0].index, os.environ.get("MINIGRAD_CUDA")
    card = listed.split(",")[first].strip() if listed else first
    return {"MINIGRAD_CUDA": f"{card},{card}"}


def _run(asked: argparse.Namespace, machine: Machine, results: Results, out: Path) -> int:
    results.write(f"# Hardware check: {machine.title}", "", *machine.lines)
    results.write("", "Without a verdict at its end, this is what was found before the check was cut short.")
    end, planned = asked.begin + QUICK_SECONDS, asked.begin + LOOKING
    try:
        for name in asked.parts.split(","):
            title, function, seconds = PARTS[name]
            results.write("", f"## {title}", "")
            results.label, until, seconds = title, None, asked.limit or seconds
            if asked.quick:
                planned += QUICK.get(name, GRACE)
                now, until = time.monotonic(), min(planned, end - GRACE)
                if now > until:
                    results.write(f"{NO_TIME[0].upper()}{NO_TIME[1:]}.")
                    results.hear("undone", title)
                    continue
                seconds = min(seconds, until + GRACE - now)
            arguments = given(machine, asked)[name]
            supervise(title, function, arguments, seconds, results.hear, until, environment(name, machine))
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
    parser.add_argument("--quick", action="store_true", help=f"what matters most, in {QUICK_SECONDS:g} seconds")
    parser.add_argument(
        "--parts",
        help=f"what to do, of {','.join(PARTS)}; speed: {OTHER_NAMES['speed']} (default: all; with --quick "
        f"{','.join(QUICK)})",
    )
    parser.add_argument(
        "--cases", nargs="+", metavar="NAME", help="only ops (sanitizer: kernel files) named so, in part"
    )
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="test files (default: all of tests/)")
    parser.add_argument("--batch", type=int, help="images of a train step (default: 128; on the emulator 2)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="learn: DIR/train/<class>/*.jpg, DIR/val/... (default: the demo set)"
    )
    parser.add_argument("--epochs", type=int, default=3, help="learn: passes over the images (default: %(default)s)")
    limits = ", ".join(f"{name} {seconds:g}" for name, (_, _, seconds) in PARTS.items())
    parser.add_argument("--limit", type=float, metavar="S", help=f"seconds that a part may take (default: {limits})")
    parser.add_argument("--out", type=Path, help="the results file (default: benchmarks/results/hardware_<card>.md)")
    asked = parser.parse_args(arguments)
    named = (asked.parts or ",".join(QUICK if asked.quick else PARTS)).split(",")
    asked.parts = ",".join(OTHER_NAMES.get(name, name) for name in named)
    unknown = set(asked.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    known = [*(TELLING if asked.quick else CASES), *kernel_names()]
    if asked.cases and not any(part in name for part in asked.cases for name in known):
        parser.error(f"--cases: no op, and no kernel, is called so; there are {', '.join(known)}")
    for name in ("batch", "limit", "epochs"):
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
