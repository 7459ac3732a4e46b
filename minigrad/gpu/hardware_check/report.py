"""What a part of the check tells, as soon as it knows it; and tables in Markdown."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import DeviceError, MinigradError, printable

EMULATED = "**EMULATED: these are times of the emulator on the processor, and say nothing about a card.**\n"

LENGTH = 500  # of an error in one line
NO_TIME = "not done: no time left"

Tell = Callable[[str, Any], None]  # called with a kind of message ("line", "failure", "begin", ...) and its text
Job = Callable[[], Iterable[Sequence[object]]]  # hands back the cells of its rows, as it finds them


def _to_nobody(kind: str, text: Any) -> None:
    pass


@dataclass
class Part:
    """One part of the check.  All that it finds is told at once, so that it is kept if the process dies.

    first: the number of the first job to do; those before it were done, or died, in another process.
    until: the time.monotonic() after which no further job is begun; None: there is time for all.
    """

    title: str
    tell: Tell = _to_nobody
    first: int = 0
    until: float | None = None
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def line(self, *lines: str) -> None:
        """Lines of the results file."""
        for line in lines:
            self.lines.append(line)
            self.tell("line", line)

    def head(self, *lines: str) -> None:
        """Lines above the rows of the table: written once, however many processes fill the table."""
        if self.first == 0:
            self.line(*lines)

    def fail(self, what: str) -> None:
        """One line for the list of failures at the end of the results."""
        self.failures.append(f"{self.title}: {what}")
        self.tell("failure", self.failures[-1])

    def work(self, jobs: Iterable[tuple[str, Job]], usable: Callable[[], bool] = lambda: True) -> None:
        """Do the jobs (label, job) one by one, each row as it comes; an error of a job becomes its row, and a failure.

        DeviceError where the device is not `usable` after that: another process may go on with the next job.
        """
        jobs = list(jobs)
        for number, (label, job) in enumerate(jobs):
            if number < self.first:
                continue
            if self.until is not None and time.monotonic() > self.until:
                more = len(jobs) - number - 1
                undone = f"{label} and {more} more" if more else label
                self.line(row((undone, NO_TIME)))
                self.tell("undone", f"{self.title}: {undone}")
                return
            self.tell("begin", label)
            try:
                for cells in job():
                    self.line(row((label, *cells)))
            except Exception as error:
                trace(error)
                self.line(failed(label, cell(error)))
                self.fail(f"{label}: {cell(error)}")
                self.tell("done", label)
                if not usable():
                    raise DeviceError("the device cannot be used by this process any more") from error
            self.tell("done", label)


def table(names: Iterable[str], rows: Iterable[Iterable[object]] = ()) -> list[str]:
    """A Markdown table; numbers as they are to be read."""
    names = list(names)
    return [row(names), "|" + "---|" * len(names), *map(row, rows)]


def row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


COLUMNS = ("", "minigrad", "against", "ratio", "target", "")  # of a table of what has a target


def verdict(ratio: float, target: float, at_least: bool = False) -> tuple[str, str, str]:
    """Three cells: the ratio, its target, and whether it is met."""
    met = ratio >= target if at_least else ratio <= target
    return f"{ratio:.2f}", f"{'>=' if at_least else '<='} {target:g}", "met" if met else "**missed**"


def failed(label: str, why: str) -> str:
    """The row of a job that came to no result."""
    return row((label, f"**failed**: {why}"))


def trace(error: BaseException) -> None:
    """The traceback of an error that is none of minigrad's, on stderr."""
    if not isinstance(error, MinigradError):
        with contextlib.suppress(Exception):
            traceback.print_exception(error)


def cell(error: BaseException) -> str:
    """Enough of an error for a table: its class, where it is not one of minigrad's, and the beginning of its text."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # whatever its __str__ does
        text = ""
    name = "" if isinstance(error, MinigradError) and text else type(error).__name__
    line = printable(": ".join(filter(None, (name, text)))).replace("|", "/")
    return line if len(line) <= LENGTH else line[: LENGTH - 3] + "..."
