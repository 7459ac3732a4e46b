"""What the command lines of the examples share: one-line errors, checked numbers and devices, run folders."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from interruption import interruptible, received
from progress import warn, warned
from run_folder import FILES, Run, cause

import minigrad
from minigrad.base import files
from minigrad.base.interrupts import hold
from minigrad.errors import ArgumentError, MinigradError, printable

EARLIER = r"\.tmp[0-9A-Za-z]{6}|(preparation\.npz|weights\.safetensors)\.[0-9]+\.tmp"  # of earlier versions


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, with exit code 2, instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)} (--help lists the options)\n")

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """The options, and in `given` those of them that stand on the command line."""
        options = self.parse_args(arguments)
        unsaid = dict.fromkeys(vars(options), _UNSAID)  # what argparse does not find it does not set
        said = vars(self.parse_args(arguments, argparse.Namespace(**unsaid)))
        options.given = {name: getattr(options, name) for name, value in said.items() if value is not _UNSAID}
        return options


_UNSAID = object()


def word(value: Any) -> str:
    """An option's value as a word of a command line."""
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"./{text}" if text.startswith("-") else text  # a path that must not be read as an option


def command(
    options: argparse.Namespace, *words: str, keep: Collection[str] | None = None, drop: Collection[str] = ()
) -> str:
    """A line for the shell that calls this program again: as it was called now, from the folder it was called from.

    It has the options that were given, but for `drop`, or only those in `keep`; then `words`.
    """
    line = [sys.orig_argv[0], sys.argv[0]]
    for name, value in options.given.items():
        if name not in drop and (keep is None or name in keep):
            line += [f"--{name.replace('_', '-')}", *([] if value is True else [word(value)])]
    return " ".join(map(quoted, [*line, *words]))


def quoted(text: str) -> str:
    """A word as a shell reads it; in bash's $'...' where it holds what a terminal should not be shown."""
    if text.isprintable():
        return shlex.quote(text)
    plain = text.replace("\\", "\\\\").replace("'", "\\'")
    shown = (c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in plain)
    return f"$'{''.join(shown)}'"


LARGEST = 10**9  # of whole numbers, where nothing else is said
SMALLEST, HIGHEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # of normal float32 numbers


def positive(kind: type, zero: bool = False, most: int = LARGEST) -> Any:
    """An argparse type: a number above 0 (or from 0 on), in ASCII digits: whole, up to `most`, or normal in float32."""

    def convert(text: str) -> Any:
        if not text.isascii() or "_" in text or text != text.strip():  # int("٣") is 3, int("1_0") is 10
            raise ValueError
        value = kind(text)
        if not (value > 0 or (zero and value == 0)) or value == math.inf:
            raise argparse.ArgumentTypeError(f"must be {'at least 0' if zero else 'above 0'}, got {text}")
        if kind is int and value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {text}")
        if kind is float and not SMALLEST <= value <= HIGHEST:
            raise argparse.ArgumentTypeError(
                f"must be a normal number in float32, {SMALLEST:.3g} to {HIGHEST:.3g}, got {text}"
            )
        return value

    convert.__name__ = "whole number" if kind is int else "number"  # for argparse's message
    return convert


