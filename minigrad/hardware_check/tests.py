"""The project's own tests, with a card as the device under test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from ..device import Device
from .machine import checkout
from .report import Part


def run_tests(device: Device, files: Sequence[str]) -> Part:
    """pytest in a process of its own, over `files` (default: all); a failure for each test that fails."""
    part, root = Part("Tests"), checkout()
    if root is None:
        part.lines = ["Not run: minigrad was installed without its tests.  Clone the repository and run this there."]
        return part
    command = [sys.executable, "-m", "pytest", "-rfE", "--color=no", *(files or ["tests"])]
    environment = os.environ | {"MINIGRAD_TEST_DEVICE": str(device)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    output = done.stdout.splitlines()
    for line in output:
        if line.startswith(("FAILED ", "ERROR ")):
            part.fail(line)
    if done.returncode and not part.failures:
        part.fail(f"pytest ended with {done.returncode}: {(output or done.stderr.splitlines() or ['no output'])[-1]}")
    summary = output[-1] if output else done.stderr.strip()
    part.lines = [f"`MINIGRAD_TEST_DEVICE={device} python -m pytest {' '.join(command[5:])}`: {summary}"]
    part.lines += [f"- {failure}" for failure in part.failures]
    return part
