"""How far a long piece of work is: a bar on a terminal, and elsewhere, in log files, a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from minigrad.errors import printable

EVERY = 5.0  # seconds between two plain lines

warned: deque[str] = deque(maxlen=200)  # the last warnings of the job at work, for the page of its run


def progress(total: int | None, title: str, units: str, leave: bool = False) -> Any:
    """A tqdm bar, or Lines where standard error is no terminal; leave: its last state stays, or is printed.

    units: what is counted, in the plural; total None: not known yet, to be set as `.total`.
    """
    if not sys.stderr.isatty():
        return Lines(total, title, units, leave)
    shape = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} {elapsed}, {remaining} left{postfix}"
    return tqdm(total=total, desc=title, leave=leave, dynamic_ncols=True, bar_format=shape)


def searched(bar: Any) -> Callable[[str, int, int], None]:
    """What moves the bar of a search: called with what is searched, how much of it is done, and of how much."""

    def move(what: str, done: int, total: int) -> None:
        bar.set_postfix_str(printable(what), refresh=False)
        bar.update(100 * done // max(total, 1) - bar.n)

    return move


def warn(text: str) -> None:
    """One line on standard error, above a bar; it never fails, because it tells of failures."""
    warned.append(printable(text))
    with suppress(OSError, ValueError):
        tqdm.write(f"warning: {printable(text)}", file=sys.stderr)


class Lines:
    """What this program uses of tqdm, in plain lines."""

    SHAPE = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed}, {remaining} left{postfix}"

    def __init__(self, total: int | None, title: str, units: str, leave: bool):
        self.total, self.title, self.units, self.leave = total, title, units, leave
        self.n, self._told, self._text = 0, 0, ""
        self._begin = self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() - self._last >= EVERY:
            self._tell()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._text = text

    def _tell(self) -> None:
        self._last, self._told = time.monotonic(), self.n
        line = tqdm.format_meter(
            self.n, self.total, self._last - self._begin, prefix=self.title, unit=self.units,
            postfix=self._text, bar_format=self.SHAPE,
        )  # fmt: skip
        print(line, file=sys.stderr)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.leave and self._told < self.n:
            self._tell()
