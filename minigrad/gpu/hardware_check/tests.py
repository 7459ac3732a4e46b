"""The project's own tests, with a card as the device under test."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

from ...device import Device
from .machine import checkout
from .report import Part

# A line of pytest -v, and one where several processes test.
DONE = re.compile(r"(?P<test>\S*::.*) (?P<outcome>[A-Z]+)(?: \(.*\))? *(?:\[ *\d+%\])?")
DONE_APART = re.compile(r"\[gw\d+\] (?:\[ *\d+%\] )?(?P<outcome>[A-Z]+) (?P<test>\S*::.*)")

PROCESSES = 8  # that test a card at the same time, where pytest-xdist is installed
SECONDS = 300  # for one test, where pytest-timeout is


def run_tests(part: Part, device: Device, files: Sequence[str]) -> None:
    """pytest in a process of its own, over `files` (default: all); a failure for each test that fails, as it fails."""
    root = checkout()
    if root is None:
        part.line("Not run: minigrad was installed without its tests.  Clone the repository and run this there.")
        return
    command = [
        sys.executable,
        "-u",
        "-m",
        "pytest",
        "-vv",
        "-rfE",
        "--color=no",
        *plugins(device),
        *(files or ["tests"]),
    ]
    environment = os.environ | {"MINIGRAD_TEST_DEVICE": str(device)}
    label = f"MINIGRAD_TEST_DEVICE={device} python -m pytest {' '.join(files or ['tests'])}"

    def listened() -> Iterator[tuple[str, ...]]:
        last, reasons, pipe = "no output", [], subprocess.PIPE
        started = subprocess.Popen(
            command, cwd=root, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        with started as ran:
            for line in ran.stdout or ():
                last = line.strip().strip("= ") or last
                found = DONE_APART.fullmatch(line.strip()) or DONE.fullmatch(line.strip())
                if found:
                    part.tell("at", found["test"])
                    if found["outcome"] in ("FAILED", "ERROR"):
                        part.fail(found["test"])
                        part.line(f"- {found['test']}")
                elif line.startswith(("FAILED ", "ERROR ")):
                    reasons.append(f"- {line.strip()}")
        if ran.returncode and not part.failures:
            part.fail(f"pytest ended with {ran.returncode}: {last}")
        part.line("", f"{last}", *reasons)
        yield from ()

    part.head(f"`{label}`:", "")
    part.work([(label, listened)])


def plugins(device: Device) -> list[str]:
    """Options for what is installed besides: a card's memory and most of its time are free while Python works."""
    options = []
    if device.kind == "cuda" and importlib.util.find_spec("xdist"):
        options += ["-n", str(min(PROCESSES, os.cpu_count() or 1))]
    if importlib.util.find_spec("pytest_timeout"):
        options += ["--timeout", str(SECONDS)]
    return options
