"""How emulated kernels run.

    with options(mode="check", order="reversed"):
        ...

The settings are those of the whole process, so that worker threads see them too: change them in one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError

if TYPE_CHECKING:
    from .trace import Trace

MODES = ("fast", "check")
ORDERS = ("forward", "reversed", "random")


@dataclass(frozen=True)
class Settings:
    """mode: "fast" or "check" (every load and store is looked at, 10 to 100 times slower).
    order: in which order the threads of a block, and the blocks, run; right kernels do not care.
    seed: of order "random".
    counters: in check mode, count memory traffic line by line: RawModule.counters().
    max_reports: how many different faults of a launch are listed.
    blocks: run only these blocks of the grid, counted x first; None for all.
    time_limit: seconds of the processor's time after which a launch is ended; math.inf for never.
    poison: fill shared memory, and memory fresh from an allocation, with NaNs.
    memory_limit: bytes that each emulated device has; None: as much as the host.
    cores: on how many the blocks of a launch run at once, where they may; None: all there are.
    trace: a Trace of trace.py, which is filled with what one thread does; check mode.
    """

    mode: str = "fast"
    order: str = "forward"
    seed: int = 0
    counters: bool = False
    max_reports: int = 8
    blocks: range | None = None
    time_limit: float = 600.0
    poison: bool = True
    memory_limit: int | None = None
    cores: int | None = None
    trace: Trace | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, MODES)
        _one_of("order", self.order, ORDERS)
        if self.max_reports < 1:
            raise ArgumentError(f"cudasim: max_reports must be at least 1, got {self.max_reports}")
        if not self.time_limit > 0:
            raise ArgumentError(f"cudasim: time_limit must be a positive number of seconds, got {self.time_limit}")
        if self.cores is not None and self.cores < 1:
            raise ArgumentError(f"cudasim: cores must be at least 1, or None for all, got {self.cores}")
        if self.memory_limit is not None and self.memory_limit < 0:
            raise ArgumentError(f"cudasim: memory_limit must be a number of bytes or None, got {self.memory_limit}")
        if self.blocks is not None and not (isinstance(self.blocks, range) and self.blocks.step > 0):
            raise ArgumentError(f"cudasim: blocks must be a range with a positive step, or None, got {self.blocks!r}")


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ArgumentError(f"cudasim: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")


_current: Settings | None = None


def current() -> Settings:
    """The settings at work.

    At first MINIGRAD_CUDASIM_MODE, MINIGRAD_CUDASIM_ORDER and MINIGRAD_CUDASIM_TIME_LIMIT say mode, order, time_limit.
    """
    global _current
    if _current is None:
        _current = Settings(
            mode=os.environ.get("MINIGRAD_CUDASIM_MODE", Settings.mode),
            order=os.environ.get("MINIGRAD_CUDASIM_ORDER", Settings.order),
            time_limit=seconds(os.environ.get("MINIGRAD_CUDASIM_TIME_LIMIT", Settings.time_limit)),
        )
    return _current


def seconds(limit: object) -> float:
    """A time limit from outside; ArgumentError for what is no number of seconds."""
    try:
        return Settings(time_limit=float(str(limit))).time_limit
    except ValueError:  # an ArgumentError is one, too
        raise ArgumentError(f"cudasim: a time limit is a positive number of seconds, got {limit!r}") from None


@contextmanager
def options(**changes: Any) -> Iterator[Settings]:
    """Changes settings, by name, for the length of a with block.  ArgumentError for an unknown name or a bad value."""
    global _current
    before = current()
    names = [field.name for field in fields(Settings)]
    for name in changes:
        if name not in names:
            raise ArgumentError(f"cudasim: there is no setting '{name}'; there are {', '.join(names)}")
    _current = replace(before, **changes)
    try:
        yield _current
    finally:
        _current = before
