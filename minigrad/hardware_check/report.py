"""What a part of the check hands back, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

EMULATED = "**EMULATED: these are times of the emulator on the processor, and say nothing about a card.**\n"


@dataclass
class Part:
    """lines: for the results file.  failures: what went wrong, one line each."""

    title: str
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        self.failures.append(f"{self.title}: {what}")


def table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table; numbers as they are to be read."""
    names = list(names)
    return [row(names), "|" + "---|" * len(names), *map(row, rows)]


def row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def first_line(error: BaseException) -> str:
    """Enough of an error for a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].replace("|", "/")[:200]
