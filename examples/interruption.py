"""One way out for Ctrl-C and the signals by which a machine ends a program, from the first import to the last line.

A program calls `begin` before its heavy imports and ends with `finish(main)`; it works inside `interruptible()`.
There the first signal raises Interrupted; what must not be cut in two (a step of the optimiser, a file) stands in
`with hold():` of minigrad.base.interrupts, which lets it wait.  After the first, signals are only counted, so that what
is being kept is kept however often Ctrl-C is pressed; the fourth ends the program at once, for it may hang.  Outside
`interruptible()` there is nothing to keep: a signal prints one line and ends the program.

This file imports next to nothing: until it is loaded, a signal still ends the program with a traceback.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time

TYPE_CHECKING = False  # as in typing, which takes long to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
KEEP = getattr(signal, "SIGUSR1", None)  # asks for a checkpoint, and ends nothing
PATIENCE = 4  # signals after which the program ends, whatever it is doing
SWALLOWED = 0.02  # seconds until a signal is raised again that came where nothing can be raised


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end; `exit_code` is 128 + its number, as shells have it."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    """Of the process, as signals are: the first signal, how many there were, and whether it was raised."""

    number = count = 0
    raised = inside = keep = False


def begin() -> None:
    """From here on a signal is one line instead of a traceback.

    Also fills standard streams that are closed, or the next file opened would take their place and get what is
    printed.  Writing to them fails, as it should.
    """
    while (closed := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(closed, True)
    os.close(closed)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # else nohup or the shell of a background job ignores it
            signal.signal(number, _leave)
    if KEEP is not None:
        signal.signal(KEEP, _keep)
    atexit.register(_all_done)


def finish(main: Callable[[], int]) -> NoReturn:
    """Run a program and leave with its exit code; 1 where all went well but standard output could not be written."""
    try:
        code = main()
    except SystemExit as stop:  # argparse
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or int(stream is sys.stdout)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes again, and would complain
    if _State.number:
        os._exit(code)  # without waiting for threads that are still at work on what nobody wants any more
    sys.exit(code)


class interruptible:  # noqa: N801 - reads as a word: with interruptible():
    """Within it the first signal raises Interrupted; later ones are counted.  For the main thread."""

    def __enter__(self) -> None:
        _State.number = _State.count = 0
        _State.raised, _State.inside = False, True
        self.hook, sys.unraisablehook = sys.unraisablehook, _again_soon(sys.unraisablehook)
        self.before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _interrupt)

    def __exit__(self, *_: Any) -> None:
        _State.inside = False
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        sys.unraisablehook = self.hook


def received() -> int:
    """The number of the signal that has ended this job, or 0."""
    return _State.number


def asked_to_keep() -> bool:
    """Whether SIGUSR1 has come since the last call."""
    asked, _State.keep = _State.keep, False
    return asked


def raise_again() -> None:
    """Raise Interrupted where a signal has come within interruptible(): for those who catch errors of libraries.

    Code in C that calls Python may make any exception an error of its own; matplotlib turns a signal into "Invalid
    affine transformation matrix".
    """
    if _State.inside and _State.number:
        raise Interrupted(_State.number)


def _keep(number: int, frame: Any) -> None:
    _State.keep = True


def _leave(number: int, frame: Any) -> None:
    _write(f"interrupted ({signal.Signals(number).name})")
    os._exit(128 + number)


def _all_done() -> None:
    """Python is shutting down, and the work is done: a late signal must not change the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: Any) -> None:
    _State.count += 1
    _State.number = _State.number or number
    if _State.count >= PATIENCE:
        _write("ended at once: what was being written is lost")
        os._exit(128 + _State.number)
    if _State.count > 1:
        _write(f"ending already; signal {PATIENCE} will not wait for what is being kept, this was {_State.count}")
    if not _State.raised:
        _State.raised = True
        raise Interrupted(_State.number)


def _again_soon(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For sys.unraisablehook: Python drops an Interrupted raised in a __del__ or a callback, so raise it again soon."""

    def again(number: int) -> None:
        time.sleep(SWALLOWED)
        _State.count -= 1  # it is the same signal
        _thread.interrupt_main(number)

    def unraisable(what: Any) -> None:
        if not isinstance(what.exc_value, Interrupted):
            hook(what)
            return
        _State.raised = False
        # not threading.Thread: this may run while the main thread holds a lock of that module
        _thread.start_new_thread(again, (_State.number,))

    return unraisable


def _write(line: str) -> None:
    """To standard error without Python's buffers, which a handler may find in use."""
    try:
        os.write(2, f"\n{line}\n".encode())
    except OSError:
        pass
