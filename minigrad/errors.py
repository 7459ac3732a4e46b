"""The errors minigrad raises on purpose.  Each message says op, rule, the values seen, and what to do.

All derive from MinigradError and from the built-in that fits, so `except ValueError` keeps working.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any


class MinigradError(Exception):
    """Base of every error that minigrad raises on purpose."""


class ShapeError(MinigradError, ValueError):
    """Shapes, ranks, strides, windows or axes that do not fit together."""


class DTypeError(MinigradError, TypeError):
    """An element type that an op does not take (float16, objects, floats as labels)."""


class ArgumentError(MinigradError, ValueError):
    """A setting outside its range: dropout p = 2, a negative learning rate, an unknown preset."""


class DeviceError(MinigradError, RuntimeError):
    """A device that is unknown or unusable here, or tensors of two devices in one op."""


class GraphError(MinigradError, RuntimeError):
    """Backward through a freed graph, through a modified array, or without any gradient to compute."""


class GradientError(MinigradError, AssertionError):
    """gradcheck found an analytic gradient that differs from the numeric one."""


class NotFiniteError(MinigradError, ArithmeticError):
    """An op made nan or inf of finite numbers, inside `with minigrad.debug(check_finite=True)`."""


class CheckpointError(MinigradError, ValueError):
    """Weights that do not fit the model, or a file that is not a checkpoint."""


class DataError(MinigradError, ValueError):
    """A dataset folder or file that cannot be used."""


class MissingDependencyError(MinigradError, ImportError):
    """An optional package is not installed; the message names the pip command."""


class KernelError(MinigradError, RuntimeError):
    """A CUDA kernel that does not compile, or a fault that the emulator found in one: file, line, block and thread.

    `reports` lists what was found, one object per report; empty for a kernel that does not compile.
    """

    def __init__(self, message: str, reports: Sequence[Any] = ()):
        super().__init__(message)
        self.reports = list(reports)


class OutOfMemoryError(DeviceError):
    """A device has no room for an array; the message names the op and the sizes."""


def printable(name: Any) -> str:
    r"""A file's, folder's or class's name as any terminal may show it: what would act on one is written as an escape.

    Newlines, ESC, marks that turn the direction of writing, and bytes that are no UTF-8 come out as \n, \x1b,
    \u202e, \xff.  For messages only: the name itself is what opens the file.  str, bytes, or anything with a path.
    """
    text = os.fsdecode(name) if isinstance(name, (bytes, os.PathLike)) else str(name)
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def one_line(error: BaseException) -> str:
    """What went wrong, in one line without the path: "PermissionError: Permission denied"."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{type(error).__name__}: {printable(' '.join(text.split()))}" if text else type(error).__name__


def some(names: Iterable[Any], most: int = 10, count: int | None = None) -> str:
    """'a, b, c and 17 more': the first `most` names, printable.  count: how many there are, where not all are given."""
    names = list(names)
    more = (len(names) if count is None else count) - min(len(names), most)
    return ", ".join(map(printable, names[:most])) + (f" and {more} more" if more else "")


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's sign for a byte of a file name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
