"""Opening files that others have put in a folder: only regular files, and never a wait for one that is not."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, for reading bytes; raises OSError for anything else.

    Pipes, sockets and devices are refused: to open a pipe waits until somebody writes into it, which may be
    never.  The open file is asked, not its name, so nothing can take the file's place in between.
    """
    file = open(path, "rb", opener=_without_waiting)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is a pipe or a device, not a regular file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has neither the flag nor such pipes


def reason(error: BaseException) -> str:
    """What went wrong, in one line without the path: "PermissionError: Permission denied"."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
