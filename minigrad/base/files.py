"""Files that are written whole or not at all, what killed processes leave of them, and files that others have left.

What is being written lies beside its place, under a name that ends in .<12 hex digits>.tmp, and its writer holds a lock
on it (flock).  The system takes the lock away when the process ends, however it ends.  So a temporary file that nobody
holds is left over from a process that has ended, on whatever host: the next who writes there removes it.  Where there
are no locks (Windows, some network disks) nobody can tell, and nothing is removed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

from ..errors import printable
from .interrupts import hold

PathLike = str | os.PathLike[str]

_DAY = 86400  # seconds

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there, or choose another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write to"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a file lies where a folder is needed"),
    errno.EFBIG: "raise the limit (ulimit -f), or choose another file system",
    errno.ENOENT: "make the folder first",
}


@contextmanager
def writing(path: PathLike, refuse: Callable[[str], Exception] | None = None) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of `path` when the with block ends, whole and on the disk.

    Until then, and where anything fails, what was at `path` stays as it was.  A new file gets the mode that the umask
    leaves, one that replaces another gets that one's.  A symbolic link stays, the file it leads to is replaced;
    anything but a file (a folder, a device, a pipe) is refused.  refuse(message) makes the error to be raised in place
    of an OSError, where it is given: the message says where, why, and what to do.  Ctrl-C waits for the end of the
    block: a file is written and in its place, or not begun.
    """
    try:
        place = _place(path)
        remove_dead(place.parent, leftovers(place.name))
        with hold(), _held(place, _new_file) as temporary:
            with open(temporary, "wb") as file:
                if place.exists():
                    os.chmod(temporary, stat.S_IMODE(place.stat().st_mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            _rename(temporary, place)
    except OSError as error:
        if refuse is None:
            raise
        raise refuse(f"cannot write {printable(path)}: {reason(error)}") from error


@contextmanager
def scratch_folder(place: Path, unlocked: str = "") -> Iterator[Path]:
    """A new folder beside `place`, for this user alone, which is removed when the with block ends; or OSError.

    What killed processes have left of such folders is removed before; unlocked: as in remove_dead.
    """
    remove_dead(place.parent, leftovers(place.name), unlocked)
    with _held(place, lambda temporary: os.mkdir(temporary, 0o700)) as temporary:
        yield temporary


def move(source: PathLike, place: PathLike) -> None:
    """Bring a file to the disk, and then to its place on the same file system, at once; or OSError."""
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    _rename(source, place)


def link(source: PathLike, place: PathLike, refuse: Callable[[str], Exception] | None = None) -> None:
    """Make `place` another name of a file, at once, in place of what was there; a copy where there are no hard links.

    refuse: as in `writing`.
    """
    with suppress(OSError):
        if os.path.samefile(source, place):
            return
    name = f"{os.fspath(place)}.{secrets.token_hex(6)}.tmp"
    with hold():
        try:
            os.link(source, name)
            _rename(name, place)
            return
        except OSError:
            _remove(name)
    with writing(place, refuse) as file, open_regular(source) as content:
        shutil.copyfileobj(content, file)


def _rename(source: PathLike, place: PathLike) -> None:
    os.replace(source, place)
    with suppress(OSError):  # the new name too; some systems cannot do that for a folder
        folder = os.open(os.path.dirname(os.path.abspath(place)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class HeldError(BlockingIOError):
    """Another process holds the lock of a file; `holder` is what it wrote there about itself."""

    def __init__(self, holder: str):
        super().__init__(errno.EAGAIN, f"held by {holder}")
        self.holder = holder


@contextmanager
def holding(path: PathLike, about: str) -> Iterator[None]:
    """Hold the lock of the file `path` while the with block lasts; HeldError where another process does, or OSError.

    about: what others are to read of the holder.  The system takes the lock from a process that ends, however it ends.
    Where there are no locks, nobody is kept out.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor, mine = -1, False
    try:
        with hold():
            while not mine:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise HeldError(os.read(descriptor, 1000).decode(errors="replace") or "another process") from None
                except OSError:
                    pass  # a file system without locks
                with suppress(OSError):
                    mine = os.fstat(descriptor).st_ino == os.stat(path).st_ino
                if not mine:  # its holder has removed it meanwhile
                    os.close(descriptor)
                    descriptor = -1
            os.ftruncate(descriptor, 0)
            os.write(descriptor, about.encode())
        yield
    finally:
        if descriptor >= 0:
            if mine:
                _remove(path)
            os.close(descriptor)


def leftovers(name: str) -> str:
    """A regular expression for the temporary names of a file or folder `name`."""
    return rf"{re.escape(name)}\.[0-9a-f]{{12}}\.tmp"


def remove_dead(folder: PathLike, names: str, unlocked: str = "") -> None:
    """Remove the files and folders in `folder` whose whole name matches `names`, and which no living process holds.

    unlocked: names that earlier versions gave, without a lock; they go when a day has passed.  What cannot be looked
    at or removed stays: this is no reason for anything else to fail.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not re.fullmatch(f"{names}|{unlocked}", entry.name):
                continue
            with suppress(OSError):
                fresh = time.time() - entry.stat().st_mtime < _DAY
                lock = _lock(entry.path, wait=False)
                if lock is not None:
                    if not fresh or re.fullmatch(names, entry.name):
                        _remove(entry.path)
                    os.close(lock)


def open_regular(path: PathLike) -> BinaryIO:
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


def cache_folder() -> Path:
    """Where minigrad keeps what it can make again: $XDG_CACHE_HOME/minigrad, or else ~/.cache/minigrad.

    OSError where neither XDG_CACHE_HOME nor HOME is set and the user is not listed.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minigrad"
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "this user has no home folder") from error


def reason(error: OSError) -> str:
    """What the system says, and what to do about it."""
    said = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return f"{said}: {advice}" if advice else said


# ---------------------------------------------------------------- temporary names and their locks


def _place(path: PathLike) -> Path:
    try:
        place = Path(os.path.realpath(path))
    except ValueError as error:  # a name with a zero byte in it
        raise OSError(errno.EINVAL, str(error)) from error
    if place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "something that is no file"
        raise OSError(f"there is {kind} of that name: choose another name")
    return place


def _new_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


@contextmanager
def _held(place: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """What make(a temporary name beside `place`) has made, locked; removed at the end if it is still there."""
    temporary, lock = None, None
    try:
        try:
            while temporary is None:
                with hold():  # or Ctrl-C would leave something that nobody here knows of
                    name = place.with_name(f"{place.name}.{secrets.token_hex(6)}.tmp")
                    make(name)
                    temporary, lock = name, _lock(name, wait=True)
                    if not name.exists():  # another process came between making and locking, and removed it
                        _close(lock)
                        temporary, lock = None, None
            yield temporary
        finally:
            _remove(temporary)
    finally:  # Ctrl-C may have cut that off
        _remove(temporary)
        _close(lock)


def _lock(path: PathLike, wait: bool) -> int | None:
    """A descriptor that holds the lock of a file or folder; None where somebody else does, or nobody can."""
    if sys.platform == "win32":
        return None
    # Over NFS a lock needs a descriptor that may write.  A folder has none: its lock fails there, and it
    # stays.  A link is neither locked nor removed.
    kind = os.O_RDWR if os.path.isfile(path) and os.access(path, os.W_OK) else os.O_RDONLY
    with suppress(OSError):
        descriptor = os.open(path, kind | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return descriptor
        except OSError:
            os.close(descriptor)
    return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _remove(path: PathLike | None) -> None:
    if path is None:
        return
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
