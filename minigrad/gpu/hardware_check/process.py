"""A part of the check in a process of its own, with a time limit: what it has told is kept, however it ends.

A part that raises, hangs, or is killed (a signal, a crash in a driver, the system that runs out of memory) fails with
one line that says so.  Where the process died during one of its jobs, another one goes on with the next job.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from .report import Part, Tell, cell, failed, trace

PATIENCE = 10.0  # seconds that a process has to end after it has told everything

_spawn = multiprocessing.get_context("spawn")  # a forked child would have the parent's locks, but not its threads


class Ended(BaseException):
    """A signal that ends the whole check; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(f"ended by {_name(number)}")
        self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise Ended, once, so that what is open can be closed."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # as nohup ignores SIGHUP

    def end(number: int, frame: Any) -> None:
        for other in heard:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        heard = []
    try:
        for number in heard:
            signal.signal(number, end)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def supervise(
    title: str,
    function: Callable[..., None],
    arguments: Sequence[Any],
    seconds: float,
    tell: Tell,
    until: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """function(part, *arguments) in a process of its own, ended after `seconds`; what it tells is handed to `tell`.

    The function must be one that a new process can import.  Kinds of messages: those of Part, with "failure" and "line"
    for what went wrong with the process itself.  until: Part's.  environment: variables that the process has besides.
    """
    deadline, first = time.monotonic() + seconds, 0
    while True:
        run = _Run(title, function, arguments, first, tell, until)
        why = run.until(deadline, environment or {})
        if why is None:
            return
        if run.late:
            why = f"no end within {seconds:g} s"
        if run.at:
            why += f" (after {run.at})"
        first += run.begun
        goes_on = run.begun > 0 and not run.late  # where no job was begun, another process would die at the same place
        if first and not goes_on:
            why += ": what follows was not done"
        tell("line", failed(run.label, why) if first else f"**failed**: {why}")
        tell("failure", ": ".join(filter(None, (title, run.label, why))))
        if not goes_on:
            return


class _Run:
    """One process.

    begun: how many jobs it has begun; label: the job at work, if any; at: how far that is; late: its time is up.
    """

    def __init__(
        self,
        title: str,
        function: Callable[..., None],
        arguments: Sequence[Any],
        first: int,
        tell: Tell,
        no_job_after: float | None,
    ):
        self.begun, self.label, self.at, self.late, self.tell = 0, "", "", False, tell
        self.receiver, self.sender = _spawn.Pipe(duplex=False)
        settings = title, function, arguments, first, no_job_after
        self.process = _spawn.Process(target=_work, args=(self.sender, *settings))

    def until(self, deadline: float, environment: Mapping[str, str]) -> str | None:
        """None where it came to its end; else why not."""
        try:
            with _set(environment):
                self.process.start()
            self.sender.close()
            return self._listen(deadline)
        except (OSError, EOFError) as error:  # the system gave no process, or the process died while it sent a message
            return cell(error)
        finally:
            self._end()

    def _listen(self, deadline: float) -> str | None:
        while True:
            ready = wait([self.receiver, self.process.sentinel], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.late = True
                return "no end"
            if self.receiver not in ready:
                return self._death()
            try:
                kind, text = self.receiver.recv()
            except EOFError:
                return self._death()
            if kind == "end":
                self.process.join(PATIENCE)
                return None
            if kind == "raised":
                return str(text)
            self._hear(kind, text)

    def _hear(self, kind: str, text: Any) -> None:
        if kind == "begin":
            self.begun, self.label = self.begun + 1, text
        elif kind == "done":
            self.label, self.at = "", ""
        elif kind == "at":
            self.at = text
        self.tell(kind, text)

    def _death(self) -> str:
        self.process.join(PATIENCE)
        status = self.process.exitcode
        if status is None or status >= 0:
            return f"the process ended itself, with status {status}"
        memory = ", as the system does where memory runs out" if status == -signal.SIGKILL else ""
        return f"the process was killed by {_name(-status)}{memory}"

    def _end(self) -> None:
        """The process, and all that it has started."""
        if self.process.pid is not None:
            with contextlib.suppress(OSError, AttributeError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.join(PATIENCE)
        with contextlib.suppress(OSError, EOFError):
            while self.receiver.poll():  # messages from before its end
                self._hear(*self.receiver.recv())
        self.receiver.close()


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """With these variables, as a process that is started meanwhile has them from its first import on."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# ---------------------------------------------------------------- in the new process


def _work(
    sender: Connection,
    title: str,
    function: Callable[..., None],
    arguments: Sequence[Any],
    first: int,
    until: float | None,
) -> None:
    with contextlib.suppress(AttributeError):
        os.setsid()  # a group of processes of its own, ended as a whole; Ctrl-C reaches the parent alone
    threading.Thread(target=_end_with_parent, daemon=True).start()
    faulthandler.enable()  # a crash shows where, on stderr
    try:
        function(Part(title, lambda kind, text: sender.send((kind, text)), first, until), *arguments)
    except BaseException as error:
        sender.send(("raised", cell(error)))
        trace(error)
    else:
        sender.send(("end", ""))


def _end_with_parent() -> None:
    """End when the parent has gone: one that was killed could not end this process and those that it has started."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    with contextlib.suppress(AttributeError):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
