"""NVIDIA's compute-sanitizer over every kernel's cases, and next to it what the emulator's check mode says of them.

The two look for the same: accesses out of bounds (memcheck), and races in shared memory (racecheck).  They know nothing
of each other, so where they disagree, one of them is wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import minigrad

from ...cudasim.compiler import available
from ...device import Device
from ...errors import printable
from ..cases import cases_of
from ..sources import kernel_names
from .report import LENGTH, Job, Part, table

PROGRAM = "compute-sanitizer"
# The tools, the kinds of the emulator's reports (cudasim/reports.py) that each could have made too, and how a tool's
# last line tells the number of its errors.
TOOLS = {
    "memcheck": ("OOB-GLOBAL OOB-SHARED OOB-INDEX SHARED-OVERRUN MISALIGNED FAULT STACK-OVERFLOW", r"ERROR SUMMARY"),
    "racecheck": ("RACE", r"RACECHECK SUMMARY"),
}
AT_ONCE = 8  # processes: a card and its memory are large enough for the small cases of so many
SECONDS = 240.0  # for the cases of one kernel file


@dataclass
class Found:
    """errors: how many; first: the text of the first; failed: why there is no answer."""

    errors: int = 0
    first: str = ""
    failed: str = ""

    def __str__(self) -> str:
        return f"**{self.failed}**" if self.failed else f"**{self.errors}**: {self.first}" if self.errors else "0"


def sanitize(part: Part, device: Device, names: Sequence[str] | None) -> None:
    """A row for each tool and kernel file; names: only for files that are called so, or have a case that is."""
    if shutil.which(PROGRAM) is None:
        part.line(f"Not run: there is no {PROGRAM} on the PATH.  It comes with the CUDA toolkit.")
        return
    part.head(
        f"`{PROGRAM} --tool TOOL python -m minigrad.gpu.cases KERNEL {device}`: errors of the tool, and what the",
        "emulator's check mode reports of the same cases.",
        "",
        *table(("kernel, tool", PROGRAM, "emulator, check mode", "agree")),
    )
    files = [file for file in kernel_names() if _is_asked_for(file, names or ())]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        emulated: dict[str, Future[Found]] = {}
        jobs: list[tuple[str, Job]] = []
        try:
            for tool in TOOLS:
                for file in files:
                    if len(jobs) < part.first:  # another process has done it
                        jobs.append(("", tuple))
                        continue
                    if file not in emulated:
                        emulated[file] = pool.submit(emulator_on, file)
                    ours, theirs = emulated[file], pool.submit(sanitizer_on, device, file, tool)
                    jobs.append((f"{file}, {tool}", partial(_row, part, file, tool, theirs, ours)))
            part.work(jobs)
        finally:
            pool.shutdown(cancel_futures=True)


def _is_asked_for(file: str, names: Sequence[str]) -> bool:
    known = [case.name for case in cases_of(file)]
    return bool(known) and (not names or any(name in of for name in names for of in (file, *known)))


def _row(part: Part, file: str, tool: str, theirs: Future[Found], ours: Future[Found]) -> Iterator[tuple[str, ...]]:
    found, reported = theirs.result(), _of_tool(ours.result(), tool)
    if found.failed:
        part.fail(f"{file}, {tool}: {found.failed}")
    elif found.errors:
        part.fail(f"{file}, {tool}: {found.errors} errors: {found.first}")
    known = not (found.failed or reported.failed)
    agree = bool(found.errors) == bool(reported.errors)
    if known and not agree:
        counts = f"{PROGRAM} finds {found.errors}, the emulator {reported.errors}"
        part.fail(f"{file}, {tool}: {counts}: one of them is wrong")
    yield str(found), str(reported), ("yes" if agree else "**no**") if known else ""


# ---------------------------------------------------------------- the two


def sanitizer_on(device: Device, file: str, tool: str) -> Found:
    """What a tool says of a kernel file's cases."""
    options = ["--tool", tool, "--target-processes", "all", "--print-limit", "20"]
    ran = _ran([PROGRAM, *options, *_child(file, str(device))], {})
    if isinstance(ran, Found):
        return ran
    lines = [line.removeprefix("=========").strip() for line in ran.stdout.splitlines() if line.startswith("=========")]
    summary = [line for line in lines if re.match(TOOLS[tool][1], line)]
    if not summary:
        return Found(failed=f"no summary, exit status {ran.returncode}: {_last(ran)}")
    count = re.search(r"\d+", summary[-1])
    errors = int(count[0]) if count else 0
    texts = [line for line in lines if line and not line.startswith(("COMPUTE-SANITIZER", *summary))]
    if not errors and ran.returncode:
        return Found(failed=f"the cases ended with {ran.returncode}: {_last(ran)}")
    return Found(errors, _short(texts[0] if texts else ""))


def emulator_on(file: str) -> Found:
    """What the emulator's check mode says of a kernel file's cases; first: all its reports, each with its kind."""
    reason = available()
    if reason is not None:
        return Found(failed=f"no emulator: {reason}")
    ran = _ran(_child(file, "cudasim:0"), {"MINIGRAD_CUDASIM_MODE": "check"})
    if isinstance(ran, Found):
        return ran
    if ran.returncode:
        return Found(failed=f"the cases ended with {ran.returncode}: {_last(ran)}")
    reports = [line.removeprefix("report ") for line in ran.stdout.splitlines() if line.startswith("report ")]
    return Found(len(reports), "\n".join(reports))


def _of_tool(found: Found, tool: str) -> Found:
    """Those of the emulator's reports that this tool could have made."""
    kinds = TOOLS[tool][0].split()
    reports = [line for line in found.first.splitlines() if line.split(":")[0] in kinds]
    return Found(len(reports), _short(reports[0]) if reports else "", found.failed)


def _child(file: str, device: str) -> list[str]:
    return [sys.executable, "-m", "minigrad.gpu.cases", file, device]


def _ran(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str] | Found:
    paths = [str(Path(minigrad.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, env=variables, check=False
        )
    except subprocess.TimeoutExpired:
        return Found(failed=f"no end within {SECONDS:g} s")
    except OSError as error:
        return Found(failed=f"{error}")


def _last(ran: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
    return _short(lines[-1] if lines else "no output")


def _short(text: str) -> str:
    return printable(text.replace("|", "/"))[: LENGTH // 2]
