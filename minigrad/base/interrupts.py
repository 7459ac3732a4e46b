"""Ctrl-C waits for the end of what must not be left half done.

Python runs the handler of a signal in the main thread, between any two of its steps.  A handler that raises, as that of
Ctrl-C does, ends whatever was going on there: between the start of one thread and the next, or with half of the
gradients added.  So the few places that start threads or change gradients and weights do it inside `hold()`:

    with hold() as held:
        ...                 # all of it is done, whatever signals come
                            # and here is raised what their handlers have raised meanwhile

The handlers themselves run at once, as ever; only their exceptions wait.  A long block looks at `held.stopping` from
time to time, and stops early at a place of its own choice.  A block that never ends holds Ctrl-C back for ever: Ctrl-\
still ends the program.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

try:  # the functions behind those of signal, which turn numbers into enums and take 20 times longer
    from _signal import getsignal as _get_handler
    from _signal import signal as _set_handler
except ImportError:
    from signal import getsignal as _get_handler
    from signal import signal as _set_handler

# The signals for which programs write handlers that raise.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_SIGNALS = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]

Handler = Callable[[int, FrameType | None], Any]


class Hold:
    """The block `with hold()`.  `stopping` turns True when it is to be left early: an exception waits at its end."""

    def __init__(self, finish: bool) -> None:
        self.stopping = False
        self.raised: BaseException | None = None  # the first one
        self.when_raised: list[Callable[[], None]] = []  # whom to tell: threads that stop early then
        self.finish = finish
        self._depth = 0
        self._handlers: dict[int, Handler] = {}

    def __enter__(self) -> Hold:
        global _current
        if _current is self:
            self._depth += 1
            return self
        for number in _SIGNALS:
            handler = _get_handler(number)
            if callable(handler):
                self._handlers[number] = handler
        try:  # no condition in the loop: Python 3.13 does not count the jump behind one as inside the try
            _current, self._depth = self, 1
            for number in self._handlers:
                _set_handler(number, self._handle)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._depth > 1:
            self._depth -= 1
            return
        self._end()
        raised, self.raised = self.raised, None
        if raised is not None:
            try:
                raise raised from None
            finally:
                del raised  # its traceback leads to this frame, and must not be kept alive by it

    def stop_early(self, stop: Callable[[], None]) -> None:
        """`stop()` at once when a handler raises, or has raised; never where the block is to be finished."""
        if not self.finish:
            self.when_raised.append(stop)
            if self.stopping:
                stop()

    def _end(self) -> None:
        global _current
        try:
            _current = None
            self.when_raised.clear()
            self._put_back()
        finally:  # a handler that was put back may have run and raised before the others were
            self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._handlers.items():
            if _get_handler(number) == self._handle:  # else a handler has put another in its place
                _set_handler(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if _current is not self:  # this block is over, and was cut off before it could put the handler back
            _set_handler(number, self._handlers[number])
            self._handlers[number](number, frame)
            return
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            if self.raised is None:
                self.raised = error
            self.stopping = not self.finish
            for stop in self.when_raised:
                stop()


class _Elsewhere(Hold):
    """In other threads there is nothing to hold back: handlers run in the main thread."""

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def stop_early(self, stop: Callable[[], None]) -> None:
        pass


_current: Hold | None = None
_elsewhere = _Elsewhere(False)


def hold(finish: bool = False) -> Hold:
    """A block that signals do not cut off; one inside another belongs to the outer one.

    finish: nobody is to stop early inside.  For changes that are right only when they are whole.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return _elsewhere
    return Hold(finish) if _current is None else _current  # set by __enter__: a signal may come before


def _forget() -> None:
    """A forked child is in no block: its only thread may be a copy of another than the one that was in a block."""
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