def any_path(text: str) -> Path:
    """An argparse type: a path; an empty one, as of a variable that is not set, would mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty ('.' is the current folder)")
    return Path(text)


def folder_name(text: str) -> str:
    """An argparse type: the name of one folder, in the folder where runs go."""
    if text in ("", ".", "..") or Path(text).name != text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a name, not a path (--out takes the folder), got {text!r}")
    if len(os.fsencode(text)) > 255:
        raise argparse.ArgumentTypeError(f"must have at most 255 bytes, got {len(os.fsencode(text))}")
    return text


def device_list(text: str) -> tuple[str, ...]:
    """An argparse type: one or two different devices that can be used here."""
    names = tuple(name.strip() for name in text.split(","))
    try:
        devices = [minigrad.device(name) for name in names]
        for device in devices:
            device.synchronize()  # imports CuPy and asks the driver, where a graphics card is named
    except MinigradError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(devices) > 2 or len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"give one device or two different ones, got {text}")
    return tuple(str(device) for device in devices)


def one_device(text: str) -> str:
    """An argparse type: a device that can be used here."""
    names = device_list(text)
    if len(names) > 1:
        raise argparse.ArgumentTypeError(f"give one device, got {text}")
    return names[0]


def run_job(program: str, job: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Do the job; the program's exit code, after one line on standard error where it is not 0.

    2: an argument or the data cannot be used.  1: training failed, something could not be written (what was trained
    is kept, see run_folder.py), memory is full.  130, 143, 129: ended by Ctrl-C, SIGTERM, SIGHUP.
    """
    streams, out = (sys.stdout, sys.stderr), Enduring(sys.stdout, "standard output")
    sys.stdout, sys.stderr = out, Enduring(sys.stderr, "standard error")  # type: ignore[assignment]
    code, line = 0, ""
    warned.clear()
    try:
        with interruptible(), warnings.catch_warnings():
            # One line per unreadable file, without the line of source that warns, and above the progress bar.
            warnings.showwarning = lambda message, *_: warn(str(message))
            job(options)
    except KeyboardInterrupt as stop:  # Interrupted, or from the emulator, which takes Ctrl-C while a kernel runs
        code, line = getattr(stop, "exit_code", 130), f"interrupted ({stop})" if str(stop) else "interrupted"
    except MinigradError as error:
        code, line = getattr(error, "exit_code", 2), str(error)
    except OSError as error:
        name = f": {printable(error.filename)}" if error.filename is not None else ""
        code, line = 1, cause(error) + name
    except MemoryError as error:
        code, line = 1, f"out of memory: {cause(error)}"
    except Exception:
        if not received():
            raise  # a fault of the program: with its traceback
        line = "interrupted"
    finally:
        sys.stdout, sys.stderr = streams
    code = code or int(out.failed)
    if received() and code < 128:  # the signal came first, and what it interrupted failed
        code = 128 + received()
    with suppress(OSError):
        if line:
            print(f"{program}: {line}", file=sys.stderr, flush=True)
    return code


class Enduring:
    """Standard output or error whose failures never end a training: one warning, and what cannot be written is lost.

    The exception is a pipe whose reader is gone: the first write is a BrokenPipeError, as for any program.
    """

    def __init__(self, stream: Any, name: str):
        self._stream, self._name, self.failed = stream, name, False
        if hasattr(stream, "reconfigure"):
            # Line by line into a file too, because logs are read while they grow.  Characters that the stream cannot
            # encode, in the name of a file say, are written as escapes.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            first, self.failed = not self.failed, True
            if first and isinstance(error, BrokenPipeError):
                error.filename = self._name
                raise
            if first and self is sys.stdout:
                warn(f"{self._name} cannot be written ({cause(error)}): going on without it")


@contextmanager
def new_run(out: Path, name: str | None, numbered: str) -> Iterator[Run]:
    """The run in a new folder (see new_folder): `with new_run(...) as run`."""
    with ExitStack() as stack:
        with hold(finish=True):  # a signal between the two would leave an empty folder
            run = stack.enter_context(Run(new_folder(out, name, numbered)))
        yield run


def new_folder(out: Path, name: str | None, numbered: str) -> Path:
    """A new folder out/<name>, or else out/<numbered>-001, -002, ...: earlier runs are never written over.

    What killed runs left half written in their folders there is removed.
    """
    for earlier in out.glob("*/"):
        files.remove_dead(earlier, "|".join(map(files.leftovers, FILES)), EARLIER)
    number = 1
    run = out / (name or f"{numbered}-{number:03d}")
    try:
        while not name and run.exists():
            number += 1
            run = out / f"{numbered}-{number:03d}"
        if run.exists():
            raise ArgumentError(
                f"--name {printable(run.name)}: {printable(run)} exists; choose another, runs are never overwritten"
            )
        run.mkdir(parents=True)
    except OSError as error:
        raise ArgumentError(
            f"--out {printable(out)}: cannot make the folder {printable(run)} ({printable(error)}); choose another"
        ) from None
    return run
